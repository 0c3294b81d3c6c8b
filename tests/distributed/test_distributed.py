"""Several processes: in a job of one rank here; under ``mpiexec`` in the slow set, where mpi4py is installed.

``tests/ranks.py`` has what the ranks do. More kills:
``KILLS=20 pytest -m slow tests/distributed/test_distributed.py -k killed``.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.ranks import farthest, loss_of, model_of
from tinygrad_ms import distributed as dist
from tinygrad_ms import nn, optim, world
from tinygrad_ms.data import DataLoader
from tinygrad_ms.distributed import averaging

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("KILLS", 5))


def needs_mpi(test):
    absent = importlib.util.find_spec("mpi4py") is None
    return pytest.mark.slow(pytest.mark.skipif(absent, reason="mpi4py is missing: pip install -e .[mpi]")(test))


# --- a job of one rank ----------------------------------------------------------------------------------------------


@pytest.fixture
def alone(monkeypatch):
    """Before ``init``, started by no launcher."""
    monkeypatch.setattr(world, "_started", [])
    monkeypatch.setattr(world, "_world", [world.World()])
    for name in world.LAUNCHERS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def without_mpi(alone, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)


def test_without_mpi_a_program_is_a_job_of_one_rank(without_mpi):
    dist.init()
    assert (dist.rank(), dist.size(), dist.local_rank()) == (0, 1, 0)
    dist.barrier()
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    nested = dist.all_reduce({"a": x, "b": [dist.broadcast(x), dist.all_gather(x), dist.reduce_scatter(x)]}, op="mean")
    sum(y.sum() for y in [nested["a"], *nested["b"]]).backward()
    assert x.grad.tolist() == [4, 4] and nested["a"].tolist() == [1, 2]


def test_without_mpi_under_a_launcher_one_sentence_says_what_to_install(without_mpi, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(RuntimeError, match=r"one of 4 processes .* call tinygrad_ms.distributed.init\(\) first"):
        dist.rank()
    with pytest.raises(ImportError, match=r"is not installed: `pip install tinygrad-ms\[mpi\]`"):
        dist.init()
    with pytest.raises(ValueError, match="timeout is -1, expected seconds above 0"):
        dist.init(timeout=-1)


def test_a_wrapped_model_is_the_model(alone):
    plain, wrapped = (nn.Sequential(nn.Linear(6, 4, rng=0), nn.Dropout(0.5, rng=1)) for _ in range(2))
    model = dist.DataParallel(wrapped)
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in plain.named_parameters()]
    assert all(a is b for a, b in zip(model.parameters(), wrapped.parameters(), strict=True))
    x = np.ones((3, 6), np.float32)
    for each in (plain, model):
        with model.no_sync():
            loss_of(each, x, np.zeros(3, int)).backward()
    assert all((a.grad.data == b.grad.data).all() for a, b in zip(plain.parameters(), model.parameters()))
    model.eval()
    assert not wrapped.training and not model.module[1].training and (model(tg.tensor(x)).data != 0).all()
    assert model.average(3.0) == 3.0 and not any(p.node.hooks for p in model.parameters())
    model.load_state_dict(plain.state_dict())
    with pytest.raises(AttributeError, match="nothing"):
        _ = model.nothing
    with pytest.raises(TypeError, match=r"DataParallel: module is list, expected an nn.Module"):
        dist.DataParallel([wrapped])


def test_sharded_muon_of_one_rank_is_muon(alone, tmp_path):
    models = [model_of(0), model_of(0)]
    optimizers = [kind(m.parameters(), lr=0.02) for kind, m in zip((optim.Muon, dist.ShardedMuon), models)]
    for _ in range(3):
        for model, optimizer in zip(models, optimizers):
            optimizer.zero_grad()
            loss_of(model, np.ones((3, 6), np.float32), np.arange(3)).backward()
            optimizer.step()
    assert farthest(*models) == 0
    dist.save(tmp_path / "a.npz", optimizers[1].state_dict())
    optimizers[0].load_state_dict(tg.load(tmp_path / "a.npz"))


def test_matrices_are_dealt_by_their_cost(alone, monkeypatch):
    shapes = [(64, 64), (8, 8), (64, 32), (64, 32), (3, 64, 16), (16, 4), (128, 64), (5,)]
    optimizer = dist.ShardedMuon([nn.Parameter(np.ones(shape, np.float32)) for shape in shapes])
    from tinygrad_ms.distributed.sharded_muon import cost

    assert cost(np.ones((2, 3, 5))) == cost(np.ones((2, 5, 3))) == 2 * (2 * 9 * 5 + 27)
    for size in (1, 2, 3, 4, 9):
        monkeypatch.setattr(world._world[0], "size", size)
        dealt = optimizer.dealt()
        work = [sum(map(cost, part)) for part in dealt]
        assert len(dealt) == size and sum(map(len, dealt)) == 7
        assert max(work) <= sum(work) / size + max(map(cost, (p for part in dealt for p in part)))
        first = [list(map(id, part)) for part in dealt]
        optimizer.add_param_group({"params": [nn.Parameter(np.ones((256, 256), np.float32))]})
        assert [list(map(id, part))[: len(known)] for part, known in zip(optimizer.dealt(), first)] == first
        optimizer.param_groups.pop()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_the_ranks_share_each_batch(alone, monkeypatch, size):
    """One shuffle; no sample is lost or doubled, but for rows of weight 0; the place is that of one rank."""
    x = np.arange(46)
    whole = [b.tolist() for (b,) in DataLoader(x, batch_size=11, shuffle=True, seed=4)]
    parts, states = [], []
    job = world._world[0]
    monkeypatch.setattr(job, "size", size)
    for rank in range(size):
        monkeypatch.setattr(job, "rank", rank)
        loader = DataLoader(x, batch_size=11, shuffle=True, seed=4)
        parts.append([[] if job.idle else b.tolist() for (b,) in loader])
        states.append(loader.state_dict())
        assert len(loader) == 5
        assert [len(b) for (b,) in DataLoader(x, batch_size=11)] == [11, 11, 11, 11, 2]  # what is not shuffled is whole
        assert dist.shard(np.arange(11)).tolist() == np.arange(11)[11 * rank // size : 11 * (rank + 1) // size].tolist()
    assert [sum(batches, []) for batches in zip(*parts)] == whole
    assert max(len(b) for rank in parts for b in rank) - min(len(b) for rank in parts for b in rank[:4]) <= 1
    assert all(state == states[0] for state in states)
    a, b = dist.shard(np.ones((1, 3)), np.ones(1))
    assert a.shape == (1, 3) and b.shape == (1,) and not job.idle  # the last rank has it


def test_leaves_come_as_soon_as_their_gradients_are_complete(alone):
    """The order of the walk, without ranks: each leaf right behind the last rule that sends to it."""
    a, b, c = (tg.tensor([1.0, 2.0], requires_grad=True) for _ in range(3))
    part = object.__new__(averaging.Part)
    part.averaging, part.attach = type("Off", (), {"on": False})(), lambda: None
    for leaf in (a, c):
        leaf.node.hooks = [part]
    h = a * b
    y = (h * c + a).sum() + c.sum()
    order = list(averaging.as_completed(y.tape()))
    assert sorted(node.seq for node in order) == sorted(node.seq for node in y.tape())
    places = {node: i for i, node in enumerate(order)}
    readers = {leaf: [n for n in order if leaf.node in n.parents] for leaf in (a, b, c)}
    assert all(places[leaf.node] == 1 + max(places[n] for n in readers[leaf]) for leaf in (a, c))
    other = (b * b).sum()
    assert list(averaging.as_completed(other.tape())) == list(reversed(other.tape()))


def test_what_a_rank_tells_the_others_is_an_op_on_the_tape(alone):
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = dist.all_reduce(x * 2, op="mean").sum()
    assert "all_reduce" in str(y.tape()) and "all_reduce" in tg.graph.build(y).dot()


# --- several ranks --------------------------------------------------------------------------------------------------


def job(ranks, *command, seconds=90.0, good=True, interrupt=None):
    """The output of a job; a deadlock is a failure when ``seconds`` have passed."""
    mpiexec = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(mpiexec) if mpiexec.exists() else shutil.which("mpiexec")
    assert mpiexec, "mpi4py is installed and there is no mpiexec: pip install mpich"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "TINYGRAD_MS_DEVICE": "cpu", "PYTHONUNBUFFERED": "1"}
    command = [mpiexec, "-n", str(ranks), sys.executable, "-W", "error", *map(str, command)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        if interrupt is not None:
            interrupt(process)
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()  # mpiexec ends the ranks
        output, _ = process.communicate(timeout=10)
        pytest.fail(f"no end after {seconds} s:\n{output}")
    finally:
        if process.poll() is None:
            process.kill()
    assert not good or process.returncode == 0, output
    return output if good else (output, process.returncode)


def case(ranks, name, *arguments, **options):
    return job(ranks, ROOT / "tests" / "ranks.py", name, *arguments, **options)


TWO = "collectives derivatives gradients short_batches accumulation user_hooks branches overlap steps compiled seeds"
CASES = [(2, TWO), (3, "compiled gradients short_batches branches moved"), (4, "compiled steps")]


@needs_mpi
@pytest.mark.parametrize("ranks, names", CASES, ids=lambda value: str(value).replace(" ", "-"))
def test_ranks(ranks, names):
    assert case(ranks, names.replace(" ", ",")).count(" done\n") == len(names.split())


@needs_mpi
@pytest.mark.parametrize("name", "differences versions drift counts other_call".split())
def test_what_differs_between_ranks_is_an_error_on_all(name):
    output, code = case(2, name, good=False)
    assert f"{name} done" in output and code != 0, output


@needs_mpi
@pytest.mark.parametrize(
    "name, sentence",
    [
        ("raising", "rank 1 of 2 raised KeyError: 'lost'; the job ends"),
        ("leaving", "barrier: rank 1 has ended, and rank 0 of 2 waits for it"),
        ("hanging", "TimeoutError: barrier: rank 0 of 2 has waited 3 s; rank 1 did not come"),
        ("alone", "waited 3 s; rank"),
        ("killed", "PID"),
    ],
)
def test_a_rank_that_is_lost_ends_the_job(name, sentence):
    """Within seconds, with a sentence that names it; of a killed one the launcher names the process."""
    output, code = case(2, name, good=False, seconds=30)
    assert code != 0 and sentence in output, output
    if name == "killed":
        (process,) = re.findall(r"PID (\d+) RUNNING", output)
        assert re.search(rf"distributed: on \S+ ranks 0 \(process \d+\), 1 \(process {process}\)", output), output


def losses_of(output):
    return np.array([float(x) for x in re.search("^losses (.*)$", output, re.MULTILINE)[1].split()])


@needs_mpi
def test_a_run_goes_on_with_another_number_of_ranks(tmp_path):
    """From 2 to 3 to 1: the same global batches, the same curve."""
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = losses_of(case(1, "train", tmp_path / "a", 24))
    for ranks, steps in ((2, 9), (3, 18), (1, 24)):
        curve = losses_of(case(ranks, "train", tmp_path / "b", steps))
        np.testing.assert_allclose(curve, whole[:steps], rtol=1e-9)
    a, b = (tg.load(tmp_path / name / "checkpoint.npz")["model"] for name in "ab")
    assert all(np.allclose(a[name], b[name], rtol=1e-7, atol=1e-9) for name in a)


@needs_mpi
def test_a_run_whose_ranks_are_killed_goes_on(tmp_path):
    """The checkpoint is intact after each kill, and the curve that of a run that nobody killed."""
    random = np.random.default_rng(0)
    done, steps = 0, 4 * KILLS + 4
    for _ in range(KILLS):
        kill = int(random.integers(done + 1, done + 4))
        output, code = case(2, "train", tmp_path, steps, kill, random.integers(2), good=False, seconds=30)
        assert code != 0 and "losses" not in output, output
        done = len(tg.load(tmp_path / "checkpoint.npz")["losses"])
        assert done in (kill - 1, kill)  # rank 1 may die while rank 0 writes
    curve = losses_of(case(2, "train", tmp_path, steps))
    (tmp_path / "whole").mkdir()
    np.testing.assert_allclose(curve, losses_of(case(2, "train", tmp_path / "whole", steps)), rtol=1e-12)


@needs_mpi
def test_a_checkpoint_that_cannot_be_written_is_an_error_on_all_ranks(tmp_path):
    assert "unwritable done" in case(2, "unwritable", tmp_path)


@needs_mpi
def test_the_mlp_trains_on_two_ranks_as_on_one(tmp_path):
    example = ROOT / "examples" / "train_mlp.py"
    options = "--epochs 1 --dropout 0 --hidden 32 --quiet --out".split()
    outputs = [job(ranks, example, *options, tmp_path / str(ranks)) for ranks in (1, 2)]
    assert [text.count("test accuracy") for text in outputs] == [1, 1]
    results = [json.loads((tmp_path / str(ranks) / "result.json").read_text()) for ranks in (1, 2)]
    for a, b in zip(*(result["history"] for result in results)):
        assert abs(a["loss"] - b["loss"]) < 1e-4 and abs(a["accuracy"] - b["accuracy"]) < 0.01


@needs_mpi
def test_ctrl_c_on_the_launcher_saves_once(tmp_path):
    example = ROOT / "examples" / "train_ttt_muon.py"
    checkpoint = tmp_path / "checkpoint.npz"

    def interrupt(process):
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)

    options = "--task uniform --steps 400 --batch-size 8 --quiet --out".split()
    output, code = job(2, example, *options, tmp_path, good=False, interrupt=interrupt)
    (steps,) = map(int, re.findall(r"stopped after (\d+) steps", output))
    assert 0 < steps < 400 and len(tg.load(checkpoint)["losses"]) == steps and "Traceback" not in output, output
    resumed = job(2, example, "--resume", checkpoint, "--steps", steps + 2, "--quiet")
    assert f"resumed after step {steps} of {steps + 2}" in resumed
