"""Modules: the tree read off the attributes, state, modes, showing; every layer against a plain formula."""

import collections
import copy
import pickle
import types
from dataclasses import dataclass
from math import erf

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn


class Scale(nn.Module):
    """y = factor x + shift; the shift is not learnt."""

    def __init__(self, factor=1.0, width=3):
        self.factor = nn.Parameter(np.full(width, factor))
        self.shift = nn.Buffer(np.zeros(width))

    def forward(self, x):
        return x * self.factor + self.shift

    def extra_repr(self):
        return f"width={self.factor.size}"


class Tree(nn.Module):
    """Modules in every kind of container, a parameter of its own, one shared, and a cycle."""

    def __init__(self):
        self.first = Scale()
        self.blocks = [Scale(2.0), {"inner": (Scale(3.0), [nn.Parameter([4.0])])}]
        self.gain = nn.Parameter(5.0)
        self.shared = self.first.factor
        self.again = self.blocks[0]
        self.first.parent = self
        self.loop = self.blocks
        self.blocks.append(self.blocks)
        self.note, self.plain = "no state", tg.tensor([1.0], requires_grad=True)

    def forward(self, x):
        for block in (self.first, self.blocks[0], self.blocks[1]["inner"][0]):
            x = block(x)
        return x * self.gain


# --- the tree -----------------------------------------------------------------------------------------------


def test_parameters_are_found_in_attributes_lists_tuples_and_dicts_once_and_in_order():
    model = Tree()
    names = [name for name, _ in model.named_parameters()]
    assert names == ["first.factor", "blocks.0.factor", "blocks.1.inner.0.factor", "blocks.1.inner.1.0", "gain"]
    assert len({id(p) for p in model.parameters()}) == len(model.parameters()) == 5
    assert [name for name, _ in model.named_buffers()] == ["first.shift", "blocks.0.shift", "blocks.1.inner.0.shift"]
    assert [name for name, _ in model.named_modules()] == ["", "first", "blocks.0", "blocks.1.inner.0"]
    assert [name for name, _ in model.named_children()] == [
        "first",
        "blocks.0",
        "blocks.1.inner.0",
        "again",
        "loop.0",
        "loop.1.inner.0",
    ]
    assert model.children() == [model.first, model.blocks[0], model.blocks[1]["inner"][0]]


def test_attributes_are_plain_and_need_no_init_of_the_base_class():
    @dataclass(eq=True)  # has no hash
    class Pair(nn.Module):
        left: nn.Module
        right: nn.Module

        def forward(self, x):
            return self.left(x) + self.right(x)

    pair = Pair(Scale(1.0), Scale(2.0))
    assert len(pair.parameters()) == 2 and pair.training
    np.testing.assert_array_equal(pair(tg.tensor([1.0, 2.0, 3.0])).numpy(), [3.0, 6.0, 9.0])
    pair.right = pair.left
    assert len(pair.parameters()) == 1
    del pair.right
    assert [name for name, _ in pair.named_modules()] == ["", "left"]


def test_a_cycle_ends_everywhere():
    a, b = nn.Module(), nn.Module()
    a.b, b.a, a.self, b.weight = b, a, a, nn.Parameter([1.0])
    assert [name for name, _ in a.named_parameters()] == ["b.weight"]
    assert a.modules() == [a, b] and list(a.state_dict()) == ["b.weight"]
    assert repr(a) == "Module(\n  (b): Module(\n    (a): Module(...)\n  )\n)"
    assert str(a.train(False).summary()).count("Module") == 2


def test_a_parameter_is_a_copy_that_requires_a_gradient():
    host = np.ones((2, 3), "float32")
    p = nn.Parameter(host)
    host[:] = 7
    assert isinstance(p, tg.Tensor) and p.requires_grad and p.is_leaf and p.numpy().max() == 1
    assert nn.Parameter(1.0).dtype == "float32" and nn.Parameter(host, dtype="float64").dtype == "float64"
    assert not nn.Buffer([1, 2]).requires_grad
    with pytest.raises(TypeError, match="a tensor of dtype int64 cannot carry gradients"):
        nn.Parameter([1, 2])


def test_ops_are_recorded_in_scopes_and_parameters_have_their_dotted_names():
    model = Tree()
    loss = model(tg.tensor([1.0, 2.0, 3.0])).sum()
    scopes = [(node.op, node.scope) for node in loss.tape() if node.op != "leaf"]
    assert scopes[:5] == [
        ("multiply", ("Tree", "first")),
        ("add", ("Tree", "first")),
        ("multiply", ("Tree", "blocks.0")),
        ("add", ("Tree", "blocks.0")),
        ("multiply", ("Tree", "blocks.1.inner.0")),
    ]
    assert scopes[-2:] == [("multiply", ("Tree",)), ("sum", ())]
    assert model.gain.name == "gain" and model.blocks[0].factor.name == "blocks.0.factor"
    assert "leaf blocks.1.inner.0.factor" in str(loss.tape())


def test_a_module_that_was_a_root_takes_its_name_from_a_later_parent():
    scale = Scale()
    assert scale(tg.tensor([1.0, 1.0, 1.0])).node.scope == ("Scale",)
    model = nn.Sequential(scale)
    assert model(tg.tensor([1.0, 1.0, 1.0])).node.scope == ("Sequential", "0: Scale")
    assert scale.factor.name == "0.factor"


def test_an_error_says_in_which_module():
    with pytest.raises(ValueError) as caught:
        Tree()(tg.tensor([1.0, 2.0]))
    assert caught.value.__notes__ == ["in Tree/first: Scale(width=3)"]
    with pytest.raises(NotImplementedError, match=r"Module has no forward\(self, x\)"):
        nn.Module()(1)


# --- modes, gradients, placing ------------------------------------------------------------------------------


def test_train_and_eval_reach_every_module():
    model = Tree()
    assert model.eval() is model and not any(m.training for m in model.modules())
    assert all(m.training for m in model.train().modules())


