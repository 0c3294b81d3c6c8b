"""The reference page: complete, up to date, with links that lead somewhere and well-formed formulas."""

import re
from pathlib import Path

import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.reference import entry, page

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
PRIMITIVES = [p for p in REGISTRY.values() if p.forward.__module__.startswith("tinygrad_ms.ops.")]
PAIRS = {"{": "}", r"\begin": r"\end", r"\left": r"\right"}


def test_the_page_is_up_to_date():
    stale = "docs/reference.md is stale; refresh it: python -m tinygrad_ms ops > docs/reference.md"
    assert PAGE.read_text(encoding="utf-8") == page(), stale


def test_every_op_is_on_it_once():
    names = re.findall(r"^### (\w+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(names) == len(set(names))
    assert set(names) == set(tg.ops.__all__) | {p.name for p in PRIMITIVES}


def test_every_link_inside_leads_to_a_heading():
    text = PAGE.read_text(encoding="utf-8")
    headings = [re.sub(r"[^\w-]", "", line.lower()) for line in re.findall(r"^##+ (.*)$", text, re.MULTILINE)]
    assert len(headings) == len(set(headings))
    assert set(re.findall(r"\]\(#(.*?)\)", text)) == set(headings)


@pytest.mark.parametrize("primitive", PRIMITIVES, ids=lambda p: p.name)
def test_every_primitive_has_a_formula_a_source_and_a_line_about_it(primitive):
    assert primitive.formula and primitive.source and primitive.doc
    plain = re.sub(r"\\[{}]", "", primitive.formula)
    for opening, closing in PAIRS.items():
        assert plain.count(opening) == plain.count(closing)


def test_an_entry_shows_the_rule_of_each_argument():
    assert "Derivative: `y`" in entry("exp")
    assert "VJP: for a `g * b`; for b `g * a`" in entry("multiply")
    assert "def _solve_vjp(needed" in entry("solve")
    assert "to_extremes(g, x, y, axis, keepdims)" in entry("max")
    assert "No derivative." in entry("argmax")
    assert "Not public: behind the functions of ops/affine.py." in entry("affine")
    assert entry("cross_entropy").endswith("Another name of `softmax_cross_entropy`.")


def test_an_unknown_name_says_where_the_names_are():
    with pytest.raises(ValueError, match="no op named 'nothing'; `python -m tinygrad_ms ops` shows them all"):
        entry("nothing")
