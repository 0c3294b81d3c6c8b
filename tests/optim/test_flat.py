"""Flat storage: what is laid end to end behaves as what lies apart, bit by bit, whatever happens to it in between."""

import copy
import pickle

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.optim import flat as storage
from tinygrad_ms.optim.flat import Flat

SHAPES = [(3, 4), (4,), (), (2, 1, 3), (5,), (1,), (4, 4)]
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
    "muon": (optim.Muon, dict(lr=0.02, weight_decay=0.1, steps=2)),
}
methods = pytest.mark.parametrize("method", METHODS)


def parameters(dtype="float32", device=None, seed=0):
    rng = np.random.default_rng(seed)
    return [nn.Parameter(rng.normal(size=shape), dtype, device) for shape in SHAPES]


def make(method, params, flats=True, **options):
    kind, defaults = METHODS[method]
    if not flats:
        kind = type("Apart", (kind,), {"elementwise": lambda self, group: False})
    return kind(params, **(defaults | options))


def give_gradients(params, seed, missing=()):
    rng = np.random.default_rng(seed)
    for i, p in enumerate(params):
        g = tg.tensor(rng.normal(size=p.shape), p.dtype, p.device)
        p.grad = None if i in missing else g


def everything(params, optimizer):
    """All numbers, as bytes."""
    state = optimizer.state_dict()["state"]
    numbers = [(p.dtype, p.shape, np.asarray(p.detach().cpu().data).tobytes()) for p in params]
    return numbers, {i: {k: (v if k == "step" else v.tobytes()) for k, v in s.items()} for i, s in state.items()}


def in_flats(optimizer):
    return sum(len(flat.parameters) for group in optimizer.param_groups for flat in optimizer.flats(group))


def laid(optimizer):
    """Whether all flats are in use: the parameters are their views, and so is the state."""
    flats = [flat for group in optimizer.param_groups for flat in optimizer.flats(group)]
    return bool(flats) and all(f.intact() and f.steps_made(optimizer.state) for f in flats)


# --- the same numbers -------------------------------------------------------------------------------------------------


@methods
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_steps_of_flats_are_those_of_parameters_one_by_one(method, dtype, device):
    twins = [parameters(dtype, device) for _ in range(2)]
    optimizers = [make(method, params, flats) for params, flats in zip(twins, (True, False))]
    for t in range(6):
        for params, optimizer in zip(twins, optimizers):
            give_gradients(params, t)
            optimizer.step()
        if device == "cuda":  # where a kernel may round a product and a sum at once
            for a, b in zip(*twins):
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol={2: 2e-3, 4: 1e-5, 8: 1e-12}[a.data.itemsize])
        else:
            assert everything(twins[0], optimizers[0]) == everything(twins[1], optimizers[1])
    assert laid(optimizers[0]) and not in_flats(optimizers[1])
    assert in_flats(optimizers[0]) == (4 if method == "muon" else len(SHAPES))


def skip(params, optimizer, rng):
    give_gradients(params, rng.integers(99), missing=rng.choice(len(SHAPES), 2, replace=False))


def replace(params, optimizer, rng):
    p = params[rng.integers(len(params))]
    p.data = np.asarray(p.data * 2)


def write(params, optimizer, rng):
    with tg.no_grad():
        params[rng.integers(len(params))].copy_(0.5)


def freeze(params, optimizer, rng):
    p = params[rng.integers(len(params))]
    p.requires_grad = not p.requires_grad
    p.grad = None if not p.requires_grad else p.grad


def options(params, optimizer, rng):
    optimizer.param_groups[-1]["lr"] *= 0.5
    optimizer.param_groups[-1]["weight_decay"] = float(rng.integers(3)) / 10


def restart(params, optimizer, rng):
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))


def forget(params, optimizer, rng):
    optimizer.state.pop(params[rng.integers(len(params))], None)


def exchange(params, optimizer, rng):
    entry = optimizer.state.get(params[rng.integers(len(params))], {})
    for name in [name for name in entry if name != "step"]:
        entry[name] = np.asarray(entry[name] + 0.25)


def halve(params, optimizer, rng):
    for p in params:
        p.data = p.data.astype("float32" if p.dtype == "float64" else "float64")
        p.grad = None
    give_gradients(params, 5)


def other_gradient(params, optimizer, rng):
    p = params[rng.integers(len(params))]
    if p.grad is not None:
        p.grad = tg.tensor(p.grad.numpy().astype("float64"))


