"""The operators and methods of Tensor that are ops: one table, which editors read and which is carried out below.

``engine/tensor.py`` inherits ``Methods`` when types are checked. At run time the functions of this room take the
places that it declares: of each name the op so called, or what ``SPELLED`` gives it.
"""

from typing import Any

from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops import (
    activations,
    comparisons,
    conversions,
    elementwise,
    indexing,
    linear_algebra,
    matrix_parts,
    products,
    reductions,
    shapes,
    special,
    trigonometric,
)
from tinygrad_ms.ops.creation import as_shape
from tinygrad_ms.ops.rows import ArrayLike

Axis = int | tuple[int, ...] | None


class Methods:
    """What each method of Tensor takes and gives."""

    def backward(  # the engine's
        self, gradient: Any = None, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None: ...

    # arithmetic, comparisons, bits
    def __add__(self, other: ArrayLike) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
    def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]

    __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
    __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __add__
    __gt__ = __ge__ = __lt__ = __le__ = __add__
    __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __add__
    __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __add__
    __pos__ = __abs__ = __invert__ = __neg__
    abs = sign = floor = ceil = trunc = square = reciprocal = sqrt = cbrt = __neg__
    exp = exp2 = expm1 = log = log2 = log10 = log1p = isnan = isinf = isfinite = logical_not = __neg__
    pow = remainder = hypot = maximum = minimum = logical_and = logical_or = logical_xor = __add__

    def round(self, decimals: int = 0) -> Tensor: ...
    def clip(self, min: Any = None, max: Any = None) -> Tensor: ...

    # trigonometric, special, activations
    sin = cos = tan = cot = sec = csc = asin = acos = atan = acot = __neg__
    sinh = cosh = tanh = coth = sech = csch = asinh = acosh = atanh = __neg__
    erf = sinc = relu = sigmoid = __neg__
    atan2 = logaddexp = __add__

    def softmax(self, axis: Axis = -1) -> Tensor: ...

    log_softmax = softmax

    # conversions
    def astype(self, dtype: Any) -> Tensor: ...
    def to(self, *targets: Any, device: str | None = None, dtype: Any = None) -> Tensor: ...
    def cuda(self, index: int = 0) -> Tensor: ...

    clone = cpu = half = float = double = __neg__

    # reductions
    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor: ...

    mean = prod = max = min = any = all = logsumexp = sum

    def var(self, axis: Axis = None, correction: Any = 0, keepdims: bool = False) -> Tensor: ...

    std = var

    def norm(self, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Tensor: ...
    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor: ...

    argmin = argmax

    def cumsum(self, axis: int | None = None) -> Tensor: ...

    cumprod = cumsum

    # shapes and indexing
    @property
    def T(self) -> Tensor: ...
    @property
    def mT(self) -> Tensor: ...
    def reshape(self, *shape: Any) -> Tensor: ...
    def flatten(self, start_axis: int = 0, end_axis: int = -1) -> Tensor: ...
    def ravel(self) -> Tensor: ...
    def squeeze(self, axis: Axis = None) -> Tensor: ...
    def expand_dims(self, axis: Any) -> Tensor: ...

    unsqueeze = expand_dims

    def permute_dims(self, axes: tuple[int, ...]) -> Tensor: ...
    def permute(self, *axes: Any) -> Tensor: ...

    transpose = permute

    def swapaxes(self, axis1: int, axis2: int) -> Tensor: ...
    def moveaxis(self, source: Any, destination: Any) -> Tensor: ...
    def broadcast_to(self, shape: tuple[int, ...]) -> Tensor: ...
    def flip(self, axis: Axis = None) -> Tensor: ...
    def roll(self, shift: Any, axis: Axis = None) -> Tensor: ...
    def repeat(self, repeats: Any, axis: int | None = None) -> Tensor: ...
    def tile(self, reps: Any) -> Tensor: ...
    def split(self, indices_or_sections: Any, axis: int = 0) -> tuple[Tensor, ...]: ...
    def unstack(self, axis: int = 0) -> tuple[Tensor, ...]: ...
    def __getitem__(self, index: Any) -> Tensor: ...
    def take(self, indices: Any, axis: int | None = None) -> Tensor: ...
    def sort(self, axis: int = -1, descending: bool = False) -> Tensor: ...

    argsort = sort

    # products and parts of matrices
    matmul = dot = __matmul__ = __rmatmul__ = __add__

    def diagonal(self, offset: int = 0, axis1: int = -2, axis2: int = -1) -> Tensor: ...
    def trace(self, offset: int = 0) -> Tensor: ...
    def tril(self, k: int = 0) -> Tensor: ...

    triu = tril
    inv = det = __neg__


TOPICS = (
    activations, comparisons, conversions, elementwise, indexing, linear_algebra, matrix_parts, products, reductions,
    shapes, special, trigonometric,
)  # fmt: skip


def reflected(op):
    """``number + tensor`` comes as ``tensor.__radd__(number)``: the op with its arguments in their order."""
    return lambda b, a: op(a, b)


def comparison(op):
    """``tensor == None`` and ``tensor == "name"`` are False, as for any Python object."""
    strangers = (type(None), str, dict, set)
    return lambda a, b: NotImplemented if isinstance(b, strangers) else op(a, b)


def transpose(x, *axes):
    return shapes.transpose(x, None if axes in ((), (None,)) else as_shape(*axes))


REFLECTED = {
    "add": elementwise.add, "sub": elementwise.subtract, "mul": elementwise.multiply, "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide, "mod": elementwise.remainder, "pow": elementwise.power,
    "lshift": comparisons.bitwise_left_shift, "rshift": comparisons.bitwise_right_shift, "matmul": products.matmul,
}  # fmt: skip
SPELLED = {  # the methods that are not called as their op, or differ from it
    **{f"__{name}__": op for name, op in REFLECTED.items()},
    **{f"__r{name}__": reflected(op) for name, op in REFLECTED.items()},
    "__and__": comparisons.bitwise_and, "__rand__": comparisons.bitwise_and,
    "__or__": comparisons.bitwise_or, "__ror__": comparisons.bitwise_or,
    "__xor__": comparisons.bitwise_xor, "__rxor__": comparisons.bitwise_xor,
    "__invert__": comparisons.bitwise_invert, "__neg__": elementwise.negative, "__abs__": elementwise.abs,
    "__pos__": lambda x: x,
    "__eq__": comparison(comparisons.equal), "__ne__": comparison(comparisons.not_equal),
    "__gt__": comparisons.greater, "__ge__": comparisons.greater_equal,
    "__lt__": comparisons.less, "__le__": comparisons.less_equal,
    "pow": elementwise.power, "__getitem__": indexing.getitem,
    "T": property(shapes.transpose), "mT": property(shapes.matrix_transpose), "transpose": transpose,
    "reshape": lambda x, *shape: shapes.reshape(x, shape=as_shape(*shape)),
    "permute": lambda x, *axes: shapes.permute_dims(x, axes=as_shape(*axes)),
    "unsqueeze": shapes.expand_dims,
}  # fmt: skip


def op_called(name: str):
    """The op of that name, from the topic that defines it."""
    return next(op for t in TOPICS if getattr(op := vars(t).get(name), "__module__", "") == t.__name__)


for _name, _declared in vars(Methods).items():
    if (callable(_declared) or isinstance(_declared, property)) and _name != "backward":
        setattr(Tensor, _name, SPELLED.get(_name) or op_called(_name))
