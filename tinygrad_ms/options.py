"""Numbers as options: counts, axes, powers, steps, rates. NumPy's integers and reals are integers and reals, too."""

from numbers import Real
from operator import index

import numpy


def is_int(value) -> bool:
    """Whether ``value`` is one integer: Python's, NumPy's, a 0-d integer array; a truth value is none."""
    if isinstance(value, (bool, numpy.bool_)):
        return False
    try:
        index(value)
    except TypeError:
        return False
    return True


def is_real(value) -> bool:
    """Whether ``value`` is one real number, Python's or NumPy's; a truth value is none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def as_int(value, what: str, least: int | None = None) -> int:
    """The Python int of ``value``; raises ValueError with ``what``, the op and the argument, in the sentence."""
    if is_int(value) and (least is None or index(value) >= least):
        return index(value)
    raise ValueError(f"{what} is {value!r}, expected an integer{'' if least is None else f' of at least {least}'}")


def as_axes(axes) -> tuple[int, ...]:
    """One axis, or several in any sequence, as a tuple of Python ints."""
    return (index(axes),) if is_int(axes) else tuple(map(index, axes))
