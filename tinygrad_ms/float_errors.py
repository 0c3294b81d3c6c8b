"""How NumPy treats floating-point errors for a while: as ``numpy.errstate``, in a third of the time."""

from contextvars import copy_context
from typing import Any

import numpy

with numpy.errstate():  # the variable that holds an object for each errstate; None if NumPy has another way
    STATE: Any = next((variable for variable in copy_context() if variable.name == "numpy.ufunc.extobj"), None)

_known: dict[tuple, tuple] = {}  # by kinds: the object that was in force outside, and the one made from it


class ignoring:
    """``with ignoring("over", "invalid"):`` errors of these kinds are not reported; the others are, as before."""

    __slots__ = ("kinds", "token")
    token: Any

    def __init__(self, *kinds: str):
        self.kinds = kinds

    def __enter__(self):
        outer, known = None if STATE is None else STATE.get(), _known.get(self.kinds)
        if known is None or known[0] is not outer:
            changes: Any = dict.fromkeys(self.kinds, "ignore")
            if STATE is None:
                self.token = numpy.seterr(**changes)
                return
            with numpy.errstate(**changes):
                _known[self.kinds] = known = outer, STATE.get()
        self.token = STATE.set(known[1])

    def __exit__(self, *exception):
        if STATE is None:
            numpy.seterr(**self.token)
        else:
            STATE.reset(self.token)
