"""How NumPy treats floating-point errors for a while: as ``numpy.errstate``, in a third of the time."""

from contextvars import copy_context
from typing import Any

import numpy

with numpy.errstate():  # the variable that holds an object for each errstate; None if NumPy has another way
    STATE: Any = next((variable for variable in copy_context() if variable.name == "numpy.ufunc.extobj"), None)

_known: dict[tuple, tuple] = {}  # by kinds: what was in force outside, and what was made from it


def prepare(**errors):
    """The argument of ``enter`` for these settings."""
    if STATE is None:
        return errors
    with numpy.errstate(**errors):
        return STATE.get()


def enter(prepared):
    """Use these settings until ``leave`` is called with the result."""
    return STATE.set(prepared) if STATE is not None else numpy.seterr(**prepared)


def leave(before) -> None:
    if STATE is None:
        numpy.seterr(**before)
    else:
        STATE.reset(before)


QUICK = (enter, leave) if STATE is None else (STATE.set, STATE.reset)  # the same without a call of a Python function


class ignoring:
    """``with ignoring("over", "invalid"):`` errors of these kinds are not reported; the others are, as before."""

    __slots__ = ("kinds", "before")
    before: Any

    def __init__(self, *kinds: str):
        self.kinds = kinds

    def __enter__(self):
        outer, known = None if STATE is None else STATE.get(), _known.get(self.kinds)
        if known is None or known[0] is not outer:
            changes: Any = dict.fromkeys(self.kinds, "ignore")
            _known[self.kinds] = known = outer, prepare(**changes)
        self.before = QUICK[0](known[1])

    def __exit__(self, *exception):
        QUICK[1](self.before)
