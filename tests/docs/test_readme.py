"""The README runs: every Python block, with the output it shows."""

import contextlib
import inspect
import io
import re
import sys
from pathlib import Path

import pytest

import tinygrad_ms as tg
from tests.code_size import core, library
from tinygrad_ms.engine import backward

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:```text\n(.*?)```)?", README, re.S)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_prints_what_it_shows(number, tmp_path, monkeypatch):
    code, expected = BLOCKS[number]
    monkeypatch.chdir(tmp_path)
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(code, f"README block {number}", "exec"), {"__name__": "__main__"})
    assert shown.getvalue() == expected


def test_the_picture_is_the_one_the_ten_lines_draw(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {}
    exec(BLOCKS[0][0], namespace)
    drawn = (tmp_path / "graph.svg").read_text()
    committed = (ROOT / "docs" / "images" / "ten_lines.svg").read_text()
    texts = [re.findall(r"<text[^>]*>([^<]*)</text>", svg) for svg in (drawn, committed)]
    assert sorted(texts[0]) == sorted(texts[1])  # renderers place things differently; the contents are ours


def test_backward_leads_to_the_line_that_adds_gradients_in_three_files():
    """The files whose functions are entered from loss.backward() to the step of the walk, which adds them."""
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    loss = (tg.tanh(x) * x).sum()
    visited = []

    def watch(frame, event, argument):
        visited.append(frame.f_code)

    sys.setprofile(watch)
    try:
        loss.backward()
    finally:
        sys.setprofile(None)
    trip = visited[: visited.index(backward.step.__code__) + 1]
    package = Path(tg.__file__).parent
    files = {Path(code.co_filename) for code in trip if Path(code.co_filename).is_relative_to(package)}
    assert files and {file.relative_to(package).as_posix() for file in files} <= {
        "engine/backward.py", "engine/tensor.py", "engine/tape.py",
    }  # fmt: skip
    assert "grads[parent] = " in inspect.getsource(backward.step)


def test_the_sizes_it_names_are_those_of_the_code():
    sizes = library(ROOT)
    engine = sum(n for name, n in sizes.items() if name.startswith(("tinygrad_ms/engine/", "tinygrad_ms/arrays/")))
    ops = sum(n for name, n in sizes.items() if name.startswith("ops/"))
    found = re.search(r": ([\d,]+) in the five files of the core, ([\d,]+) with all of the\nengine, ([\d,]+) more in.*?"
                      r"about ([\d,]+) in everything", README, re.S)  # fmt: skip
    named = [int(number.replace(",", "")) for number in found.groups()]
    for number, true in zip(named, [sum(core(sizes).values()), engine, ops, sum(sizes.values())], strict=True):
        assert abs(number / true - 1) < 0.05, (number, true)


@pytest.mark.parametrize("picture", re.findall(r"!\[.*?\]\((.*?\.svg)\)", README))
def test_a_picture_is_readable_in_the_column_of_github(picture):
    """The column is 830 pixels wide and a picture shrinks to it; a point of SVG is 4/3 of a pixel."""
    svg = (ROOT / picture).read_text()
    width = float(re.search(r'<svg[^>]*width="([\d.]+)pt"', svg)[1]) * 4 / 3
    smallest = min(map(float, re.findall(r'font-size="([\d.]+)"', svg))) * 4 / 3
    assert smallest * min(1, 830 / width) >= 10


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_both_commands_are_marked():
    for name in ("train", "test"):
        assert re.search(rf"<!-- command: {name} -->\n```sh\npython3 -m venv .venv && [^\n]+\n```", README)
