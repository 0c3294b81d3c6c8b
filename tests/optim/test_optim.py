"""Optimizers, schedules and clipping: against plain formulas and PyTorch, saved states, every error."""

import gc
import warnings
from math import cos, hypot, inf, nan, pi, sqrt

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import optim
from tinygrad_ms.nn import Parameter
from tinygrad_ms.optim import adam, pieces

STEPS = 50
METHODS = {
    "sgd": (optim.SGD, dict(lr=0.1)),
    "sgd-decay": (optim.SGD, dict(lr=0.1, weight_decay=0.1)),
    "momentum": (optim.SGD, dict(lr=0.05, momentum=0.9)),
    "dampening": (optim.SGD, dict(lr=0.05, momentum=0.9, dampening=0.3, weight_decay=0.01)),
    "nesterov": (optim.SGD, dict(lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.02)),
    "adam": (optim.Adam, dict(lr=0.02)),
    "adam-decay": (optim.Adam, dict(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
    "adamw": (optim.AdamW, dict(lr=0.02, weight_decay=0.3)),
    "rmsprop": (optim.RMSprop, dict(lr=0.01, weight_decay=0.1)),
    "rmsprop-centered": (optim.RMSprop, dict(lr=0.01, alpha=0.9, eps=1e-4, momentum=0.5, centered=True)),
}
methods = pytest.mark.parametrize("method", METHODS)


def make(method, params):
    kind, options = METHODS[method]
    return kind(params, **options)


def start(seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in [(3, 4), (4,), ()]]


def gradients(values, t):
    """Of some function that is no quadratic: they change with the parameters and the step."""
    return [np.sin(3 * v + t) + 0.5 * v for v in values]


def run(optimizer, params, first, last):
    for t in range(first, last):
        for p, g in zip(params, gradients([p.numpy() for p in params], t)):
            p.grad = tg.tensor(g.astype(p.dtype))
        optimizer.step()


def reference(method, values):
    """The published formulas, written out plainly in float64."""
    kind, o = METHODS[method]
    o = (
        dict(
            momentum=0,
            dampening=0,
            weight_decay=0,
            nesterov=False,
            betas=(0.9, 0.999),
            eps=1e-8,
            alpha=0.99,
            centered=False,
        )
        | o
    )
    values = [v.astype("float64") for v in values]
    moments, means = [[0 * v, 0 * v] for v in values], [[0 * v, 0 * v] for v in values]
    for t in range(STEPS):
        for i, g in enumerate(gradients(values, t)):
            p, (m, v), lr = values[i], moments[i], o["lr"]
            if kind is optim.AdamW:
                p = p - lr * o["weight_decay"] * p
            else:
                g = g + o["weight_decay"] * p
            if kind is optim.SGD:
                m = g if t == 0 else o["momentum"] * m + (1 - o["dampening"]) * g
                values[i] = p - lr * (g + o["momentum"] * m if o["nesterov"] else m)
            elif kind is optim.RMSprop:
                a, b = means[i]
                v, a = o["alpha"] * v + (1 - o["alpha"]) * g * g, o["alpha"] * a + (1 - o["alpha"]) * g
                b = o["momentum"] * b + g / (np.sqrt(v - a * a if o["centered"] else v) + o["eps"])
                values[i], means[i] = p - lr * b, [a, b]
            else:
                beta1, beta2 = o["betas"]
                m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
                corrected = m / (1 - beta1 ** (t + 1)), v / (1 - beta2 ** (t + 1))
                values[i] = p - lr * corrected[0] / (np.sqrt(corrected[1]) + o["eps"])
            moments[i] = [m, v]
    return values


@methods
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 2e-5)])
def test_steps_follow_the_published_formulas(method, dtype, tolerance):
    params = [Parameter(v) for v in start(dtype=dtype)]
    run(make(method, params), params, 0, STEPS)
    for p, expected in zip(params, reference(method, start(dtype=dtype))):
        assert p.dtype == dtype
        np.testing.assert_allclose(p.numpy(), expected, rtol=tolerance, atol=tolerance)


@methods
def test_a_step_on_a_device_waits_for_nothing_and_gives_what_numpy_gives(method, device):
    params = [Parameter(v, device=device) for v in start(dtype="float32")]
    optimizer = make(method, params)
    grads = [[tg.tensor(g.astype("float32"), device=device) for g in gradients(start(), t)] for t in range(3)]
    with tg.testing.forbid_sync():
        for t in range(3):
            for p, g in zip(params, grads[t]):
                p.grad = g
            optim.clip_grad_norm(params, 5.0)
            optim.clip_grad_value(params, 2.0)
            optimizer.step()
    assert all(p.device == device for p in params)
    expected = [Parameter(v) for v in start(dtype="float32")]
    optimizer = make(method, expected)
    for t in range(3):
        for p, g in zip(expected, gradients(start(), t)):
            p.grad = tg.tensor(g.astype("float32"))
        optim.clip_grad_norm(expected, 5.0)
        optim.clip_grad_value(expected, 2.0)
        optimizer.step()
    for p, q in zip(params, expected):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
@methods
def test_steps_equal_pytorch(method):
    torch = pytest.importorskip("torch")
    kind, options = METHODS[method]
    params = [Parameter(v) for v in start()]
    theirs = [torch.nn.Parameter(torch.tensor(v)) for v in start()]
    peer = getattr(torch.optim, kind.__name__)(theirs, **options)
    run(make(method, params), params, 0, STEPS)
    for t in range(STEPS):
        for p, g in zip(theirs, gradients([p.detach().numpy() for p in theirs], t)):
            p.grad = torch.tensor(g)
        peer.step()
    for p, q in zip(params, theirs):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-6, atol=1e-6)


