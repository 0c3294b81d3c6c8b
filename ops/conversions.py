"""Copies of a tensor: in another dtype, on another device, or plain. All are linear, so gradients travel back."""

import numpy

from tinygrad_ms.arrays.devices import parse_device, to_device
from tinygrad_ms.arrays.dtypes import as_dtype, is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import linear, no_derivative
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops.operands import as_operand

__all__ = [
    "astype", "clone", "to",
]  # fmt: skip


@linear(transpose=lambda g: g, batched=True, formula=r"\bar x = \bar y", source="linear map; its transpose", moves=True)
def clone(xp, x):
    """A copy that stays on the tape."""
    return x.copy()


@linear(
    transpose=lambda g: g,  # the engine casts the gradient back to the dtype of x
    batched=True,
    formula=r"\bar x = \bar y",
    source="linear map; its transpose",
    notes="Rounding to a narrower dtype counts as the identity.",
    moves=True,
)
def cast(xp, x, /, dtype):
    """x in another float dtype."""
    return x.astype(dtype)


@no_derivative(formula=r"y = \operatorname{trunc} x", moves=True)
def cast_discrete(xp, x, /, dtype):
    """x as integers or booleans; no gradient."""
    return x.astype(dtype)


def astype(x, dtype) -> Tensor:
    """A copy of x in another dtype (a NumPy dtype or its name), of the same shape.

    Between floats it is differentiable, and the gradient has the dtype of x. Integers and booleans carry no gradient.
    """
    return (cast if is_float(as_dtype(dtype)) else cast_discrete)(x, dtype=dtype)


@linear(
    transpose=lambda g, device, source: copy_to(g, device=source, source=device),
    formula=r"\bar x = \bar y",
    source="linear map; its transpose",
    view=True,
    moves=True,
)
def copy_to(xp, x, /, device, source):
    """A copy of x on ``device``, or x itself if it is there. ``source``: the device of x. The gradient travels back."""
    return to_device(x, device)


def to(x, *targets, device=None, dtype=None) -> Tensor:
    """x on another device, in another dtype, or both; x itself where nothing changes.

    targets: devices ("cpu", "cuda:1"), dtypes ("float64", numpy.float16), or a Tensor to follow in both.
    Gradients travel back. Raises ValueError for an unknown device, RuntimeError for one that cannot be used.
    """
    x = as_operand(x)
    for target in targets:
        if target is None:  # NumPy would take None for float64
            continue
        if isinstance(target, Tensor):
            device, dtype = target.device, target.dtype
        elif is_dtype(target):
            dtype = target
        else:
            device = target
    if dtype is not None and as_dtype(dtype) != x.dtype:
        x = astype(x, dtype)
    if device is not None:
        array = raw(x)
        here, there = BACKENDS[type(array)], parse_device(device)
        if there != (here, here.index_of(array)):
            x = copy_to(x, device=device, source=here.device_of(array))
    return x


def is_dtype(target) -> bool:
    """Whether ``target`` of ``to`` means a dtype, rather than a device."""
    try:
        numpy.dtype(target)
    except TypeError:
        return False
    return True


def cpu(x) -> Tensor:
    """x in host memory, on NumPy; x itself if it is there."""
    return to(x, device="cpu")


def cuda(x, index: int = 0) -> Tensor:
    """x on the GPU of that number, on CuPy; x itself if it is there."""
    return to(x, device=f"cuda:{index}" if index else "cuda")


def half(x) -> Tensor:
    """x in float16."""
    return to(x, dtype="float16")


def float(x) -> Tensor:
    """x in float32."""
    return to(x, dtype="float32")


def double(x) -> Tensor:
    """x in float64."""
    return to(x, dtype="float64")
