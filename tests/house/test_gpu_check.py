"""The check for machines with a card runs without one, and its report says what went wrong."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu_check.sh"


def module():
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT.with_suffix(".py"))
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def test_the_report_shows_figures_gaps_and_faults():
    found = {
        "dry": False, "seconds": {}, "broken": ["memory: stopped after 60 s"],
        "facts": [{"what": "card", "value": "some"}],
        "samples": [
            {"name": "exp", "sample": 0, "status": "ok", "stage": "", "detail": ""},
            {"name": "eigh", "sample": 3, "status": "sign", "stage": "value", "detail": "relative 2.0e+00"},
        ],
        "tests": [{"what": "pytest", "code": 1, "last": "1 failed, 7 passed"}],
        "launches": [{"what": "a step", "launches": 26, "waits": 0}],
        "times": [
            {"what": "a step", "ms": {"ours": 1.5, "PyTorch": 1.0}, "host": {"ours": 0.5}, "ratio": {"PyTorch": 1.5}},
            {"what": "b", "error": "ValueError: no"},
        ],
        "memory": [],
    }  # fmt: skip
    text = module().report(found)
    assert "- samples: 1 of 2 agree with NumPy" in text and "- tests: 1 failed, 7 passed" in text
    assert "- memory: stopped after 60 s" in text and "- eigh sample 3, value: relative 2.0e+00" in text
    assert "| a step | 26 | 0 | 1.5 | 0.5 | 1.5 | - | - |" in text and "- times, b: ValueError: no" in text


@pytest.mark.slow
def test_a_dry_run_goes_through_all_parts(tmp_path):
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(SCRIPT), "--dry", "--out", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "gpu_check.json").read_text(encoding="utf-8"))
    assert found["dry"] and not found["broken"]
    assert len(found["samples"]) > 50 and all(row["status"] in ("ok", "sign") for row in found["samples"])
    launches = {row["what"]: row["launches"] for row in found["launches"]}
    assert launches["MLP 784-512-512-10, batch 8, Adam"] <= 23 and launches["gelu"] <= 3
    assert {row["what"] for row in found["times"]} == launches.keys() == {row["what"] for row in found["memory"]}
    assert "| MLP 784-512-512-10, batch 8, Adam | 23 | 0 |" in (tmp_path / "gpu_check.md").read_text(encoding="utf-8")
