"""``tg.compile``: what is replayed is, bit for bit, what the step itself does; what cannot be so is refused by line."""

import gc
import random
import re
import time
import tracemalloc

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim

OPTIMIZERS = {
    "SGD": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3),
    "Nesterov": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, lr=0.01),
    "AdamW": lambda p: optim.AdamW(p, lr=0.01),
    "Muon": lambda p: optim.Muon(p, lr=0.01),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
}
LAM = 0.1


class Run:
    """A model, its optimizer and a step over them, made from fixed seeds: two of them are equal."""

    def __init__(self, sizes=(3, 8, 4), method="SGD", loss=tg.softmax_cross_entropy, dropout=0.0, **options):
        layers = []
        for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
            layers += [nn.Linear(a, b, rng=i), nn.Tanh(), nn.Dropout(dropout, rng=i)]
        self.model = nn.Sequential(*layers[:-2])
        self.optimizer = OPTIMIZERS[method](self.model.parameters())
        self.loss, self.options = loss, options

    def step(self, x, y):
        self.optimizer.zero_grad()
        loss = self.loss(self.model(x), y, **self.options)
        loss.backward()
        self.optimizer.step()
        return loss

    def state(self):
        """Everything that a step changes, as bytes and numbers."""
        parameters = self.model.parameters()
        found = [p.numpy().tobytes() for p in parameters]
        found += [None if p.grad is None else p.grad.numpy().tobytes() for p in parameters]
        for entry in self.optimizer.state_dict()["state"].values():
            found += [value.tobytes() if hasattr(value, "tobytes") else value for value in entry.values()]
        return found


def batches(count, n=5, width=3, classes=4, seed=0, labels=True):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        x = rng.standard_normal((n, width)).astype("float32")
        yield x, rng.integers(0, classes, n) if labels else rng.standard_normal((n, classes)).astype("float32")


def same(a, b):
    assert type(a) is type(b)
    assert a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()


def agree(compiled_run, eager_run, step, data):
    for x, y in data:
        same(step(x, y), eager_run.step(tg.tensor(x), tg.tensor(y)))
        assert compiled_run.state() == eager_run.state()


def replays(step):
    return sum(program.runs for group in step.families.values() for f in group for program in f.programs.values())


# --- equal to the step itself ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OPTIMIZERS)
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "mse", "huber"])
def test_training_is_the_same_bit_for_bit(method, loss):
    a, b = (Run(method=method, loss=getattr(tg, loss)) for _ in range(2))
    step = tg.compile(a.step)
    agree(a, b, step, batches(7, labels=loss.startswith("softmax")))
    assert replays(step) == 5


def test_the_tiny_network_in_both_float_dtypes():
    for dtype in ("float32", "float64", "float16"):
        a, b = (Run((2, 16, 16, 1), loss=tg.mse) for _ in range(2))
        a.model.to(dtype), b.model.to(dtype)
        step, rng = tg.compile(a.step), np.random.default_rng(0)
        for _ in range(5):
            x, y = rng.standard_normal((1, 2)).astype(dtype), rng.standard_normal((1, 1)).astype(dtype)
            same(step(x, y), b.step(tg.tensor(x), tg.tensor(y)))
            assert a.state() == b.state()
        assert replays(step) == 3


def test_layers_with_statistics_gradients_clipped_and_a_schedule():
    def make():
        model = nn.Sequential(nn.Linear(3, 6, rng=0), nn.LayerNorm(6), nn.GELU(), nn.RMSNorm(6), nn.Linear(6, 4, rng=1))
        optimizer = optim.Adam(model.parameters(), lr=0.01)
        schedule = optim.CosineLR(optimizer, total_steps=6, warmup_steps=2)

        def step(x, y):
            loss = tg.softmax_cross_entropy(model(x), y, label_smoothing=0.1)
            model.zero_grad()
            loss.backward()
            norm = optim.clip_grad_norm(model.parameters(), 0.1)
            optimizer.step()
            schedule.step()
            return {"loss": loss, "norm": norm, "name": "a"}

        return model, optimizer, step

    (m1, o1, eager), (m2, o2, other) = make(), make()
    step = tg.compile(other)
    for x, y in batches(8):
        a, b = eager(tg.tensor(x), tg.tensor(y)), step(x, y)
        same(a["loss"], b["loss"]), same(a["norm"], b["norm"])
        assert b["name"] == "a" and o1.param_groups[0]["lr"] == o2.param_groups[0]["lr"]
        for p, q in zip(m1.parameters(), m2.parameters()):
            same(p, q), same(p.grad, q.grad)
    assert replays(step) == 6


