"""How much code there is: lines that hold more than a comment, a docstring or nothing.

    python tests/code_size.py [ROOT]      # per room, the core, and the longest files

A line counts if a token of code stands on it. The lines of a docstring (a string that is a statement) do not.
``test_size.py`` holds the library to what the project promised.
"""

import ast
import functools
import io
import os
import sys
import tokenize
from collections import Counter
from pathlib import Path

CORE = ("tensor.py", "tape.py", "primitive.py", "call.py", "backward.py")  # in the order in which one reads them
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def code_lines(path: Path) -> int:
    """The number of lines of code in a file."""
    text = path.read_text(encoding="utf-8")
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in SILENT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


@functools.cache
def library(root: Path) -> dict[str, int]:
    """{path: lines of code} of everything that is installed; ``ops/`` once, not again behind its symlink."""
    sizes = {}
    for top in ("tinygrad_ms", "ops"):
        for path in sorted((root / top).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if not name.startswith("tinygrad_ms/ops/"):
                sizes[name] = code_lines(path)
    return sizes


def core(sizes: dict[str, int]) -> dict[str, int]:
    """The sizes of the files that say how a gradient comes about, by their names."""
    return {name: sizes.get(f"tinygrad_ms/engine/{name}", 0) for name in CORE}


def main(root: Path) -> None:
    sizes = library(root)
    rooms: Counter[str] = Counter()
    for name, size in sizes.items():
        rooms[name.rsplit("/", 1)[0]] += size
    for room, size in sorted(rooms.items()):
        print(f"{size:7,}  {room}/")
    print(f"{sum(sizes.values()):7,}  the library")
    parts = core(sizes)
    print(f"{sum(parts.values()):7,}  the core: {', '.join(f'{name} {size}' for name, size in parts.items())}")
    for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:12]:
        print(f"{size:7,}  {name}")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1]))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains once more at exit