def grow(params, optimizer, rng):
    if len(optimizer.param_groups) < 3:
        params += parameters(seed=3)
        optimizer.add_param_group({"params": params[-len(SHAPES) :], "lr": 0.01})


def shrink(params, optimizer, rng):
    if len(optimizer.param_groups[0]["params"]) > 3:
        del optimizer.param_groups[0]["params"][1]


EVENTS = [skip, replace, write, freeze, options, restart, forget, exchange, halve, other_gradient, grow, shrink]


@pytest.mark.parametrize("seed", range(12))
def test_nothing_that_happens_between_steps_changes_a_number(seed):
    method = list(METHODS)[seed % 8]
    twins = [parameters(seed=seed) for _ in range(2)]
    optimizers = [make(method, params, flats) for params, flats in zip(twins, (True, False))]
    told, in_use = np.random.default_rng(seed), 0
    for t in range(25):
        event = EVENTS[told.integers(len(EVENTS))] if t % 2 else None
        for params, optimizer in zip(twins, optimizers):
            give_gradients(params, t)
            if event is not None:
                event(params, optimizer, np.random.default_rng(t))
            optimizer.step()
        assert everything(twins[0], optimizers[0]) == everything(twins[1], optimizers[1]), event
        in_use += laid(optimizers[0])
    assert in_use


# --- what it must not move, and when it lets go -----------------------------------------------------------------------


def test_parameters_are_views_of_one_vector_and_stay_the_users(device):
    params = parameters(device=device)
    before = [p.numpy().copy() for p in params]
    flat = Flat(params)
    assert flat.intact() and flat.data.shape == (sum(p.size for p in params),)
    assert all(np.array_equal(p.numpy(), old) and p.shape == old.shape for p, old in zip(params, before))
    flat.data *= 2
    assert all(np.array_equal(p.numpy(), 2 * old) for p, old in zip(params, before))


def keep_array(p):
    return p.data


def keep_view(p):
    return p.data[..., :1]


def keep_detached(p):
    return p.detach()


def keep_numpy(p):
    return p.numpy()


def keep_tape(p):
    return p * p


def keep_buffer(p):
    return memoryview(p.data)


@pytest.mark.parametrize("keep", [keep_array, keep_view, keep_detached, keep_numpy, keep_tape, keep_buffer])
def test_what_somebody_else_shows_is_not_moved(keep):
    params = parameters()
    kept = keep(params[0])
    array = params[0].data
    optimizer = make("momentum", params)
    assert in_flats(optimizer) == len(params) - 1
    for t in range(3):
        give_gradients(params, t)
        optimizer.step()
    assert params[0].data is array and laid(optimizer) and kept is not None
    with pytest.raises(ValueError, match="somebody else shows its memory"):
        Flat(params)


def test_state_that_somebody_shows_is_not_moved():
    params = parameters()
    optimizer = make("adam", params)
    give_gradients(params, 0)
    optimizer.step()
    kept = optimizer.state[params[1]]["exp_avg"]
    for t in range(4):
        give_gradients(params, t)
        optimizer.step()
    assert optimizer.state[params[1]]["exp_avg"] is kept and optimizer.state[params[1]]["step"] == 5
    assert kept.any()


def test_order_of_fortran_is_not_moved():
    params = parameters()
    params[0].data = np.asfortranarray(params[0].data)
    optimizer = make("sgd", params)
    assert in_flats(optimizer) == len(params) - 1 and params[0].data.flags.f_contiguous


def test_another_array_dissolves_the_vector_and_it_is_made_anew():
    params = parameters()
    optimizer = make("adam", params)
    for t in range(3):
        give_gradients(params, t)
        optimizer.step()
    (flat,) = optimizer.flats(optimizer.param_groups[0])
    params[0].data = params[0].data + 1
    assert not flat.intact()
    del flat
    for t in range(2):
        give_gradients(params, t)
        optimizer.step()
    assert laid(optimizer) and in_flats(optimizer) == len(params)


def test_a_model_that_moves_takes_its_parameters_along():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = optim.Adam(model.parameters())
    x = np.ones((2, 3))
    for place in ("float64", "strict", "float32", "cpu"):
        model.to(place)
        for _ in range(3):
            optimizer.zero_grad()
            model(tg.tensor(x, model[0].weight.dtype, model[0].weight.device)).sum().backward()
            optimizer.step()
        assert {p.device for p in model.parameters()} == {"strict" if place in ("strict", "float32") else "cpu"}
    assert in_flats(optimizer) == 4


