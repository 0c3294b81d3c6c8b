"""CONTRIBUTING, the change log and the workflow say what is true: the op runs, files are there, versions agree."""

import importlib
import re
from pathlib import Path

import numpy as np
import pytest

from tests.ops import test_derivatives
from tests.samples import trigonometric as samples
from tinygrad_ms._version import __version__
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.moved import MOVED
from tinygrad_ms.ops import trigonometric

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGES = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
WORKFLOW = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")


def block(name):
    [code] = re.findall(rf"<!-- {name} -->\n(?:<!-- fmt: off -->\n)?```python\n(.*?)```", PAGE, re.S)
    return code


@pytest.fixture
def versin(monkeypatch):
    """The op and its samples, as if they stood in their files."""
    row, table = dict(vars(trigonometric)), dict(vars(samples))
    exec(block("row"), row)
    exec(block("sample"), table)
    monkeypatch.setitem(test_derivatives.PRIMITIVES, "versin", row["versin"].primitive)
    monkeypatch.setitem(test_derivatives.SAMPLES, "versin", table["SAMPLES"]["versin"])
    yield row["versin"]
    del REGISTRY["versin"]


def test_the_op_of_six_lines_passes_the_tests_of_every_op(versin):
    assert block("row").count("\n") == 6
    for name in (
        "test_primitive_has_samples_with_reference_values", "test_samples_of_primitive_include_the_corner_cases",
        "test_primitive_states_its_formula_and_source",
    ):  # fmt: skip
        getattr(test_derivatives, name)("versin")
    for sample in test_derivatives.SAMPLES["versin"]:
        test_derivatives.test_value("versin", sample)
        if test_derivatives.differentiable("versin", sample):
            for name in ("first_order", "second_order", "third_order", "dtypes_are_kept"):
                getattr(test_derivatives, f"test_{name}")("versin", sample)
        test_derivatives.test_device_computes_the_same_without_synchronising("versin", sample, "strict")


def test_the_op_of_six_lines_keeps_its_digits(versin):
    """The comment of its forward: near 0 the value is x^2 / 2, where 1 - cos x would be 0."""
    np.testing.assert_allclose(versin(np.array([1e-9])), [5e-19], rtol=1e-14)


def test_files_and_links_are_there():
    paths = [p for p in re.findall(r"`([\w./]+)", PAGE) if p.endswith((".py", "/"))]
    assert len(set(paths)) > 35
    for path in paths + re.findall(r"\]\((?!http)([^)#]+)", PAGE):
        assert (ROOT / path).exists(), path
    for heading in re.findall(r"docs/inside.md#([\w-]+)", PAGE):
        titles = re.findall(r"^## (.*)$", (ROOT / "docs" / "inside.md").read_text(encoding="utf-8"), re.MULTILINE)
        assert heading in {title.lower().replace(" ", "-") for title in titles}


def test_every_benchmark_guards_something():
    programs = {
        path.name for path in (ROOT / "benchmarks").glob("*.py") if '__name__ == "__main__"' in path.read_text()
    }
    workers = {"cases.py"}  # bench_ops.py starts it
    assert programs - workers == set(re.findall(r"`benchmarks/(\w+\.py)", PAGE))


def test_workloads_that_the_page_names_are_there(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    found = importlib.import_module("workloads").WORKLOADS
    known = [*found, *(work.group for work in found.values())]
    wanted = " ".join(re.findall(r"compare.py --only ([\w ]+)`", PAGE)).split()
    assert len(wanted) >= 4
    for word in wanted:
        assert any(name.startswith(word) for name in known), word


def test_the_change_log_has_this_version_and_what_moved():
    versions = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", CHANGES, re.MULTILINE)
    assert __version__ in versions
    assert versions == sorted(versions, key=lambda version: [*map(int, version.split("."))], reverse=True)
    for old in MOVED:
        assert re.search(rf"`(engine\.)?{old.split('.')[-1]}`", CHANGES), f"the change log has no word of {old}"
    kinds = set(re.findall(r"^### (.*)$", CHANGES, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}  # of keepachangelog.com


def test_the_workflow_runs_ci_on_the_versions_that_setup_names():
    setup = (ROOT / "setup.cfg").read_text(encoding="utf-8")
    supported = re.findall(r"Python :: (3\.\d+)$", setup, re.MULTILINE)
    [listed] = re.findall(r"python-version: \[(.*)\]", WORKFLOW)
    assert re.findall(r"\"([\d.]+)\"", listed) == supported
    assert re.search(r"- run: \.ci/run\b", WORKFLOW)
