"""``tg.compile`` below the ops: what is recorded call by call, what runs as a whole, what a replay leaves behind."""

import gc
import signal
import threading
import tracemalloc
import typing
import weakref

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.replay.test_replay import Run, agree, batches, replays, same
from tinygrad_ms import nn, optim
from tinygrad_ms.nn.ttt_muon import TTTMuon


def trained(make, data, calls=6, exact=True):
    """The compiled step of ``make()``, which agrees with the step itself on results and parameters in each call."""
    (model, step), (other, eager) = make(), make()
    step = tg.compile(step)
    for _, batch in zip(range(calls), data):
        same(step(*batch), eager(*map(tg.tensor, batch)))
        for p, q in zip(model.parameters(), other.parameters()):
            same(p, q), same(p.grad, q.grad)
    return step


def stepper(model, loss_of, optimizer=None, clip=None):
    optimizer = optimizer or optim.AdamW(model.parameters(), lr=0.01)

    def step(*batch):
        loss = loss_of(model, *batch)
        optimizer.zero_grad()
        loss.backward()
        if clip:
            optim.clip_grad_norm(model.parameters(), clip)
        optimizer.step()
        return loss

    return model, step


def tokens(calls, shape=(3, 5), vocabulary=7, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(calls):
        yield rng.integers(0, vocabulary, shape), rng.integers(0, vocabulary, shape)


# --- parts of one array -----------------------------------------------------------------------------------------------


def test_parts_are_made_where_they_are_joined():
    x, y = (np.random.default_rng(i).normal(size=(4, 16)).astype("float32") for i in range(2))

    def used_later(x, y):
        a, b = x @ y.T, x * y @ y.T
        return (tg.stack([a, b]) ** 2).sum() + (a * 3).sum()

    def changed_later(x, y):
        a, b = x @ y.T, x * y @ y.T
        whole = tg.stack([a, b])
        with tg.no_grad():
            a[0] = 1
        return (whole**2).sum() + (a * 3).sum()

    def twice(x, y):
        a = x @ y.T
        return (tg.stack([a, a]) ** 2).sum()

    def across(x, y):
        return (tg.concat([x @ y.T, x * y @ y.T], axis=1) ** 2).sum()

    def with_parts(x, y):
        a, b = x @ y.T, x * y @ y.T
        return (tg.stack([a, b]) ** 2).sum(), a

    for function in (used_later, changed_later, twice, across, with_parts):
        step = tg.compile(function)
        for factor in (1, 2, 3):
            found, expected = step(factor * x, y), function(tg.tensor(factor * x), tg.tensor(y))
            for p, q in zip(found, expected) if type(found) is tuple else [(found, expected)]:
                same(p, q)
        assert ("concatenate" in step.last.source) == (function is not used_later), function.__name__


# --- call by call -----------------------------------------------------------------------------------------------------


def test_embedding_sort_and_likelihood():
    class Model(nn.Module):
        def __init__(self):
            self.embedding = nn.Embedding(7, 4, rng=0)
            self.head = nn.Linear(4, 7, rng=1)

        def forward(self, x):
            h = tg.sort(self.embedding(x), axis=-1) + tg.take(self.embedding.weight, x, axis=0)
            return tg.log_softmax(self.head(h))

    step = trained(lambda: stepper(Model(), lambda m, x, y: tg.nll(m(x), y)), tokens(6))
    assert replays(step) == 4
    with pytest.raises(IndexError, match="range from 0 to 9"):
        step(np.arange(10)[[0, 9, 1, 2, 3]][None].repeat(3, 0), np.zeros((3, 5), int))


@pytest.mark.parametrize("options", [{"msign": "ns5"}, {"msign": "smooth"}, {"msign": "pure"}], ids=str)
def test_ttt_muon(options):
    def make():
        layer = TTTMuon(8, 2, rng=0, chunk=4, **options)
        return stepper(layer, lambda m, x, y: tg.mse(m(x), y), clip=1.0)

    rng = np.random.default_rng(0)
    data = [[rng.standard_normal((2, 12, 8)).astype("float32") for _ in "xy"] for _ in range(5)]
    step = trained(make, data, calls=5)
    assert replays(step) == 3
    assert not step.last.whole


def test_an_adaptive_msign_runs_as_a_whole():
    def make():
        return stepper(nn.Linear(3, 4, rng=0), lambda m, x, y: (tg.msign(m(x)) * y).sum())

    rng = np.random.default_rng(0)
    step = trained(make, ([rng.standard_normal((5, n)).astype("float32") for n in (3, 4)] for _ in range(5)), calls=5)
    assert replays(step) == 3 and any("msign" in name for name in step.last.whole)


def test_checkpoint_and_its_masks():
    def make():
        model = nn.Sequential(nn.Linear(3, 8, rng=0), nn.Tanh(), nn.Dropout(0.4, rng=1), nn.Linear(8, 4, rng=2))
        inside = tg.checkpoint(model)
        return stepper(model, lambda m, x, y: tg.softmax_cross_entropy(inside(x), y))

    assert replays(trained(make, batches(6))) == 4


def test_buffers_of_modules_and_writes_in_place():
    class Centred(nn.Module):
        def __init__(self):
            self.linear, self.mean = nn.Linear(3, 4, rng=0), tg.zeros(3)

        def forward(self, x):
            with tg.no_grad():
                self.mean.copy_(0.9 * self.mean + 0.1 * x.mean(axis=0))
            return self.linear(x - self.mean.detach().clone())

    step = trained(lambda: stepper(Centred(), lambda m, x, y: tg.softmax_cross_entropy(m(x), y)), batches(6))
    assert replays(step) == 4


class Signs(optim.Optimizer):
    """One of the user's: steps along the signs, smaller and smaller."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, lr=lr, weight_decay=0.0)

    def update(self, xp, p, g, state, options):
        p -= options["lr"] / state["step"] * xp.sign(g)


def test_an_optimizer_of_the_user_runs_as_it_is():
    def make():
        model = nn.Linear(3, 4, rng=0)
        return stepper(model, lambda m, x, y: tg.softmax_cross_entropy(m(x), y), Signs(model.parameters()))

    assert replays(trained(make, batches(6))) == 4


def test_a_forward_that_decides_otherwise_runs_as_a_whole():
    f = tg.compile(lambda x: x.mean(axis=1) * 2)
    rng = np.random.default_rng(0)
    for scale in (1, 1, 1, 1e38, 1, 1e38, 1e38, 1, 1):
        x = (abs(rng.standard_normal((2, 9))) * scale).astype("float32")
        with np.errstate(over="ignore"):
            same(f(x), tg.tensor(x).mean(axis=1) * 2)
    assert replays(f) >= 4 and "mean" in f.last.whole and "as a whole: mean" in f.explain()


def test_two_steps_share_an_optimizer():
    a, b = Run(method="Adam"), Run(method="Adam")
    first, second = tg.compile(a.step), tg.compile(lambda x, y: {"loss": a.step(x, y)})
    for i, (x, y) in enumerate(batches(10)):
        found = second(x, y)["loss"] if i % 2 else first(x, y)
        same(found, b.step(tg.tensor(x), tg.tensor(y)))
        assert a.state() == b.state()
    assert replays(first) == replays(second) == 3


class Sizes(typing.NamedTuple):
    width: int
    scale: float


def test_a_step_without_arguments_that_reads_a_named_tuple():
    sizes, p = Sizes(2, 0.5), nn.Parameter([1.0, 2.0])
    p.grad = tg.ones(2)
    f = tg.compile(lambda: (p.detach() * sizes.scale).sum() * sizes.width)
    assert [f().item() for _ in range(5)] == [3.0] * 5 and replays(f) == 3


def test_views_of_one_array_and_of_the_argument_itself():
    f = tg.compile(lambda x: (x[1:] * x[:-1]).sum() + (x.reshape((2, 3)).T @ x.reshape((2, 3))).sum())
    whole = np.arange(24, dtype="float32").reshape(12, 2)
    for i in range(6):
        x = whole[i : i + 6, i % 2]
        same(f(x), f.eager(tg.tensor(x)))
    x = np.arange(6, dtype="float32")
    same(f(x), f.eager(tg.tensor(x)))
    assert replays(f) == 4


def test_an_argument_that_shows_the_memory_of_a_parameter():
    a, b = nn.Linear(3, 3, rng=0), nn.Linear(3, 3, rng=0)

    def stepped(model):
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def step(x):
            loss = (model(x) * x).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss.detach() + x.sum()

        return step

    f, g = tg.compile(stepped(a)), stepped(b)
    for _ in range(5):
        same(f(a.weight.detach()), g(b.weight.detach())), same(a.weight, b.weight)
    assert replays(f) == 3


def test_threads_take_turns_at_a_list():
    model = nn.Sequential(nn.Linear(64, 256, rng=0), nn.Tanh(), nn.Linear(256, 64, rng=1))
    f, found = tg.compile(model), {}
    data = [x for x, _ in batches(4, n=200, width=64)]

    def work(i):
        with tg.no_grad():
            found[i] = [f(data[i]).numpy().tobytes() for _ in range(20)]

    with tg.no_grad():
        expected = [model(tg.tensor(x)).numpy().tobytes() for x in data]
        for x in data[:3]:
            f(x)
    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(set(found[i])) == 1 for i in range(4)) and replays(f) == 81
    for i in range(4):
        y = np.frombuffer(found[i][0], "float32")
        if f.last.plan.loops:  # whose tanh rounds in its own way
            np.testing.assert_allclose(y, np.frombuffer(expected[i], "float32"), rtol=1e-5, atol=1e-6)
        else:
            assert found[i][0] == expected[i]


# --- what a replay leaves ---------------------------------------------------------------------------------------------


def test_gradients_and_results_that_somebody_keeps_stay():
    run = Run()
    step, kept = tg.compile(run.step), []
    for x, y in batches(6):
        loss = step(x, y)
        grad = run.model[0].weight.grad
        kept.append((loss, loss.item(), grad, grad.numpy().copy()))
    assert all(loss.item() == value and np.array_equal(grad.numpy(), copy) for loss, value, grad, copy in kept)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt of a weak reference
@pytest.mark.parametrize("whole", [True, False], ids=["calls in C", "a call of Python"])
def test_an_interrupt_leaves_a_whole_step_or_none(whole):
    a, b = Run(method="Adam"), Run(method="Adam")
    schedule = optim.StepLR(a.optimizer, 10**9)

    def with_schedule(x, y):
        loss = a.step(x, y)
        schedule.step()
        return loss

    step = tg.compile(a.step if whole else with_schedule)
    x, y = next(batches(1))
    states = [b.state()]
    for _ in range(3):
        step(x, y)
    assert step.last.atomic == whole
    interrupts, done = 0, 0
    hidden = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGALRM, lambda *args: signal.raise_signal(signal.SIGINT))
    try:
        for i in range(40):
            try:
                for _ in range(5):
                    signal.setitimer(signal.ITIMER_REAL, 5e-5 * (1 + i % 11))
                    step(x, y)
            except KeyboardInterrupt:
                interrupts += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            steps = a.optimizer.state[a.model[0].weight]["step"]
            while len(states) <= steps:
                b.step(tg.tensor(x), tg.tensor(y))
                states.append(b.state())
            assert a.state() == states[steps]
            done = steps
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.signal(signal.SIGINT, hidden)
    assert interrupts and done > 15


def test_memory_is_that_of_the_step_itself_and_goes_with_the_object():
    gc.collect()
    run, (x, y) = Run((64, 128, 128, 4)), next(batches(1, n=256, width=64))
    step = tg.compile(run.step)
    tx, ty = tg.tensor(x), tg.tensor(y)
    run.step(tx, ty)
    tracemalloc.start()
    try:
        run.step(tx, ty)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    gc.disable()
    try:
        for _ in range(4):
            step(x, y)
        assert replays(step) == 2 and 0 < step.last.plan.size <= peak
        block = weakref.ref(step.last.made.block)
        assert block() is not None
        del step
        assert block() is None
    finally:
        gc.enable()


@pytest.mark.slow
def test_ten_thousand_replays_hold_no_memory():
    run = Run(method="Adam", dropout=0.1)
    step, data = tg.compile(run.step), list(batches(10))
    for x, y in data * 10:
        step(x, y)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for x, y in data * 1000:
            step(x, y)
        gc.collect()
        assert tracemalloc.get_traced_memory()[0] - before < 20_000
    finally:
        tracemalloc.stop()


def test_the_list_as_a_picture():
    run = Run()
    step = tg.compile(run.step)
    with pytest.raises(ValueError, match="call it three times"):
        tg.graph.build(step)
    for x, y in batches(3):
        step(x, y)
    graph = tg.graph.build(step)
    titles = [vertex.title for vertex in graph.vertices]
    assert {"matmul", "x0", "x1"} <= set(titles) and [title for title in titles if "weight" in title]
    assert sum(vertex.is_output for vertex in graph.vertices) == 1 and graph.edges
    with pytest.raises(ValueError, match="max_nodes"):
        tg.graph.build(step, max_nodes=3)
    agree(run, Run(), lambda x, y: None, [])


def test_an_op_of_many_calls_is_one_box():
    step = tg.compile(lambda x: (tg.gelu(tg.gelu(x) + 1) * 2).sum())
    for _ in range(3):
        step(np.ones((3, 4), "float32"))
    graph = tg.graph.build(step)
    assert [v.title for v in graph.vertices] == ["x0", "gelu", "add", "gelu", "multiply", "sum"]
    assert all(v.ops > 8 for v in graph.vertices if v.kind == "box") and graph.dot().count("<b>gelu<") == 2
    assert [(e.source.id, e.target.id) for e in graph.edges] == [(i, i + 1) for i in range(5)]
