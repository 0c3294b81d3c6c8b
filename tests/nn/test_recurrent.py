"""The RNN and the GRU: against their formulas and PyTorch, central differences, a carried state, every error."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.testing import gradcheck

LAYERS = {
    "rnn": lambda **o: nn.RNN(3, 5, rng=0, **o),
    "relu": lambda **o: nn.RNN(3, 5, rng=0, nonlinearity="relu", **o),
    "gru": lambda **o: nn.GRU(3, 5, rng=0, **o),
    "gru without biases": lambda **o: nn.GRU(3, 5, bias=False, rng=0, **o),
}
layers = pytest.mark.parametrize("name", LAYERS)


def sequences(*shape, seed=0, dtype="float64"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def written_out(name, module, x, h):
    """The formulas of the docstrings, token by token."""
    p = {key.removeprefix("cell."): value.numpy() for key, value in module.named_parameters()}
    outputs = []
    for t in range(x.shape[1]):
        a = x[:, t] @ p["weight_ih"].T + p.get("bias_ih", 0)
        b = h @ p["weight_hh"].T + p.get("bias_hh", 0)
        if name.startswith("gru"):
            (a_r, a_z, a_n), (b_r, b_z, b_n) = np.split(a, 3, axis=1), np.split(b, 3, axis=1)
            z = sigmoid(a_z + b_z)
            h = (1 - z) * np.tanh(a_n + sigmoid(a_r + b_r) * b_n) + z * h
        else:
            h = np.maximum(a + b, 0) if name == "relu" else np.tanh(a + b)
        outputs.append(h)
    return np.stack(outputs, axis=1)


@layers
def test_a_layer_computes_its_formulas(name):
    module, x, h = LAYERS[name](dtype="float64"), sequences(2, 6, 3), sequences(2, 5, seed=1)
    for start in (None, h):
        outputs, last = module(tg.tensor(x), start if start is None else tg.tensor(start))
        expected = written_out(name, module, x, np.zeros((2, 5)) if start is None else start)
        np.testing.assert_allclose(outputs.numpy(), expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(last.numpy(), outputs.numpy()[:, -1])


@layers
def test_gradients_equal_central_differences(name):
    module = LAYERS[name](dtype="float64")
    names = [key for key, _ in module.named_parameters()]
    values = [sequences(2, 4, 3), sequences(2, 5, seed=1), *(p.numpy() for p in module.parameters())]

    def outputs(x, h, *parameters):
        return nn.functional_call(module, dict(zip(names, parameters)), x, h)

    assert gradcheck(outputs, tuple(tg.tensor(v, requires_grad=True) for v in values))


@layers
def test_a_sequence_in_pieces_and_a_cell_token_by_token_give_the_same(name):
    module, x = LAYERS[name](), tg.tensor(sequences(2, 7, 3, dtype="float32"))
    expected = module(x)[0].numpy()
    first, h = module(x[:, :3])
    second, _ = module(x[:, 3:], h)
    np.testing.assert_allclose(tg.concat([first, second], axis=1).numpy(), expected, rtol=1e-5, atol=1e-6)
    h = None
    for t in range(7):
        h = module.cell(x[:, t], h)
        np.testing.assert_allclose(h.numpy(), expected[:, t], rtol=1e-5, atol=1e-6)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["RNN", "GRU"])
def test_outputs_and_gradients_equal_those_of_pytorch(kind):
    torch = pytest.importorskip("torch")
    ours, x = getattr(nn, kind)(3, 5, rng=0, dtype="float64"), sequences(2, 6, 3)
    theirs = getattr(torch.nn, kind)(3, 5, batch_first=True, dtype=torch.float64)
    names = {f"{key}_l0": f"cell.{key}" for key in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    parameters = dict(ours.named_parameters())
    theirs.load_state_dict({key: torch.tensor(parameters[name].numpy()) for key, name in names.items()})
    outputs, expected = ours(tg.tensor(x))[0], theirs(torch.tensor(x))[0]
    np.testing.assert_allclose(outputs.numpy(), expected.detach().numpy(), rtol=1e-12, atol=1e-12)
    (outputs * outputs).sum().backward()
    (expected * expected).sum().backward()
    for key, parameter in theirs.named_parameters():
        np.testing.assert_allclose(parameters[names[key]].grad.numpy(), parameter.grad.numpy(), rtol=1e-10, atol=1e-10)


@layers
def test_the_strict_device_gives_the_same_without_synchronisation(name):
    x = sequences(2, 4, 3, dtype="float32")
    found = []
    for device in ("cpu", "strict"):
        module, inputs = LAYERS[name](device=device), tg.tensor(x, device=device)
        with tg.testing.forbid_sync():
            (module(inputs)[0] ** 2).sum().backward()
        found.append([p.grad.numpy() for p in module.parameters()])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU])
def test_a_layer_learns_to_remember_the_first_token(kind):
    rng = np.random.default_rng(0)
    module, head = kind(2, 16, rng=rng), nn.Linear(16, 2, rng=rng)
    optimizer = optim.Adam([*module.parameters(), *head.parameters()], lr=0.02)
    for _ in range(120):
        labels = rng.integers(0, 2, 64)
        x = rng.normal(size=(64, 8, 2)).astype("float32")
        x[:, 0] = 4 * np.eye(2)[labels] - 2
        optimizer.zero_grad()
        logits = head(module(tg.tensor(x))[1])
        tg.softmax_cross_entropy(logits, tg.tensor(labels)).backward()
        optim.clip_grad_norm(module.parameters(), 1.0)
        optimizer.step()
    assert (logits.numpy().argmax(axis=1) == labels).mean() > 0.95


def test_steps_are_scopes_and_names_show_the_sizes():
    module = nn.GRU(3, 5, rng=0)
    scopes = {
        node.scope[1]
        for node in module(tg.tensor(sequences(2, 4, 3, dtype="float32")))[1].tape()
        if len(node.scope) > 1
    }
    assert scopes == {"step"} and repr(module.cell) == "GRUCell(3, 5, bias=True)"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="hidden_size is 0, expected an integer of at least 1"):
        nn.GRU(3, 0)
    with pytest.raises(ValueError, match="nonlinearity is 'sin', expected 'tanh' or 'relu'"):
        nn.RNN(3, 5, nonlinearity="sin")
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), expected \(batch, T, 3\) with T >= 1"):
        nn.RNN(3, 5)(tg.tensor(sequences(2, 3)))
    with pytest.raises(ValueError, match=r"x has shape \(2, 4, 2\), expected \(..., 3\), given by input_size"):
        nn.RNN(3, 5)(tg.tensor(sequences(2, 4, 2)))


@layers
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 2, 5), (2, 1), (2, 4), (3, 5), (2, 5, 1), ()])
def test_a_state_of_another_shape_is_refused(name, shape):
    module, x, h = LAYERS[name](), tg.tensor(np.ones((2, 4, 3), "float32")), tg.zeros(shape)
    for call in (lambda: module(x, h), lambda: module.cell(x[:, 0], h)):
        with pytest.raises(
            ValueError, match=r"Cell: h has shape .* expected \(batch, hidden_size\), which is \(2, 5\)"
        ):
            call()
    with pytest.raises(ValueError, match="Cell: h has shape list"):
        module(x, [[0.0] * 5] * 2)
    with pytest.raises(ValueError, match=r"which is \(1, 5\)"):
        module(x[:1], tg.zeros((3, 5)))


@pytest.mark.parametrize("shape", [(3,), (2, 4, 3)])
def test_a_cell_takes_one_token_of_each_sequence(shape):
    with pytest.raises(ValueError, match=r"GRUCell: x has shape .*, expected one token of each sequence, \(batch, 3\)"):
        nn.GRU(3, 5).cell(tg.zeros(shape))
