"""examples/train_ttt_muon.py and compare_optimizers.py as a user runs them."""

import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg

EXAMPLES = Path(__file__).parents[2] / "examples"


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


def interrupted(example, monkeypatch, arguments, make_stop, at):
    """Run ``make_stop`` in the midst of update ``at`` of the optimizer."""
    plain, calls = tg.optim.AdamW.update, []

    def update(self, *args):
        calls.append(1)
        if len(calls) == at:
            make_stop()
        plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(tg.optim.AdamW, "update", update)
        with pytest.raises(SystemExit, match="stopped after .* steps; go on with: ") as ended:
            example.main(arguments)
    return str(ended.value)


def raise_keyboard_interrupt():
    raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize(
    "stop, steps",
    [
        (lambda: os.kill(os.getpid(), signal.SIGINT), 4),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 4),
        (lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)], 3),
        (raise_keyboard_interrupt, 3),
    ],
    ids=["Ctrl-C", "SIGTERM", "twice", "anywhere"],
)
@pytest.mark.slow
def test_a_stop_in_the_midst_of_a_step_leaves_whole_steps(example, tmp_path, monkeypatch, stop, steps):
    monkeypatch.setattr(example, "draw", lambda *args: None)
    options = ["--task", "uniform", "--steps", "6", "--batch-size", "1", "--dim", "8", "--heads", "1", "--quiet"]
    whole = example.main([*options, "--out", str(tmp_path / "whole")])
    count = len(tg.load(tmp_path / "whole" / "checkpoint.npz")["optimizer"]["state"])
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    cut = tmp_path / "cut"
    said = interrupted(example, monkeypatch, [*options, "--out", str(cut)], stop, at=3 * count + count // 2)
    assert f"stopped after {steps} steps" in said
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    saved = tg.load(cut / "checkpoint.npz")
    assert {entry["step"] for entry in saved["optimizer"]["state"].values()} == {steps} == {len(saved["losses"])}
    resumed = example.main(["--resume", str(cut / "checkpoint.npz"), "--quiet"])
    assert resumed["losses"] == whole["losses"]
    a, b = (tg.load(folder / "checkpoint.npz")["model"] for folder in (tmp_path / "whole", cut))
    for name, value in a.items():
        np.testing.assert_array_equal(b[name], value)


def test_a_run_is_extended_and_what_is_ignored_is_said(example, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(example, "draw", lambda *args: None)
    example.main(small(tmp_path, "--steps", "2"))
    result = example.main(["--resume", str(tmp_path / "checkpoint.npz"), "--steps", "3", "--lr", "0.5", "--quiet"])
    shown = capsys.readouterr().out
    assert len(result["losses"]) == 3 and "resumed after step 2 of 3" in shown and "it was to have 2;" in shown
    assert "--lr 0.5 is ignored: the run goes on with 0.004, as it was started" in shown
    with pytest.raises(SystemExit, match="--steps 1 is less than the 3 that the checkpoint has"):
        example.main(["--resume", str(tmp_path / "checkpoint.npz"), "--steps", "1", "--quiet"])


def test_the_checkpoint_of_another_program_is_no_traceback(example, tmp_path):
    for name, state in {"a": {"model": {}}, "b": [1], "c": {"settings": {}, "losses": []}}.items():
        tg.save(tmp_path / f"{name}.npz", state)
        with pytest.raises(
            SystemExit, match=f"error: cannot resume: .*{name}.npz is no checkpoint of train_ttt_muon.py"
        ):
            example.main(["--resume", str(tmp_path / f"{name}.npz"), "--quiet"])
    for name in ("missing.npz", "other.pt"):
        with pytest.raises(SystemExit, match=f"error: cannot resume: .*{name}"):
            example.main(["--resume", str(tmp_path / name), "--quiet"])


@pytest.mark.parametrize(
    "options, message",
    [
        (["--lr", "0"], "argument --lr: 0 is no number above 0"),
        (["--base-lr", "inf"], "argument --base-lr: inf is no number above 0"),
        (["--inner-step", "-1"], "argument --inner-step: -1 is no number of at least 0"),
        (["--steps", "0"], "argument --steps: 0 is less than 1"),
        (["--steps", "1.5"], "argument --steps: invalid integer value: '1.5'"),
        (["--heads", "3"], "--dim is 64, which is no multiple of the 3 --heads"),
        (["--compare", "--resume", "x.npz"], "leave out --resume"),
        (["--seeds", "1"], "--seeds are those of a comparison"),
        (["--device", "tpu"], "'tpu' is unknown"),
    ],
)
def test_options_out_of_range_are_refused_by_argparse(example, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        example.parse(options)
    assert ended.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.slow
def test_the_comparison_trains_every_update_from_the_same_seeds(example, tmp_path, capsys):
    results = example.main(small(tmp_path, "--compare", "--task", "uniform", "--steps", "4", "--seeds", "0", "1"))
    assert list(results) == ["muon", "ns5", "plain", "frozen"]
    first = {update: [run["losses"][0] for run in runs] for update, runs in results.items()}
    assert len(set(first["muon"])) == 2  # the seeds differ
    table = (tmp_path / "comparison.md").read_text().splitlines()
    assert len(table) == 2 + 8 and table[2].startswith("| muon | 0 | 4 | 0.") and table[0] in capsys.readouterr().out
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "comparison.json").read_text())["plain"][1]["settings"]["seed"] == 1


@pytest.mark.slow
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