@methods
def test_a_run_stopped_and_resumed_is_the_same_bit_for_bit(method):
    straight = [Parameter(v) for v in start(dtype="float32")]
    run(make(method, straight), straight, 0, 20)

    first = [Parameter(v) for v in start(dtype="float32")]
    optimizer = make(method, first)
    run(optimizer, first, 0, 10)
    state = optimizer.state_dict()

    second = [Parameter(p) for p in first]
    optimizer = METHODS[method][0](second)  # the options come with the state
    optimizer.load_state_dict(state)
    run(optimizer, second, 10, 20)
    for p, q in zip(second, straight):
        assert np.array_equal(p.numpy(), q.numpy())


def test_groups_have_options_of_their_own():
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 1.0}], lr=0.25)
    for p in (a, b):
        p.grad = tg.tensor([1.0])
    optimizer.step()
    assert a.item() == 0.75 and b.item() == 0.0
    c = Parameter([1.0])
    optimizer.add_param_group({"params": [c], "momentum": 0.5})
    assert optimizer.param_groups[2]["lr"] == 0.25 and optimizer.param_groups[2]["momentum"] == 0.5
    assert "group 1: 1 parameters, lr=1.0" in repr(optimizer)


def test_plain_leaf_tensors_can_be_optimized():
    x = tg.tensor([3.0], requires_grad=True)
    optimizer = optim.SGD([x], lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        (x * x).sum().backward()
        optimizer.step()
    assert abs(x.item()) < 1e-8


def test_a_parameter_without_gradient_is_passed_over_and_counts_no_step():
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = optim.Adam([a, b], weight_decay=0.1)
    a.grad = tg.tensor([1.0])
    optimizer.step()
    assert b.item() == 1.0 and b not in optimizer.state and optimizer.state[a]["step"] == 1
    optimizer.zero_grad()
    assert a.grad is None


def test_a_step_is_in_place_and_the_tape_notices_it():
    p = Parameter([2.0])
    memory = p.data
    loss = (p * p).sum()
    p.grad = tg.tensor([1.0])
    optim.SGD([p], lr=0.5).step()
    assert p.data is memory and p.item() == 1.5 and p.is_leaf
    with pytest.raises(RuntimeError, match="changed in place after it had been saved"):
        loss.backward()


def test_half_precision_parameters_are_updated_in_float32():
    p = Parameter(np.array([1.0], "float16"))
    optimizer = optim.Adam([p], lr=0.01)
    for _ in range(10):
        p.grad = tg.tensor(np.array([1e-6], "float16"))  # its square is 0 in float16, and eps = 1e-8 too
        optimizer.step()
    assert p.dtype == "float16" and optimizer.state[p]["exp_avg"].dtype == "float32"
    np.testing.assert_allclose(p.numpy(), [0.9], atol=3e-3)


def test_steps_leave_no_garbage_and_need_no_collector():
    p = Parameter(np.ones(10, "float32"))
    optimizer = optim.AdamW([p])
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            optimizer.zero_grad()
            (p * p).sum().backward()
            optimizer.step()
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_a_state_dict_is_a_snapshot():
    p = Parameter([1.0])
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = tg.tensor([1.0])
    optimizer.step()
    state = optimizer.state_dict()
    optimizer.step()
    assert state == {
        "state": {0: {"step": 1, "momentum_buffer": np.array([1.0])}},
        "param_groups": [dict(params=[0], lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0, nesterov=False)],
    }


def leaf():
    return Parameter(np.ones((2, 3)))


ERRORS = {
    "empty": (ValueError, lambda: optim.SGD([]), "SGD: the list of parameters is empty"),
    "one tensor": (TypeError, lambda: optim.SGD(leaf()), "SGD: params is Parameter; expected a list of Tensors"),
    "a module": (TypeError, lambda: optim.SGD(tg.nn.Module()), "SGD: params is Module; expected a list of Tensors"),
    "no tensor": (TypeError, lambda: optim.Adam(["w"]), "Adam: parameter 0 of group 0 is str; expected a Tensor"),
    "no leaf": (
        ValueError,
        lambda: optim.Adam([leaf() * 2.0]),
        r"parameter 0 of group 0 \(unnamed, shape \(2, 3\)\) is the result of multiply .*only leaves can be",
    ),
    "no gradient": (ValueError, lambda: optim.Adam([tg.tensor([1.0])]), "has requires_grad=False; leave it out"),
    "twice": (ValueError, lambda: optim.SGD([(p := leaf()), p]), "parameter 1 of group 0 .* is there twice"),
    "option of a group": (
        ValueError,
        lambda: optim.SGD([{"params": [leaf()], "learning_rate": 1}]),
        "SGD: unknown option learning_rate; its options are lr, momentum, dampening, weight_decay, nesterov",
    ),
    "option": (
        TypeError,
        lambda: optim.SGD([leaf()], beta=1),
        "SGD: there is no argument beta; its arguments are params, lr, momentum",
    ),
    "mixed groups": (TypeError, lambda: optim.SGD([{"params": [leaf()]}, leaf()]), "SGD: a group is a dict such as"),
    "empty group": (ValueError, lambda: optim.SGD([{"params": []}]), "the list of parameters of group 0 is empty"),
    "infinite": (ValueError, lambda: optim.SGD([leaf()], lr=inf), "SGD: lr is inf, expected at least 0"),
    "lr": (ValueError, lambda: optim.SGD([leaf()], lr=-1), "SGD: lr is -1, expected at least 0"),
    "lr True": (TypeError, lambda: optim.SGD([leaf()], lr=True), "SGD: lr is True, expected a number"),
    "lr of a tensor": (
        TypeError,
        lambda: optim.Adam([leaf()], lr=tg.tensor(0.1)),
        "Adam: lr is Tensor.*expected a number",
    ),
    "nan": (ValueError, lambda: optim.SGD([leaf()], lr=nan), "SGD: lr is nan, expected at least 0"),
    "decay": (ValueError, lambda: optim.AdamW([leaf()], weight_decay=-1), "AdamW: weight_decay is -1"),
    "momentum": (ValueError, lambda: optim.SGD([leaf()], momentum=-1), "SGD: momentum is -1, expected at least 0"),
    "nesterov": (
        ValueError,
        lambda: optim.SGD([leaf()], nesterov=True),
        "SGD: nesterov is True, expected False, or mom",
    ),
    "betas": (ValueError, lambda: optim.Adam([leaf()], betas=(0.9, 1.0)), r"Adam: betas is \(0.9, 1.0\), expected two"),
    "no betas": (ValueError, lambda: optim.Adam([leaf()], betas=0.9), "Adam: betas is 0.9, expected two numbers"),
    "betas of text": (ValueError, lambda: optim.Adam([leaf()], betas=("a", "b")), "Adam: betas is .* expected two"),
    "eps of text": (TypeError, lambda: optim.Adam([leaf()], eps="x"), "Adam: eps is 'x', expected a number"),
    "infinite eps": (ValueError, lambda: optim.Adam([leaf()], eps=inf), "Adam: eps is inf, expected at least 0"),
    "momentum of text": (TypeError, lambda: optim.SGD([leaf()], momentum="x"), "SGD: momentum is 'x', expected a num"),
    "infinite momentum": (ValueError, lambda: optim.SGD([leaf()], momentum=inf), "SGD: momentum is inf, expected at"),
    "dampening": (ValueError, lambda: optim.SGD([leaf()], dampening=nan), "SGD: dampening is nan, expected at least 0"),
    "too much": (ValueError, lambda: optim.SGD([leaf()], dampening=3), "SGD: dampening is 3, expected at most 1"),
    "muon's momentum": (ValueError, lambda: optim.Muon([leaf()], momentum=1), "momentum is 1, expected at least 0 and"),
    "adamw_lr": (ValueError, lambda: optim.Muon([leaf()], adamw_lr=nan), "Muon: adamw_lr is nan, expected at least 0"),
    "scale": (
        ValueError,
        lambda: optim.Muon([leaf()], scale=["rms"]),
        r"Muon: scale is \['rms'\], expected 'spectral'",
    ),
    "eps": (ValueError, lambda: optim.Adam([leaf()], eps=-1), "Adam: eps is -1, expected at least 0"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_sentences(case):
    kind, call, message = ERRORS[case]
    with pytest.raises(kind, match=message):
        call()


def test_a_gradient_of_another_shape_is_refused():
    p = leaf()
    p.name = "hidden.weight"
    p.grad = tg.tensor([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"SGD: hidden.weight has shape \(2, 3\) on cpu and its gradient \(3,\)"):
        optim.SGD([p]).step()


STEPS_THAT_RAISE = {
    "shape": (lambda p: tg.ones(2), ValueError, r"b has shape \(1,\) on cpu and its gradient \(2,\)"),
    "array": (lambda p: np.ones(1), TypeError, "the gradient of b is ndarray, expected a Tensor"),
    "integer": (lambda p: tg.tensor([1]), TypeError, "b is float32 and its gradient int64"),
}


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.Muon, optim.RMSprop])
@pytest.mark.parametrize("case", STEPS_THAT_RAISE)
def test_a_step_that_raises_has_changed_nothing(kind, case):
    wrong, error, message = STEPS_THAT_RAISE[case]
    a, b, c = (tg.tensor([1.0], requires_grad=True) for _ in range(3))
    b.name = "b"
    optimizer = kind([{"params": [a, b]}, {"params": [c]}])
    for p in (a, b, c):
        p.grad = tg.ones(1)
    optimizer.step()
    before, state = [p.item() for p in (a, b, c)], optimizer.state_dict()
    b.grad = wrong(b)
    with pytest.raises(error, match=message):
        optimizer.step()
    assert [p.item() for p in (a, b, c)] == before
    assert str(optimizer.state_dict()) == str(state)


def test_an_option_set_by_hand_out_of_range_is_refused_before_the_step():
    a, b = with_grads([1.0], [1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], lr=1.0)
    optimizer.param_groups[1]["lr"] = -1.0
    with pytest.raises(ValueError, match="SGD: lr is -1.0, expected at least 0"):
        optimizer.step()
    assert a.item() == 0


BAD_GROUPS = {
    "no gradient": lambda p: [Parameter(np.ones((3, 3))), tg.tensor([1.0])],
    "there already": lambda p: [Parameter(np.ones((3, 3))), p],
    "twice": lambda p: [Parameter(np.ones((3, 3))), (v := Parameter([1.0])), v],
    "no leaf": lambda p: [Parameter(np.ones((3, 3))), Parameter([1.0]) * 2.0],
    "no tensor": lambda p: [Parameter(np.ones((3, 3))), 3],
}


@pytest.mark.parametrize("kind", [optim.SGD, optim.Muon])
@pytest.mark.parametrize("case", BAD_GROUPS)
def test_a_group_that_is_refused_is_not_there(kind, case):
    p = Parameter(np.ones((2, 2)))
    optimizer = kind([p])
    schedule = optim.StepLR(optimizer, 1)
    with pytest.raises((ValueError, TypeError), match=f"{kind.__name__}: parameter .* of group"):
        optimizer.add_param_group({"params": BAD_GROUPS[case](p)})
    assert len(optimizer.param_groups) == 1 and len(schedule.base_lrs) == 1
    optimizer.add_param_group({"params": [Parameter(np.ones((3, 3)))]})
    assert len(optimizer.param_groups) == 2


@pytest.mark.parametrize("dampening", [0.0, 0.5])
def test_a_momentum_that_is_switched_on_later_begins_with_the_gradient(dampening):
    def stepped(p, optimizer, steps):
        for _ in range(steps):
            p.grad = tg.tensor([1.0])
            optimizer.step()

    p, q = Parameter([0.0]), Parameter([0.0])
    optimizer = optim.SGD([p], lr=1.0, dampening=dampening)
    stepped(p, optimizer, 2)
    optimizer.param_groups[0]["momentum"] = 0.5
    resumed = optim.SGD([q], lr=1.0, dampening=dampening)
    resumed.load_state_dict(optimizer.state_dict())  # the state has no momentum yet
    with tg.no_grad():
        q.copy_(p)
    stepped(p, optimizer, 2)
    stepped(q, resumed, 2)
    expected = -2 - 1 - (0.5 + 1 - dampening)  # m = 1, then m = 0.5 + (1 - dampening)
    assert p.item() == expected and q.item() == expected


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.AdamW, optim.Muon, optim.RMSprop])
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 0)])
def test_empty_parameters_are_passed_over(kind, shape):
    p, q = Parameter(np.zeros(shape)), Parameter(np.ones((2, 2)))
    optimizer = kind([p, q], lr=0.1)
    (p.sum() + q.sum()).backward()
    assert float(optim.clip_grad_norm([p, q], 10.0)) == 2.0
    optimizer.step()
    assert p.shape == shape and np.all(q.numpy() != 1)


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.Muon])
@pytest.mark.parametrize("target", ["float64", "strict"])
def test_a_model_converted_after_its_optimizer_was_made_trains_on(kind, target):
    options = dict(momentum=0.9) if kind is optim.SGD else {}
    models = [tg.nn.Linear(3, 2, rng=0).astype("float64") for _ in range(2)]
    models[1].astype("float32")
    optimizers = [kind(model.parameters(), lr=0.1, **options) for model in models]

    def steps():
        for model, optimizer in zip(models, optimizers):
            for _ in range(2):
                optimizer.zero_grad()
                x = tg.tensor(np.ones((4, 3)), device=model.weight.device).astype(model.weight.dtype)
                (model(x) ** 2).sum().backward()
                optimizer.step()

    steps()
    models[1].to(target)
    steps()
    buffers = {name: value for name, value in optimizers[1].state[models[1].weight].items() if name != "step"}
    assert {str(value.dtype) for value in buffers.values()} == {str(models[1].weight.dtype)}
    np.testing.assert_allclose(models[1].weight.numpy(), models[0].weight.numpy(), rtol=1e-5, atol=1e-6)


