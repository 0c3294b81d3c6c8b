"""A machine with two cards: what is computed stays on the card of its arrays, whichever card is the current one."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.testing import forbid_sync, strict, two_devices

CARD = "strict:1"


@pytest.fixture(autouse=True)
def second_card():
    with two_devices():
        yield


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


# --- the double itself ------------------------------------------------------------------------------------------------


def test_the_strict_device_refuses_a_kernel_on_another_card_than_the_current_one():
    x = tg.tensor(points(2, 3), device=CARD).data
    for kernel in (
        lambda: x + 1, lambda: x @ x.T, lambda: strict.xp.exp(x), lambda: x.sum(), lambda: x.astype("f8"),
        lambda: x[np.array([0])], lambda: strict.xp.concatenate([x, x]), lambda: x.fill(0),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="array device = 1 while current = 0"):
            kernel()


def test_on_the_strict_device_views_and_reads_need_no_card_and_new_arrays_go_to_the_current_one():
    x = tg.tensor(points(2, 3), device=CARD).data
    assert x.T.device.id == x[0].device.id == x.reshape(3, 2).device.id == 1
    np.testing.assert_array_equal(x.get(), points(2, 3))
    assert strict.xp.zeros_like(x).device.id == x.copy().device.id == strict.xp.empty(3).device.id == 0
    with strict.Device(1):
        assert (x + 1).device.id == strict.xp.ones(2).device.id == 1


# --- tensors ----------------------------------------------------------------------------------------------------------


def test_constructors_put_their_values_on_the_card_that_was_asked_for():
    x = tg.tensor(points(3), device=CARD)
    made = [
        x, tg.tensor(x), tg.tensor(x.data, dtype="float64"), tg.asarray([1.0], device=CARD), tg.zeros(2, device=CARD),
        tg.ones_like(x), tg.full_like(x, 2), tg.eye(2, device=CARD), tg.arange(3, device=CARD), x.clone(), x + 1,
        tg.rand(2, rng=0, device=CARD), x.astype("float64"), nn.Linear(2, 2, device=CARD).weight, x > 0,
    ]  # fmt: skip
    assert {t.device for t in made} == {CARD}


def test_a_copy_between_cards_does_not_pass_the_host():
    x = tg.tensor(points(3, 2), device="strict", requires_grad=True)
    strict.reset_stats()
    with forbid_sync():
        y = x.T.to(CARD)
        (y.exp() * 2).sum().backward()
    assert strict.STATS.h2d == strict.STATS.d2h == 0
    assert y.device == CARD and x.grad.device == "strict"
    np.testing.assert_allclose(x.grad.numpy(), 2 * np.exp(points(3, 2)), rtol=1e-6)


@pytest.mark.parametrize("here", [0, 1])
@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_from_two_cards_meet_on_the_card_of_the_leaf(here, create_graph):
    x = tg.tensor(points(3), device=CARD, requires_grad=True)
    with strict.Device(here):
        other = x.to("strict")
        loss = (other * other).sum().to(CARD) + x.sum() + (x.to("strict") * 3).sum().to(CARD)
        for _ in range(2):
            loss.backward(retain_graph=True, create_graph=create_graph)
    assert x.grad.device == CARD
    np.testing.assert_allclose(x.grad.numpy(), 2 * (2 * points(3) + 4), rtol=1e-6)
    assert strict.Device(0)._tokens == [] and strict.xp.empty(1).device.id == 0


def test_an_error_in_a_rule_leaves_the_current_card_as_it_was():
    def break_it(g):
        raise RuntimeError("a hook that fails")

    x = tg.tensor(points(3), device=CARD, requires_grad=True)
    y = x.exp()
    y.node.hooks = [break_it]
    with pytest.raises(RuntimeError, match="a hook that fails"):
        y.sum().backward()
    assert strict.xp.empty(1).device.id == 0


def test_arguments_on_two_cards_are_refused_and_named():
    a, b = tg.tensor(points(3), device="strict"), tg.tensor(points(3), device=CARD)
    with pytest.raises(ValueError, match=r"add: arguments on different devices .* on strict, .* on strict:1"):
        a + b


# --- functions of functions, writes in place ------------------------------------------------------------------------


def test_transforms_run_on_the_card_of_their_argument():
    x = tg.tensor(points(3).astype("f8"), device=CARD)

    def f(x):
        return (x * x * x).sum()

    results = [
        tg.grad(f)(x), tg.hessian(f, x), tg.jacobian(tg.square, x), tg.jacobian(tg.square, x, mode="forward"),
        tg.jvp(f, (x,), (x,))[1], tg.hvp(f, x, x), tg.value_and_grad(tg.checkpoint(f))(x)[1],
    ]  # fmt: skip
    assert {t.device for t in results} == {CARD}
    np.testing.assert_allclose(results[1].numpy(), np.diag(6 * x.numpy()))
    np.testing.assert_allclose(results[2].numpy(), results[3].numpy())


def test_writes_in_place_stay_on_the_card():
    x = tg.tensor(points(3), device=CARD)
    x[0] = 5.0
    x.copy_(x * 2)
    x += 1
    x[1:] = x[:2]
    assert x.device == CARD and 5.0 not in x
    assert x.tolist()[1] == 11.0


def mlp(dropout):
    layers = [nn.Linear(6, 16, rng=0), nn.LayerNorm(16), nn.GELU(), *dropout, nn.Linear(16, 4, rng=1)]
    return nn.Sequential(*layers)


METHODS = {
    "sgd": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "muon": lambda p: optim.Muon(p, lr=0.02, weight_decay=0.1),
}


@pytest.mark.parametrize("method", METHODS)
def test_training_on_the_second_card_equals_training_on_the_first(method):
    """Embedding, layers, cross-entropy, clipping and the steps of an optimizer: the first card is the current one."""

    def train(device):
        model = mlp([nn.Dropout(0.25, rng=3)]).to(device)
        table = nn.Embedding(10, 6, rng=5).to(device)
        optimizer = METHODS[method]([*model.parameters(), *table.parameters()])
        tokens, labels = tg.tensor(np.arange(8) % 7, device=device), tg.tensor(np.arange(8) % 4, device=device)
        for _ in range(3):
            optimizer.zero_grad()
            loss = tg.softmax_cross_entropy(model(table(tokens)), labels)
            loss.backward()
            norm = optim.clip_grad_norm(model.parameters(), 0.5)
            optim.clip_grad_value(table.parameters(), 0.01)
            optimizer.step()
        state = [a for entry in optimizer.state.values() for k, a in entry.items() if k != "step"]
        assert {a.device.id for a in state} == {int(device == CARD)}
        assert {t.device for t in (loss, norm, *model.parameters())} == {device}
        return [p.numpy() for p in (*model.parameters(), *table.parameters())]

    for a, b in zip(train(CARD), train("strict"), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_compiled_step_runs_on_the_card_of_its_arguments():
    model = mlp([]).to(CARD)
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    @tg.compile
    def step(x, y):
        optimizer.zero_grad()
        loss = tg.softmax_cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    x, y = tg.tensor(points(5, 6), device=CARD), tg.tensor(np.arange(5) % 4, device=CARD)
    losses = [step(x, y) for _ in range(5)]
    assert {loss.device for loss in losses} == {CARD}
    assert losses[-1].item() < losses[0].item()


def test_a_model_over_two_cards_learns():
    """Layers on either card, the activations copied between them."""
    first, second = nn.Linear(6, 8, rng=0).to("strict"), nn.Linear(8, 4, rng=1).to(CARD)
    optimizer = optim.Adam([*first.parameters(), *second.parameters()], lr=0.05)
    x, y = tg.tensor(points(5, 6), device="strict"), tg.tensor(np.arange(5) % 4, device=CARD)
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = tg.softmax_cross_entropy(second(first(x).relu().to(CARD)), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert first.weight.grad.device == "strict" and second.weight.grad.device == CARD


def test_optimizers_restore_their_state_on_the_card():
    def made():
        model = nn.Linear(3, 2, rng=0).to(CARD)
        return model, optim.Adam(model.parameters(), lr=0.1)

    model, optimizer = made()
    model(tg.tensor(points(4, 3), device=CARD)).sum().backward()
    optimizer.step()
    again, other = made()
    again.load_state_dict(model.state_dict())
    other.load_state_dict(optimizer.state_dict())
    assert {a.device.id for entry in other.state.values() for k, a in entry.items() if k != "step"} == {1}
    np.testing.assert_array_equal(again.weight.numpy(), model.weight.numpy())
