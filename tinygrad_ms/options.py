"""Checks of numbers as options: counts, axes, powers, steps, rates. Numbers of NumPy are valid, too."""

from numbers import Real
from operator import index

import numpy


def is_int(value) -> bool:
    """Whether ``value`` is one integer: of Python, of NumPy, or a 0-d integer array. True and False are not."""
    if isinstance(value, (bool, numpy.bool_)):
        return False
    try:
        index(value)
    except TypeError:
        return False
    return True


def is_real(value) -> bool:
    """Whether ``value`` is one real number of Python or NumPy. True and False are not."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_int(value, what: str, least: int | None = None) -> int:
    """The Python int of ``value``. Otherwise raises ValueError; ``what`` names the op and the argument in it."""
    if is_int(value) and (least is None or index(value) >= least):
        return index(value)
    raise ValueError(f"{what} is {value!r}, expected an integer{'' if least is None else f' of at least {least}'}")


def as_axes(axes) -> tuple[int, ...]:
    """One axis or a sequence of axes, as a tuple of Python ints."""
    return (index(axes),) if is_int(axes) else tuple(map(index, axes))