def test_random_masks_are_those_of_the_step_itself():
    a, b = (Run(dropout=0.3) for _ in range(2))
    step = tg.compile(a.step)
    agree(a, b, step, batches(6))
    assert replays(step) == 4
    a.model.eval(), b.model.eval()
    agree(a, b, step, batches(3, seed=1))
    a.model.train(), b.model.train()
    agree(a, b, step, batches(3, seed=2))
    assert replays(step) == 4 + 1 + 3


def test_random_tensors_are_drawn_anew():
    f = tg.compile(lambda x: x + tg.randn(3) + tg.rand(3))
    x = tg.ones(3)
    tg.manual_seed(5)
    found = [f(x) for _ in range(4)]
    tg.manual_seed(5)
    for y in found:
        same(y, x + tg.randn(3) + tg.rand(3))


def test_a_function_of_arrays_and_numbers():
    f = tg.compile(lambda x, k, scale=1.0: {"y": [tg.exp(x["a"] * k), (x["b"] @ x["b"].T).sum() * scale], "k": k})
    rng = np.random.default_rng(0)
    for i in range(6):
        x = {"a": rng.standard_normal(3), "b": rng.standard_normal((2, 3))}
        t = {name: tg.tensor(value) for name, value in x.items()}
        k = 2 + i % 2
        result = f(x, k, scale=0.5)
        assert result["k"] == k
        same(result["y"][0], tg.exp(t["a"] * k)), same(result["y"][1], (t["b"] @ t["b"].T).sum() * 0.5)
    assert replays(f) == 2


def test_a_module_itself_under_no_grad():
    model = nn.Sequential(nn.Linear(3, 5, rng=0), nn.SiLU(), nn.Linear(5, 2, rng=1))
    f = tg.compile(model)
    with tg.no_grad():
        for x, _ in batches(4):
            same(f(x), model(tg.tensor(x)))
    assert replays(f) == 2


def test_batches_of_two_sizes_and_another_dtype_have_lists_of_their_own():
    a, b = Run(), Run()
    step = tg.compile(a.step)
    for seed in range(3):
        agree(a, b, step, batches(2, n=5, seed=seed))
        agree(a, b, step, batches(1, n=2, seed=9 + seed))
    assert len(step.families) == 2 and replays(step) == 4 + 1


def test_gradients_that_add_up_over_calls():
    a, b = Run(), Run()

    def accumulate(run):
        def step(x, y):
            loss = tg.softmax_cross_entropy(run.model(x), y)
            loss.backward()
            return loss

        return step

    first, second = tg.compile(accumulate(a)), accumulate(b)
    for i, (x, y) in enumerate(batches(9)):
        same(first(x, y), second(tg.tensor(x), tg.tensor(y)))
        assert a.state() == b.state()
        if i % 3 == 2:
            a.optimizer.step(), a.optimizer.zero_grad(), b.optimizer.step(), b.optimizer.zero_grad()
    assert replays(first) == 6


def test_gradients_of_parameters_that_the_step_does_not_use_are_dropped_too():
    def make():
        one, two = nn.Linear(3, 4, rng=0), nn.Linear(3, 4, rng=1)
        optimizer = optim.SGD([*one.parameters(), *two.parameters()], lr=0.1)

        def step(x, y):
            optimizer.zero_grad()
            loss = tg.softmax_cross_entropy(one(x), y)
            loss.backward()
            optimizer.step()
            return loss

        return one, two, step

    (a, b, eager), (c, d, step) = make(), make()
    step = tg.compile(step)
    for i, (x, y) in enumerate(batches(9)):
        if i % 4 == 3:
            b(tg.tensor(x)).sum().backward(), d(tg.tensor(x)).sum().backward()
        same(eager(tg.tensor(x), tg.tensor(y)), step(x, y))
        for p, q in zip([*a.parameters(), *b.parameters()], [*c.parameters(), *d.parameters()]):
            same(p, q)
            assert (p.grad is None) == (q.grad is None)


