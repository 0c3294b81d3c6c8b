"""``tg.compile`` on small arrays: other calls than those of the step, and results with the same bits."""

import warnings

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.replay.test_replay import Run, replays, same
from tinygrad_ms import nn, optim


def tiny(rate=0.05):
    run = Run((2, 6, 6, 1), loss=tg.mse)
    run.optimizer = optim.SGD(run.model.parameters(), lr=rate)
    return run


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        (rng.standard_normal((1, 2)).astype("float32"), rng.standard_normal((1, 1)).astype("float32"))
        for _ in range(count)
    ]


def test_the_list_of_a_tiny_network_holds_no_copies_but_those_of_the_user():
    a, b = tiny(), tiny()
    step = tg.compile(a.step)
    for x, y in rows(5):
        same(step(x, y), b.step(tg.tensor(x), tg.tensor(y)))
        assert a.state() == b.state()
    lines = [line.strip() for line in step.last.source.splitlines()]
    calls = [line for line in lines if "(" in line and "=" not in line.split("(")[0] and "fill(" not in line]
    assert sum(".copy()" in line for line in lines) == 6  # the gradients
    assert not any(".T" in line or "reshape" in line or "astype" in line for line in lines)
    assert sum("matmul(" in line for line in calls) == 2 and sum("dot(" in line for line in calls) == 6
    assert sum("enter(" in line for line in lines) == 1
    after = lines[lines.index(next(line for line in lines if '["step"] = ' in line and "+" in line)) : -1]
    assert [line for line in after if "(" in line] == [after[-1]]  # Python listens to Ctrl-C at calls


def test_gradients_stay_the_users_own_arrays():
    a = tiny()
    step, kept = tg.compile(a.step), []
    for x, y in rows(6):
        step(x, y)
        grads = [p.grad for p in a.model.parameters()]
        arrays = [g.data for g in grads]
        assert all(g.shape == p.shape for g, p in zip(grads, a.model.parameters()))
        assert not any(np.shares_memory(arrays[i], arrays[j]) for i in range(6) for j in range(i))
        kept.append((grads, [array.copy() for array in arrays]))
        for g, copy in list(zip(*kept[-1]))[::2]:
            g.data[...] = copy[...] = 7  # the user may change them
    assert all(np.array_equal(g.numpy(), copy) for grads, copies in kept for g, copy in zip(grads, copies))


@pytest.mark.parametrize("kind", ["returned", "clipped", "shared", "two steps", "kept"])
def test_gradients_that_are_used_otherwise(kind):
    def make():
        model = nn.Sequential(
            nn.Linear(2, 5, rng=0), nn.Tanh(), nn.Linear(5, 5, rng=1), nn.Tanh(), nn.Linear(5, 1, rng=2)
        )
        if kind == "shared":
            model[0].bias = model[2].bias
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        first = optim.SGD(model[2].parameters(), lr=0.2)

        def step(x, y):
            loss = tg.mse(model(x), y)
            if kind != "kept":
                optimizer.zero_grad()
            loss.backward()
            if kind == "clipped":
                optim.clip_grad_norm(model.parameters(), 0.01)
            if kind == "two steps":
                first.step()
            optimizer.step()
            return (loss, model[0].weight.grad * 2, model[2].bias.grad) if kind == "returned" else loss

        return step, model

    (step, a), (eager, b) = make(), make()
    step = tg.compile(step)
    for x, y in rows(6):
        found, expected = step(x, y), eager(tg.tensor(x), tg.tensor(y))
        for u, v in zip(*((found, expected) if kind == "returned" else ([found], [expected]))):
            same(u, v)
        for p, q in zip(a.parameters(), b.parameters()):
            same(p.detach(), q.detach()), same(p.grad, q.grad)
    assert replays(step) >= 3


def test_the_learning_rate_is_read_at_each_call():
    a, b = tiny(), tiny()
    step = tg.compile(a.step)
    for i, (x, y) in enumerate(rows(9)):
        for run in (a, b):
            run.optimizer.param_groups[0]["lr"] = 0.05 * (1 + i // 3)
        step(x, y), b.step(tg.tensor(x), tg.tensor(y))
        assert a.state() == b.state()
    assert replays(step) == 7


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (2, 1)])
def test_sums_of_one_number_and_products_with_one(shape):
    p = nn.Parameter(np.ones(shape, "float32"))

    def step(x):
        y = p * x
        p.grad = None
        (y.sum() + (y * 1).sum(axis=-1).sum() if shape else y.sum()).backward()
        return (y * 1.0).sum().detach(), y.detach() * 1, p.grad

    f = tg.compile(step)
    for value in (1.5, -0.0, 0.0, np.nan, np.inf, -np.inf):
        x = np.full(shape, value, "float32")
        expected = [t.numpy().copy() for t in f.eager(tg.tensor(x))]
        assert [t.numpy().tobytes() for t in f(x)] == [t.tobytes() for t in expected]
    assert replays(f) == 4


