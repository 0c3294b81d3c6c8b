"""How floating-point errors are treated, set in less time than ``numpy.errstate`` takes: a list does so often."""

import numpy

from tinygrad_ms.optim.whole_steps import STATE


def prepare(**errors):
    """What ``enter`` takes."""
    if STATE is None:
        return errors
    with numpy.errstate(**errors):
        return STATE.get()


def enter(prepared):
    """Treat them so until ``leave`` gets what this returns."""
    return STATE.set(prepared) if STATE is not None else numpy.seterr(**prepared)


def leave(before) -> None:
    if STATE is None:
        numpy.seterr(**before)
    else:
        STATE.reset(before)


QUICK = (enter, leave) if STATE is None else (STATE.set, STATE.reset)  # the same, without a frame of Python
