"""Loss modules, ModuleList, ModuleDict: under PyTorch's names, equal to our functions and plain containers."""

import copy
import pickle

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn

RNG = np.random.default_rng(0)
X, T, LABELS = RNG.normal(size=(4, 3)), RNG.uniform(size=(4, 3)), np.array([0, 2, 1, 1])
WEIGHT = np.array([0.5, 1.0, 2.0])
LOSSES = {  # module: (options, target, the function with its options)
    "MSELoss": ({}, T, lambda x, t, **o: tg.mse(x, t, **o)),
    "L1Loss": ({}, T, lambda x, t, **o: tg.l1(x, t, **o)),
    "HuberLoss": (dict(delta=0.3), T, lambda x, t, **o: tg.huber(x, t, 0.3, **o)),
    "SmoothL1Loss": (dict(beta=0.3), T, lambda x, t, **o: tg.huber(x, t, 0.3, **o) / 0.3),
    "BCEWithLogitsLoss": (
        dict(pos_weight=WEIGHT, weight=WEIGHT), T,
        lambda x, t, **o: tg.binary_cross_entropy_with_logits(x, t, WEIGHT, WEIGHT, **o),
    ),
    "CrossEntropyLoss": (
        dict(weight=WEIGHT, label_smoothing=0.1, ignore_index=1), LABELS,
        lambda x, t, **o: tg.cross_entropy(x, t, WEIGHT, label_smoothing=0.1, ignore_index=1, **o),
    ),
    "NLLLoss": (dict(weight=WEIGHT), LABELS, lambda x, t, **o: tg.nll(x, t, WEIGHT, **o)),
}  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_module_is_its_function(name, reduction):
    options, target, function = LOSSES[name]
    loss, x = getattr(nn, name)(reduction=reduction, **options), tg.tensor(X, requires_grad=True)
    found, expected = loss(x, tg.tensor(target)), function(tg.tensor(X), tg.tensor(target), reduction=reduction)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)
    found.sum().backward()
    assert x.grad.shape == x.shape and not loss.parameters()
    assert repr(reduction) in repr(loss)


@pytest.mark.oracle
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_module_equals_pytorchs(name, reduction):
    torch = pytest.importorskip("torch")
    options, target, _ = LOSSES[name]
    theirs = {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in options.items()}
    expected = getattr(torch.nn, name)(reduction=reduction, **theirs)(torch.tensor(X), torch.tensor(target))
    found = getattr(nn, name)(reduction=reduction, **options)(tg.tensor(X), tg.tensor(target))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-6)


def test_classes_in_axis_1_and_weights_that_move():
    scores, labels = RNG.normal(size=(2, 3, 4)), RNG.integers(0, 3, size=(2, 4))
    found = nn.CrossEntropyLoss(axis=1)(tg.tensor(scores), tg.tensor(labels))
    expected = tg.cross_entropy(np.moveaxis(scores, 1, -1), labels)
    np.testing.assert_allclose(found.item(), expected.item(), rtol=1e-12)
    loss = nn.BCEWithLogitsLoss(WEIGHT, pos_weight=WEIGHT).astype("float64")
    assert [name for name, _ in loss.named_buffers()] == ["weight", "options.pos_weight"]
    assert all(b.dtype == "float64" for b in loss.buffers())


@pytest.mark.parametrize("name", LOSSES)
def test_a_wrong_reduction_is_refused_at_once(name):
    with pytest.raises(ValueError, match=f"{name}: reduction is 'avg'; it must be"):
        getattr(nn, name)(reduction="avg")


# --- lists and dicts of modules -------------------------------------------------------------------------------------


class Blocks(nn.Module):
    def __init__(self, held):
        self.blocks = held

    def forward(self, x):
        for block in self.blocks if isinstance(self.blocks, (list, nn.ModuleList)) else self.blocks.values():
            x = tg.tanh(block(x))
        return x


def layers(n=3):
    return [nn.Linear(2, 2, rng=i) for i in range(n)]


def test_a_module_list_is_a_list_and_its_state_that_of_a_plain_one():
    plain, ours = Blocks(layers()), Blocks(nn.ModuleList(layers()))
    assert list(plain.state_dict()) == list(ours.state_dict()) != []
    ours.load_state_dict(plain.state_dict())
    x = np.ones((1, 2), "float32")
    np.testing.assert_array_equal(ours(x).numpy(), plain(x).numpy())
    held, last = ours.blocks, nn.Linear(2, 2, rng=9)
    held.append(last)
    held.extend(layers(1))
    assert len(held) == 5 and held[3] is last and last in held and held.index(last) == 3
    assert isinstance(held[1:3], nn.ModuleList) and [*held[1:3]] == [held[1], held[2]]
    held.insert(0, last)
    del held[4]
    assert held.pop(0) is last and len(held) == 4
    held[0] = last
    held[1:] = layers(1)
    assert [name for name, _ in ours.named_parameters()] == [
        f"blocks.{i}.{n}" for i in (0, 1) for n in ("weight", "bias")
    ]
    assert "ModuleList" in repr(ours)


def test_a_module_dict_is_a_dict_and_its_state_that_of_a_plain_one():
    pairs = dict(zip("ab", layers(2)))
    plain, ours = Blocks(pairs), Blocks(nn.ModuleDict(pairs))
    assert (
        list(plain.state_dict())
        == list(ours.state_dict())
        == [f"blocks.{k}.{n}" for k in "ab" for n in ("weight", "bias")]
    )
    held = ours.blocks
    held["c"] = nn.Linear(2, 2, rng=9)
    held.update(d=nn.Linear(2, 2, rng=8))
    assert [*held] == [*"abcd"] and "c" in held and len(held) == 4
    del held["a"]
    assert held.pop("b") is pairs["b"] and [*held.keys()] == ["c", "d"]
    assert held == held and held != nn.ModuleDict(held) and hash(held)
    assert ours(np.ones((1, 2), "float32")).shape == (1, 2)


@pytest.mark.parametrize("made", [lambda: nn.ModuleList(layers()), lambda: nn.ModuleDict(zip("abc", layers()))])
def test_copies_pickles_and_calls(made):
    held = made()
    for twin in (copy.deepcopy(held), pickle.loads(pickle.dumps(held))):
        for (name, p), (other, q) in zip(held.named_parameters(), twin.named_parameters(), strict=True):
            assert name == other and p is not q
            np.testing.assert_array_equal(p.numpy(), q.numpy())
    with pytest.raises(NotImplementedError, match="has no forward"):
        held(np.ones((1, 2)))


def test_what_is_no_module_is_refused():
    held = nn.ModuleList(layers(1))
    for change in (
        lambda: held.append(tg.tanh),
        lambda: held.__setitem__(0, 3),
        lambda: nn.ModuleList([nn.Parameter([1.0])]),
        lambda: nn.ModuleDict({"a": None}),
    ):
        with pytest.raises(TypeError, match=r"Module(List|Dict): \w+ is no module"):
            change()
    assert len(held) == 1
