"""docs/inside.md runs from top to bottom, prints what it shows, and draws the floors that test_floors holds.

    python -m tests.docs.test_inside      # draws the floors into the page anew

The blocks are one session. A room, a name or a file that the page names and that moves fails here.
"""

import contextlib
import io
import re
import textwrap
from pathlib import Path

import pytest

import tinygrad_ms as tg
from tests.house.test_floors import FILES, FLOORS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "inside.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = list(re.finditer(r"```python\n(?P<code>.*?)```\n(?:```text\n(?P<shown>.*?)```)?", TEXT, re.S))
PLACE = re.compile(r"(?<=-->\n)(?:```text\n[^`]*```\n)?(?=<!-- end of floors -->)")
WIDTH = 72


def drawn(floors) -> str:
    """The rooms, floor by floor, the highest at the top; a folder ends with a slash."""
    line = f"     +{'-' * (WIDTH + 2)}+\n"
    text = line
    for floor in sorted(set(floors.values()), reverse=True):
        rooms = [name for name in floors if floors[name] == floor]
        folder = {name: FILES[name].name == "__init__.py" and name != "tinygrad_ms" for name in rooms}
        names = [name.removeprefix("tinygrad_ms.") + "/" * folder[name] for name in sorted(rooms)]
        names = [f"{name}: the public names" if name == "tinygrad_ms" else name for name in names]
        for i, row in enumerate(textwrap.wrap("   ".join(names), WIDTH, break_long_words=False)):
            text += f"{f'{floor:g}' if i == 0 else '':>4} | {row:{WIDTH}} |\n"
        text += line
    return f"```text\n{text}```\n"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """What each block printed. A traceback names the line of the page."""
    tg.set_default_device("cpu")  # the fixture of every test comes later
    names, printed = {"__name__": "__main__"}, []
    with contextlib.chdir(tmp_path_factory.mktemp("inside")):
        for block in BLOCKS:
            above = "\n" * TEXT.count("\n", 0, block.start("code"))
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(above + block["code"], str(PAGE), "exec"), names)
            printed.append(out.getvalue())
    return printed


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_prints_what_the_page_shows(number, session):
    assert session[number] == (BLOCKS[number]["shown"] or "")


def test_every_block_of_python_is_among_them():
    assert TEXT.count("```python\n") == len(BLOCKS) > 12


def test_the_floors_are_those_of_the_tests():
    assert PLACE.search(TEXT)[0] == drawn(FLOORS), "run python -m tests.docs.test_inside"


def test_files_that_the_page_names_are_there():
    paths = [path for path in re.findall(r"`([\w./]+)`", TEXT) if path.endswith((".py", "/", ".cfg", ".md"))]
    assert len(set(paths)) > 40
    for path in paths:
        assert (ROOT / path).exists(), path
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", TEXT):
        assert (PAGE.parent / target).exists(), target


def test_names_in_code_that_the_page_says_where_to_find_are_there():
    """``name` in `file``, for each function and table that the page sends its readers to."""
    found = re.findall(r"`(\w+)`\s+in\s+`([\w/]+\.py)`", TEXT)
    assert len(found) >= 6
    for name, path in found:
        code = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"^\s*(def|class) {name}\b|^{name}\b.* = ", code, re.MULTILINE), (name, path)


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: drawn(FLOORS), TEXT), encoding="utf-8")