def test_zero_grad_and_freezing():
    model = Tree()
    model(tg.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert model.gain.grad is not None and model.first.factor.grad is not None
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model.again.requires_grad_(False)
    assert [p.requires_grad for p in model.parameters()] == [True, False, True, True, True]


def test_astype_converts_floats_in_place_and_keeps_identity_name_and_gradient():
    model = Tree()
    model.counter = nn.Buffer([1, 2])
    before = model.parameters()
    model(tg.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert model.astype("float32") is model
    assert all(p is q and p.dtype == "float32" and p.requires_grad for p, q in zip(model.parameters(), before))
    assert model.gain.name == "gain" and model.gain.grad.dtype == "float32"
    assert model.counter.dtype == "int64" and model.first.shift.dtype == "float32"
    assert model(tg.tensor([1.0, 2.0, 3.0])).dtype == "float32"
    with pytest.raises(TypeError, match="astype: Tree can be converted to floating-point dtypes, not to int32"):
        model.astype("int32")


def test_to_moves_in_place(device):
    model = Tree()
    first = model.first.factor
    model.to(device)
    assert model.first.factor is first and {p.device for p in [*model.parameters(), *model.buffers()]} == {device}
    y = model(tg.tensor([1.0, 2.0, 3.0], device=device)).sum()
    y.backward()
    assert float(y) == 180.0 and model.gain.grad.device == device
    model.to("cpu")
    assert {p.device for p in model.parameters()} == {"cpu"} and model.gain.grad.device == "cpu"


def test_copies_and_pickles_are_independent():
    model = Tree()
    model(tg.tensor([1.0, 2.0, 3.0]))
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [n for n, _ in twin.named_parameters()] == [n for n, _ in model.named_parameters()]
        assert twin.shared is twin.first.factor and isinstance(twin.shared, nn.Parameter)
        with tg.no_grad():
            twin.shared.copy_(9.0)
        assert model.shared.numpy().max() == 1.0


# --- state --------------------------------------------------------------------------------------------------


def test_state_dict_has_every_name_as_a_snapshot_on_the_host(device):
    model = Tree().to(device)
    state = model.state_dict()
    assert "shared" in state and "first.factor" in state and "loop.0.factor" in state and "plain" not in state
    assert all(type(value) is np.ndarray for value in state.values())
    with tg.no_grad():
        model.gain.copy_(7.0)
    assert state["gain"] == 5.0


def test_load_state_dict_writes_in_place_from_arrays_and_tensors(device):
    model, other = Tree().to(device), Tree()
    with tg.no_grad():
        for i, p in enumerate(other.parameters()):
            p.copy_(i + 10.0)
    memory = [p.data for p in model.parameters()]
    state = {name: tg.tensor(value) for name, value in other.state_dict().items()}
    assert model.load_state_dict(state) == ([], [])
    assert [p.numpy().max() for p in model.parameters()] == [10, 11, 12, 13, 14]
    assert all(p.data is raw and p.requires_grad for p, raw in zip(model.parameters(), memory))
    assert list(other.load_state_dict(model.state_dict())) == [[], []]


def test_loading_is_seen_by_the_tape():
    model = Scale()
    loss = model(tg.tensor([1.0, 2.0, 3.0], requires_grad=True)).sum()
    model.load_state_dict(model.state_dict())
    with pytest.raises(RuntimeError, match="argument b of multiply .* was changed in place"):
        loss.backward()


STATE_ERRORS = {
    "missing": (lambda s: s.pop("gain"), ValueError, "load_state_dict of Tree: missing: gain. strict=False"),
    "unexpected": (
        lambda s: s.update(gian=s.pop("gain"), extra=1),
        ValueError,
        "missing: gain; unexpected: gian, extra",
    ),
    "shapes": (
        lambda s: s.update({"gain": np.zeros(2), "first.factor": np.zeros((3, 1))}),
        ValueError,
        r"first.factor has shape \(3, 1\) in the state and \(3,\) here; gain has shape \(2,\) in the state",
    ),
    "dtype": (
        lambda s: s.update({"blocks.0.shift": np.zeros(3, "float32")}),
        ValueError,
        r"blocks.0.shift is float32 in the state and float64 here \(convert one with .astype\)",
    ),
    "no array": (lambda s: s.update(gain="5"), ValueError, r"gain is str, expected an array or a Tensor of shape \(\)"),
    "generator": (
        lambda s: s.update(rng={"state": 1}),
        ValueError,
        "rng must be the state of a random generator, PCG64",
    ),
}


@pytest.mark.parametrize("case", STATE_ERRORS)
def test_a_state_that_does_not_fit_is_refused_and_nothing_is_loaded(case):
    change, kind, message = STATE_ERRORS[case]
    model, other = Tree(), Tree()
    model.rng = np.random.default_rng(0)
    other.rng = np.random.default_rng(1)
    with tg.no_grad():
        for p in other.parameters():
            p.copy_(100.0)
    before, state = model.state_dict(), other.state_dict()
    change(state)
    with pytest.raises(kind, match=message):
        model.load_state_dict(state)
    after = model.state_dict()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_what_is_no_state_is_refused():
    with pytest.raises(TypeError, match="load_state_dict of Tree: the state is list, expected a dict"):
        Tree().load_state_dict([1])
    model = nn.Module()
    model.parts, setattr_name = {"a.b": nn.Parameter([1.0]), "a": {"b": nn.Parameter([2.0])}}, "parts.a.b"
    with pytest.raises(ValueError, match=f"Module has two parts named '{setattr_name}'"):
        model.state_dict()


def test_without_strict_the_names_in_common_are_loaded():
    model = Tree()
    keys = model.load_state_dict({"gain": np.array(8.0, "float32"), "other": 1}, strict=False)
    assert model.gain.item() == 8.0 and keys.unexpected == ["other"] and "first.factor" in keys.missing
    with pytest.raises(ValueError, match="gain has shape"):
        model.load_state_dict({"gain": np.zeros(3)}, strict=False)


def test_random_generators_are_state():
    model, other = nn.Module(), nn.Module()
    model.noise, other.noise = np.random.default_rng(3), np.random.default_rng(4)
    model.noise.random(5)
    other.load_state_dict(model.state_dict())
    assert other.noise.random() == model.noise.random()


# --- showing ------------------------------------------------------------------------------------------------


def test_repr_is_a_nested_tree():
    model = Tree()
    del model.again, model.loop
    assert repr(model) == (
        "Tree(\n  (first): Scale(\n    width=3\n    (parent): Tree(...)\n  )\n  (blocks.0): Scale(width=3)\n"
        "  (blocks.1.inner.0): Scale(width=3)\n)"
    )


def test_summary_shows_shapes_and_counts():
    model = Tree()
    model.again.requires_grad_(False)
    table = model.summary((2, 3))
    rows = [line.split() for line in table.splitlines()]
    assert rows[0] == ["layer", "output", "shape", "parameters", "trainable"]
    assert rows[2] == ["Tree", "(2,", "3)", "2", "2"]
    assert rows[3] == ["first", "Scale", "(2,", "3)", "3", "3"]
    assert rows[4] == ["blocks.0", "Scale", "(2,", "3)", "3", "0"]
    assert rows[5] == ["blocks.1.inner.0", "Scale", "(2,", "3)", "3", "3"]
    assert rows[-1] == ["total", "11", "8"]
    assert repr(table) == str(table) and "(2, 3)" not in model.summary()
    assert model.training and "forward" not in vars(model.first)
    assert "(3,)" in model.summary(tg.tensor([1.0, 2.0, 3.0]))


# --- containers ---------------------------------------------------------------------------------------------


def test_sequential_applies_modules_and_functions_in_turn():
    model = nn.Sequential(Scale(2.0), lambda x: x + 1.0, Scale(3.0))
    np.testing.assert_array_equal(model(tg.tensor([1.0, 2.0, 3.0])).numpy(), [9.0, 15.0, 21.0])
    assert list(model.state_dict()) == ["0.factor", "0.shift", "2.factor", "2.shift"]
    assert len(model) == 3 and model[2] is model.layers[2] and list(model)[0] is model[0]
    assert isinstance(model[1:], nn.Sequential) and model[1:][1] is model[2]
    assert len(model.append(Scale())) == 4
    assert repr(nn.Sequential(Scale(), Scale())) == "Sequential(\n  (0): Scale(width=3)\n  (1): Scale(width=3)\n)"
    assert nn.Sequential()(5) == 5


def test_sequential_refuses_what_cannot_be_called():
    with pytest.raises(TypeError, match="Sequential: layer 1 is int, expected a module or function"):
        nn.Sequential(Scale(), 3)
    with pytest.raises(TypeError, match=r"layer 0 is list, .*pass the layers one by one: Sequential\(\*layers\)"):
        nn.Sequential([Scale()])


# --- initial values -----------------------------------------------------------------------------------------

N = 400


@pytest.mark.parametrize(
    "draw, std, bound",
    [
        (lambda rng: nn.init.normal((N, N), 0.0, 0.3, rng=rng), 0.3, None),
        (lambda rng: nn.init.uniform((N, N), -0.5, 0.5, rng=rng), 0.5 / 3**0.5, 0.5),
        (lambda rng: nn.init.he_normal((N, 2 * N), rng=rng), (2 / (2 * N)) ** 0.5, None),
        (lambda rng: nn.init.he_normal((N, 2 * N), mode="fan_out", rng=rng), (2 / N) ** 0.5, None),
        (lambda rng: nn.init.he_uniform((N, N), negative_slope=1.0, rng=rng), N**-0.5, (3 / N) ** 0.5),
        (lambda rng: nn.init.xavier_normal((N, 3 * N), rng=rng), (2 / (4 * N)) ** 0.5, None),
        (lambda rng: nn.init.xavier_uniform((N, N), gain=2.0, rng=rng), 2 * N**-0.5, 2 * (3 / N) ** 0.5),
        (lambda rng: nn.init.he_normal((N, N // 4, 2, 2), rng=rng), (2 / N) ** 0.5, None),
    ],
)
def test_initial_values_have_the_published_spread(draw, std, bound):
    values = draw(0)
    assert type(values) is np.ndarray and values.dtype == "float32"
    assert abs(values.mean()) < 5 * std / values.size**0.5
    assert values.std() == pytest.approx(std, rel=0.01)
    assert bound is None or 0.99 * bound < abs(values).max() <= bound * (1 + 1e-6)
    assert np.array_equal(values, draw(0)) and not np.array_equal(values, draw(1))


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal_rows_or_columns(shape):
    q = nn.init.orthogonal(shape, gain=2.0, rng=0, dtype="float64").reshape(shape[0], -1)
    gram = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-12)


def test_orthogonal_is_uniform_over_the_group():
    traces = [np.trace(nn.init.orthogonal((3, 3), rng=i, dtype="float64")) for i in range(400)]
    assert abs(np.mean(traces)) < 0.2  # the moments of the trace over O(3) are 0 and 1; bare QR gives a mean of -0.8
    assert np.var(traces) == pytest.approx(1, abs=0.2)


def test_dtypes_start_from_the_same_numbers():
    single, double = (nn.init.he_normal((4, 5), rng=3, dtype=dtype) for dtype in ("float32", "float64"))
    assert np.array_equal(single, double.astype("float32"))
    assert nn.init.zeros((2, 3)).sum() == 0 and nn.init.ones(4, "float64").sum() == 4


def test_manual_seed_sets_the_default_generator_and_rng_overrides_it():
    tg.manual_seed(5)
    first = nn.init.normal((3,))
    assert not np.array_equal(first, nn.init.normal((3,)))
    tg.manual_seed(5)
    assert np.array_equal(first, nn.init.normal((3,)))
    assert np.array_equal(first, nn.init.normal((3,), rng=5))
    assert np.array_equal(first, nn.init.normal((3,), rng=np.random.default_rng(5)))
    with pytest.raises(TypeError, match="rng is str; expected an integer seed, a numpy.random.Generator, or None"):
        nn.init.normal((3,), rng="5")


def test_fans_need_a_matrix():
    with pytest.raises(ValueError, match=r"init: fan_in and fan_out need a shape \(out, in, ...\), this is \(3,\)"):
        nn.init.he_normal((3,))
    with pytest.raises(ValueError, match='init: mode is \'in\'; expected "fan_in" or "fan_out"'):
        nn.init.he_normal((3, 3), mode="in")


# --- layers -------------------------------------------------------------------------------------------------


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def test_linear_is_an_affine_map_of_the_last_axis(device):
    layer = nn.Linear(4, 3, rng=0, dtype="float64", device=device)
    w, b = layer.weight.numpy(), layer.bias.numpy()
    assert w.shape == (3, 4) and b.shape == (3,) and abs(w).max() <= 0.5 and abs(b).max() <= 0.5
    for shape in [(4,), (2, 4), (5, 2, 4), (0, 4)]:
        x = normal(*shape)
        y = layer(tg.tensor(x, device=device))
        assert y.device == device
        np.testing.assert_allclose(y.numpy(), x @ w.T + b, rtol=1e-12)
    bare = nn.Linear(4, 3, bias=False, rng=0, dtype="float64", device=device)
    assert bare.bias is None and len(bare.parameters()) == 1 and np.array_equal(bare.weight.numpy(), w)


def test_gradients_of_a_linear_layer():
    layer, x, g = nn.Linear(4, 3, rng=0, dtype="float64"), normal(5, 2, 4), normal(5, 2, 3, seed=1)
    inputs = tg.tensor(x, requires_grad=True)
    layer(inputs).backward(tg.tensor(g))
    np.testing.assert_allclose(inputs.grad.numpy(), g @ layer.weight.numpy(), rtol=1e-12)
    np.testing.assert_allclose(layer.weight.grad.numpy(), np.einsum("bto,bti->oi", g, x), rtol=1e-12)
    np.testing.assert_allclose(layer.bias.grad.numpy(), g.sum((0, 1)), rtol=1e-12)


def test_layers_start_the_same_on_every_device_and_from_manual_seed(device):
    tg.manual_seed(1)
    first = nn.Sequential(nn.Linear(3, 5), nn.Dropout(), nn.Linear(5, 2), nn.Embedding(4, 2)).state_dict()
    tg.manual_seed(1)
    second = nn.Sequential(
        nn.Linear(3, 5, device=device), nn.Identity(), nn.Linear(5, 2, device=device), nn.Embedding(4, 2, device=device)
    ).state_dict()  # a dropout layer takes no numbers from the weights
    assert all(np.array_equal(first[name], value) for name, value in second.items())


@pytest.mark.parametrize("padding_idx", [0, -2, np.int64(3)])
def test_the_padding_row_of_an_embedding_is_zero_and_stays(padding_idx, device):
    table = nn.Embedding(5, 3, padding_idx, rng=0, device=device)
    without = nn.Embedding(5, 3, rng=0, device=device)
    rows = np.arange(5) != padding_idx % 5
    np.testing.assert_array_equal(table.weight.numpy(), without.weight.numpy() * rows[:, None])
    tokens = tg.tensor(np.array([[0, 3, 3], [4, 2, 0]]), device=device)
    seed = np.arange(18, dtype="float32").reshape(2, 3, 3)
    for module in (table, without):
        (module(tokens) * tg.tensor(seed, device=device)).sum().backward()
    np.testing.assert_array_equal(table.weight.grad.numpy(), without.weight.grad.numpy() * rows[:, None])
    optimizer = tg.optim.Adam(table.parameters(), lr=0.1)
    optimizer.step()
    assert not table.weight.numpy()[padding_idx].any()
    assert repr(table) == f"Embedding(5, 3, padding_idx={padding_idx})"


def test_a_padding_row_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="Embedding: padding_idx is 5, expected a row of 5"):
        nn.Embedding(5, 3, 5)
    with pytest.raises(ValueError, match="Embedding: padding_idx is 1.5, expected an integer"):
        nn.Embedding(5, 3, 1.5)
    with pytest.raises(IndexError, match="embedding: padding_idx is -6; expected -5 to 4"):
        tg.embedding(np.ones((5, 3)), [0], padding_idx=-6)


def test_embedding_picks_rows_and_adds_their_gradients(device):
    table = nn.Embedding(5, 3, rng=0, device=device)
    indices = np.array([[1, 4], [1, 0]])
    y = table(tg.tensor(indices, device=device))
    np.testing.assert_array_equal(y.numpy(), table.weight.numpy()[indices])
    y.sum().backward()
    np.testing.assert_array_equal(table.weight.grad.numpy().sum(1), [3, 6, 0, 0, 3])
    if device == "cpu":
        with pytest.raises(IndexError, match="embedding: .*5 rows"):
            table(tg.tensor([5]))
    else:  # the host would have to wait
        assert np.isnan(table(tg.tensor([5], device=device)).numpy()).all()


@pytest.mark.parametrize("shape", [7, (3, 7)])
def test_layer_norm_and_rms_norm(shape, device):
    sizes = (shape,) if isinstance(shape, int) else shape
    axes = tuple(range(-len(sizes), 0))
    layer = nn.LayerNorm(shape, eps=1e-3, dtype="float64", device=device)
    rms = nn.RMSNorm(shape, eps=1e-3, dtype="float64", device=device)
    w, b = normal(*sizes, seed=1), normal(*sizes, seed=2)
    layer.load_state_dict({"weight": w, "bias": b})
    rms.load_state_dict({"weight": w})
    x = 3 + 2 * normal(4, 3, 7)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    expected = (x - mean) / np.sqrt(variance + 1e-3) * w + b
    np.testing.assert_allclose(layer(tg.tensor(x, device=device)).numpy(), expected, rtol=1e-11)
    expected = x / np.sqrt((x**2).mean(axes, keepdims=True) + 1e-3) * w
    np.testing.assert_allclose(rms(tg.tensor(x, device=device)).numpy(), expected, rtol=1e-11)
    assert nn.LayerNorm(shape, bias=False).bias is None


def test_normalisation_in_half_precision_does_not_overflow():
    x = tg.tensor(np.array([[300.0, -500.0, 400.0]], "float16"))
    y = tg.rms_norm(x)
    assert y.dtype == "float16"
    np.testing.assert_allclose(y.numpy(), x.numpy() / np.sqrt(500000 / 3), rtol=1e-3)


def test_layer_norm_of_a_large_common_offset_keeps_its_digits():
    x = normal(2, 64).astype("float32")
    shifted = tg.layer_norm(tg.tensor(x + np.float32(1000)))
    np.testing.assert_allclose(shifted.numpy(), tg.layer_norm(tg.tensor(x)).numpy(), atol=1e-3)


def test_dropout_drops_a_share_and_keeps_the_mean(device):
    layer = nn.Dropout(0.25, rng=0)
    x = tg.tensor(np.ones((200, 200), "float32"), device=device, requires_grad=True)
    y = layer(x)
    dropped = y.numpy() == 0
    assert y.device == device and y.dtype == "float32" and dropped.mean() == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(y.numpy()[~dropped], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())  # the same mask
    assert not np.array_equal(layer(x).numpy(), y.numpy())
    assert np.array_equal(nn.Dropout(0.25, rng=0)(x).numpy(), y.numpy())
    assert layer.eval()(x) is x


def test_dropout_of_nothing_and_of_everything():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    assert nn.Dropout(0.0)(x) is x
    y = nn.Dropout(1.0)(x)
    y.sum().backward()
    assert y.numpy().tolist() == x.grad.numpy().tolist() == [0.0, 0.0]


def test_dropout_resumes_with_the_masks_to_come():
    x = tg.tensor(np.ones(50, "float32"))
    model = nn.Sequential(nn.Dropout(0.5, rng=1), nn.Dropout(0.5, rng=2))
    model(x)
    fresh = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    fresh.load_state_dict(model.state_dict())
    assert all(np.array_equal(fresh(x).numpy(), model(x).numpy()) for _ in range(3))
    before = model.state_dict()
    model.summary((50,))
    assert model.state_dict() == before  # a trial run draws nothing


def test_dropout_drops_the_same_again_inside_a_checkpoint(device):
    layer, x = nn.Dropout(0.5, rng=0), tg.tensor(normal(3, 20), device=device, requires_grad=True)

    @tg.checkpoint
    def twice(x):
        return layer(layer(x) * 2.0)

    y = twice(x)
    after = layer.rng.bit_generator.state
    y.sum().backward()
    np.testing.assert_allclose((x.grad * x).numpy(), y.numpy(), rtol=1e-12)  # y is linear in x
    assert layer.rng.bit_generator.state == after  # running again has drawn nothing


def test_dropout_of_a_number():
    assert float(nn.Dropout(0.5, rng=0)(tg.tensor(1.0))) in (0.0, 2.0)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_masks_of_the_cpu_are_those_of_floats(dtype):
    """Whole words, which are drawn for large masks, hold the numbers of which PCG64 makes floats of 24 bits."""
    pytest.importorskip("ml_dtypes")
    shape = (3, 45_001)  # three parts, of which the last one is short
    x = tg.tensor(np.ones(shape, "float32")).astype(dtype)
    mask = nn.Dropout(0.3, rng=7)(x).numpy().astype("float64")
    floats = np.random.default_rng(7).random(shape, dtype="float32")
    np.testing.assert_array_equal(mask != 0, floats >= np.float32(0.3))
    np.testing.assert_allclose(mask[mask != 0], 1 / 0.7, rtol=5e-3 if dtype == "bfloat16" else 5e-4)


@pytest.mark.parametrize("name", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_masks_of_other_generators_drop_a_share_in_every_place(name):
    layer = nn.Dropout(0.25, rng=np.random.Generator(getattr(np.random, name)(0)))
    dropped = layer(tg.tensor(np.ones((4, 50_000), "float32"))).numpy() == 0
    for part in (dropped[:, ::2], dropped[:, 1::2], *dropped):
        assert part.mean() == pytest.approx(0.25, abs=0.01)


def test_dropout_of_integers_is_refused(device):
    with pytest.raises(TypeError, match=r"Dropout: x has dtype int64, expected a float: x.astype\('float32'\)"):
        nn.Dropout()(tg.tensor([1, 2], device=device))


# --- activations --------------------------------------------------------------------------------------------

ACTIVATIONS = {
    "ReLU": (nn.ReLU(), lambda x: np.maximum(x, 0)),
    "LeakyReLU": (nn.LeakyReLU(0.2), lambda x: np.where(x > 0, x, 0.2 * x)),
    "ELU": (nn.ELU(0.7), lambda x: np.where(x > 0, x, 0.7 * np.expm1(x))),
    "SELU": (nn.SELU(), lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x))),
    "GELU": (nn.GELU(), lambda x: x * 0.5 * (1 + np.vectorize(erf)(x / 2**0.5))),
    "GELU tanh": (nn.GELU("tanh"), lambda x: 0.5 * x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3)))),
    "SiLU": (nn.SiLU(), lambda x: x / (1 + np.exp(-x))),
    "Sigmoid": (nn.Sigmoid(), lambda x: 1 / (1 + np.exp(-x))),
    "Tanh": (nn.Tanh(), np.tanh),
    "Softplus": (nn.Softplus(2.0), lambda x: np.log1p(np.exp(2 * x)) / 2),
    "Softmax": (nn.Softmax(axis=0), lambda x: np.exp(x) / np.exp(x).sum(0)),
    "LogSoftmax": (nn.LogSoftmax(), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_pass_their_options_on(name, device):
    module, formula = ACTIVATIONS[name]
    x = 2 * normal(3, 4)
    y = module(tg.tensor(x, device=device))
    np.testing.assert_allclose(y.numpy(), formula(x), rtol=1e-10, atol=1e-12)
    assert not module.parameters() and y.device == device


def test_activations_show_their_options():
    shown = [repr(module) for module, _ in ACTIVATIONS.values()]
    assert shown == [
        "ReLU()", "LeakyReLU(negative_slope=0.2)", "ELU(alpha=0.7)", "SELU()", "GELU(approximate='none')",
        "GELU(approximate='tanh')", "SiLU()", "Sigmoid()", "Tanh()", "Softplus(beta=2.0)", "Softmax(axis=0)",
        "LogSoftmax(axis=-1)",
    ]  # fmt: skip


# --- shapes -------------------------------------------------------------------------------------------------


def test_flatten_and_identity():
    assert nn.Flatten()(tg.tensor(normal(2, 3, 4))).shape == (2, 12)
    assert nn.Flatten()(tg.tensor(normal(0, 3, 4))).shape == (0, 12) and nn.Flatten()(tg.tensor(normal(2))).shape == (
        2,
        1,
    )
    assert nn.Identity()(x := tg.tensor([1.0])) is x


def test_a_training_step_waits_for_no_device():
    model = nn.Sequential(
        nn.Linear(4, 8, device="strict"),
        nn.LayerNorm(8, device="strict"),
        nn.Dropout(),
        nn.Linear(8, 2, device="strict"),
    )
    x = tg.tensor(normal(3, 4).astype("float32"), device="strict")
    with tg.testing.forbid_sync():
        (model(x) ** 2).sum().backward()
    assert all(p.grad is not None and p.grad.device == "strict" for p in model.parameters())


LAYER_ERRORS = {
    "linear": (
        lambda: nn.Linear(4, 3)(tg.tensor(normal(5, 3))),
        r"affine: x has shape \(5, 3\) and weight \(3, 4\), which takes \(..., 4\)",
    ),
    "number": (lambda: nn.Linear(4, 3)(1.0), r"affine: x has shape \(\) and weight \(3, 4\), which takes"),
    "weight": (
        lambda: tg.linear(tg.tensor(normal(5, 3)), tg.tensor(normal(3))),
        r"affine: x has shape \(5, 3\) and weight \(3,\); expected \(..., n\) and \(m, n\)",
    ),
    "bias": (
        lambda: tg.linear(tg.tensor(normal(5, 3)), tg.tensor(normal(2, 3)), tg.tensor(normal(3))),
        r"affine: bias has shape \(3,\) and weight \(2, 3\); expected \(2,\)",
    ),
    "sizes": (lambda: nn.Linear(0, 3), "Linear: in_features is 0, expected an integer of at least 1"),
    "float size": (lambda: nn.Embedding(4, 2.0), "Embedding: embedding_dim is 2.0, expected an integer"),
    "norm": (
        lambda: nn.LayerNorm((3, 4))(tg.tensor(normal(5, 4))),
        r"LayerNorm: x has shape \(5, 4\), expected \(..., 3, 4\)",
    ),
    "norm shape": (lambda: nn.RMSNorm(()), r"RMSNorm: shape is \(\), expected integers of at least 1"),
    "axes": (
        lambda: tg.rms_norm(tg.tensor(1.0)),
        r"normalize: x has shape \(\), which has not all of the axes \(-1,\)",
    ),
    "dropout": (lambda: nn.Dropout(1.5), "Dropout: p is 1.5, expected a probability from 0 to 1"),
}


@pytest.mark.parametrize("case", LAYER_ERRORS)
def test_errors_of_layers_are_sentences(case):
    call, message = LAYER_ERRORS[case]
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["LayerNorm", "RMSNorm"])
def test_normalisation_equals_pytorch(kind):
    torch = pytest.importorskip("torch")
    ours, theirs = getattr(nn, kind)((3, 5), eps=1e-4), getattr(torch.nn, kind)((3, 5), eps=1e-4)
    x, g = normal(4, 3, 5).astype("float32"), normal(4, 3, 5, seed=1).astype("float32")
    a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y, z = ours(a), theirs(b)
    y.backward(tg.tensor(g))
    z.backward(torch.tensor(g))
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.weight.grad.numpy(), theirs.weight.grad.numpy(), atol=1e-5)


