"""The README runs: every Python block, with the output it shows."""

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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


def test_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_both_commands_are_marked():
    for name in ("train", "test"):
        assert re.search(rf"<!-- command: {name} -->\n```sh\npython3 -m venv .venv && [^\n]+\n```", README)