def broken(change):
    """Load the state of an Adam, with a change, into an equal one, which must stay as it was."""

    def stepped():
        params = [Parameter(v) for v in start()]
        optimizer = optim.Adam([{"params": params[:2]}, {"params": params[2:], "lr": 0.5}])
        run(optimizer, params, 0, 3)
        return optimizer

    optimizer, state = stepped(), stepped().state_dict()
    before = optimizer.state_dict()
    change(state)
    try:
        optimizer.load_state_dict(state)
    finally:
        after = optimizer.state_dict()
        assert after["param_groups"] == before["param_groups"]
        for number, kept in before["state"].items():
            assert all(np.array_equal(after["state"][number][name], kept[name]) for name in kept)


STATE_ERRORS = {
    "another kind": (lambda s: s.clear(), "expected a dict with state and param_groups"),
    "groups": (lambda s: s["param_groups"].pop(), "the state has 1 groups and the optimizer 2"),
    "count": (lambda s: s["param_groups"][0]["params"].pop(), "group 0 has 1 parameters in the state and 2 here"),
    "options": (
        lambda s: s["param_groups"][1].pop("eps"),
        "group 1 has the options lr, betas, weight_decay in the state",
    ),
    "range": (lambda s: s["param_groups"][1].update(lr=-1.0), "Adam: lr is -1.0"),
    "shape": (
        lambda s: s["state"][1].update(exp_avg=np.zeros(5)),
        r"parameter 1: exp_avg is float64 of shape \(5,\) in",
    ),
    "dtype": (
        lambda s: s["state"][2].update(exp_avg=np.zeros((), "float32")),
        "exp_avg is float32 of shape .* float64",
    ),
    "buffer": (
        lambda s: s["state"][2].pop("exp_avg_sq"),
        "parameter 2 has step, exp_avg in the state, expected step, exp_",
    ),
    "groups of another kind": (lambda s: s.update(param_groups=3), "param_groups is 3, expected a list of dicts"),
    "groups of None": (
        lambda s: s.update(param_groups=[None, None]),
        r"param_groups is \[None, None\], expected a list",
    ),
    "no dict of states": (lambda s: s.update(state=[1]), r"state is \[1\], expected a dict of dicts"),
    "no dict of one": (lambda s: s["state"].update({0: [1]}), "expected a dict of dicts"),
    "no list of parameters": (lambda s: s["param_groups"][0].update(params=2), "group 0 has 2 parameters in the state"),
    "other numbers": (
        lambda s: s["param_groups"][0].update(params=[1, 0]),
        r"group 0 has the parameters \[1, 0\] in the state, expected them by their numbers from 0",
    ),
    "negative step": (lambda s: s["state"][0].update(step=-1), "parameter 0: step is -1 in the state, expected an int"),
    "half a step": (lambda s: s["state"][0].update(step=2.5), "parameter 0: step is 2.5 in the state"),
    "no step": (lambda s: s["state"][0].update(step="x"), "parameter 0: step is 'x' in the state"),
    "mask": (
        lambda s: s["state"][0].update(exp_avg=np.ma.masked_array(np.ones((3, 4)), True)),
        "parameter 0: exp_avg is a masked array",
    ),
    "number": (lambda s: s["state"].update({3: {}}), r"the state has parameters \[3\] and there are 3 here"),
}


