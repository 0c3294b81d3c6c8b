"""tests/README.md: every promise is held by a test that exists; every file of tests is listed with what it is about.

python -m tests.docs.test_list      # writes the list of the files anew, from their docstrings
"""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = sorted(TESTS.glob("*/test_*.py"))
PLACE = re.compile(r"(?<=<!-- list of files -->\n).*(?=<!-- end of the list -->)", re.S)
ROOMS = {  # folders: what their tests are about
    "engine": "The engine",
    "arrays": "Devices, launches, kernels of a card",
    "ops": "Every op, and functions by topic",
    "transforms": "Transforms",
    "nn": "Modules",
    "optim": "Optimizers and training",
    "data": "Data and checkpoints",
    "replay": "Compiled steps",
    "graph": "Pictures, the step page, the playground",
    "distributed": "Several processes",
    "interop": "Other libraries",
    "testing": "Checks of derivatives",
    "examples": "Examples",
    "docs": "Pages, lessons, exercises",
    "house": "The house",
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def about(path: Path) -> str:
    """The first sentence or two of a file's docstring."""
    doc = (ast.get_docstring(parsed(path)) or "").split("\n\n")[0]
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(doc.split()))


def listed() -> str:
    """The files room by room, with what each is about."""
    text = ""
    for room, title in ROOMS.items():
        rows = [f"| [{p.name}]({room}/{p.name}) | {about(p)} |" for p in FILES if p.parent.name == room]
        text += "\n".join([f"### {title}: {room}/", "", "| file | what it holds |", "|---|---|", *rows, "", ""])
    return text


def test_every_file_is_listed_with_its_docstring():
    assert PLACE.search(TEXT)[0] == listed(), "run python -m tests.docs.test_list"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_it_holds(path):
    assert len(about(path).split()) > 4 and "|" not in about(path)


PROMISES = re.findall(r"^\| (.+?) \| `(\w+/test_\w+\.py)::(\w+(?:::\w+)?)` \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("promise, file, name", PROMISES, ids=lambda value: value[:40])
def test_a_promise_is_held_by_a_test(promise, file, name):
    body, found = parsed(TESTS / file).body, None
    for part in name.split("::"):
        found = next(node for node in body if getattr(node, "name", None) == part)
        body = found.body
    assert isinstance(found, ast.FunctionDef) and found.name.startswith("test_")
    assert any(isinstance(node, (ast.Assert, ast.With, ast.Call)) for node in ast.walk(found))


def test_every_test_lies_in_a_room():
    assert {path.parent.name for path in FILES} == set(ROOMS)
    assert not list(TESTS.glob("test_*.py"))


def test_there_are_promises_of_every_kind():
    assert len(PROMISES) >= 30 and len({file for _, file, _ in PROMISES}) >= 18
    assert TEXT.count("::") == len(PROMISES) + sum(name.count("::") for _, _, name in PROMISES)


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: listed(), TEXT), encoding="utf-8")