@pytest.mark.oracle
def test_names_and_repr_are_those_of_pytorch():
    torch = pytest.importorskip("torch")

    def build(nn):
        return nn.Sequential(
            nn.Linear(4, 3), nn.Sequential(nn.Linear(3, 2, bias=False), nn.Dropout(0.1)), nn.Identity()
        )

    ours, theirs = build(nn), build(torch.nn)
    assert {n: p.shape for n, p in ours.named_parameters()} == {n: tuple(p.shape) for n, p in theirs.named_parameters()}
    assert repr(ours) == repr(theirs).replace(", inplace=False", "")
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()}, strict=False)
    x = normal(2, 4).astype("float32")
    np.testing.assert_allclose(
        ours.eval()(tg.tensor(x)).numpy(), theirs.eval()(torch.tensor(x)).detach().numpy(), atol=1e-6
    )


def test_to_takes_devices_and_dtypes_as_for_tensors():
    model = nn.Linear(2, 3)
    assert model.to("strict", "float64") is model
    assert {(p.device, p.dtype.name) for p in model.parameters()} == {("strict", "float64")}
    model.to(device="cpu", dtype=np.float32)
    assert {(p.device, p.dtype.name) for p in model.parameters()} == {("cpu", "float32")}
    with pytest.raises(ValueError, match="device='tpu' is unknown"):
        model.to("tpu")


