"""What the ranks of a job do in the tests of ``distributed``: ``mpiexec -n 2 python tests/ranks.py CASE[,CASE]``.

Each case is a function whose assertions hold on every rank. An assertion that fails ends the job.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import tinygrad_ms as tg
import tinygrad_ms.testing  # makes device="strict" known
from tinygrad_ms import distributed as dist
from tinygrad_ms import nn, optim
from tinygrad_ms.data import DataLoader
from tinygrad_ms.engine.around.modes import hooks
from tinygrad_ms.ops import collectives as ops

random = np.random.default_rng(3)  # the same numbers on every rank
SMALL = dict(first_bucket_mb=1e-4, bucket_mb=1e-3)  # buckets of a layer or two


def model_of(seed, dtype="float32", sizes=(6, 16, 16, 4)):
    rng = np.random.default_rng(seed)
    layers = [nn.Linear(a, b, rng=rng) for a, b in zip(sizes, sizes[1:])]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1]).astype(dtype)


def batch(rows=12, inputs=6, classes=4, dtype="float32"):
    return random.standard_normal((rows, inputs)).astype(dtype), random.integers(0, classes, rows)


def loss_of(model, x, y, device=None):
    return tg.softmax_cross_entropy(model(tg.tensor(x, device=device)), tg.tensor(y, device=device))


def distance(a, b):
    """The largest difference of two arrays, relative to the largest element of the second."""
    a, b = (x.numpy() if isinstance(x, tg.Tensor) else x for x in (a, b))
    return np.abs(a.astype(float) - b.astype(float)).max() / np.abs(b.astype(float)).max()


def farthest(model, reference):
    """Of the parameters of two models."""
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    return max(distance(a.numpy(), b.numpy()) for a, b in pairs)


def raised(kind, action):
    try:
        action()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


# --- collectives ----------------------------------------------------------------------------------------------------


def collectives():
    r, p = dist.rank(), dist.size()
    for device in ("cpu", "strict"):
        x = tg.tensor(np.arange(2.0 * p) + r, device=device)
        both = np.arange(2.0 * p) * p + sum(range(p))
        assert (dist.all_reduce(x).numpy() == both).all() and dist.all_reduce(x).device == device
        assert np.allclose(dist.all_reduce(x, op="mean").numpy(), both / p)
        assert (dist.broadcast(x, root=p - 1).numpy() == np.arange(2.0 * p) + p - 1).all()
        assert (dist.all_gather(x).numpy().reshape(p, -1) == np.arange(2.0 * p) + np.arange(p)[:, None]).all()
        assert (dist.reduce_scatter(x).numpy() == both[2 * r : 2 * r + 2]).all()
        assert (ops.reduce_to(x, root=0).numpy() == (both if r == 0 else 0 * both)).all()
    nested = dist.all_reduce({"a": [tg.tensor(1.0), 2], "b": (np.ones((2, 0)), np.int64(r))})
    assert nested["a"][0].item() == p and nested["a"][1].item() == 2 * p and nested["b"][0].shape == (2, 0)
    assert nested["b"][1] == sum(range(p))
    half = tg.tensor(np.full(3, 2048 + 2 * r, np.float16))  # float16 sums would round at every step
    assert dist.all_reduce(half).dtype == np.float16
    assert dist.all_reduce(half).numpy()[0] == np.float16(sum(2048 + 2 * s for s in range(p)))
    assert dist.broadcast(np.array([r == 1]), root=1)[0] and dist.all_gather(np.array([r], np.int8)).tolist() == [
        *range(p)
    ]
    assert "has no sum" in raised(TypeError, lambda: dist.all_reduce(np.array([True])))
    assert "root is 9" in raised(ValueError, lambda: dist.broadcast(x, root=9))
    assert "do not divide" in raised(ValueError, lambda: dist.reduce_scatter(np.ones(p + 1)))
    dist.barrier()


def derivatives():
    """The derivative of the sum of all ranks' results, with respect to each element on each rank; to second order."""
    r, p, step = dist.rank(), dist.size(), 1e-5
    for op in (
        lambda x: ops.all_reduce(x), lambda x: ops.all_reduce(x, op="mean"), lambda x: ops.broadcast(x, root=p - 1),
        lambda x: ops.reduce_to(x, root=p - 1), ops.all_gather, ops.reduce_scatter,
    ):  # fmt: skip
        at = np.random.default_rng(r).standard_normal(2 * p)
        y = op(tg.tensor(at * at))
        v = np.random.default_rng(10 + r).standard_normal(y.shape)

        def value(x):
            return (op(x * x) * op(tg.sin(x)) * v).sum()

        def total(x):
            return float(dist.all_reduce(value(tg.tensor(x))))

        def slope(x):
            (g,) = tg.gradients(value(x := tg.tensor(x, requires_grad=True)), [x], create_graph=True)
            return x, g

        x, g = slope(at)
        w = np.random.default_rng(20 + r).standard_normal(x.shape)
        (second,) = tg.gradients((g * w).sum(), [x])
        _, tangent = tg.jvp(op, (tg.tensor(at),), (tg.tensor(w),))
        assert np.allclose(tangent.numpy(), op(tg.tensor(w)).numpy(), rtol=1e-14, atol=0)
        for s in range(p):
            for i in range(2 * p):
                moved = step * (np.arange(2 * p) == i) * (r == s)
                numeric = (total(at + moved) - total(at - moved)) / (2 * step)
                ahead, behind = (float(dist.all_reduce((slope(at + m)[1] * w).sum().detach())) for m in (moved, -moved))
                if r == s:
                    assert abs(g.numpy()[i] - numeric) < 1e-7, (op, s, i, g.numpy()[i], numeric)
                    assert abs(second.numpy()[i] - (ahead - behind) / (2 * step)) < 1e-6