def test_a_tape_walked_twice_and_a_gradient_of_its_own():
    w = {k: nn.Parameter([[1.0, 2.0], [3.0, -1.0]]) for k in "ab"}

    def make(w):
        def step(x, g):
            w.grad = None
            y = (x @ w) * (x @ w)
            y.backward(g, retain_graph=True)
            y.backward(g * 2)
            return y.detach().sum(axis=0)

        return step

    f, eager = tg.compile(make(w["a"])), make(w["b"])
    for x, _ in batches(4, n=3, width=2):
        same(f(x, x * 3), eager(tg.tensor(x), tg.tensor(x * 3)))
        same(w["a"].grad, w["b"].grad)
    assert replays(f) == 2


def test_labels_that_are_ignored_take_another_list():
    a, b = (Run(dropout=0.2, ignore_index=-1) for _ in range(2))
    step = tg.compile(a.step)
    for i, (x, y) in enumerate(batches(12)):
        if i % 3 == 1:
            y[0] = -1
        agree(a, b, step, [(x, y)])
    assert replays(step) > 6
    y[1] = 7
    before = [p.numpy().tobytes() for p in a.model.parameters()]
    with pytest.raises(ValueError, match="label 7"):
        step(x, y)
    assert [p.numpy().tobytes() for p in a.model.parameters()] == before


def test_check_compares_both_and_leaves_those_of_the_step():
    for method in ("SGD", "Adam"):
        a, b = (Run(method=method, dropout=0.2) for _ in range(2))
        step = tg.compile(a.step, check=True)
        agree(a, b, step, batches(5))
        assert replays(step) == 3
    program = step.last
    name = next(name for name in program.names if name.startswith("matmul"))
    forward = program.names[name]
    program.function.__globals__[name] = lambda a, b, *out: forward(a * np.float32(1.0000001), b, *out)
    with pytest.raises(RuntimeError, match="check: a .* is another after the replay"):
        step(x := next(batches(1))[0], next(batches(1))[1])
    assert x.shape == (5, 3)


# --- what belongs to the user ---------------------------------------------------------------------------------------


def test_state_is_saved_and_loaded_between_calls():
    a, b = (Run(method="Adam") for _ in range(2))
    step = tg.compile(a.step)
    agree(a, b, step, batches(4))
    kept = a.model.state_dict(), a.optimizer.state_dict()
    agree(a, b, step, batches(3, seed=1))
    for run in (a, b):
        run.model.load_state_dict(kept[0])
        run.optimizer.load_state_dict(kept[1])
    agree(a, b, step, batches(4, seed=2))
    assert replays(step) == 9


def test_options_of_the_optimizer_are_read_at_each_call():
    a, b = Run(), Run()
    step = tg.compile(a.step)
    for i, (x, y) in enumerate(batches(6)):
        for run in (a, b):
            run.optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
        agree(a, b, step, [(x, y)])
    assert replays(step) == 4


def test_frozen_and_converted_parameters_are_recorded_anew():
    a, b = Run(method="Adam"), Run(method="Adam")
    step = tg.compile(a.step)
    agree(a, b, step, batches(4))
    for run in (a, b):
        run.model[0].weight.requires_grad = False
    agree(a, b, step, batches(4, seed=1))
    for run in (a, b):
        run.model[0].weight.requires_grad = True
        run.model.to("float64")
    agree(a, b, step, batches(4, seed=2))
    assert replays(step) == 6


def test_the_version_of_a_parameter_moves():
    a = Run()
    step = tg.compile(a.step)
    for x, y in batches(3):
        step(x, y)
    kept = (a.model[0].weight ** 2).sum()
    step(*next(batches(1)))
    with pytest.raises(RuntimeError, match="changed in place"):
        kept.backward()


