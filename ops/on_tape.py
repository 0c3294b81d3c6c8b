# mypy: disable-error-code="attr-defined, return-value"
"""Methods of Tensor about the tape: hooks, retained gradients, the recorded ops as text.

``methods`` attaches what ``OnTape`` defines to Tensor, which inherits it when types are checked.
"""

import weakref
from collections.abc import Callable
from functools import partial

from tinygrad_ms.engine.tape import Constant, Leaf, Node, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.lines import monospaced

__all__: list[str] = []


class OnTape:
    """The methods of Tensor that ask about its place on the tape."""

    def tape(self) -> "Tape":
        """The recorded ops that lead to this tensor; ``print`` shows them as a Wengert list."""
        return Tape(tape_of([self.node]) if self.node is not None else [])

    def detach(self) -> Tensor:
        """A tensor with the same memory that is not on the tape. The two share the change counter."""
        result = Tensor(self.data)
        result.count_with(self.version_counter())
        return result

    def place(self) -> tuple:
        """The value of this Tensor and its place on the tape, for ``take_place``."""
        return self.data, self.node, self.as_constant()

    def take_place(self, place: tuple) -> None:
        """Take the value and the place that ``place()`` of another tensor gave."""
        self.data, self.node, self._constant = place

    def requires_grad_(self, wanted: bool = True) -> Tensor:
        self.requires_grad = wanted
        return self

    def zero_grad(self) -> None:
        self.grad = None

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> "HookHandle":
        """Call ``hook(gradient)`` once the gradient of this tensor is complete. A result replaces the gradient.

        The hook gets a copy. What it writes there changes the gradient of this tensor and of no other.
        """
        if self.node is None:
            raise RuntimeError("register_hook: this tensor is not on the tape (requires_grad is False)")
        if not callable(hook):
            raise TypeError(f"register_hook: hook is {type(hook).__name__}; expected a function of the gradient")
        entry = partial(hook)  # a new object, because the same function may be registered twice
        self.node.hooks = [*(self.node.hooks or ()), entry]
        return HookHandle(self.node, entry)

    def retain_grad(self) -> Tensor:
        """Keep the gradient of this interior tensor in ``.grad``, too."""
        if self.node is None:
            raise RuntimeError("retain_grad: this tensor is not on the tape (requires_grad is False)")
        if not self.is_leaf:
            mine = weakref.ref(self)

            def keep(gradient):
                if (tensor := mine()) is not None:  # a copy: the gradient that flows on may be shared or read-only
                    on_tape = gradient.node is not None
                    tensor.grad = gradient.clone() if on_tape else Tensor(gradient.data.copy())

            self.register_hook(keep)
        return self


class HookHandle:
    """``remove()`` takes a tensor hook off again."""

    def __init__(self, node, entry):
        self._node, self._entry = weakref.ref(node), entry

    def remove(self) -> None:
        if (node := self._node()) is not None and node.hooks:
            node.hooks = [entry for entry in node.hooks if entry is not self._entry] or None


class Tape(list):
    """The nodes of a result in recording order; ``print`` shows them as a Wengert list."""

    def _repr_html_(self):
        return monospaced(str(self))

    def __str__(self):
        number = {node: f"v{i}" for i, node in enumerate(self)}

        def show(value):
            if isinstance(value, Node):
                return number.get(value, "?")
            if isinstance(value, Constant):
                return value.name or f"{value.dtype}{list(value.shape)}"
            return repr(value)

        lines = []
        for node in self:
            arguments = [show(parent) for parent in node.parents]
            arguments += [f"{key}={value!r}" for key, value in node.constants.items() if len(repr(value)) < 40]
            what = (
                f"leaf {node.name or ''}".rstrip() if isinstance(node, Leaf) else f"{node.op}({', '.join(arguments)})"
            )
            shape = "" if node.shape is None else f"  # {node.dtype} {list(node.shape)}"
            scope = f"  in {'/'.join(node.scope)}" if node.scope else ""
            lines.append(f"{number[node]} = {what}{shape}{scope}")
        return "\n".join(lines)