def test_a_small_step_warns_as_the_step_itself_does():
    w = nn.Parameter(np.full((4, 4), 2.0, "float32"))
    f = tg.compile(lambda x: tg.tanh(x @ w.detach().T + x) * x * x)
    heard = []
    for run in (f.eager, f):
        for value in (1.0, 1.0, 1.0, 1e38):
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                run(tg.tensor(np.full((1, 4), value, "float32")))
            heard.append([str(w.message).replace("dot", "matmul") for w in found])
    assert heard[:4] == heard[4:] and heard[3] and replays(f) == 2


def test_small_products_warn_and_raise_as_the_step_itself_does():
    """NumPy's dot makes them. So its name stands in the warnings."""
    rng = np.random.default_rng(0)
    a, b, c = (nn.Parameter(rng.standard_normal((4, 4)).astype("float32")) for _ in range(3))

    def step(x):
        a.grad = b.grad = c.grad = None
        loss = (tg.tanh(tg.tanh(x @ a) @ b) @ c * 1e-30).sum()
        loss.backward()
        return loss.detach(), a.grad, b.grad, c.grad

    f = tg.compile(step)
    for _ in range(3):
        f(np.ones((3, 4), "float32"))
    assert "dot(" in f.tape
    for value in (1.0, 2e38, np.inf, np.nan, 1.0):
        x, heard, results = np.full((3, 4), value, "float32"), [], []
        for run in (lambda x: f.eager(tg.tensor(x)), f):
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                results.append([t.numpy().tobytes() for t in run(x)])
            heard.append([str(w.message).replace("dot", "matmul") for w in found])
        assert heard[0] == heard[1] and results[0] == results[1]
        assert value != 2e38 or "overflow encountered in matmul" in heard[1]
    assert replays(f) >= 5
    with np.errstate(over="raise"), pytest.raises(ValueError, match="matmul: overflow encountered in matmul"):
        f(np.full((3, 4), 2e38, "float32"))


def test_arrays_of_either_side_of_the_bound():
    for n in (1, 63, 64, 65, 4096, 4097):
        p = nn.Parameter(np.linspace(-3, 3, n, dtype="float32"))

        def step(x, p=p):
            p.grad = None
            loss = (tg.tanh(p * x) + x).mean()
            loss.backward()
            return loss, p.grad

        f = tg.compile(step)
        for i in range(4):
            x = np.random.default_rng(i).standard_normal((1, n)).astype("float32")
            found, expected = [t.numpy().tobytes() for t in f(x)], [t.numpy().tobytes() for t in f.eager(tg.tensor(x))]
            assert found == expected
        assert replays(f) == 2


def test_one_number_in_place_and_mixed_dtypes():
    rng = np.random.default_rng(0)
    p, q = (nn.Parameter(rng.standard_normal(s).astype("float32")) for s in ((1, 1), (3, 4)))

    def step(x, y):
        a = tg.matmul(x, p).astype("float64") * 2
        b = tg.tanh(q * y) * y.astype("float64") + q
        loss = (a * a).sum() + (b * 1).sum() / 1 + (x @ p + p).sum()
        p.grad = q.grad = None
        loss.backward()
        return loss, a.detach(), b.detach() * 1, p.grad, q.grad

    f = tg.compile(step)
    for i in range(5):
        x, y = np.full((1, 1), i - 2.0, "float32"), rng.standard_normal((3, 4)).astype("float32")
        found, expected = f(x, y), f.eager(tg.tensor(x), tg.tensor(y))
        assert [t.numpy().tobytes() for t in found] == [t.numpy().tobytes() for t in expected]
    assert replays(f) == 3


@pytest.mark.parametrize("size", [3, 40_000])
@pytest.mark.parametrize("kind", [tg.optim.SGD, tg.optim.Adam, tg.optim.AdamW, tg.optim.RMSprop])
def test_the_step_of_an_optimizer_alone_is_replayed(kind, size):
    parameters = [tg.nn.Parameter(np.full(size, 2.0, "float32")) for _ in range(3)]
    for p in parameters:
        p.grad = tg.tensor(np.ones(size, "float32"))
    step = tg.compile(kind(parameters, lr=0.1).step)
    for _ in range(5):
        step()
    assert step.last.runs == 3 and not any("stopped" in reason for reason in step.reasons)