@pytest.mark.parametrize(
    "convert", [lambda m: m.astype("float64"), lambda m: m.to("float16"), lambda m: m.to("strict")]
)
def test_hooks_survive_a_conversion_and_can_be_removed_after_it(convert):
    model, calls = nn.Linear(2, 1), []
    handle = model.weight.register_hook(lambda g: calls.append(g.dtype))
    convert(model)
    x = tg.tensor(np.ones((1, 2)), device=model.weight.device).astype(model.weight.dtype)
    model(x).sum().backward()
    assert calls == [model.weight.dtype]
    handle.remove()
    model(x).sum().backward()
    assert len(calls) == 1


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_a_gradient_arrives_in_the_dtype_the_parameter_was_given_meanwhile(dtype):
    model = nn.Linear(2, 1, rng=0)
    loss = (model(tg.tensor(np.ones((3, 2), "float32"))) ** 2).sum()
    loss.backward(retain_graph=True)
    expected = model.weight.grad.numpy()
    model.zero_grad()
    model.astype(dtype)
    loss.backward()
    assert model.weight.grad.dtype == dtype and model.bias.grad.dtype == dtype
    np.testing.assert_allclose(model.weight.grad.numpy(), expected, rtol=1e-3)


def test_a_parameter_frozen_between_forward_and_backward_gets_no_gradient():
    model = nn.Linear(2, 1, rng=0)
    loss = model(tg.tensor(np.ones((3, 2), "float32"))).sum()
    model.weight.requires_grad = False
    loss.backward()
    assert model.weight.grad is None and model.bias.grad.item() == 3


