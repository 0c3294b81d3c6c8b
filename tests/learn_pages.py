"""The lessons of docs/learn: their blocks, run in order, and the output that each shows.

    python -m tests.learn_pages [PAGE ...]      # write what the blocks print into the pages (all lessons by default)

A lesson is one program in pieces: each ```python block runs in the namespace that the blocks above it left, in an empty
folder, and the ```text block that follows it is what it prints. ``test_learn.py`` compares the two.
"""

import contextlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "docs" / "learn"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n?```text\n(?P<shown>.*?)^```\n)?", re.S | re.M)


def lessons() -> list[Path]:
    """The numbered pages, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]-*.md"))


def run(page: str, name: str) -> list[tuple[str, str]]:
    """What each block of ``page`` shows and what it prints, for a working directory that may be written to."""
    namespace = {"__name__": "__main__"}
    results = []
    with np.printoptions():  # a lesson may set its own
        for block in BLOCK.finditer(page):
            printed = io.StringIO()
            line = page.count("\n", 0, block.start("code"))  # so that a traceback has the line of the page
            with contextlib.redirect_stdout(printed):
                exec(compile("\n" * line + block["code"], name, "exec"), namespace)
            results.append((block["shown"] or "", printed.getvalue()))
    return results


def filled(page: str, name: str) -> str:
    """The page with what its blocks print."""
    printed = iter(run(page, name))

    def write(block):
        _, output = next(printed)
        return f"```python\n{block['code']}```\n" + (f"```text\n{output}```\n" if output else "")

    return BLOCK.sub(write, page)


def main(paths) -> None:
    for path in [Path(path).absolute() for path in paths]:
        with tempfile.TemporaryDirectory() as empty:
            os.chdir(empty)
            path.write_text(filled(path.read_text(encoding="utf-8"), path.name), encoding="utf-8")
            os.chdir(FOLDER)


if __name__ == "__main__":
    main(sys.argv[1:] or lessons())
