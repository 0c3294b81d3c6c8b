"""TTTMuon.lact against LaCT's published formulas, and the options of the inner step that it is made of."""

import re

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.lact_reference import CASES, GOLDEN, INPUTS, ROWS, directions, everything, inputs, orthogonalised
from tinygrad_ms import nn
from tinygrad_ms.nn.ttt_muon import smooth_table
from tinygrad_ms.ops.iterations.coefficients import TABLES
from tinygrad_ms.testing import gradcheck


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def lact(case, **options):
    """The layer whose heads are the sequences of a case."""
    prenorm, muon, momentum, guarded = CASES[case]
    options = {"update": "muon" if muon else "plain", "momentum": momentum, "prenorm": prenorm, **options}
    options |= {} if guarded else {"guards": (0, 0)}
    return nn.TTTMuon.lact(12, 2, hidden=8, chunk=5, dtype="float64", rng=0, **options)


def run(layer, case):
    """The output of ``chunks`` for the inputs of a case, and these inputs as tensors; w1 lies transposed."""
    arguments = inputs([*CASES].index(case))
    flipped = {name: x.swapaxes(1, 2) if name == "w1" else x for name, x in arguments.items()}
    tensors = {name: tg.tensor(x, requires_grad=True) for name, x in flipped.items()}
    with tg.no_grad():
        for i in range(3):
            layer.cell.weights[i].copy_(tensors[f"w{i}"])
    rates = tg.concat([tensors[f"lr{i}"] for i in range(3)], axis=-1)
    tokens = (tensors["q"], tensors["k"], tensors["v"], rates, tensors["momentum"])
    tensors |= {f"w{i}": layer.cell.weights[i] for i in range(3)}
    return layer.chunks(*(x.reshape((1, *x.shape)) for x in tokens))[0], tensors


@pytest.mark.parametrize("case", CASES)
def test_the_layer_is_the_published_function_to_rounding(case, golden):
    y, tensors = run(lact(case), case)
    np.testing.assert_allclose(y.numpy(), golden[f"{case}/output"], rtol=0, atol=1e-12)
    along, cotangent = directions([*CASES].index(case))
    (y * cotangent).sum().backward()
    for name, expected in zip(INPUTS, golden[f"{case}/slopes"], strict=True):
        if name == "momentum" and not CASES[case][2]:
            assert expected == 0 and tensors[name].grad is None
            continue
        gradient = tensors[name].grad.numpy()
        gradient = gradient.swapaxes(1, 2) if name == "w1" else gradient
        np.testing.assert_allclose((gradient * along[name]).sum(), expected, rtol=1e-10, err_msg=name)


def test_the_golden_file_is_what_its_generator_makes(golden):
    assert GOLDEN.stat().st_size < 50_000
    made = everything()
    assert made.keys() == golden.keys()
    for name, value in made.items():
        assert golden[name].dtype == "float64"
        np.testing.assert_allclose(golden[name], value, rtol=1e-11, atol=1e-14, err_msg=name)


def test_its_guards_and_rows_matter():
    """The comparison would see another table, a scaled step, or norms without the + 1e-5 and + 1e-7."""
    assert TABLES["lact"] == ROWS
    outputs = {}
    for name, options in {
        "lact": {}, "no guards": {"guards": (0, 0)}, "rows of Muon": {"coefficients": "muon"},
        "postnorm": {"prenorm": False}, "steps of 0.3": {"inner_step": 0.3}, "exact": {"msign": "pure"},
    }.items():  # fmt: skip
        outputs[name] = run(lact("prenorm", **options), "prenorm")[0].numpy()
    for name, output in outputs.items():
        assert name == "lact" or np.linalg.norm(output - outputs["lact"]) > 1e-6 * np.linalg.norm(output)


@pytest.mark.parametrize("gate, prenorm", [(True, True), (False, False)])
def test_the_whole_layer_computes_its_formulas(gate, prenorm):
    layer = nn.TTTMuon.lact(8, 2, chunk=4, gate=gate, prenorm=prenorm, dtype="float64", rng=0)
    x = np.random.default_rng(1).standard_normal((3, 11, 8))
    p = {name: value.numpy() for name, value in layer.named_parameters()}
    assert "taps" not in p and ("gate.weight" in p) == gate
    silu = lambda z: z / (1 + np.exp(-z))
    heads = lambda z: z.reshape(3, 11, 2, -1).transpose(0, 2, 1, 3)
    q, k, v = map(heads, np.split(silu(x @ p["qkv.weight"].T), 3, axis=-1))
    q, k = (z / (np.linalg.norm(z, axis=-1, keepdims=True) + 1e-5) for z in (q, k))
    rates = np.log1p(np.exp(x @ p["rates.weight"].T + p["rates.bias"]) * np.expm1(1e-3))
    beta = 1 / (1 + np.exp(-(x @ p["beta.weight"].T + p["beta.bias"])))
    y = layer.chunks(*map(tg.tensor, (q, k, v, heads(rates), heads(beta)))).numpy()
    y = y / np.sqrt((y * y).mean(axis=-1, keepdims=True) + 1e-6) * p["norm.weight"]
    if gate:
        y = y * heads(silu(x @ p["gate.weight"].T + p["gate.bias"]))
    expected = y.transpose(0, 2, 1, 3).reshape(3, 11, 8) @ p["out.weight"].T
    np.testing.assert_allclose(layer(tg.tensor(x)).numpy(), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("prenorm", [True, False])
@tg.no_grad()
def test_reading_in_pieces_is_reading_at_once(prenorm, tmp_path):
    layer = nn.TTTMuon.lact(8, 2, chunk=4, prenorm=prenorm, dtype="float64", rng=0)
    x = tg.tensor(np.random.default_rng(1).standard_normal((3, 15, 8)))
    expected, state, found, start = layer(x).numpy(), None, [], 0
    for length in (1, 2, 6, 4, 2):
        y, state = layer.read(x[:, start : start + length], state)
        start += length
        found.append(y.numpy())
        tg.save(tmp_path / "state.npz", state)
        state = layer.restore(tg.load(tmp_path / "state.npz"))
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-12, atol=1e-14)


