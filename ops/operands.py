"""Arguments of functions that are made of several ops. Lists and numbers are checked before the first op runs."""

import sys

import numpy

from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.arrays.dtypes import host_array
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops.watch import note_read

__all__: list[str] = []


def as_operand(x, op: str | None = None):
    """The argument of a composition: a number or a list becomes a tensor, as in the call of a primitive."""
    if hasattr(x, "shape"):
        return x
    refuse_lists(op, x)
    return asarray(x)


def refuse_lists(op: str | None, *values) -> None:
    """Raise TypeError, with the name of the op or of the function that was called, for lists of tensors on the tape."""
    for value in values:
        if isinstance(value, (list, tuple)):
            refuse_tracked(op or _called(), value, "join tensors with tg.stack")


def is_followed(x: Tensor) -> bool:
    """Whether an op on x must run as an op: x is on the tape, on a device or recorded, or somebody observes."""
    return x.node is not None or type(x.data) is not numpy.ndarray or bool(current_state().hooks)


def view_of(x: Tensor, array) -> Tensor:
    """A view of the memory of x, which nobody follows: what an op returns, in half the time."""
    y = Tensor(array)
    y.count_with(x.version_counter())
    return y


def as_number(value, what: str) -> float:
    """An option as a Python float. ``what``: op and argument, for the TypeError of a list or a tracked tensor."""
    refuse_tracked(what, value, "it has no derivative here; pass a number or .detach()")
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{what} is {value!r}, expected one number") from None


def raw_like(value, like: Tensor, op: str):
    """The raw array of ``value`` for an in-place write into ``like``, on the same device."""
    note_read(value)
    value = raw(value)
    if type(value) in BACKENDS:
        if type(value) is not type(like.data):
            there = BACKENDS[type(value)].device_of(value)
            raise ValueError(f"{op}: the tensor is on {like.device} and the value on {there}; move one with .to()")
        return value
    if isinstance(value, (list, tuple, numpy.ndarray)):
        return to_device(host_array(value, like.dtype), like.device)
    return value


def _called() -> str:
    """The name of the op that the user called: the outermost frame of ``ops`` on the way here."""
    frame, name = sys._getframe(2), ""
    while frame is not None and frame.f_globals.get("__name__", "").startswith("tinygrad_ms.ops"):
        name = name if frame.f_code.co_name == "call" else frame.f_code.co_name  # a decorator's function
        frame = frame.f_back
    return name