# --- data parallel --------------------------------------------------------------------------------------------------


def cuts(rows, uneven):
    p = dist.size()
    return [0, *range(1, p), rows] if uneven else [rows * i // p for i in range(p + 1)]


def gradients():
    r = dist.rank()
    for dtype, bound, device in (("float32", 1e-6, "cpu"), ("float64", 1e-12, "cpu"), ("float32", 1e-6, "strict")):
        one, model = model_of(0, dtype).to(device), dist.DataParallel(model_of(r, dtype).to(device), **SMALL)
        assert len(model.averaging.buckets) == 4 and farthest(model, one) == 0
        for uneven in (False, True):
            x, y = batch(dtype=dtype)
            lo, hi = cuts(12, uneven)[r : r + 2]
            one.zero_grad(), model.zero_grad()
            loss_of(one, x, y, device).backward()
            loss = loss_of(model, x[lo:hi], y[lo:hi], device)
            loss.backward()
            for a, b in zip(model.parameters(), one.parameters()):
                assert distance(a.grad, b.grad) < bound, (dtype, uneven, distance(a.grad, b.grad))
            assert distance(model.average(loss.detach()), loss_of(one, x, y, device).detach()) < 10 * bound
            norm = optim.clip_grad_norm(model.parameters(), 0.1)
            assert distance(norm, optim.clip_grad_norm(one.parameters(), 0.1)) < 10 * bound
        for a, b in zip(model.parameters(), one.parameters()):
            assert distance(a.grad, b.grad) < 10 * bound
        # the same gradients by a transform, and where they are recorded themselves
        found = tg.gradients(loss_of(model, x[lo:hi], y[lo:hi], device), model.parameters())
        expected = tg.gradients(loss_of(one, x, y, device), one.parameters())
        assert max(map(distance, found, expected)) < bound
        model.zero_grad()
        loss_of(model, x[lo:hi], y[lo:hi], device).backward(create_graph=True)
        assert max(distance(a.grad.detach(), b) for a, b in zip(model.parameters(), expected)) < bound
    half = dist.DataParallel(model_of(0, "float16"), **SMALL)
    x, y = batch(dtype="float16")
    loss_of(half, x, y).backward()
    assert all(p.grad.dtype == np.float16 for p in half.parameters())
    half.check()


def accumulation():
    r = dist.rank()
    one, model = model_of(0, "float64"), dist.DataParallel(model_of(0, "float64"), **SMALL)
    x, y = batch(24, dtype="float64")
    parts = [(x[:12], y[:12]), (x[12:], y[12:])]
    lo, hi = cuts(12, False)[r : r + 2]
    sent = Posted()
    for k, (a, b) in enumerate(parts * 2):
        loss_of(one, a, b).backward()
        with hooks(sent):
            if k < 3:
                with model.no_sync():
                    loss_of(model, a[lo:hi], b[lo:hi]).backward()
                assert not sent.buckets
            else:
                loss_of(model, a[lo:hi], b[lo:hi]).backward()
    assert sent.buckets == [0, 1, 2, 3]
    assert all(distance(a.grad, b.grad) < 1e-12 for a, b in zip(model.parameters(), one.parameters()))
    loss_of(one, *parts[0]).backward()  # on top of what is there
    loss_of(model, x[lo:hi], y[lo:hi]).backward()
    assert all(distance(a.grad, b.grad) < 1e-12 for a, b in zip(model.parameters(), one.parameters()))
    with model.no_sync():
        loss_of(model, x[: hi - lo + 1], y[: hi - lo + 1]).backward()
    assert "drop_last=True" in raised(ValueError, lambda: loss_of(model, x[lo:hi], y[lo:hi]).backward())


def user_hooks():
    """A hook that comes after the model was called sees the gradient of its rank, and what it returns is averaged."""
    r, p = dist.rank(), dist.size()
    model, one = dist.DataParallel(model_of(0), **SMALL), model_of(0)
    x, y = batch()
    lo, hi = cuts(12, False)[r : r + 2]
    loss = loss_of(model, x[lo:hi], y[lo:hi])
    seen = []
    model.parameters()[0].register_hook(lambda g: seen.append(g.numpy().copy()) or g * (r + 1))
    loss.backward()
    loss_of(one, x[lo:hi], y[lo:hi]).backward()
    assert distance(seen[0], one.parameters()[0].grad) < 1e-6
    mean = dist.all_reduce(one.parameters()[0].grad * ((r + 1) * (hi - lo) / 12))
    assert distance(model.parameters()[0].grad, mean) < 1e-6
    # a rule that raises leaves nothing behind that a later walk could take for its own
    with model.no_sync():
        loss_of(model, x[:5], y[:5]).backward()
    model.zero_grad()  # of which nothing is left either
    failing = tg.custom_vjp(lambda g: 1 / 0)(lambda x: x * 1)
    raised(ZeroDivisionError, lambda: failing(loss_of(model, x[lo:hi], y[lo:hi])).backward())
    assert not model.averaging.walking
    loss_of(model, x[lo:hi], y[lo:hi]).backward()
    one.zero_grad()
    loss_of(one, x, y).backward()
    assert distance(model.parameters()[2].grad, one.parameters()[2].grad) < 1e-6 and p > 1


class Branches(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.common, self.left, self.right, self.never = (nn.Linear(4, 4, rng=rng) for _ in range(4))

    def forward(self, x, which):
        return getattr(self, which)(tg.tanh(self.common(x)))


def short_batches():
    """Fewer rows than ranks: some get a row of weight 0, and only for this batch."""
    r, p = dist.rank(), dist.size()
    one, model = model_of(0, "float64"), dist.DataParallel(model_of(0, "float64"), **SMALL)
    x, y = batch(2 * p + 1, dtype="float64")
    order = np.random.default_rng((0, 1)).permutation(2 * p + 1)
    for k, (a, b) in enumerate(DataLoader(x, y, batch_size=2 * p, shuffle=True)):
        one.zero_grad(), model.zero_grad()
        rows = order[2 * p * k : 2 * p * (k + 1)]
        loss_of(one, x[rows], y[rows]).backward()
        loss_of(model, a.data, b.data).backward()
        assert all(distance(a.grad, b.grad) < 1e-12 for a, b in zip(model.parameters(), one.parameters()))
    assert len(rows) == 1
    for rows in (1, 2):
        one.zero_grad(), model.zero_grad()
        loss_of(one, x[: p * rows], y[: p * rows]).backward()
        part = slice(rows * r, rows * (r + 1))
        loss_of(model, x[part], y[part]).backward()
        assert all(distance(a.grad, b.grad) < 1e-12 for a, b in zip(model.parameters(), one.parameters()))


def branches():
    """Parameters without a gradient on some rank, or on all."""
    r, p = dist.rank(), dist.size()
    model, one = dist.DataParallel(Branches(), **SMALL), Branches()
    x = random.standard_normal((p, 4)).astype(np.float32)
    for _ in range(2):  # the second time on top of the first
        (model(tg.tensor(x[r : r + 1]), "right" if r else "left") ** 2).sum().backward()
        total = (one(tg.tensor(x[:1]), "left") ** 2).sum() + (one(tg.tensor(x[1:]), "right") ** 2).sum()
        (total / p).backward()
    for (name, a), b in zip(model.named_parameters(), one.parameters()):
        assert (a.grad is None) == (b.grad is None) == name.startswith("never"), name
        assert a.grad is None or distance(a.grad, b.grad) < 1e-6
    model.zero_grad()
    model.module.left.requires_grad_(False)  # frozen, thawed again: a new leaf
    model.module.left.requires_grad_()
    (model(tg.tensor(x[r : r + 1]), "left") ** 2).sum().backward()
    grads = [dist.all_gather(q.grad.data.reshape(1, -1)) for q in model.parameters() if q.grad is not None]
    assert len(grads) == 4 and all((g == g[0]).all() for g in grads)


class Posted:
    """Which buckets were sent, and which rules ran before."""

    def __init__(self):
        self.events, self.buckets = [], []

    def before_rule(self, node, gradient):
        self.events.append(node.op)

    def posted(self, number):
        self.events.append(number)
        self.buckets.append(number)


def overlap():
    """Each bucket leaves before the rules of the layers below it run."""
    model = dist.DataParallel(model_of(0, sizes=(8, 8, 8, 8, 8, 8)), first_bucket_mb=3e-4, bucket_mb=3e-4)
    assert [len(bucket.parts) for bucket in model.averaging.buckets] == [2] * 5
    seen = Posted()
    with hooks(seen):
        loss_of(model, *batch(inputs=8, classes=8)).backward()
    kept = [event for event in seen.events if event in ("affine", "tanh") or isinstance(event, int)]
    assert kept == ["affine", 0, "tanh", "affine", 1, "tanh", "affine", 2, "tanh", "affine", 3, "tanh", "affine", 4], (
        kept
    )


def steps():
    """Weights are the same bits on all ranks after 200 steps, by Muon of one process and by the sharded one."""
    r = dist.rank()
    one, whole, sharded = model_of(0, "float64"), model_of(r, "float64"), model_of(r, "float64")
    whole, sharded = dist.DataParallel(whole, **SMALL), dist.DataParallel(sharded, **SMALL)
    kinds = (one, optim.Muon), (whole, optim.Muon), (sharded, dist.ShardedMuon)
    optimizers = [kind(model.parameters(), lr=0.005, weight_decay=0.01) for model, kind in kinds]
    x, y = batch(50, dtype="float64")
    loaders = [DataLoader(x, y, batch_size=13, shuffle=True, shard=model is not one) for model, _ in kinds]
    for _ in range(50):
        for batches in zip(*loaders):
            for (model, _), optimizer, (a, b) in zip(kinds, optimizers, batches):
                optimizer.zero_grad()
                loss_of(model, a.data, b.data).backward()
                optimizer.step()
    whole.check(), sharded.check()
    assert farthest(whole, one) < 1e-8 and farthest(sharded, whole) < 1e-12, (
        farthest(whole, one),
        farthest(sharded, whole),
    )
    own = [q for q in optimizers[2].state if q.ndim == 2]
    assert len(own) == len(optimizers[2].dealt()[r]) and sum(dist.all_gather(np.array([len(own)]))) == 3
    states = [optimizer.state_dict()["state"] for optimizer in optimizers[1:]]
    assert states[0].keys() == states[1].keys()
    for i, entry in states[0].items():
        assert entry.keys() == states[1][i].keys() and entry["step"] == states[1][i]["step"] == 200
        assert all(distance(states[1][i][k], v) < 1e-9 for k, v in entry.items() if k != "step")
    optimizers[2].load_state_dict(optimizers[2].state_dict())
    assert sum(q.ndim == 2 for q in optimizers[2].state) == len(own)


def compiled():
    """A step that is recorded and replayed does what it does eagerly, bit for bit, uneven ends included."""
    r, results = dist.rank(), []
    x, y = batch(100)
    for compile in (False, True):
        model = dist.DataParallel(model_of(r), **SMALL)
        optimizer = dist.ShardedMuon(model.parameters(), lr=0.02)

        def train(a, b, model=model, optimizer=optimizer):
            loss = tg.softmax_cross_entropy(model(a), b)
            mean = dist.all_reduce(loss.detach(), op="mean")
            optimizer.zero_grad()
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 0.5)
            optimizer.step()
            return mean, loss.detach()

        step = tg.compile(train) if compile else train
        loader = DataLoader(x, y, batch_size=33, shuffle=True)
        losses = []
        for _ in range(6):
            for a, b in loader:
                mean, loss = step(a, b)
                losses.append((float(mean), float(model.average(loss))))
        model.check()
        results.append((losses, [p.numpy().copy() for p in model.parameters()]))
    assert "all_reduce" in step.tape
    step = tg.compile(lambda a, b: model.average(tg.softmax_cross_entropy(model(a), b)))
    assert "call model.average outside the step" in raised(RuntimeError, lambda: step(tg.tensor(x), tg.tensor(y)))
    assert results[0][0] == results[1][0]
    assert all((a == b).all() for a, b in zip(results[0][1], results[1][1]))


def seeds():
    """Each rank drops other elements; a state that is loaded goes on as it would have."""
    tg.manual_seed(5)
    model = dist.DataParallel(nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)))
    x = tg.ones((1, 4000)) * 1.0

    def masks():
        return dist.all_gather(model.module[1](x).data)

    first = masks()
    assert all((first[0] != row).any() for row in first[1:])
    state = model.state_dict()
    state["1.rng"] = dist.job.world().comm.bcast(state["1.rng"], 0)  # as rank 0 writes it
    second = masks()
    model.load_state_dict(state)
    assert (masks() == second).all()