@pytest.mark.parametrize("case", STATE_ERRORS)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(case):
    change, message = STATE_ERRORS[case]
    with pytest.raises(ValueError, match=message):
        broken(change)


def test_the_state_of_another_method_is_refused():
    state = optim.SGD([leaf()]).state_dict()
    with pytest.raises(ValueError, match="group 0 has the options lr, momentum, .* in the state and lr, betas, eps"):
        optim.Adam([leaf()]).load_state_dict(state)


# --- schedules ----------------------------------------------------------------------------------------------

SCHEDULES = {
    "step": (lambda o: optim.StepLR(o, 3, gamma=0.5), lambda t: 0.5 ** (t // 3)),
    "warm-up": (lambda o: optim.WarmupLR(o, 4), lambda t: min(1, (t + 1) / 4)),
    "no warm-up": (lambda o: optim.WarmupLR(o, 0), lambda t: 1),
    "cosine": (lambda o: optim.CosineLR(o, 8), lambda t: (1 + cos(pi * min(t, 8) / 8)) / 2),
    "warm-up and cosine": (
        lambda o: optim.CosineLR(o, 10, warmup_steps=2, final=0.1),
        lambda t: (t + 1) / 2 if t < 2 else 0.1 + 0.9 * (1 + cos(pi * min(t - 2, 8) / 8)) / 2,
    ),
    "lambda": (lambda o: optim.LambdaLR(o, lambda t: 0.9**t), lambda t: 0.9**t),
}


@pytest.mark.parametrize("case", SCHEDULES)
def test_schedules_follow_their_formulas_and_resume(case):
    make_schedule, factor = SCHEDULES[case]
    optimizer = optim.SGD([{"params": [leaf()]}, {"params": [leaf()], "lr": 4.0}], lr=2.0)
    schedule = make_schedule(optimizer)
    for t in range(12):
        rates = [group["lr"] for group in optimizer.param_groups]
        np.testing.assert_allclose(rates, [2.0 * factor(t), 4.0 * factor(t)], rtol=1e-12)
        saved = optimizer.state_dict(), schedule.state_dict()
        fresh = optim.SGD([{"params": [leaf()]}, {"params": [leaf()]}], lr=9.0)
        resumed = make_schedule(fresh)
        fresh.load_state_dict(saved[0])
        resumed.load_state_dict(saved[1])
        assert [group["lr"] for group in fresh.param_groups] == rates
        schedule.step()
        resumed.step()
        assert [g["lr"] for g in fresh.param_groups] == [g["lr"] for g in optimizer.param_groups]


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.Muon])
def test_a_group_added_later_follows_the_schedule_at_once(kind):
    optimizer = kind([leaf()], lr=2.0)
    schedule = optim.StepLR(optimizer, 1, 0.5)
    schedule.step()
    optimizer.add_param_group({"params": [leaf()], "lr": 8.0})
    assert rates(optimizer) == [1.0, 4.0] and schedule.base_lrs == [2.0, 8.0]
    schedule.step()
    assert rates(optimizer) == [0.5, 2.0]
    other = kind([{"params": [leaf()], "lr": 3.0}, {"params": [leaf()], "lr": 3.0}])
    resumed = optim.StepLR(other, 1, 0.5)
    resumed.load_state_dict(schedule.state_dict())
    assert rates(other) == [0.5, 2.0]


