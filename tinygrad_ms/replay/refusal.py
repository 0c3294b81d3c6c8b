"""Errors for what cannot be recorded. Each is one sentence with the line of the user's code."""

from sys import _getframe

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.call import ours


class Diverged(Exception):
    """A decision in a replay differs from the recorded one."""


class Untraceable(RuntimeError):
    """Something cannot be recorded call by call. A forward or a rule then runs as a whole; anything else is refused."""


def user_line() -> str:
    """``file:line`` of the innermost frame outside this package."""
    frame = _getframe(1)
    while frame.f_back is not None and ours(frame):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def hooked(node) -> bool:
    """Whether a node has hooks that cannot be recorded."""
    return not all(hasattr(hook, "recorded") for hook in node.hooks or ())


def refusal(why: str, line: str = "") -> RuntimeError:
    """The error for something that cannot be recorded."""
    return RuntimeError(f"compile: {line or user_line()}: {why}")


def equal(a, b) -> bool:
    """Whether two arrays have the same bits. NaN equals NaN."""
    a, b = (BACKENDS[type(x)].to_host(x) if type(x) in BACKENDS else numpy.asarray(x) for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
