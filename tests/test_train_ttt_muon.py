"""examples/train_ttt_muon.py and compare_optimizers.py as a user runs them."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def example():
    return load("train_ttt_muon")


def small(tmp_path, *arguments):
    return [*arguments, "--quiet", "--batch-size", "4", "--dim", "16", "--out", str(tmp_path)]


def test_a_run_writes_all_it_promises(example, tmp_path, capsys):
    result = example.main(small(tmp_path, "--steps", "6", "--blocks", "2"))
    shown = capsys.readouterr().out
    assert "TTTMuonCell" in shown and "zipf, muon, seed 0: accuracy" in shown and "tail" in shown
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["tail"] == result["tail"] and len(stored["losses"]) == 6 and stored["history"][-1]["step"] == 6
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_run_equals_one_that_was_not_stopped(example, tmp_path):
    whole = example.Run(example.parse(small(tmp_path, "--steps", "8", "--seed", "3")))
    for _ in range(8):
        whole.step()
    half = example.Run(example.parse(small(tmp_path, "--steps", "8", "--seed", "3")))
    for _ in range(3):
        half.step()
    half.save(tmp_path / "checkpoint.npz")
    result = example.main(["--resume", str(tmp_path / "checkpoint.npz"), "--quiet"])
    assert result["losses"] == [round(loss, 5) for loss in whole.losses]
    state = tg.load(tmp_path / "checkpoint.npz")["model"]
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(value, state[name])


def test_the_comparison_trains_every_update_from_the_same_seeds(example, tmp_path, capsys):
    results = example.main(small(tmp_path, "--compare", "--task", "uniform", "--steps", "4", "--seeds", "0", "1"))
    assert list(results) == ["muon", "ns5", "plain", "frozen"]
    first = {update: [run["losses"][0] for run in runs] for update, runs in results.items()}
    assert len(set(first["muon"])) == 2  # the seeds differ
    table = (tmp_path / "comparison.md").read_text().splitlines()
    assert len(table) == 2 + 8 and table[2].startswith("| muon | 0 | 4 | 0.") and table[0] in capsys.readouterr().out
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "comparison.json").read_text())["plain"][1]["settings"]["seed"] == 1


def test_characters_and_less_memory(example, tmp_path):
    options = small(tmp_path, "--task", "chars", "--steps", "3", "--update", "ns5", "--chunk", "48")
    result = example.main([*options, "--save-memory"])
    assert result["nats per character"] > 2 and "tail" not in result
    plain = example.main(options)
    np.testing.assert_allclose(result["losses"], plain["losses"], rtol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_diverging_run_is_a_sentence(example, tmp_path):
    with pytest.raises(SystemExit, match="the gradient of step .* has norm .*; try a smaller --lr"):
        example.main(small(tmp_path, "--lr", "1e30", "--steps", "20"))


@pytest.mark.slow
def test_uniform_recall_is_learnt_within_400_steps(example, tmp_path):
    result = example.main(["--task", "uniform", "--update", "plain", "--quiet", "--out", str(tmp_path)])
    assert result["accuracy"] >= 0.98


def test_optimizers_are_compared_on_digits(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    result = load("compare_optimizers").main(["--epochs", "2", "--seeds", "0", "--out", str(tmp_path)])
    assert "muon: best 0." in capsys.readouterr().out and len(result["muon"]["accuracy"]) == 2
    assert (tmp_path / "optimizers.png").read_bytes().startswith(b"\x89PNG")