def test_a_second_schedule_takes_the_place_of_the_first():
    optimizer = optim.SGD([leaf()], lr=2.0)
    first = optim.WarmupLR(optimizer, 100)
    assert rates(optimizer) == [0.02]
    second = optim.StepLR(optimizer, 1, 0.5)
    assert rates(optimizer) == [2.0]  # of the first rate, not of the one that the first schedule left
    for call in (first.step, lambda: first.load_state_dict(first.state_dict())):
        with pytest.raises(RuntimeError, match="of WarmupLR: another schedule of this optimizer was made since"):
            call()
    second.step()
    assert rates(optimizer) == [1.0] and first.steps == 0
    optimizer.param_groups[0]["lr"] = 8.0  # by hand: the next schedule starts from it
    third = optim.StepLR(optimizer, 1, 0.5)
    third.step()
    assert rates(optimizer) == [4.0]


@pytest.mark.parametrize("warmup", [0.5, 2.5, 3.9])
@pytest.mark.parametrize("kind", [optim.WarmupLR, lambda o, w: optim.CosineLR(o, 20, w)])
def test_a_fractional_warm_up_never_exceeds_the_rate(kind, warmup):
    optimizer = optim.SGD([leaf()], lr=1.0)
    schedule = kind(optimizer, warmup)
    seen = []
    for _ in range(8):
        seen += rates(optimizer)
        schedule.step()
    assert max(seen) <= 1.0 and seen[0] == min(1.0, 1 / warmup)


@pytest.mark.parametrize("value", [-0.5, nan, inf])
def test_a_factor_that_is_no_rate_is_refused_and_changes_nothing(value):
    optimizer = optim.SGD([leaf()], lr=1.0)
    schedule = optim.LambdaLR(optimizer, lambda t: 0.5 if t < 1 else value)
    with pytest.raises(ValueError, match=f"LambdaLR: the factor of step 1 is {value}, expected a number >= 0"):
        schedule.step()
    assert schedule.steps == 0 and rates(optimizer) == [0.5]


@pytest.mark.parametrize(
    "kind, call, message",
    [
        (ValueError, lambda o: optim.StepLR(o, 1, gamma=nan), "StepLR: gamma is nan, expected at least 0"),
        (ValueError, lambda o: optim.CosineLR(o, 9, final=2.0), "CosineLR: final is 2.0, expected at most 1, the fact"),
        (TypeError, lambda o: optim.LambdaLR(o, None), "LambdaLR: function is NoneType, expected a function of the"),
        (TypeError, lambda o: optim.LambdaLR(o, lambda t: "x"), "LambdaLR: the factor of step 0 is 'x', expected a"),
        (TypeError, lambda o: optim.LambdaLR(o, lambda t: None), "LambdaLR: the factor of step 0 is None, expected a"),
        (ValueError, lambda o: optim.StepLR(o, nan), "StepLR: step_size is nan, expected at least 1"),
        (ValueError, lambda o: optim.CosineLR(o, inf), "CosineLR: total_steps is inf"),
        (TypeError, lambda o: optim.WarmupLR(o, "3"), "WarmupLR: warmup_steps is '3', expected a number of at least 0"),
        (
            ValueError,
            lambda o: optim.WarmupLR(o, 3).load_state_dict({"steps": -1, "base_lrs": [1]}),
            "steps is -1, expected an integer of at least 0",
        ),
        (
            ValueError,
            lambda o: optim.WarmupLR(o, 3).load_state_dict({"steps": 1, "base_lrs": [nan]}),
            "a learning rate is nan",
        ),
        (TypeError, lambda o: optim.StepLR(o.param_groups, 3), "StepLR: optimizer is list, expected an Optimizer"),
        (ValueError, lambda o: optim.StepLR(o, 0), "StepLR: step_size is 0, expected at least 1"),
        (ValueError, lambda o: optim.CosineLR(o, 5, warmup_steps=5), "CosineLR: total_steps is 5, expected at least 6"),
        (ValueError, lambda o: optim.WarmupLR(o, -1), "WarmupLR: warmup_steps is -1, expected at least 0"),
        (
            ValueError,
            lambda o: optim.WarmupLR(o, 3).load_state_dict({"steps": 1}),
            "expected a dict of steps and base_lrs",
        ),
        (
            ValueError,
            lambda o: optim.WarmupLR(o, 3).load_state_dict({"steps": 1, "base_lrs": [1, 2]}),
            "the state has 2 groups and the optimizer 1",
        ),
    ],
)
def test_errors_of_schedules(kind, call, message):
    with pytest.raises(kind, match=message):
        call(optim.SGD([leaf()]))


