"""tests/README.md: every promise is held by a test that exists; every file of tests is listed with what it is about.

python -m tests.test_list      # writes the list of the files anew, from their docstrings
"""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = TESTS / "README.md"
TEXT = PAGE.read_text(encoding="utf-8")
PLACE = re.compile(r"(?<=<!-- list of files -->\n).*(?=<!-- end of the list -->)", re.S)
ROOMS = {  # what a file is about: how its name begins; the first that fits counts
    "Engine and transforms": "anomaly doors engine errors every_door own_primitives threads transforms trips fuzz",
    "Every op": "derivatives oracle accuracy half_precision scale tails strict_device fused",
    "Functions by topic": "conversions creation elementwise indexing linear_algebra losses ordering reductions shapes"
    " tensor_methods windows",
    "The matrix sign": "msign matrix_equations",
    "Modules, optimizers, data, saving": "nn optim muon flat recurrent ttt_muon lact data recall serialization training"
    " options",
    "Compiled steps": "replay compile",
    "Pictures": "graph",
    "Several processes, other libraries": "distributed interop gpu cupy",
    "Pages, lessons, examples": "api readme reference inside contributing learn lesson from_pytorch matrix_calculus"
    " seed_tables train_ benchmarks exercises playground explain list",
    "The house": "",
}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def about(path: Path) -> str:
    """The first sentence or two of a file's docstring."""
    doc = (ast.get_docstring(parsed(path)) or "").split("\n\n")[0]
    return re.sub(r"``(.+?)``", r"`\1`", " ".join(doc.split()))


def room_of(path: Path) -> str:
    name = path.stem.removeprefix("test_")
    return next(room for room, starts in ROOMS.items() if not starts or name.startswith(tuple(starts.split())))


def listed() -> str:
    """The files room by room, with what each is about."""
    text = ""
    files = sorted(TESTS.glob("test_*.py"))
    for room in ROOMS:
        rows = [f"| [{path.name}]({path.name}) | {about(path)} |" for path in files if room_of(path) == room]
        text += "\n".join([f"### {room}", "", "| file | what it holds |", "|---|---|", *rows, "", ""]) if rows else ""
    return text


def test_every_file_is_listed_with_its_docstring():
    assert PLACE.search(TEXT)[0] == listed(), "run python -m tests.test_list"


@pytest.mark.parametrize("path", sorted(TESTS.glob("test_*.py")), ids=lambda path: path.stem)
def test_a_file_says_what_it_holds(path):
    assert len(about(path).split()) > 4 and "|" not in about(path)


PROMISES = re.findall(r"^\| (.+?) \| `(test_\w+\.py)::(\w+(?:::\w+)?)` \|$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("promise, file, name", PROMISES, ids=lambda value: value[:40])
def test_a_promise_is_held_by_a_test(promise, file, name):
    body, found = parsed(TESTS / file).body, None
    for part in name.split("::"):
        found = next(node for node in body if getattr(node, "name", None) == part)
        body = found.body
    assert isinstance(found, ast.FunctionDef) and found.name.startswith("test_")
    assert any(isinstance(node, (ast.Assert, ast.With, ast.Call)) for node in ast.walk(found))


def test_there_are_promises_of_every_kind():
    assert len(PROMISES) >= 30 and len({file for _, file, _ in PROMISES}) >= 18
    assert TEXT.count("::") == len(PROMISES) + sum(name.count("::") for _, _, name in PROMISES)


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: listed(), TEXT), encoding="utf-8")
