"""Lines: the line of a source file to which an instruction belongs, and lines of text for a notebook."""

from bisect import bisect_right
from functools import lru_cache
from types import CodeType


def line_of(code: CodeType, offset: int) -> str:
    """``file:line`` of the instruction at ``offset`` in the bytes of ``code``."""
    starts, lines = _table(code)
    return f"{code.co_filename}:{lines[bisect_right(starts, offset) - 1] or code.co_firstlineno}"


def monospaced(text: str) -> str:
    """HTML of a text with monospaced letters, so that its columns are aligned in every style of a page."""
    from html import escape

    style = "font-family: monospace; white-space: pre; line-height: 1.3; overflow-x: auto; text-align: left"
    return f'<pre style="{style}">{escape(text)}</pre>'


@lru_cache(maxsize=32)  # the functions of one model; those that come later take the place of earlier ones
def _table(code: CodeType) -> tuple:
    """Where runs of instructions of one line start, and their lines."""
    return tuple(zip(*[(start, line) for start, _, line in code.co_lines()]))
