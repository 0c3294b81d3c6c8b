"""Sets how NumPy treats floating-point errors. It is faster than ``numpy.errstate``, because a list does it often."""

import numpy

from tinygrad_ms.float_errors import STATE


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
