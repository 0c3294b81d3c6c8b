"""How floating-point errors are treated, changed and asked for often: NumPy's errstate without most of its price.

NumPy keeps it in a context variable; where that cannot be reached, ``numpy.seterr`` does the same.
"""

import warnings
from typing import Any

import numpy

from tinygrad_ms.optim.whole_steps import arithmetic_raises

try:
    from numpy._core.umath import _extobj_contextvar as _variable  # type: ignore[attr-defined]
    from numpy._core.umath import _make_extobj as prepare  # type: ignore[attr-defined]

    enter, leave = _variable.set, _variable.reset
    state_now = _variable.get
except ImportError:

    def prepare(**errors):
        return errors

    def enter(errors):
        return numpy.seterr(**errors)

    def leave(before) -> None:
        numpy.seterr(**before)

    state_now = numpy.geterr

_calm: list[Any] = [None, None, 0, None]  # a state, and filters of warnings (list, first, length), that raise nothing


def may_raise() -> bool:
    """``arithmetic_raises``, with a fast answer where nothing has changed since it was asked last."""
    state, filters, count, first = _calm
    now = warnings.filters
    if now is filters and len(now) == count and state_now() is state and now[0] is first:
        return False
    if arithmetic_raises():
        return True
    _calm[:] = state_now(), now, len(now), now[0]
    return False