def test_results_are_the_users_own():
    f = tg.compile(lambda x: x * 2)
    first = [f(np.float32([1, 2])) for _ in range(4)]
    first[3][0] = 9
    assert [y.tolist() for y in first[:3]] == [[2, 4]] * 3 and f(np.float32([1, 2])).tolist() == [2, 4]


@pytest.mark.slow
def test_replays_hold_no_memory():
    run = Run(method="Adam")
    step, data = tg.compile(run.step), list(batches(4))

    def held():
        for x, y in data * 25:
            step(x, y)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    held()
    tracemalloc.start()
    try:
        found = [held() for _ in range(12)]  # NumPy's own store of small arrays fills up at first
    finally:
        tracemalloc.stop()
    growth = [later - before for before, later in zip(found, found[1:])]
    assert min(growth) < 1000, growth  # of 100 calls: an object that stays of each would be 2,400 bytes, every time
    assert replays(step) == 1300 - 2


# --- guards ---------------------------------------------------------------------------------------------------------


def test_a_number_of_a_closure_that_changes():
    lam = 0.1
    f = tg.compile(lambda x: (x * lam).sum())
    x = np.float64([1, 2])
    found = []
    for lam in (0.1, 0.1, 0.1, 0.2, 0.2, 0.2, 0.1):
        found.append(f(x).item() == (tg.tensor(x) * lam).sum().item())
    assert all(found) and replays(f) == 3


class Scaled(nn.Module):
    shift = 1.0

    def reset(self):  # nobody calls it in a step
        self.weight.data[...] = random.random()

    def __init__(self):
        self.scale, self.kind, self.parts = 2.0, "plain", [{"power": 2}]

    def helper(self, x):
        return x ** self.parts[0]["power"] + self.shift

    def forward(self, x):
        return self.helper(x) * self.scale * LAM if self.kind == "plain" else -x


def test_what_modules_objects_globals_and_containers_hold():
    class Settings:
        lam = 3.0

    module, settings, options = Scaled(), Settings(), {"a": 1.0, "b": [2.0]}

    def step(x, k=1.0):
        return (module(x) * settings.lam * options["a"] + options["b"][0] * k).sum()

    f, x = tg.compile(step), np.float64([1, 2, 3])

    def unchanged():
        for _ in range(3):
            same(f(x), step(tg.tensor(x)))
        return replays(f)

    def set_lam(value):
        globals()["LAM"] = value

    changes = [
        lambda: setattr(module, "scale", 3.0), lambda: setattr(settings, "lam", 4.0), lambda: options.update(a=5.0),
        lambda: options["b"].__setitem__(0, 6.0), lambda: setattr(module, "kind", "other"),
        lambda: setattr(module, "kind", "plain"), lambda: module.parts[0].update(power=3),
        lambda: setattr(Scaled, "shift", 2.0), lambda: set_lam(0.2), lambda: setattr(Settings, "lam", 9.0),
    ]  # fmt: skip
    try:
        count = unchanged()
        for change in changes[:-1]:
            change()
            assert unchanged() > count or change is changes[5]
            count = unchanged()
    finally:
        set_lam(0.1)
        Scaled.shift = 1.0


def test_a_step_that_is_never_the_same_warns():
    count = 0

    def step(x):
        nonlocal count
        count += 1
        return x * count

    f, x = tg.compile(step), np.float64([1.0])
    with pytest.warns(RuntimeWarning, match="recorded 16 times.*count"):
        for i in range(20):
            assert f(x).item() == i + 1
    assert "changed: count" in f.explain() and replays(f) == 0


# --- what there is to see -------------------------------------------------------------------------------------------


def test_a_step_at_the_top_of_a_program_that_is_called_like_what_it_calls(monkeypatch):
    run = Run()
    model, optimizer = run.model, run.optimizer

    @tg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = tg.softmax_cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    monkeypatch.setitem(globals(), "step", step)
    for x, y in batches(4):
        step(x, y)
    assert "replayed 2 times" in step.explain()