# --- a step is whole or it is not made ------------------------------------------------------------------------


def failing(kind, error):
    """The method ``kind`` with an update that does its work and then raises ``error`` at the parameter called b."""

    class Failing(kind):
        bad = None

        def update(self, xp, p, g, state, options):
            super().update(xp, p, g, state, options)
            state["mine"] = xp.ones(2)
            if p.shape == self.bad:
                raise error

    return Failing


METHODS_THAT_FAIL = {
    "SGD": (optim.SGD, dict(momentum=0.9)),
    "SGD plain": (optim.SGD, {}),
    "Adam": (optim.Adam, {}),
    "AdamW": (optim.AdamW, {}),
    "Muon": (optim.Muon, {}),
    "RMSprop": (optim.RMSprop, dict(momentum=0.9, centered=True)),
}


def exact(optimizer):
    """All that a step changes, as text and bytes."""
    state = [
        (p.numpy().tobytes(), p.version_counter()[0], [(k, host(v)) for k, v in optimizer.state.get(p, {}).items()])
        for group in optimizer.param_groups
        for p in group["params"]
    ]
    return state, [p in optimizer.state for group in optimizer.param_groups for p in group["params"]]


def host(value):
    return value if isinstance(value, int) else tg.asarray(value).numpy().tobytes()


@pytest.mark.parametrize("method", METHODS_THAT_FAIL)
@pytest.mark.parametrize("dtype, device", [("float32", "cpu"), ("float16", "cpu"), ("float32", "strict")])
@pytest.mark.parametrize("earlier", [0, 2])
@pytest.mark.parametrize("error", [ValueError("shapes (3,) and (2,) do not broadcast"), KeyboardInterrupt()])
def test_an_update_that_raises_halfway_has_changed_nothing(method, dtype, device, earlier, error):
    kind, options = METHODS_THAT_FAIL[method]
    shapes = [(2, 2), (3, 3), (4, 4), (3,)]
    params, expected = ([Parameter(np.ones(n), dtype, device) for n in shapes] for _ in range(2))
    optimizer, plain = failing(kind, error)(params, lr=0.1, **options), kind(expected, lr=0.1, **options)
    schedule = optim.StepLR(optimizer, 1, 0.5)

    def gradients():
        for p in (*params, *expected):
            p.grad = p.detach() * 0.5 + 0.25

    def step():
        gradients()
        optim.clip_grad_norm(params, 100.0)
        optimizer.step()
        schedule.step()

    for _ in range(earlier):
        step()
    schedule.load_state_dict({"steps": 0, "base_lrs": schedule.base_lrs})
    before, arrays, lrs = exact(optimizer), [p.data for p in params], rates(optimizer)
    optimizer.bad = (3, 3)
    with pytest.raises(type(error)):
        step()
    assert exact(optimizer) == before and rates(optimizer) == lrs and schedule.steps == 0
    assert all(p.data is array for p, array in zip(params, arrays))
    optimizer.bad = None
    if not earlier:  # and what comes next is as if nothing had been
        gradients()
        optimizer.step()
        plain.step()
        assert [p.numpy().tobytes() for p in params] == [p.numpy().tobytes() for p in expected]


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW, optim.Muon])
@pytest.mark.parametrize("how", ["errstate", "warnings"])
def test_arithmetic_that_raises_halfway_has_changed_nothing(kind, how):
    a, b, c = with_grads([1.0], [1.0], [1.0])
    optimizer = kind([a, b, c])
    optimizer.step()
    before = exact(optimizer)
    b.grad = tg.tensor([3e30])  # the square overflows
    with np.errstate(over="raise" if how == "errstate" else "warn"), warnings.catch_warnings():
        warnings.simplefilter("error" if how == "warnings" else "default")
        with pytest.raises((FloatingPointError, RuntimeWarning), match="overflow"):
            optimizer.step()
    assert exact(optimizer) == before


@methods
def test_steps_with_and_without_copies_are_the_same(method):
    results = []
    for action in ("error", "default"):  # with copies of everything, and without
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            params = [Parameter(v) for v in start(dtype="float32")]
            run(make(method, params), params, 0, 5)
        results.append([p.numpy().tobytes() for p in params])
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam, optim.Muon])
def test_a_read_only_parameter_is_refused_before_any_changes(kind):
    a, b = with_grads([1.0], [1.0])
    optimizer = kind([a, b])
    b.name = "b"
    with tg.guard_saved():
        loss = (b * b).sum()
        before = exact(optimizer)
        with pytest.raises(ValueError, match=rf"{kind.__name__}: b of shape \(1,\) is a read-only array: guard_saved"):
            optimizer.step()
        assert exact(optimizer) == before
        loss.backward()
    optimizer.step()
    assert exact(optimizer) != before


