"""Copies of a tensor: in another dtype, on another device, or plain. All linear: gradients travel back."""

from tinygrad_ms.engine.backend import BACKENDS, as_dtype, is_float, parse_device, to_device
from tinygrad_ms.engine.primitive import linear, no_derivative
from tinygrad_ms.engine.tensor import Tensor

__all__ = [
    "astype", "clone", "to",
]  # fmt: skip


@linear(transpose=lambda g: g, formula=r"\bar x = \bar y", source="linear map; its transpose")
def clone(xp, x):
    """A copy that stays on the tape."""
    return x.copy()


@linear(
    transpose=lambda g: g,  # the engine returns it to the dtype of x
    formula=r"\bar x = \bar y",
    source="linear map; its transpose",
    notes="Rounding to a narrower dtype counts as the identity.",
)
def cast(xp, x, /, dtype):
    """x in another float dtype."""
    return x.astype(dtype)


@no_derivative(formula=r"y = \operatorname{trunc} x")
def cast_discrete(xp, x, /, dtype):
    """x as integers or booleans; no gradient."""
    return x.astype(dtype)


def astype(x, dtype) -> Tensor:
    """A copy of x in another dtype (a NumPy dtype or its name), of the same shape.

    Differentiable between floats, the gradient returning in the dtype of x; integers and booleans carry none.
    """
    return (cast if is_float(as_dtype(dtype)) else cast_discrete)(x, dtype=dtype)


@linear(
    transpose=lambda g, device, source: copy_to(g, device=source, source=device),
    formula=r"\bar x = \bar y",
    source="linear map; its transpose",
    view=True,
)
def copy_to(xp, x, /, device, source):
    """x of device ``source``, copied to ``device`` (itself if it is there); the gradient travels back."""
    return to_device(x, device)


def to(x, *targets, device=None, dtype=None) -> Tensor:
    """x on another device, in another dtype, or both; x itself where nothing changes.

    targets: devices ("cpu", "cuda:1"), dtypes ("float64", numpy.float16), or a Tensor to follow in both.
    Gradients travel back. Raises ValueError for an unknown device, RuntimeError for one that cannot be used.
    """
    for target in targets:
        if isinstance(target, Tensor):
            device, dtype = target.device, target.dtype
        elif _is_dtype(target):
            dtype = target
        else:
            device = target
    if dtype is not None and as_dtype(dtype) != x.dtype:
        x = astype(x, dtype)
    if device is not None:
        raw = x.data if isinstance(x, Tensor) else x
        here, there = BACKENDS[type(raw)], parse_device(device)
        if there != (here, here.index_of(raw)):
            x = copy_to(x, device=device, source=here.device_of(raw))
    return x


def _is_dtype(target) -> bool:
    try:
        as_dtype(target)
    except TypeError:
        return False
    return True


def _cuda(x, index: int = 0) -> Tensor:
    """x on the GPU of that number."""
    return to(x, device=f"cuda:{index}" if index else "cuda")


Tensor.astype = astype
Tensor.clone = clone
Tensor.to = to
Tensor.cpu = lambda x: to(x, device="cpu")
Tensor.cuda = _cuda
Tensor.half = lambda x: to(x, dtype="float16")
Tensor.float = lambda x: to(x, dtype="float32")
Tensor.double = lambda x: to(x, dtype="float64")