def test_the_list_can_be_read(capsys):
    run = Run()
    step = tg.compile(run.step)
    assert "nothing" in step.tape
    for x, y in batches(3):
        step(x, y)
    assert "affine" in step.tape and step.tape.startswith("def replay(x0, x1)")
    text = step.explain()
    assert "replayed 1 times" in text and "the first call" in text and capsys.readouterr().out.strip() == text


# --- refused --------------------------------------------------------------------------------------------------------

P = nn.Parameter([1.0, 2.0])
DEEP = [0]


def loss_of(x):
    P.grad = None
    loss = (x * P).sum()
    loss.backward()
    return loss


def in_place(x):
    loss = loss_of(x)
    with tg.no_grad():
        P.copy_(P - 0.1 * P.grad)
    return loss


def subtracted(x):
    global P
    loss_of(x)
    with tg.no_grad():
        P -= 0.1 * P.grad
    return x * 2


def written(x):
    y = x * 2
    y[0] = 1.0
    return y


def own_gradient(x):
    loss = loss_of(x)
    P.grad = P.grad * 2
    return loss


def hooked(x):
    y = x * P
    y.register_hook(lambda g: g * 2)
    y.sum().backward()
    return x * 2


def watched(x):
    with tg.detect_nan():
        return x * 2


def made(x):
    return x + tg.tensor([1.0, 2.0])


def second(x):
    y = (x * P).sum()
    y.backward(create_graph=True)
    return x * 2


def rates(x):
    optimizer = optim.SGD([P], lr=0.1)
    optimizer.step()
    return x * 2


OPTIMIZER = optim.SGD([P], lr=0.1)


RAW = P.numpy()


def decayed(x):
    loss = loss_of(x)
    np.multiply(RAW, 0.9, out=RAW)
    OPTIMIZER.step()
    return loss


def sets_rate(x):
    loss = loss_of(x)
    OPTIMIZER.param_groups[0]["lr"] *= 0.5
    OPTIMIZER.step()
    return loss