def test_dissolve_leaves_every_value():
    params = parameters()
    flat = Flat(params)
    before = [p.numpy().copy() for p in params]
    flat.dissolve()
    assert not flat.intact() and all(np.array_equal(p.numpy(), old) for p, old in zip(params, before))


def test_steps_without_some_gradients_split_the_flat():
    params = parameters()
    optimizer = make("adam", params)
    for t in range(4):
        give_gradients(params, t, missing=(0, 1, 2))
        optimizer.step()
    assert [len(flat.parameters) for flat in optimizer.flats(optimizer.param_groups[0])] == [3, 4]
    assert [optimizer.state.get(p, {}).get("step", 0) for p in params] == [0, 0, 0, 4, 4, 4, 4]


def test_large_parameters_and_few_ones_stay_by_themselves():
    large = nn.Parameter(np.zeros(storage.MOST[True] + 1))
    optimizer = optim.SGD([large, *parameters()])
    assert in_flats(optimizer) == len(SHAPES) and large.data.base is None
    assert in_flats(optim.SGD(parameters()[: storage.FEW - 1])) == 0


def test_long_lists_are_several_vectors():
    params = [nn.Parameter(np.zeros(storage.MOST[True])) for _ in range(8)]
    optimizer = optim.SGD(params)
    (group,) = optimizer.param_groups
    sizes = [flat.data.size for flat in optimizer.flats(group)]
    assert all(size <= storage.TOTAL[True] for size in sizes) and in_flats(optimizer) in (0, 8)


# --- counters, copies, errors -----------------------------------------------------------------------------------------


def test_a_step_is_seen_by_the_tape_for_every_parameter():
    params = parameters()
    optimizer = make("sgd", params)
    give_gradients(params, 0)
    optimizer.step()
    for p in params:
        y = (p * p).sum()
        give_gradients(params, 1)
        optimizer.step()
        with pytest.raises(RuntimeError, match="in place"):
            y.backward()


def test_a_write_into_one_parameter_is_no_change_of_another():
    params = parameters()
    Flat(params)
    y = (params[1] * params[1]).sum()
    with tg.no_grad():
        params[0].copy_(1.0)
    y.backward()
    assert np.array_equal(params[1].grad.numpy(), 2 * params[1].numpy())


def test_touch_counts_for_parameters_that_nobody_has_asked_or_that_are_frozen():
    params = parameters()
    flat = Flat(params)
    params[0].requires_grad = False
    y = (params[2] * params[0]).sum()
    before = [p.version_counter()[0] for p in params]
    flat.touch()
    assert all(p.version_counter()[0] > old for p, old in zip(params, before))
    with pytest.raises(RuntimeError, match="in place"):
        y.backward()


@methods
def test_checkpoints_know_nothing_of_flats(method, tmp_path):
    twins = [parameters() for _ in range(2)]
    optimizers = [make(method, params, flats) for params, flats in zip(twins, (True, False))]
    for t in range(3):
        for params, optimizer in zip(twins, optimizers):
            give_gradients(params, t)
            optimizer.step()
    tg.save(tmp_path / "flat.npz", optimizers[0].state_dict())
    tg.save(tmp_path / "apart.npz", optimizers[1].state_dict())
    for params, optimizer, file in zip(twins, optimizers, ("apart.npz", "flat.npz")):
        optimizer.load_state_dict(tg.load(tmp_path / file))
        give_gradients(params, 3)
        optimizer.step()
        give_gradients(params, 4)
        optimizer.step()
    assert everything(twins[0], optimizers[0]) == everything(twins[1], optimizers[1])
    assert laid(optimizers[0])


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_are_apart_from_the_original(duplicate):
    params = parameters()
    optimizer = make("adam", params)
    for t in range(2):
        give_gradients(params, t)
        optimizer.step()
    others, other = duplicate((params, optimizer))
    before = everything(params, optimizer)
    for t in range(2, 5):
        give_gradients(others, t)
        other.step()
    assert everything(params, optimizer) == before and laid(other)
    for t in range(2, 5):
        give_gradients(params, t)
        optimizer.step()
    assert everything(params, optimizer) == everything(others, other)
    assert len(pickle.dumps(params[2])) < 1000  # a view is saved, not its vector


