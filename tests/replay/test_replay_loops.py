"""``tg.compile`` with numba: kernels are called as they are, runs of elementwise calls become loops; and what stays."""

import importlib.util
import re
import tracemalloc
import warnings

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.replay import test_replay_fuzz as fuzz
from tests.replay.test_replay import replays
from tinygrad_ms import nn, optim
from tinygrad_ms.ops.fused import LEAST
from tinygrad_ms.replay import agreement, fusion

MISSING = importlib.util.find_spec("numba") is None
pytestmark = pytest.mark.skipif(MISSING, reason='numba is missing: pip install "tinygrad-ms[fast]", or numba')
N = LEAST + 13


@pytest.fixture(autouse=True)
def kernels():
    tg.set_fused(True)
    yield
    tg.set_fused(True)


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(dtype)


def pulled(function, *arrays, check=False, kept=()):
    """(compiled, eager): a function of leaves with its gradients; equal leaves for both."""

    def make():
        leaves = [tg.tensor(a.copy(), requires_grad=True) for a in arrays]

        def step(factor):
            for x in leaves:
                x.grad = None
            y = function(*leaves)
            loss = (y * factor).sum()
            loss.backward()
            return [loss, y.detach() * 1, *[x.grad * 1 for x in leaves]]

        return step

    return tg.compile(make(), check=check), make()


def ran(compiled, eager, calls=4):
    """What the last of some calls gives, compiled and as it is."""
    factor = np.asarray(0.75, "float32")
    for _ in range(calls):
        found = compiled(factor)
    return [x.numpy() for x in found], [x.numpy() for x in eager(tg.tensor(factor))]


def mixed(x, y):
    a = x * y + x
    c = tg.tanh(a)
    e = tg.exp(-c * c)
    h = tg.sin(e * y) + tg.cos(c * 0.5) * a
    return tg.log(tg.sqrt(h * h + 1.0) + e) - tg.where(x > 0, h, 0.1 * h)


def test_a_run_of_calls_is_one_loop_that_is_told_printed_and_drawn(capsys):
    step, eager = pulled(mixed, normal(N, seed=1), normal(N, seed=2))
    found, right = ran(step, eager)
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6 * abs(b).max())
    (loop,) = step.last.plan.loops
    assert len(loop.calls) > 40 and replays(step) == 2
    assert f"{len(loop.calls)} calls in 1 loops" in step.explain() and capsys.readouterr().out
    assert "fused" in step.tape and "= tanh(" in step.tape and "tanh(b" not in step.tape
    assert any(
        v.title.startswith(f"{len(loop.calls)} fused: multiply, add, tanh") for v in tg.graph.build(step).vertices
    )


