"""What cannot be recorded: one sentence with the line of the user's code."""

from sys import _getframe

from tinygrad_ms.engine.call import ours


class Diverged(Exception):
    """A decision that a replay takes again came out otherwise than when it was recorded."""


def user_line() -> str:
    """``file:line`` of the innermost frame outside this package."""
    frame = _getframe(1)
    while frame.f_back is not None and ours(frame):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def refusal(why: str, line: str = "") -> RuntimeError:
    """The error for what a recording cannot hold."""
    return RuntimeError(f"compile: {line or user_line()}: {why}")
