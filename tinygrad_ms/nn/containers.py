"""Modules made of others: Sequential, ModuleList, ModuleDict."""

from collections.abc import Callable, Iterable, Mapping, MutableMapping, MutableSequence
from typing import Any

from tinygrad_ms.nn.module import CHANGES, Module


class Sequential(Module):
    """Apply ``layers``, modules or other functions of one tensor, one after the other.

    Layers are named by their numbers ("0.weight"). ``model[i]`` is a layer, and ``model[i:j]`` is a Sequential.

    >>> model = tg.nn.Sequential(tg.nn.Linear(3, 4), tg.nn.ReLU(), tg.nn.Linear(4, 2))
    >>> [name for name, _ in model.named_parameters()]
    ['0.weight', '0.bias', '2.weight', '2.bias']
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


class Held(Module):
    """Modules in ``held``, a list or a dict, under the names of their places there."""

    held: Any

    def _fields(self):
        pairs = self.held.items() if isinstance(self.held, dict) else enumerate(self.held)
        return [*pairs, *((name, value) for name, value in super()._fields() if name != "held")]

    def checked(self, module):
        if not isinstance(module, Module):
            raise TypeError(f"{type(self).__name__}: {type(module).__name__} is no module")
        CHANGES[0] += 1  # names may change
        return module

    def __len__(self):
        return len(self.held)

    def __iter__(self):
        return iter(self.held)

    def __delitem__(self, key):
        del self.held[key]

    def __getitem__(self, key):
        return type(self)(self.held[key]) if isinstance(key, slice) else self.held[key]

    def __setitem__(self, key, module):
        self.held[key] = list(map(self.checked, module)) if isinstance(key, slice) else self.checked(module)


class ModuleList(Held, MutableSequence):
    """A list of modules, for code that was written for PyTorch: a plain list as an attribute does the same.

    >>> blocks = tg.nn.ModuleList([tg.nn.Linear(2, 2), tg.nn.Linear(2, 1)])
    >>> len(blocks), list(blocks.state_dict())
    (2, ['0.weight', '0.bias', '1.weight', '1.bias'])
    """

    def __init__(self, modules: Iterable[Module] = ()):
        self.held = list(map(self.checked, modules))

    def insert(self, index, module):
        self.held.insert(index, self.checked(module))


class ModuleDict(Held, MutableMapping):
    """Modules by name, for code that was written for PyTorch: a plain dict as an attribute does the same."""

    __eq__, __hash__ = object.__eq__, object.__hash__  # as of any module

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()):
        self.held = {}
        self.update(modules)


def check_layer(i, layer) -> None:
    if not callable(layer):
        hint = "; pass the layers one by one: Sequential(*layers)" if isinstance(layer, (list, tuple)) else ""
        raise TypeError(f"Sequential: layer {i} is {type(layer).__name__}, expected a module or function{hint}")