REFUSED = {
    "item": (lambda x: x * x.sum().item(), "read here as numbers"),
    "float": (lambda x: x * float(x.sum()), "read here as numbers"),
    "branch": (lambda x: x if x.sum() > 1 else -x, "read here as numbers"),
    "numpy": (lambda x: x * x.numpy(), "read here as numbers"),
    "data": (lambda x: x * x.data, "uses .data"),
    "contains": (lambda x: x * 2 if 1.0 in x else x, "read here as numbers"),
    "raw write": (decayed, "changed by a write that no op made"),
    "hook": (hooked, "hook on a gradient"),
    "detect_nan": (watched, "watch each op"),
    "history": (lambda x: x * P, "still has a history"),
    "view": (lambda x: x.reshape((2, 1)), "shows the memory"),
    "result": (lambda x: {1, 2}, "returns set"),
    "draws": (lambda x: x * random.random(), "draws random"),
    "numpy draws": (lambda x: x * np.random.rand(), "draws random"),
    "clock": (lambda x: x * time.time(), "clock"),
    "made": (made, "made in the step"),
    "deep": (lambda x: x * next(COUNT), "became|another"),
    "seed": (lambda x: (tg.manual_seed(0), x * 2)[1], "manual_seed"),
    "rate": (sets_rate, "options of an optimizer"),
    "new optimizer": (rates, "made in the step"),
}
COUNT = iter(range(10**6))
RECORDED = {  # what looks odd, and can be recorded
    "mask": lambda x: x[x > 0] * 2,
    "write": in_place,
    "minus": subtracted,
    "element": written,
    "gradient": own_gradient,
    "transform": lambda x: tg.grad(lambda z: (z * z * z).sum())(x) * 1,
    "hessian": lambda x: tg.hessian(lambda z: (z * z * z).sum())(x) * 1,
    "create_graph": second,
    "msign": lambda x: tg.msign(tg.stack([x, x * x])),
    "msign, fixed steps": lambda x: tg.msign(tg.stack([x, x * x]), steps=5),
    "svd": lambda x: tg.svd(x.reshape((1, 2)))[1],
    "sort": lambda x: tg.sort(x) * 2,
    "take": lambda x: tg.take(x, tg.arange(1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_a_sentence_that_names_the_line(name):
    step, message = REFUSED[name]
    f, x = tg.compile(step), np.float32([1.0, 2.0])
    loss_of(tg.tensor(x))
    try:
        with pytest.raises((RuntimeError, TypeError), match=message) as caught:
            for _ in range(3):
                f(x)
        assert re.search(r"compile: .*: ", str(caught.value))
        assert replays(f) == 0
    finally:
        with tg.no_grad():
            P.copy_(np.float32([1.0, 2.0]))
        P.grad = None


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_and_equal(name):
    step, rng = RECORDED[name], np.random.default_rng(0)
    f, found = tg.compile(step), []
    values = [abs(rng.standard_normal(2)).astype("float32") for _ in range(6)]
    try:
        for run in (f, lambda x: step(tg.tensor(x))):
            with tg.no_grad():
                P.copy_(np.float32([1.0, 2.0]))
            P.grad = None
            found.append([])
            for x in values:
                y = run(x)
                found[-1].append(
                    (y.numpy().tobytes(), P.numpy().tobytes(), None if P.grad is None else P.grad.numpy().tobytes())
                )
        assert found[0] == found[1] and replays(f) >= 3
    finally:
        with tg.no_grad():
            P.copy_(np.float32([1.0, 2.0]))
        P.grad = None


def test_refused_arguments_and_places():
    f = tg.compile(lambda x: x * 2)
    with pytest.raises(RuntimeError, match="requires a gradient"):
        f(tg.tensor([1.0], requires_grad=True))
    with pytest.raises(TypeError, match="an argument is object"):
        f(object())
    with pytest.raises(RuntimeError, match="eager"), tg.detect_nan():
        f(np.ones(2))
    with pytest.raises(TypeError, match="expected a function"):
        tg.compile(3)
    with pytest.raises(TypeError, match="coroutine"):
        tg.compile(generates)
    later = nn.Parameter([1.0, 2.0])

    def step(x):
        later.grad = None
        (x * later).sum().backward()
        return x * 1

    g = tg.compile(step)
    for _ in range(3):
        g(np.float32([1, 2]))
    handle = later.register_hook(lambda g: g * 2)
    with pytest.raises(RuntimeError, match="hook on a gradient"):
        g(np.float32([1, 2]))
    handle.remove()
    g(np.float32([1, 2]))
    assert later.grad.tolist() == [1, 2]


def generates(x):
    yield x


def test_on_the_strict_device():
    from tinygrad_ms.testing import strict  # noqa: F401  (registers the device)

    a, b = Run(method="Adam"), Run(method="Adam")
    a.model.to("strict"), b.model.to("strict")
    for run in (a, b):
        run.optimizer = OPTIMIZERS["Adam"](run.model.parameters())
    step = tg.compile(a.step)
    for x, y in batches(5):
        x, y = tg.tensor(x, device="strict"), tg.tensor(y, device="strict")
        first, second = step(x, y), b.step(x, y)
        assert first.device == "strict" and first.cpu().numpy() == second.cpu().numpy()
        for p, q in zip(a.model.parameters(), b.model.parameters()):
            same(p.cpu(), q.cpu()), same(p.grad.cpu(), q.grad.cpu())
    assert replays(step) == 3


def test_a_call_that_raises_in_a_replay_is_made_by_the_step_itself():
    """A quick kernel raises at an outlier. Eager then takes the careful one, and so does a replay."""
    x = tg.tensor(np.ones(3000, "float32"), requires_grad=True)

    def step(a):
        x.grad = None
        y = tg.silu(x * a)
        y.sum().backward()
        return y

    compiled, a = tg.compile(step), np.linspace(-3, 3, 3000).astype("float32")
    for k in range(8):
        a[5] = -200 if k > 4 else 1
        found, gradient = compiled(a).numpy(), x.grad.numpy()
        assert np.array_equal(found, step(tg.tensor(a)).numpy()) and np.array_equal(gradient, x.grad.numpy()), k
