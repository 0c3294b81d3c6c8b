"""Modules made of other functions: Sequential."""

from collections.abc import Callable

from tinygrad_ms.nn.module import Module


class Sequential(Module):
    """Apply ``layers``, modules or other functions of one tensor, one after the other.

    Layers are named by their numbers ("0.weight"). ``model[i]`` is a layer, and ``model[i:j]`` is a Sequential.
    """

    def __init__(self, *layers: Callable):
        for i, layer in enumerate(layers):
            check_layer(i, layer)
        self.layers = list(layers)

    def _fields(self):
        return [*enumerate(self.layers), *((name, value) for name, value in super()._fields() if name != "layers")]

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def append(self, layer: Callable) -> "Sequential":
        check_layer(len(self.layers), layer)
        self.layers.append(layer)
        return self

    def __len__(self):
        return len(self.layers)

    def __iter__(self):
        return iter(self.layers)

    def __getitem__(self, index):
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]


def check_layer(i, layer) -> None:
    if not callable(layer):
        hint = "; pass the layers one by one: Sequential(*layers)" if isinstance(layer, (list, tuple)) else ""
        raise TypeError(f"Sequential: layer {i} is {type(layer).__name__}, expected a module or function{hint}")