@tg.no_grad()
def test_a_state_of_another_variant_is_refused():
    x = tg.tensor(np.zeros((1, 2, 8)))
    kinds = [
        nn.TTTMuon.lact(8, 2, chunk=4, prenorm=True, dtype="float64", rng=0),
        nn.TTTMuon.lact(8, 2, chunk=4, prenorm=False, dtype="float64", rng=0),
        nn.TTTMuon(8, 2, chunk=4, dtype="float64", rng=0),
    ]
    for layer in kinds:
        for other in kinds:
            if other is not layer:
                with pytest.raises(ValueError, match="is that of a layer with other options for prenorm or conv"):
                    layer.read(x, other.read(x)[1])


def test_gradients_of_the_layer_equal_central_differences():
    layer = nn.TTTMuon.lact(8, 2, chunk=4, dtype="float64", rng=0)
    names = [name for name, _ in layer.named_parameters()]
    x = tg.tensor(np.random.default_rng(1).standard_normal((2, 10, 8)), requires_grad=True)
    values = [tg.tensor(p.numpy(), requires_grad=True) for p in layer.parameters()]
    f = lambda x, *parameters: nn.functional_call(layer, dict(zip(names, parameters)), x)
    assert gradcheck(f, (x, *values), eps=1e-6, atol=1e-5, rtol=1e-5)


# --- the rule of the inner msign --------------------------------------------------------------------------------------

RULES = [("smooth", "solve"), ("smooth", "svd"), ("smooth", "eigh"), ("smooth", "unrolled")]
RULES += [("pure", rule) for rule in ("solve", "dense", "svd", "eigh", "unrolled")]
RULES += [("ns5", rule) for rule in ("solve", "dense", "svd", "eigh", "unrolled")]


@pytest.mark.parametrize("kind, rule", RULES)
def test_a_rule_changes_the_gradient_of_the_layer_and_not_its_value(kind, rule):
    """Chunks of full rank: there the rules of converged steps agree."""
    x = tg.tensor(np.random.default_rng(0).standard_normal((2, 20, 4)))
    outputs, gradients = [], []
    for chosen in (None, rule):
        layer = nn.TTTMuon(4, 1, chunk=8, msign=kind, msign_vjp=chosen, dtype="float64", rng=0)
        y = layer(x)
        (y * y * y).sum().backward()
        outputs.append(y.numpy())
        gradients.append(np.concatenate([p.grad.numpy().ravel() for p in layer.parameters()]))
        assert ("msign_vjp" in repr(layer.cell)) == (chosen is not None)
    np.testing.assert_allclose(*outputs, rtol=1e-10, atol=1e-12)
    off = np.linalg.norm(gradients[1] - gradients[0]) / np.linalg.norm(gradients[0])
    if kind == "ns5" and rule != "unrolled":
        assert off > 1e-2  # the exact derivative of what has not converged
    else:
        assert off < (5e-2 if rule == "dense" else 1e-9), off


def test_the_layer_takes_a_rule_of_ones_own_other_steps_and_tables():
    M = np.random.default_rng(0).standard_normal((3, 4, 4))
    seen = []

    def rule(G, M, O):
        seen.append(M.shape)
        return G

    cell = nn.TTTMuonCell(4, msign="pure", msign_vjp=rule, steps=3, coefficients="polar_express", dtype="float64")
    m = tg.tensor(M, requires_grad=True)
    y = cell.orthogonal(m)
    y.backward(y.detach())
    np.testing.assert_array_equal(y.numpy(), tg.msign(M, steps=3, coefficients="polar_express"))
    assert seen == [(3, 4, 4)] and np.array_equal(m.grad.numpy(), y.numpy())
    for kind, options in {
        "smooth": dict(eps=1e-2, coefficients=smooth_table(1e-2, 4, np.finfo("float64").eps / 2)),
        "pure": dict(steps=8),
    }.items():
        np.testing.assert_array_equal(
            nn.TTTMuonCell(4, msign=kind, dtype="float64").orthogonal(tg.tensor(M)).numpy(), tg.msign(M, **options)
        )
    five = nn.TTTMuonCell(4, msign="ns5", coefficients="lact", guards=(0, 0.5), dtype="float64").orthogonal(
        tg.tensor(M)
    )
    np.testing.assert_allclose(five.numpy(), [orthogonalised(x, 0.5) for x in M], rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(msign_vjp="dense"), "vjp='dense' does not fit method='newton_schulz' and eps > 0"),
        (dict(msign_vjp="newton"), "vjp='newton'; expected 'solve'"),
        (dict(coefficients="lact5"), "coefficients='lact5' is unknown"),
        (dict(steps=0), "steps=0: expected a positive integer"),
        (dict(prenorm=True, weight_norm=False), "prenorm=True normalises the weights; leave out weight_norm=False"),
        (dict(prenorm="yes"), "prenorm is 'yes', expected True or False"),
        (dict(conv=3), "conv is 3, expected True or False"),
        (dict(gate=None), "gate is None, expected True or False"),
        (dict(guards=1e-5), "guards is 1e-05, expected two numbers of at least 0"),
        (dict(guards=(0, -1)), "guards is (0, -1), expected two numbers"),
        (dict(qk_guard=-1), "qk_guard is -1, expected a number of at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        nn.TTTMuon(8, 2, **options)