def differences():
    """What differs between the ranks is found when the model is wrapped, on every rank."""
    r = dist.rank()
    said = raised(RuntimeError, lambda: dist.DataParallel(model_of(0, sizes=(6, 8 + r, 4))))
    assert "0.weight float32(8, 6) trained" in said and "0.weight float32(9, 6) trained" in said, said


def versions():
    from tinygrad_ms.distributed import data_parallel

    data_parallel.__version__ = f"0.{dist.rank()}"
    said = raised(RuntimeError, lambda: dist.DataParallel(model_of(0)))
    assert "rank 0 has tinygrad_ms 0.0, rank 1 has tinygrad_ms 0.1" in said, said


def moved():
    """A model that was converted after it was wrapped is refused by its next forward."""
    model = dist.DataParallel(model_of(0))
    model.astype("float64")
    said = raised(RuntimeError, lambda: loss_of(model, *batch(dtype="float64")))
    assert "4.bias is float64 (4,) on cpu now" in said and "move or convert the model first" in said, said


def drift():
    """Weights that are no longer the same are found by ``check``."""
    model = dist.DataParallel(model_of(0))
    model.parameters()[2].data[0, 0] += dist.rank()
    assert "2.weight with checksum" in raised(RuntimeError, model.check)


def counts():
    """A rank that calls backward more often than another is an error on both."""
    model = dist.DataParallel(model_of(0), **SMALL)
    x, y = batch()
    if dist.rank():
        model.averaging.walks = 1
    assert "sent bucket 0 of its backward" in raised(RuntimeError, loss_of(model, x, y).backward)


