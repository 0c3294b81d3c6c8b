"""The lessons of docs/learn: their blocks, run in order, and the output that each shows.

    python -m tests.learn_pages [PAGE ...]      # write what the blocks print into the pages, and the notebooks

A lesson is one program in pieces: each ```python block runs in the namespace that the blocks above it left, in an empty
folder, and the ```text block that follows it is what it prints. ``test_learn.py`` compares the two.
"""

import contextlib
import io
import json
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


def notebook(page: str) -> str:
    """The page as a Jupyter notebook: its text and its blocks, without what they print."""
    cells: list[dict] = []

    def add(kind, text, **more):
        if text := text.strip("\n"):
            cell = {"cell_type": kind, "id": f"cell-{len(cells):02}", "metadata": {}, **more}
            cells.append({**cell, "source": text.splitlines(keepends=True)})

    end = 0
    for block in BLOCK.finditer(page):
        add("markdown", page[end : block.start()])
        add("code", block["code"], execution_count=None, outputs=[])
        end = block.end()
    add("markdown", page[end:])
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    whole = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def main(paths) -> None:
    for path in [Path(path).absolute() for path in paths]:
        with tempfile.TemporaryDirectory() as empty:
            os.chdir(empty)
            page = filled(path.read_text(encoding="utf-8"), path.name)
            path.write_text(page, encoding="utf-8")
            path.with_suffix(".ipynb").write_text(notebook(page), encoding="utf-8")
            os.chdir(FOLDER)


if __name__ == "__main__":
    main(sys.argv[1:] or lessons())