@pytest.mark.parametrize("of_view", [True, False])
def test_read_only_memory_is_refused_and_nothing_changes(of_view):
    params = parameters()
    optimizer = make("momentum", params)
    for t in range(2):
        give_gradients(params, t)
        optimizer.step()
    (flat,) = optimizer.flats(optimizer.param_groups[0])
    before = everything(params, optimizer)
    array = params[1].data if of_view else flat.data
    array.flags.writeable = False
    if of_view:
        with pytest.raises(ValueError, match="read-only"):
            optimizer.step()
        assert everything(params, optimizer) == before
        array.flags.writeable = True
    else:  # nobody forbids the views
        optimizer.step()
        assert everything(params, optimizer) != before


def test_a_step_of_a_flat_is_whole_or_not_made():
    params = parameters()
    optimizer = make("adam", params)
    for t in range(2):
        give_gradients(params, t)
        optimizer.step()
    before = everything(params, optimizer)
    params[-1].grad.data[...] = 1e38
    with np.errstate(over="raise"), pytest.raises(FloatingPointError):
        optimizer.step()
    assert everything(params, optimizer) == before and laid(optimizer)
    give_gradients(params, 2)
    optimizer.step()
    assert optimizer.state[params[0]]["step"] == 3


def test_a_gradient_that_does_not_fit_is_named_and_nothing_changes():
    params = parameters()
    optimizer = make("adam", params)
    for t in range(2):
        give_gradients(params, t)
        optimizer.step()
    before = everything(params, optimizer)
    params[0].grad = tg.tensor(np.ones((4, 3), "float32"))
    with pytest.raises(ValueError, match=r"has shape \(3, 4\) on cpu and its gradient \(4, 3\)"):
        optimizer.step()
    assert everything(params, optimizer) == before


# --- Flat itself ------------------------------------------------------------------------------------------------------


def test_gradients_come_into_a_vector_and_back(device):
    params = parameters(device=device)
    flat = Flat(params)
    with pytest.raises(RuntimeError, match="gather"):
        flat.scatter()
    for t in range(2):
        give_gradients(params, t)
        expected = np.concatenate([p.grad.numpy().ravel() for p in params])
        vector = flat.gather()
        assert vector is flat.grad and np.array_equal(tg.tensor(vector).numpy(), expected)
        vector *= 2
        grads = [p.grad for p in params]
        flat.scatter()
        assert all(p.grad is g for p, g in zip(params, grads))
        assert np.array_equal(np.concatenate([p.grad.numpy().ravel() for p in params]), 2 * expected)
    params[3].grad = None
    assert flat.gather() is None


def test_a_flat_of_what_lies_end_to_end_is_a_part_of_it():
    params = parameters()
    whole = Flat(params)
    part = Flat(params[2:5])
    assert whole.intact() and part.intact()
    part.data[...] = 7
    assert all((p.data == 7).all() for p in params[2:5]) and not (params[0].data == 7).any()
    optimizer = make("sgd", params)
    assert whole.intact() and in_flats(optimizer) == len(params)
    with pytest.raises(ValueError, match="somebody else shows"):
        Flat(params[::2])


def test_a_second_optimizer_uses_the_memory_of_the_first():
    params = parameters()
    first = make("sgd", params)
    arrays = [p.data for p in params]
    second = make("adam", params)
    assert all(p.data is array for p, array in zip(params, arrays))
    assert in_flats(first) == in_flats(second) == len(params)


def test_another_grouping_moves_them_once_the_first_optimizer_is_gone():
    params = parameters()
    first = make("sgd", params)
    assert in_flats(first)
    del first
    second = optim.Adam([{"params": params[::2], "lr": 0.1}, {"params": params[1::2]}])
    assert in_flats(second) == len(params)


def test_what_does_not_go_together_is_refused():
    one, other = parameters(), parameters("float64")
    with pytest.raises(ValueError, match="float32 on cpu, float64 on cpu; expected one dtype on one device"):
        Flat([*one, *other])
    with pytest.raises(ValueError, match="none; expected one dtype"):
        Flat([])
    with pytest.raises(ValueError, match="twice"):
        Flat([one[0], one[0]])


def test_an_update_of_ones_own_gets_parameters_one_by_one():
    class Signs(optim.SGD):
        def update(self, xp, p, g, state, options):
            p -= options["lr"] * xp.sign(g) * xp.abs(p).max()

    optimizer = Signs(parameters())
    assert in_flats(optimizer) == 0