def test_an_option_changed_in_place_or_to_what_equals_it_is_checked():
    a, b = with_grads([1.0], [1.0])
    optimizer = optim.Adam([a, b], betas=(0.5, 0.5))
    optimizer.param_groups[0]["betas"] = betas = [0.5, 0.5]
    optimizer.step()
    betas[0] = 2.0
    with pytest.raises(ValueError, match=r"Adam: betas is \[2.0, 0.5\], expected two numbers"):
        optimizer.step()
    optimizer.param_groups[0]["betas"] = (0.5, 0.5)
    for bad in (np.ones(2), tg.ones(2), None, "0.001"):
        optimizer.param_groups[0]["lr"] = bad
        with pytest.raises(TypeError, match="Adam: lr is .*, expected a number"):
            optimizer.step()
    assert optimizer.state[a]["step"] == 1


def test_a_rate_set_by_hand_counts_at_the_next_step():
    for method in (dict(), dict(momentum=0.5)):
        (a,) = with_grads([1.0])
        optimizer = optim.SGD([a], lr=1.0, **method)
        optimizer.step()
        optimizer.param_groups[0].update(lr=4.0, momentum=0.0)
        optimizer.step()
        assert a.item() == -5.0


def test_a_parameter_of_another_shape_is_refused():
    (a,) = with_grads([1.0])
    optimizer = optim.Adam([a])
    optimizer.step()
    a.data = np.ones(3, "float32")
    a.grad = tg.ones(3)
    with pytest.raises(ValueError, match=r"Adam: exp_avg of a parameter has shape \(1,\) and the parameter \(3,\)"):
        optimizer.step()
    assert optimizer.state[a]["step"] == 1


def test_rates_that_cannot_be_multiplied_change_nothing():
    a, b = with_grads([1.0], [1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], lr=1.0)
    schedule = optim.StepLR(optimizer, 1, 0.5)
    schedule.base_lrs[1] = None
    with pytest.raises(TypeError):
        schedule.step()
    assert rates(optimizer) == [1.0, 1.0] and schedule.steps == 0


# --- clipping -----------------------------------------------------------------------------------------------


def with_grads(*grads, dtype="float32"):
    params = []
    for g in grads:
        params.append(Parameter(np.zeros_like(g, dtype=dtype)))
        params[-1].grad = tg.tensor(np.asarray(g, dtype=dtype))
    return params


def test_clip_grad_norm_scales_all_by_one_factor_and_returns_the_norm():
    a, b = with_grads([3.0, 0.0], [[4.0]])
    untouched = Parameter([1.0])
    norm = optim.clip_grad_norm([a, b, untouched], 1.0)
    assert norm.shape == () and float(norm) == 5.0 and untouched.grad is None
    np.testing.assert_allclose(a.grad.numpy(), [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), [[0.8]], rtol=1e-6)


def test_clip_grad_norm_leaves_small_gradients_bit_for_bit():
    g = np.random.default_rng(0).normal(size=7).astype("float32")
    (p,) = with_grads(g)
    assert float(optim.clip_grad_norm(p, 100.0)) == pytest.approx(sqrt(float((g.astype("float64") ** 2).sum())))
    assert np.array_equal(p.grad.numpy(), g)


def test_clip_grad_norm_by_the_largest_element():
    a, b = with_grads([1.0, -8.0], [2.0])
    assert float(optim.clip_grad_norm([a, b], 2.0, norm_type=inf)) == 8.0
    np.testing.assert_allclose(a.grad.numpy(), [0.25, -2.0], rtol=1e-6)


def test_clip_grad_norm_of_nothing_is_zero():
    assert float(optim.clip_grad_norm([Parameter([1.0])], 1.0)) == 0.0
    assert float(optim.clip_grad_norm(with_grads(np.zeros((0, 3))), 1.0)) == 0.0


def test_clip_grad_norm_of_huge_gradients_does_not_overflow():
    (p,) = with_grads([3e30, 4e30])
    assert float(optim.clip_grad_norm(p, 1.0)) == pytest.approx(5e30)
    np.testing.assert_allclose(p.grad.numpy(), [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("dtype, scales", [("float32", range(-38, 35, 3)), ("float64", range(-300, 300, 25))])
def test_clip_grad_norm_is_exact_at_every_scale(dtype, scales):
    """Of vectors shorter and longer than one product, of equal numbers, whose rounding errors add up."""
    g = [np.full(20_000, 0.1), np.arange(1.0, 1500.0), np.zeros(0)]
    for k in scales:
        params = with_grads(*[x * 10.0**k for x in g], dtype=dtype)
        expected = hypot(*[x for p in params for x in p.grad.tolist()])
        norm = float(optim.clip_grad_norm(params, 1.0))
        assert norm == pytest.approx(expected, rel=2e-7 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("value", [nan, inf])
def test_gradients_that_are_not_finite_stay_as_they_are_or_raise(value):
    a, b = with_grads([1.0, value], [5.0])
    a.name = "bad.weight"
    assert not np.isfinite(float(optim.clip_grad_norm([a, b], 1.0)))
    np.testing.assert_array_equal(a.grad.numpy(), [1.0, value])
    assert b.grad.item() == 5.0
    with pytest.raises(RuntimeError, match="NaN or infinity in the gradient of bad.weight"):
        optim.clip_grad_norm([a, b], 1.0, error_if_nonfinite=True)


def test_clip_grad_value():
    a, b = with_grads([3.0, -0.5, -9.0], [nan])
    optim.clip_grad_value([a, b], 1.0)
    np.testing.assert_array_equal(a.grad.numpy(), [1.0, -0.5, -1.0])
    assert np.isnan(b.grad.item())


@pytest.mark.oracle
def test_clip_grad_norm_equals_pytorch():
    torch = pytest.importorskip("torch")
    grads = [g.astype("float32") for g in start(5)]
    params, theirs = with_grads(*grads), [torch.nn.Parameter(torch.zeros(g.shape)) for g in grads]
    for q, g in zip(theirs, grads):
        q.grad = torch.tensor(g)
    expected = torch.nn.utils.clip_grad_norm_(theirs, 0.7)
    assert float(optim.clip_grad_norm(params, 0.7)) == pytest.approx(float(expected), rel=1e-6)
    for p, q in zip(params, theirs):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), rtol=1e-6)


@pytest.mark.parametrize("clip, name", [(optim.clip_grad_norm, "max_norm"), (optim.clip_grad_value, "clip_value")])
def test_a_limit_that_is_not_positive_is_refused(clip, name):
    with pytest.raises(ValueError, match=f"{clip.__name__}: {name} is 0, expected a number above 0"):
        clip(with_grads([1.0]), 0)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="clip_grad_norm: norm_type is 1, expected 2 or inf"):
        optim.clip_grad_norm(with_grads([1.0]), 1.0, norm_type=1)