def rounded_as_ever(x, w, b, c):
    """Arithmetic, roots, comparisons, choices; a row, a column, a matrix seen in another way, a number."""
    y = x * w + b
    y = tg.where(y > 0, y, 0.25 * y) / (1.0 + tg.abs(y))
    y = tg.maximum(y * c, tg.sqrt(tg.square(y) + 1e-3)) - x.T * 0.5
    return tg.clip(y, -1.0, 2.0) + tg.relu(-y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_loops_of_arithmetic_round_as_numpy_does(dtype):
    n = 180
    step, eager = pulled(
        rounded_as_ever,
        *(normal(*shape, seed=k, dtype=dtype) for k, shape in enumerate([(n, n), (n,), (1, n), (n, 1)])),
    )
    found, right = ran(step, eager)
    assert len(step.last.plan.loops) >= 2 and replays(step) == 2
    for a, b in zip(found[1:], right[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(found[0], right[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["relu", "gelu"])
@pytest.mark.parametrize("layer", [False, True])
def test_a_bias_and_an_activation_are_one_loop_with_their_rules(name, layer):
    """Behind the product of a layer, too: forward and backward read x and the bias once."""
    function = getattr(tg, name)
    x, w, b = normal(700, 20), normal(60, 20, seed=1), normal(60, seed=2)
    if layer:
        step, eager = pulled(lambda x, w, b: function(tg.linear(x, w, b)), x, w, b)
    else:
        step, eager = pulled(lambda x, b: function(x + b), x @ w.T, b)
    found, right = ran(step, eager)
    for a, other in zip(found, right, strict=True):
        np.testing.assert_allclose(a, other, rtol=2e-5, atol=2e-6 * abs(other).max())
    (loop,) = [line for line in step.tape.splitlines() if line.startswith("# fused")]
    assert "= add(x0, x1)" in loop and f"= {name}(v" in loop and f"= {name}_rule(" in loop


def test_another_number_is_no_other_loop():
    from tinygrad_ms.ops.fused import chains

    before = len(chains.COMPILED)
    for number in (0.3, 0.7, -4.0):
        f = tg.compile(lambda x: (x + number) * number - number)
        for _ in range(3):
            y = f(np.full(2 * N, 2.0, "f"))
        assert len(f.last.plan.loops) == 1
        assert y.numpy()[5] == (np.float32(2) + np.float32(number)) * np.float32(number) - np.float32(number)
    assert len(chains.COMPILED) <= before + 1


def test_what_cannot_be_compiled_stays_as_it_is(monkeypatch):
    from tinygrad_ms.ops.fused import chains

    def broken(self, samples):
        raise ValueError("no machine code")

    monkeypatch.setattr(chains.Chain, "prepare", broken)
    step, eager = pulled(lambda x: (x * x + 1.5) * 0.5, normal(4, N))
    with pytest.warns(RuntimeWarning, match="a loop cannot be compiled, NumPy does its work: no machine code"):
        found, right = ran(step, eager)
    assert not step.last.plan.loops
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_sum_ends_a_loop():
    @tg.compile
    def f(x):
        return (x * 2.0 + 1.0).sum()

    x = normal(3, N)
    for _ in range(4):
        y = f(x)
    assert f.last.plan.loops[0].calls == ["multiply", "add", "sum"]
    assert type(y.data) is type(tg.tensor(x).sum().data) and y.dtype == "float32"
    assert y.item() == pytest.approx((2 * x.astype("d") + 1).sum(), rel=1e-7)


def test_ends_of_the_range_are_those_of_numpy():
    x = np.concatenate([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -3e7, 1e-40, 88.9, -104.0], normal(N)]).astype("f")

    @tg.compile
    def f(x):
        return [
            tg.sin(x) * 1,
            tg.cos(x) * 1,
            tg.exp(x) * 1,
            tg.tanh(x) * 1,
            tg.log(x) * 1,
            tg.maximum(x, 0.5) * 1,
            1 / x,
        ]

    with np.errstate(all="ignore"):
        for _ in range(3):
            found = f(x)
        wide = x.astype("d")
        right = [np.sin(wide), np.cos(wide), np.exp(wide), np.tanh(wide), np.log(wide), np.maximum(wide, 0.5), 1 / wide]
        right = [y.astype("f") for y in right]
    assert len(f.last.plan.loops) == 1
    for a, b in zip(found, right, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=4e-7, atol=1e-44)


def test_without_kernels_everything_is_as_it_was():
    step, eager = pulled(mixed, normal(N, seed=1), normal(N, seed=2))
    ran(step, eager)
    tg.set_fused(False)  # the list with a loop does not run any more
    found, right = ran(step, eager)
    assert not step.last.plan.loops and "fused" not in step.tape
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_call_is_a_loop_where_it_repeats_numbers_or_threads_share_it(threads, monkeypatch):
    monkeypatch.setattr(fusion, "pays", lambda elements: threads > 1)  # whatever BLAS has on this machine
    x, column, row, unit = normal(2048, 64), normal(2048, 1, seed=1), normal(64, seed=2), np.eye(64, dtype="float32")
    tg.set_num_threads(threads)
    try:
        for other in (column, row, x * 2):
            step = tg.compile(lambda a, b: a @ unit * b)
            for _ in range(3):
                y = step(x, other)
            np.testing.assert_array_equal(y.numpy(), (x @ unit) * other)
            assert bool(step.last.plan.loops) == (threads > 1 or other.size < x.size)
    finally:
        tg.set_num_threads(None)


def test_small_arrays_get_no_loops(monkeypatch):
    monkeypatch.setattr(fusion, "loaded", lambda: pytest.fail("kernels are loaded"))
    step, eager = pulled(mixed, normal(100, seed=1), normal(100, seed=2))
    found, right = ran(step, eager)
    assert replays(step) == 2 and not step.last.plan.loops
    for a, b in zip(found, right, strict=True):
        np.testing.assert_array_equal(a, b)


KERNELS = {
    "gelu": tg.gelu, "silu": tg.silu, "softmax": tg.softmax, "log_softmax": tg.log_softmax, "softplus": tg.softplus,
    "elu": tg.elu, "sigmoid": tg.sigmoid, "normalize": lambda x: tg.layer_norm(x, x[0]),
    "normalize_each": lambda x: tg.layer_norm(x, x[:, :1]), "normalize_columns": lambda x: tg.rms_norm(x, axes=-2),
}  # fmt: skip


@pytest.mark.parametrize("name", list(KERNELS))
def test_kernels_are_called_as_they_are(name):
    step, eager = pulled(lambda x: KERNELS[name](x), normal(N // 100 + 1, 100))
    found, right = ran(step, eager)
    assert f" {name}(" in step.tape or f"= {name}(" in step.tape.replace("v0, v1", "v0")
    assert replays(step) == 2
    for a, b in zip(found[1:], right[1:], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("method", ["SGD", "momentum", "Adam", "AdamW"])
def test_steps_of_optimizers_are_kernels(method):
    made = {
        "SGD": lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1),
        "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
        "Adam": lambda p: optim.Adam(p, weight_decay=0.1),
        "AdamW": lambda p: optim.AdamW(p),
    }[method]

    def make():
        model = nn.Sequential(nn.Linear(200, 200, rng=0), nn.ReLU(), nn.Linear(200, 200, rng=1))
        optimizer = made(model.parameters())

        def step(x, target):
            optimizer.zero_grad()
            loss = tg.cross_entropy(model(x), target)
            loss.backward()
            optim.clip_grad_norm(model.parameters(), 0.01)
            optimizer.step()
            return loss

        return step, model

    (step, model), (eager, other) = make(), make()
    compiled = tg.compile(step)
    for k in range(6):
        x, target = normal(200, 200, seed=k), np.random.default_rng(k).integers(0, 200, 200)
        a, b = compiled(x, target), eager(tg.tensor(x), tg.tensor(target))
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            np.testing.assert_array_equal(p.numpy(), q.numpy())
    name = {"SGD": "sgd", "momentum": "sgd_momentum"}.get(method, "adam")
    assert re.search(rf"\b{name}[(,]", compiled.tape) and "relu_rule(" in compiled.tape and replays(compiled) >= 3


def test_check_allows_for_the_rounding_of_loops_and_no_more(monkeypatch):
    step, eager = pulled(mixed, normal(N, seed=1), normal(N, seed=2), check=True)
    ran(step, eager, calls=5)
    assert replays(step) == 3
    monkeypatch.setattr(agreement, "CLOSE", 1e-3)
    with pytest.raises(RuntimeError, match="check: a result is another"):
        step(np.asarray(0.75, "float32"))
    a = normal(50)
    assert agreement.close(a, a * np.float32(1 + 1e-6)) is False
    monkeypatch.undo()
    assert agreement.close(a, a * np.float32(1 + 1e-6)) and not agreement.close(a, a * np.float32(1.001))
    a[3] = np.nan
    assert agreement.close(a, a.copy()) and not agreement.close(a, np.nan_to_num(a))


def test_a_list_calls_the_kernel_of_small_products_as_eager_does():
    x = normal(40, 32, 32)

    @tg.compile
    def f(x):
        return x @ x.mT + (x @ x) @ x.mT

    for _ in range(3):
        y = f(x)
    assert f.tape.count("turned_products(") == 2 and f.tape.count(" products(") == 1
    np.testing.assert_array_equal(y.numpy(), f.eager(tg.tensor(x)).numpy())


def test_replays_leave_no_memory_behind():
    step, eager = pulled(mixed, normal(N, seed=1), normal(N, seed=2))
    ran(step, eager)
    tracemalloc.start()
    ran(step, eager, calls=3)
    before = tracemalloc.get_traced_memory()[0]
    ran(step, eager, calls=100)
    assert tracemalloc.get_traced_memory()[0] - before < 20_000
    tracemalloc.stop()


def test_kernels_write_only_where_they_say():
    from tinygrad_ms.ops.fused import row_kernels as k
    from tinygrad_ms.ops.fused.kernels import KERNELS, Each
    from tinygrad_ms.ops.fused.products import Products

    fusion.loaded()
    shapes = {k.ROWS: (6, 256), k.LINE: 256, k.SUMS: 256, k.EACH: 6, k.TOTALS: 6, k.LABELS: 6}
    shapes |= {k.MORE: (6, 16), k.MORE_TOTALS: (6, 16)}
    rng = np.random.default_rng(0)
    for name, kernel in KERNELS.items():
        if not kernel.ready(np.dtype("float32")):
            continue
        if isinstance(kernel, Each):
            given = [rng.random(50).astype("f") for _ in kernel.arrays] + [0.5] * len(kernel.constants)
        elif isinstance(kernel, Products):
            given = [rng.random((2, 3, 16, 16)[4 - kernel.axes :]).astype("f") for _ in range(3)]
        else:
            dtypes = {k.LABELS: "int64", k.TOTALS: "float64", k.MORE_TOTALS: "float64"}
            given = [
                16.0 if kind == k.NUMBER else (5 * rng.random(shapes[kind])).astype(dtypes.get(kind, "f"))
                for kind in kernel.kinds
            ]
        before = [np.array(a) for a in given]
        kernel(*given)
        changed = {i for i, (a, b) in enumerate(zip(given, before)) if not np.array_equal(a, b)}
        written = set(kernel.written) if not isinstance(kernel, Each) or kernel.into else set()
        assert changed == written, name


# --- which calls may go together: any, on arrays of any size, with NumPy in place of the machine code -----------------


class ByNumPy:
    """A loop as NumPy computes it, array by array."""

    def __init__(self, lines, inputs, outputs, sums, real, truths):
        self.lines, self.inputs, self.outputs, self.sums, self.real = lines, inputs, outputs, sums, np.dtype(real)
        self.truths = truths

    def prepare(self, samples):
        assert len(samples) >= len(self.inputs)

    def __call__(self, sizes, *given):
        values, targets = {}, dict(zip(self.inputs, given))
        for name, pattern in self.inputs.items():
            a = targets[name]
            assert np.shape(a) == tuple(n for n, flag in zip(sizes, pattern) if flag == "1")
            shape = [n if flag == "1" else 1 for n, flag in zip(sizes, pattern)]
            values[name] = np.asarray(a).astype(self.real).reshape(shape)
        for names, op, *rest in self.lines:
            operands = [values[a] if isinstance(a, str) else self.real.type(a) for a in rest]
            if isinstance(op, str):
                logical = op.startswith(("logical", "bitwise", "invert"))
                found = [getattr(np, op)(*[x.astype(bool) if logical else x for x in operands])]
            else:
                assert op.ready(self.real)
                arrays = [np.ascontiguousarray(np.broadcast_to(x, sizes)) for x in operands[: op.takes]]
                found = op(*arrays, *operands[op.takes :])
            for name, y in zip([names] if isinstance(names, str) else names, found, strict=True):
                values[name] = np.array(np.broadcast_to(y, sizes)).astype(self.real)
        new = iter(given[len(self.inputs) :])
        for name, into in self.outputs.items():
            target = targets[into] if into else next(new)
            assert target.flags.c_contiguous and (target.dtype == bool) == (name in self.truths)
            target[...] = values[name]
        return np.array([values[name].sum(dtype="d") for name in self.sums])


def close_run(seed):
    """How many loops the list of step ``seed`` has, once all is known to agree."""
    step, parameters, optimizer, shape = fuzz.random_step(seed)
    eager, others, other, _ = fuzz.random_step(seed)
    compiled, rng = tg.compile(step), np.random.default_rng(seed)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in range(4):
            x = rng.standard_normal(shape).astype("float32")
            found, right = compiled(x), eager(tg.tensor(x))
            found += parameters + [p.grad for p in parameters if p.grad is not None]
            right += others + [q.grad for q in others if q.grad is not None]
            for a, b in zip(found, right, strict=True):
                a, b = a.numpy(), b.numpy()
                np.testing.assert_array_equal(np.isfinite(a), np.isfinite(b), err_msg=f"{seed}, {call}")
                scale = abs(b[np.isfinite(b)]).max(initial=0)
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4 * scale, err_msg=f"{seed}, {call}")
    return len(compiled.last.plan.loops)


@pytest.fixture
def any_size(monkeypatch):
    monkeypatch.setattr(fusion, "LEAST", 1)
    monkeypatch.setattr(fusion, "SHORTEST", 1)
    monkeypatch.setattr(fusion, "WORTH", 1)


def test_random_steps_with_loops_agree(any_size, monkeypatch):
    from tinygrad_ms.ops.fused import chains

    monkeypatch.setattr(chains, "Chain", ByNumPy)
    assert sum(close_run(seed) for seed in range(25)) > 100


@pytest.mark.slow
def test_many_random_steps_with_loops_agree(any_size, monkeypatch):
    from tinygrad_ms.ops.fused import chains

    monkeypatch.setattr(chains, "Chain", ByNumPy)
    assert sum(close_run(seed) for seed in range(100, 300)) > 800


@pytest.mark.slow
def test_random_steps_with_compiled_loops_agree(any_size):
    assert sum(close_run(seed) for seed in range(4)) > 10