def test_a_conversion_that_fails_has_converted_nothing():
    class Model(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Parameter([1.0]), nn.Parameter([2.0])

    model = Model()

    def convert(array):
        if array[0] == 2:
            raise MemoryError
        return array.astype("float64")

    with pytest.raises(MemoryError):
        model._convert(convert)
    assert model.a.dtype == model.b.dtype == "float32"


class Tied(nn.Module):
    def __init__(self):
        self.a, self.b = nn.Linear(2, 2, rng=0), nn.Linear(2, 2, rng=1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


def test_a_state_with_two_values_for_one_parameter_is_refused_and_changes_nothing():
    model = Tied()
    state, before = model.state_dict(), model.a.weight.numpy().copy()
    model.load_state_dict({name: value + 1 for name, value in state.items()})
    np.testing.assert_array_equal(model.b.weight.numpy(), before + 1)
    state["b.weight"] = state["b.weight"] * 2
    with pytest.raises(ValueError, match="a.weight and b.weight are one here and differ in the state"):
        model.load_state_dict(state)
    np.testing.assert_array_equal(model.a.weight.numpy(), before + 1)
    del state["a.weight"]
    assert model.load_state_dict(state, strict=False).missing == ["a.weight"]
    np.testing.assert_array_equal(model.a.weight.numpy(), state["b.weight"])


class Returning(nn.Module):
    """Gives back its parameter, which ``functional_call`` exchanges only while ``forward`` runs."""

    def __init__(self):
        self.w = nn.Parameter(np.array([2.0, 3.0]))

    def forward(self, again):
        w = tg.checkpoint(lambda: (self.w * 1, self.w))()[1] if again else self.w
        return {"w": w, "more": [self.w.sum()]}


@pytest.mark.parametrize("again", [False, True])
def test_functional_call_gives_the_value_where_a_module_returns_a_parameter(again):
    model = Returning()
    value = np.array([5.0, 7.0])
    f = lambda w: nn.functional_call(model, {"w": w}, again)["w"]
    np.testing.assert_array_equal(f(tg.tensor(value)).numpy(), value)
    np.testing.assert_array_equal(tg.grad(lambda w: (f(w) * [1.0, 10.0]).sum())(value).numpy(), [1, 10])
    np.testing.assert_array_equal(tg.jvp(f, (value,), (value,))[1].numpy(), value)
    assert model.w.tolist() == [2, 3] and model.w.grad is None


def test_functional_call_refuses_two_values_for_one_parameter():
    model, x, w = Tied(), tg.ones((1, 2)), tg.tensor([[1.0, 0.0], [0.0, 2.0]])
    with pytest.raises(ValueError, match="functional_call: a.weight and b.weight are one parameter; give it one value"):
        nn.functional_call(model, {"a.weight": tg.zeros((2, 2)), "b.weight": w}, x)
    one = nn.functional_call(model, {"a.weight": w}, x).numpy()
    np.testing.assert_array_equal(nn.functional_call(model, {"a.weight": w, "b.weight": w}, x).numpy(), one)


def names_of(model, x):
    scopes = set()
    tape = model(x).sum().tape()
    for node in tape:
        scopes |= {"/".join(node.scope)} if node.op == "affine" else set()
    return [p.name for p in model.parameters()], sorted(scopes)


def test_names_and_scopes_follow_what_is_appended_replaced_and_inserted():
    model, x = nn.Sequential(nn.Linear(2, 2)), tg.ones((1, 2))
    expected = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert names_of(model, x) == (expected[:2], ["Sequential/0: Linear"])
    model.append(nn.Linear(2, 2))
    assert names_of(model, x) == (expected, ["Sequential/0: Linear", "Sequential/1: Linear"])
    model.layers[0] = nn.Linear(2, 2)
    assert names_of(model, x) == (expected, ["Sequential/0: Linear", "Sequential/1: Linear"])
    model.layers[1].weight = nn.Parameter(np.ones((2, 2), "float32"))
    assert names_of(model, x)[0] == expected
    model.layers.insert(0, nn.ReLU())
    assert names_of(model, x)[1] == ["Sequential/1: Linear", "Sequential/2: Linear"]
    assert model.parameters()[0].name == "1.weight" and "2 Linear  (1, 2)" in str(model.summary((1, 2)))


def test_a_module_made_inside_a_forward_renames_nothing():
    class Model(nn.Module):
        def __init__(self):
            self.inner = nn.Sequential(nn.Linear(2, 2))

        def forward(self, x):
            nn.Linear(2, 2)
            return self.inner(x)

    model = Model()
    for _ in range(2):
        assert names_of(model, tg.ones((1, 2))) == (["inner.0.weight", "inner.0.bias"], ["Model/inner/0: Linear"])


def test_summary_hides_no_error_and_leaves_the_modes_as_they_were():
    class Breaks(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(2, 2), nn.Dropout(0.5)

        @property
        def forward(self):
            raise AttributeError("no forward yet")

    class Fails(nn.Module):
        def __init__(self):
            self.a, self.b = nn.Linear(2, 2), nn.Dropout(0.5).eval()

        def forward(self, x):
            for module in self.modules():
                vars(module).pop("forward", None)
            raise RuntimeError("a fault of forward")

    for kind, error, message in ((Breaks, AttributeError, "no forward yet"), (Fails, RuntimeError, "a fault of")):
        model = kind()
        before = [module.training for module in model.modules()]
        with pytest.raises(error, match=message):
            model.summary((1, 2))
        assert [module.training for module in model.modules()] == before
        assert not any("forward" in vars(module) for module in model.modules())


def test_a_tensor_in_the_place_of_a_parameter_in_a_list_is_refused():
    class Model(nn.Module):
        def __init__(self):
            self.ws = [nn.Parameter([1.0]), nn.Parameter([2.0])]
            self.constants = [tg.tensor([1.0])]

    model = Model()
    assert len(model.parameters()) == 2
    model.ws[0] = model.ws[0] * 2.0
    for call in (model.parameters, model.state_dict, lambda: list(model.named_modules())):
        with pytest.raises(TypeError, match=r"ws has Parameters and a plain Tensor of shape \(1,\)"):
            call()


def test_parameters_in_a_deque_are_found_and_in_a_set_refused():
    class Model(nn.Module):
        def __init__(self, container):
            self.parts = container((nn.Parameter([1.0]), nn.Linear(2, 2)))

    assert [name for name, _ in Model(collections.deque).named_parameters()] == [
        "parts.0", "parts.1.weight", "parts.1.bias",
    ]  # fmt: skip
    for container in (set, frozenset):
        with pytest.raises(TypeError, match=f"parts is a {container.__name__} with modules or state in it"):
            Model(container).parameters()


def test_a_move_that_fails_has_converted_nothing():
    model = nn.Linear(2, 1)
    with pytest.raises((ValueError, RuntimeError)):
        model.to("float64", "tpu")
    with pytest.raises(TypeError, match="not to int32"):
        model.to("strict", "int32")
    assert model.weight.dtype == "float32" and model.weight.device == "cpu"
    model.to("float64", "strict")
    assert model.bias.dtype == "float64" and model.bias.device == "strict"


def test_a_buffer_is_not_lost_by_an_assignment():
    class Count(nn.Module):
        def __init__(self):
            self.seen = nn.Buffer([0.0])

    model = Count()
    with pytest.raises(TypeError, match="Count.seen is a Buffer, and Tensor would take it from the model"):
        model.seen = model.seen + 1.0
    model.seen = nn.Buffer([3.0])
    assert model.state_dict()["seen"] == [3.0]


def test_what_is_appended_is_a_layer():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="Sequential: layer 1 is int, expected a module or function"):
        model.append(3)
    assert len(model) == 1


def test_sizes_may_be_numpy_integers_and_nothing_but_integers():
    n = np.int64(3)
    for module in (nn.Linear(n, n), nn.Embedding(n, n), nn.LayerNorm(n), nn.RMSNorm((n, n)), nn.GRU(n, n)):
        assert module.parameters()[0].size >= 3
    for size in (True, 3.0, np.float32(3), 0, "3"):
        with pytest.raises(ValueError, match="Linear: in_features is .*, expected an integer of at least 1"):
            nn.Linear(size, 2)
    with pytest.raises(ValueError, match=r"LayerNorm: shape is \(True,\), expected integers"):
        nn.LayerNorm(True)


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("shape", [(1,), (1, 3), (3, 2), (6,), ()])
def test_a_gradient_is_not_added_to_one_of_another_shape(shape, create_graph):
    p = nn.Parameter(np.ones((2, 3)))
    p.grad = tg.zeros(shape, dtype="float64")
    with pytest.raises(ValueError, match=r"backward: a leaf has .grad of shape \(.*\), its gradient \(2, 3\)"):
        (p * p).sum().backward(create_graph=create_graph)
    p.grad = tg.ones((2, 3), dtype="float64")
    (p * p).sum().backward(create_graph=create_graph)
    np.testing.assert_array_equal(p.grad.numpy(), np.full((2, 3), 3.0))


def test_hooks_survive_freezing_and_thawing():
    model, calls = nn.Linear(2, 1), []
    handle = model.weight.register_hook(lambda g: calls.append(1))
    model.requires_grad_(False)
    model.requires_grad_(False)
    model.astype("float64")
    assert not model.weight.requires_grad
    model.requires_grad_()
    model(tg.tensor(np.ones((1, 2)))).sum().backward()
    assert calls == [1] and model.weight.grad.dtype == "float64"
    handle.remove()
    model(tg.tensor(np.ones((1, 2)))).sum().backward()
    assert calls == [1]


@pytest.mark.parametrize(
    "hold, names",
    [
        (lambda p: collections.UserList([p]), ["held.0"]),
        (lambda p: collections.UserDict(a=p), ["held.a"]),
        (lambda p: collections.ChainMap({"a": p}), ["held.a"]),
        (lambda p: types.MappingProxyType({"a": [p]}), ["held.a.0"]),
    ],
)
def test_parameters_in_other_containers_are_found(hold, names):
    module = tg.nn.Module()
    module.held = hold(tg.nn.Parameter([1.0]))
    assert [name for name, _ in module.named_parameters()] == names == list(module.state_dict())


def test_views_of_a_dict_with_parameters_are_refused():
    module, parts = tg.nn.Module(), {"a": tg.nn.Parameter([1.0])}
    module.held = parts.values()
    with pytest.raises(TypeError, match="held is a dict_values with modules or state in it, which has no order"):
        module.parameters()


@pytest.mark.parametrize("held", [[1], {"a": 1}, (1, [2])], ids=["list", "dict", "nested"])
def test_a_plain_tensor_in_the_place_of_the_only_parameter_is_found(held):
    class Holder(tg.nn.Module):
        def __init__(self):
            self.held = {"w": [tg.nn.Parameter([1.0])]} if isinstance(held, tuple) else held
            if isinstance(held, list):
                self.held = [tg.nn.Parameter([1.0])]
            elif isinstance(held, dict):
                self.held = {"a": tg.nn.Parameter([1.0])}

    module = Holder()
    place, key = (
        (module.held["w"], 0) if isinstance(held, tuple) else (module.held, 0 if isinstance(held, list) else "a")
    )
    optimizer = tg.optim.SGD(module.parameters(), lr=0.1)
    old = place[key]
    place[key] = place[key] - 0.1
    for call in (module.parameters, module.zero_grad, module.state_dict, lambda: dict(module.named_parameters())):
        with pytest.raises(
            TypeError, match="Holder: held.* was a Parameter and is a plain Tensor of shape .* not trained"
        ):
            call()
    place[key] = old
    assert module.parameters() == optimizer.param_groups[0]["params"]
    place[key] = tg.nn.Parameter([3.0])
    assert module.parameters()[0].item() == 3.0
    del place[key]
    assert module.parameters() == []


def test_a_state_is_loaded_as_a_whole_or_not_at_all():
    model = nn.Linear(2, 2, rng=0)
    before, other = model.state_dict(), nn.Linear(2, 2, rng=1).state_dict()
    with tg.guard_saved():
        loss = (model.bias * model.bias).sum()
        with pytest.raises(ValueError, match="load_state_dict of Linear: bias is a read-only array here: guard_saved"):
            model.load_state_dict(other)
        np.testing.assert_array_equal(model.weight.numpy(), before["weight"])
        loss.backward()
    model.load_state_dict(other)
    np.testing.assert_array_equal(model.weight.numpy(), other["weight"])