@pytest.mark.parametrize("scale", [1e300, 1e200, 1e-200, 1e-300])
def test_clip_grad_norm_in_float64_covers_its_range(scale):
    a, b = with_grads([3 * scale], [4 * scale, 0.0], dtype="float64")
    norm = optim.clip_grad_norm([a, b], 1e-250)
    assert float(norm) == pytest.approx(5 * scale, rel=1e-14)
    factor = min(1e-250 / (5 * scale + 1e-6), 1.0)
    np.testing.assert_allclose(b.grad.numpy(), [4 * scale * factor, 0.0], rtol=1e-14)


def test_clip_grad_norm_of_float32_beside_float64():
    a, b = with_grads([3.0], dtype="float32") + with_grads([4.0], dtype="float64")
    assert float(optim.clip_grad_norm([a, b], 1.0)) == pytest.approx(5.0, rel=1e-15)
    assert a.grad.dtype == "float32" and b.grad.item() == pytest.approx(0.8, rel=1e-6)


def test_clip_grad_norm_scales_half_precision_by_small_factors():
    grads = np.full(100, 6e4)
    (p,) = with_grads(grads, dtype="float16")
    expected = np.float16(6e4) / np.float64(np.float16(6e4)) / 10 * 1e-2  # factor 1.7e-8: 0 in float16
    assert float(optim.clip_grad_norm(p, 1e-2)) == pytest.approx(10 * float(np.float16(6e4)))
    np.testing.assert_array_equal(p.grad.numpy(), np.float16(expected))


@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
def test_clipping_a_gradient_that_does_not_fit_changes_none(clip):
    a, b = with_grads([8.0], [8.0])
    b.grad = tg.ones(2)
    with pytest.raises(ValueError, match=r"has shape \(1,\) on cpu and its gradient \(2,\) on cpu"):
        clip([a, b], 1.0)
    assert a.grad.item() == 8.0
    b.grad = tg.tensor([1], dtype="int64")
    with pytest.raises(TypeError, match="expected floats"):
        clip([a, b], 1.0)


def test_a_parameter_given_twice_is_clipped_once():
    (p,) = with_grads([8.0])
    assert float(optim.clip_grad_norm([p, p], 4.0)) == 8.0 and p.grad.item() == pytest.approx(4.0, rel=1e-6)


def test_gradients_on_two_devices_are_not_clipped_together():
    (a,) = with_grads([8.0])
    b = Parameter([1.0], device="strict")
    b.grad = tg.tensor([8.0], device="strict")
    with pytest.raises(ValueError, match="clip_grad_norm: the gradients are on cpu and strict; clip them apart"):
        optim.clip_grad_norm([a, b], 1.0)


@pytest.mark.parametrize("clip", [optim.clip_grad_norm, optim.clip_grad_value])
def test_a_gradient_that_nobody_may_write_is_refused_before_any_is_clipped(clip):
    a, b = with_grads([8.0], [8.0])
    b.name, b.grad = "b", tg.asarray(np.broadcast_to(np.float32(8), (1,)))
    with pytest.raises(ValueError, match=f"{clip.__name__}: the gradient of b is read-only; give it a copy"):
        clip([a, b], 1.0)
    assert a.grad.item() == 8.0


def test_one_gradient_of_two_parameters_is_scaled_once():
    a, b = with_grads([3.0], [3.0])
    b.grad = a.grad
    assert float(optim.clip_grad_norm([a, b], 3.0)) == pytest.approx(3 * sqrt(2))
    assert a.grad.item() == pytest.approx(3 / sqrt(2), rel=1e-6)


@pytest.mark.parametrize("limit", ["1", None, nan, True, -1.0])
def test_a_limit_that_is_no_number_is_refused(limit):
    for clip in (optim.clip_grad_norm, optim.clip_grad_value):
        with pytest.raises(
            ValueError, match=f"{clip.__name__}: (max_norm|clip_value) is .*, expected a number above 0"
        ):
            clip(with_grads([1.0]), limit)


@pytest.mark.parametrize("kind", [optim.Adam, optim.AdamW])
@pytest.mark.parametrize("contiguous", [True, False])
def test_a_large_parameter_is_updated_in_pieces_with_the_bits_of_small_ones(kind, contiguous, monkeypatch):
    monkeypatch.setattr(adam, "run_kernel", lambda *given: False)
    rows, columns = 5, pieces.PIECE // 2 + 3
    values, gradients = (np.random.default_rng(i).standard_normal((rows, columns)).astype("float32") for i in range(2))
    whole = tg.tensor(values, requires_grad=True)
    if not contiguous:
        whole.data = np.asfortranarray(whole.data)
    parts = [tg.tensor(row, requires_grad=True) for row in values]
    together, apart = (kind(params, lr=0.1, weight_decay=0.1) for params in ([whole], parts))
    for _ in range(3):
        whole.grad = tg.tensor(gradients)
        for p, row in zip(parts, gradients):
            p.grad = tg.tensor(row)
        together.step()
        apart.step()
    assert np.array_equal(whole.numpy(), np.stack([p.numpy() for p in parts]))
