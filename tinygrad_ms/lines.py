"""Which line of a source file an instruction belongs to."""

from bisect import bisect_right
from functools import lru_cache
from types import CodeType


def line_of(code: CodeType, offset: int) -> str:
    """``file:line`` of the instruction at ``offset`` in the bytes of ``code``."""
    starts, lines = _table(code)
    return f"{code.co_filename}:{lines[bisect_right(starts, offset) - 1] or code.co_firstlineno}"


@lru_cache(maxsize=32)  # the functions of one model; those that come later take the place of earlier ones
def _table(code: CodeType) -> tuple:
    """Where runs of instructions of one line start, and their lines."""
    return tuple(zip(*[(start, line) for start, _, line in code.co_lines()]))