def other_call():
    action = (lambda: dist.all_reduce(np.ones(3))) if dist.rank() else (lambda: dist.broadcast(np.ones(3)))
    said = raised(RuntimeError, action)
    assert "rank 0 has broadcast of float64 (3,) 0, rank 1 has all_reduce of float64 (3,)" in said, said
    assert "cannot go on" in raised(RuntimeError, dist.barrier)


# --- faults and checkpoints -----------------------------------------------------------------------------------------


def raising():
    if dist.rank() == 1:
        raise KeyError("lost")
    dist.barrier()


def leaving():
    if dist.rank() == 1:
        sys.exit("enough")
    dist.barrier()


def hanging():
    if dist.rank() == 1:
        time.sleep(60)
    dist.barrier()


def killed():
    if dist.rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.barrier()


def train(folder, steps, kill="-1", victim="0"):
    """A run of whole epochs that goes on from its checkpoint; rank ``victim`` is killed before step ``kill``."""
    path = Path(folder) / "checkpoint.npz"
    x, y = (np.random.default_rng(1).standard_normal((50, 6)), np.random.default_rng(2).integers(0, 4, 50))
    model = dist.DataParallel(model_of(0, "float64"), **SMALL)
    optimizer = dist.ShardedMuon(model.parameters(), lr=0.005)
    schedule = optim.CosineLR(optimizer, 100)
    loader = DataLoader(x, y, batch_size=12, shuffle=True)
    losses, parts = [], dict(model=model, optimizer=optimizer, schedule=schedule, loader=loader)
    if path.exists():
        state = tg.load(path)
        losses = list(state["losses"])
        for name, part in parts.items():
            part.load_state_dict(state[name])
    while len(losses) < int(steps):
        for a, b in loader:
            if len(losses) >= int(steps):
                break
            if len(losses) == int(kill) and dist.rank() == int(victim):
                os.kill(os.getpid(), signal.SIGKILL)
            loss = tg.softmax_cross_entropy(model(a), b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(model.average(loss.detach())))
            state = {name: part.state_dict() for name, part in parts.items()}
            dist.save(path, {**state, "losses": losses})
    if dist.rank() == 0:
        print("losses", *losses)


def alone():
    """What all ranks have to call, called by one: an error within the timeout, not a deadlock."""
    model = dist.DataParallel(model_of(0))
    optimizer = dist.ShardedMuon(model.parameters())
    if dist.rank() == 0:
        optimizer.state_dict()
    loss_of(model, *batch()).backward()


def unwritable(folder):
    said = raised(FileNotFoundError, lambda: dist.save(Path(folder) / "none" / "a.npz", {}))
    assert "there is no folder" in said
    dist.barrier()


if __name__ == "__main__":
    cases, *arguments = sys.argv[1:]
    dist.init(timeout=3.0 if cases in ("hanging", "alone") else 40.0)
    tg.set_default_device("cpu")
    for case in cases.split(","):
        globals()[case](*arguments)
        if dist.rank() == 0:
            print(f"{case} done")
