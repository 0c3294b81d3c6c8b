"""Tensor: a raw array, its gradient, and its place on the tape."""

from typing import TYPE_CHECKING, Any

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.sentences import cannot_carry_gradients, no_array, only_leaves_switch
from tinygrad_ms.engine.tape import Constant, Leaf, Node, last_change, tick

if TYPE_CHECKING:
    from tinygrad_ms.ops.methods import Methods
else:
    Methods = object


class Tensor(Methods):
    """An array that remembers how it was computed. Make one with ``tensor(...)`` or as the result of an op.

    data: the raw NumPy or CuPy array. The tape does not see writes to it; ``guard_saved`` finds them.
    grad: after ``backward``, the gradient (a Tensor) of a leaf or of a tensor that asked with ``retain_grad()``.
    node: its place on the tape; None for a tensor that is not on the tape.
    """

    __slots__ = ("data", "node", "grad", "_constant", "__weakref__")

    data: Any
    node: Node | None
    grad: "Tensor | None"

    def __init__(self, data, node=None):
        if type(data) not in BACKENDS:
            raise no_array(data)
        self._fill(data, node)

    def _fill(self, data, node=None):
        """What ``__init__`` does with what is known to be an array."""
        self.data = data
        self.node = node
        self.grad = None
        self._constant = None  # what the tape keeps of this tensor as an argument off the tape; it holds the name

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def device(self) -> str:
        """Where the array lives: "cpu", "cuda", "cuda:1", ..."""
        return BACKENDS[type(self.data)].device_of(self.data)

    @property
    def name(self) -> str | None:
        """Its name in pictures and messages. Modules name their parameters."""
        return self._constant and self._constant.name

    @name.setter
    def name(self, name: str | None):
        self.as_constant().name = name
        if isinstance(self.node, Leaf):
            self.node.name = name

    @property
    def is_leaf(self) -> bool:
        """Whether the user made it, not a recorded op. ``backward`` leaves gradients on leaves."""
        return self.node is None or isinstance(self.node, Leaf)

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool):
        if self.node is not None and not self.is_leaf:
            raise only_leaves_switch(self)
        if not wanted:
            self.node = None
        elif self.node is None:
            if not is_float(self.dtype):
                raise cannot_carry_gradients(self)
            counter = self.version_counter()  # the counter it had as a constant
            self.node = Leaf(self.shape, self.dtype, BACKENDS[type(self.data)], self, self.name)
            self.node.counter = counter

    # --- in-place changes ------------------------------------------------------------------------------------------

    def as_constant(self) -> Constant:
        """The Constant that stands for this tensor on the tape, where it wants no gradient."""
        if self._constant is None:
            self._constant = Constant((data := self.data).shape, data.dtype, BACKENDS[type(data)])
        return self._constant

    def version_counter(self) -> list[int]:
        """The number of the tape at the last in-place change of the memory. Views and ``detach`` share it."""
        return (self.node or self.as_constant()).counter_of()

    def count_with(self, counter: list[int]) -> None:
        """Share the change counter of a tensor that shows the same memory."""
        (self.node or self.as_constant()).counter = counter

    def touch(self) -> None:
        """Count an in-place change. Whoever writes into ``data`` calls this, so that backward notices it."""
        self.version_counter()[0] = last_change[0] = tick()

    @classmethod
    def _of(cls, data, name: str | None = None, requires_grad: bool = False):
        """A tensor of this class around the raw array ``data``. It does not call the __init__ of a subclass."""
        result = cls.__new__(cls)
        Tensor.__init__(result, data)
        if name is not None:
            result.name = name
        result.requires_grad = requires_grad
        return result


def raw(x):
    """The raw array of a Tensor; anything else as it is."""
    return x.data if isinstance(x, Tensor) else x
