"""docs/api: made from the docstrings, complete, with links that lead somewhere; every example in a docstring runs."""

import contextlib
import doctest
import importlib
import inspect
import pkgutil
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.api import PAGES, anchor, look_up, markdown, names_of, pages, write

FOLDER = Path(__file__).parents[2] / "docs" / "api"
NAMES = {name: page for page in PAGES for name in names_of(page)}
MADE = pages()
OPTIONAL = ("interop", "cupy")  # modules that import what may be missing


# --- the pages ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MADE)
def test_a_page_is_up_to_date(name):
    assert (FOLDER / name).read_text(encoding="utf-8") == MADE[name], "run python -m tinygrad_ms api"


def test_there_are_no_others_and_the_command_writes_them(tmp_path):
    assert {path.name for path in FOLDER.iterdir()} == MADE.keys()
    write(tmp_path / "new")
    assert {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "new").iterdir()} == MADE


def test_every_public_name_is_on_a_page_or_is_an_op():
    public = {name for name in tg.__all__ if not inspect.ismodule(getattr(tg, name))} - {"__version__", "signm"}
    missing = public - set(tg.ops.__all__) - NAMES.keys() - {name.rpartition(".")[2] for name in NAMES}
    assert not missing
    for room in ("nn", "optim", "data", "graph", "testing", "distributed", "rules"):
        named = {name for name in getattr(tg, room).__all__ if not inspect.ismodule(getattr(getattr(tg, room), name))}
        assert {f"{room}.{name}" for name in named} - NAMES.keys() <= {f"rules.{name}" for name in public}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_has_a_docstring(name):
    assert len((look_up(name).__doc__ or "").split()) >= 2


def test_every_link_leads_to_a_heading():
    links = re.findall(r"\]\((\w+\.md)#([\w-]+)\)", MADE["README.md"])
    assert len(links) == len(NAMES) == len(set(links))
    for page, fragment in links:
        headings = re.findall(r"^## (.*)$", MADE[page], re.MULTILINE)
        assert fragment in {re.sub(r"[^\w-]", "", heading.lower().replace(" ", "-")) for heading in headings}
    assert anchor("Tensor") != anchor("tensor")


def test_a_docstring_becomes_markdown():
    doc = "One ``x``.\n\nsize: how many,\n    at least 1\nrate: how fast\nRaises ValueError.\n\n    y = x\n"
    doc += "\n>>> 1 + 1\n2\n\nEnd."
    assert markdown(doc).splitlines() == [
        "One `x`.", "", "- **size**: how many,", "    at least 1", "- **rate**: how fast", "", "Raises ValueError.", "",
        "    y = x", "", "```pycon", ">>> 1 + 1", "2", "```", "", "End.",
    ]  # fmt: skip


# --- the examples ---------------------------------------------------------------------------------------------------


def documented():
    """{name: object} of every function and class of the library, from each module that can be imported."""
    found = {}
    for module in pkgutil.walk_packages(tg.__path__, "tinygrad_ms."):
        if not any(part in module.name for part in OPTIONAL) and not module.name.endswith("__main__"):
            for name, value in vars(importlib.import_module(module.name)).items():
                if getattr(value, "__module__", None) == module.name and not isinstance(value, type(sys)):
                    found[f"{module.name}.{name}"] = value
    return found


def examples():
    """Each docstring with an example, by the name of what it documents; wrapped functions and primitives once."""
    found = {}
    for name, value in documented().items():
        with contextlib.suppress(TypeError):
            doc = inspect.getdoc(value) or ""
            if ">>>" in doc:
                found.setdefault(doc, name)
    return {name: doc for doc, name in found.items()}


EXAMPLES = examples()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_shows(name, tmp_path):
    test = doctest.DocTestParser().get_doctest(
        EXAMPLES[name], {"tg": tg, "np": np, "__name__": "example"}, name, None, 0
    )
    with contextlib.chdir(tmp_path):
        runner = doctest.DocTestRunner(verbose=False)
        result = runner.run(test, out=lambda text: print(text, end=""))
    assert result.attempted and not result.failed


def test_the_functions_of_every_day_have_one():
    names = {name.rpartition(".")[2] for name in EXAMPLES}
    expected = """tensor grad value_and_grad vjp jvp jacobian hessian hvp checkpoint no_grad compile save load
        exp matmul sum mean max softmax softmax_cross_entropy mse where concat stack reshape
        einsum index_update msign mcsgn solve solve_sylvester svd Linear Sequential Module
        Embedding SGD Adam Muon RMSprop CosineLR clip_grad_norm DataLoader train_test_split
        gradcheck check_grads build explain profile custom_vjp""".split()
    assert set(expected) <= {name.strip("_") for name in names}
