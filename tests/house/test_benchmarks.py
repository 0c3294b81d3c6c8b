"""The comparison with other frameworks runs and stops where results differ; the pages show the figures it kept."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tables, compare = load("tables"), load("compare")
FOUND = json.loads(tables.RESULTS.read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_pages_show_the_figures_of_the_file(page):
    text = page.read_text(encoding="utf-8")
    assert tables.PLACE.search(text)
    assert tables.filled(text, FOUND) == text, "run python benchmarks/compare.py --tables"


def test_a_table_shows_ratios_gaps_and_refusals():
    row = {
        "title": "a step", "group": "some", "base": "PyTorch", "ms": {"ours": 2.0, "PyTorch": 4.0},
        "ratio": {"ours": 0.5, "PyTorch": 1.0, "JAX jit": 12.3}, "refused": {"compiled": "no"},
        "peak_mb": {"ours": 1.5, "PyTorch": 2.25},
    }  # fmt: skip
    found = {"results": {"one": row, "other": {**row, "title": "more", "refused": {}, "ratio": {"ours": 1.5}}}}
    assert tables.group_table(found, "some").splitlines() == [
        "|  | PyTorch, ms | ours / PyTorch | compiled | JAX jit | memory, MB: ours, PyTorch |",
        "| --- | --- | --- | --- | --- | --- |",
        "| a step | 4 | 0.50 | refused | 12 | 1.5, 2.2 |",
        "| more | 4 | 1.50 | - | - | 1.5, 2.2 |",
    ]
    assert "on 1 of 2 rows: more (1.50)." in tables.slower(found, "some")


@pytest.mark.parametrize(
    "these, those, off",
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([3.0, 4.5], [3.0, 4.0], 0.1),
        ([3.0, 4.5], [0.0, 0.0], 5.408),
        ([1.0, np.nan], [1.0, 2.0], np.inf),
    ],
)
def test_the_difference_of_two_results(these, those, off):
    assert compare.difference([[np.array(these)]], [[np.array(those)]]) == pytest.approx(off, rel=1e-3)


def test_nothing_is_timed_where_results_differ():
    class Contender:
        def __init__(self, *values):
            self.values = values

        def ask(self, method, name):
            return self.values[0] if isinstance(self.values[0], str) else [[np.array(self.values)]]

    work = type("Work", (), {"title": "a step", "tolerance": 1e-3})
    contenders = {"ours": Contender(1.0, 2.0), "compiled": Contender("cannot"), "PyTorch": Contender(1.0, 2.0001)}
    differences, refused = compare.agree("one", work, contenders)
    assert refused == {"compiled": "cannot"} and 0 < differences["PyTorch"] < 1e-3
    with pytest.raises(SystemExit, match="a step: the results of JAX jit differ from those of ours by 4.5e-01"):
        compare.agree("one", work, {**contenders, "JAX jit": Contender(1.0, 3.0)})


def run(*arguments, folder):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "compare.py", "--quick", "--json", folder / "found.json", *arguments],
        capture_output=True, text=True, cwd=folder, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_two_workloads_run(tmp_path):
    done = run("--only", "MLP SGD", "twenty", "--contenders", "ours", "NumPy by hand", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    step = results["MLP SGD"]
    assert set(step["ms"]) == {"ours", "NumPy by hand"} and step["base"] == "ours"
    assert 0 < step["difference"]["NumPy by hand"] < step["tolerance"]


@pytest.mark.slow
def test_every_workload_runs(tmp_path):
    done = run("--contenders", "ours", "compiled", "NumPy by hand", "products alone", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "found.json").read_text())["results"]
    assert results.keys() - {"import"} >= {"tiny MLP", "GPT", "LeNet", "msign 8 x 8", "gelu", "jacobian", "load"}


@pytest.mark.slow
@pytest.mark.oracle
@pytest.mark.parametrize("label, module", [("PyTorch", "torch"), ("JAX jit", "jax")])
def test_the_peers_agree(tmp_path, label, module):
    pytest.importorskip(module)
    done = run("--contenders", "ours", label, folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
