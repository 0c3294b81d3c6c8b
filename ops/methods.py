# mypy: disable-error-code="empty-body"
"""The operators and methods of Tensor that are ops, in one table. Editors read it, and ``attach`` carries it out.

When types are checked, Tensor inherits ``Methods``. At run time Tensor gets a function for each name that is declared
there: the op of that name, or the one that ``SPELLED`` and the functions below it give.
"""

from typing import Any

from tinygrad_ms.engine.tape import Leaf
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.crossings import Crossings
from tinygrad_ms.ops.numpy_functions import PUBLIC, ArrayUfunc
from tinygrad_ms.ops.on_tape import OnTape
from tinygrad_ms.ops.rows import ArrayLike
from tinygrad_ms.spelling import NAMES, Missing, inner

Axis = int | tuple[int, ...] | None


class Methods(Crossings, OnTape):
    """The arguments and the result of each method of Tensor."""

    def backward(  # of the engine
        self, gradient: Any = None, *, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None: ...

    # arithmetic, comparisons, bits
    def __add__(self, other: ArrayLike) -> Tensor: ...
    def __neg__(self) -> Tensor: ...
    def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
    def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]

    def __rmul__(self, other: ArrayLike) -> Tensor: ...
    def __rtruediv__(self, other: ArrayLike) -> Tensor: ...

    def __iadd__(self, other: ArrayLike) -> Tensor: ...

    __isub__ = __imul__ = __itruediv__ = __ifloordiv__ = __imod__ = __ipow__ = __imatmul__ = __iadd__
    __iand__ = __ior__ = __ixor__ = __ilshift__ = __irshift__ = __iadd__
    __radd__ = __sub__ = __rsub__ = __mul__ = __truediv__ = __add__
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


OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "floor_divide",
    "mod": "remainder", "pow": "power", "matmul": "matmul", "and": "bitwise_and", "or": "bitwise_or",
    "xor": "bitwise_xor", "lshift": "bitwise_left_shift", "rshift": "bitwise_right_shift",
}  # fmt: skip
SPELLED = {  # methods that are not called as their ops
    **{f"__{symbol}__": name for symbol, name in OPERATORS.items()},
    "__gt__": "greater", "__ge__": "greater_equal", "__lt__": "less", "__le__": "less_equal", "__neg__": "negative",
    "__abs__": "abs", "__invert__": "bitwise_invert", "__getitem__": "getitem", "pow": "power",
    "unsqueeze": "expand_dims",
}  # fmt: skip


def reflected(op):
    """Python makes ``tensor.__radd__(number)`` of ``number + tensor``. The op gets its arguments in order."""
    return lambda b, a: op(a, b)


def in_place(op):
    """``p -= v`` changes a leaf in place under ``no_grad``, and raises while ops record. Others are bound anew."""

    def change(x, value):
        if isinstance(x.node, Leaf) and x.node.tensor is not None:  # the leaf of a transform has no tensor
            x._check_writable(f"{op.__name__} in place", "write p = p - v, or the like, for a new tensor")
            y = op(x, value)
            if y.shape != x.shape:
                raise ValueError(
                    f"{op.__name__} in place: the result has shape {y.shape} and the tensor {x.shape}, which must stay"
                )
            return x.copy_(y)
        return op(x, value)

    return change


def comparison(op):
    """``tensor == None`` and ``tensor == "name"`` are False, as for any Python object."""
    strangers = (type(None), str, dict, set)
    return lambda a, b: NotImplemented if isinstance(b, strangers) else op(a, b)


def axes_of(op, as_shape):
    """``x.permute(1, 0)`` and ``x.permute((1, 0))`` mean the same; None: all axes reversed."""
    return lambda x, *axes: op(x, None if axes in ((), (None,)) else as_shape(*axes))


def attach(ops: dict[str, Any]) -> None:
    """Give Tensor the methods that ``Methods`` declares. ``ops``: name -> function, for all ops of this folder."""
    PUBLIC.update({name: ops[name] for name in ops["__all__"]})
    Tensor.__array_ufunc__ = ArrayUfunc()  # type: ignore[attr-defined]
    as_shape, reshape, permute_dims = ops["as_shape"], ops["reshape"], ops["permute_dims"]
    others = {
        **{f"__r{symbol}__": reflected(ops[name]) for symbol, name in OPERATORS.items()},
        **{f"__i{symbol}__": in_place(ops[name]) for symbol, name in OPERATORS.items()},
        "__eq__": comparison(ops["equal"]),
        "__ne__": comparison(ops["not_equal"]),
        "__pos__": lambda x: x,
        "T": property(inner(ops["transpose"])),
        "mT": property(ops["matrix_transpose"]),
        "transpose": axes_of(ops["transpose"], as_shape),
        "permute": lambda x, *axes: permute_dims(x, axes=as_shape(*axes)),
        "reshape": lambda x, *shape: reshape(x, shape=as_shape(*shape)),
    }
    for name, declared in vars(Methods).items():
        if (callable(declared) or isinstance(declared, property)) and name != "backward":
            setattr(Tensor, name, others[name] if name in others else ops[SPELLED.get(name, name)])
    for name in NAMES["Tensor"]:
        setattr(Tensor, name, Missing(name))
    for name, method in [*vars(Crossings).items(), *vars(OnTape).items()]:
        if callable(method) or isinstance(method, property):
            setattr(Tensor, name, method)
