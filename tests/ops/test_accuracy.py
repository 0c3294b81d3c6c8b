"""Elementwise functions keep their digits: the bars of docs/accuracy.md on a sample; gradients of sure losses."""

import functools
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("accuracy", ROOT / "benchmarks" / "accuracy.py")
accuracy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(accuracy)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", list(accuracy.BARS))
def test_values_and_derivatives_hold_their_bars(name, dtype):
    bar = accuracy.BARS[name].get(dtype)
    if bar is None:
        pytest.skip("no bar")
    value, slope = accuracy.worst(accuracy.CASES[name], name, dtype, points=8000)
    assert value <= bar
    assert slope <= bar


@pytest.mark.parametrize("name", ["coth", "sigmoid", "tanh"])
def test_values_and_derivatives_of_few_numbers_hold_their_bars(name):
    case = accuracy.CASES[name]
    x = accuracy.arguments(case, "float32", 8000)
    found, right = (accuracy.value_and_slope(case, x.astype(kind), size=100) for kind in ("float32", "float64"))
    for f, r in zip(found, right):
        assert accuracy.error(f, r, "float32", x) <= 4


@pytest.mark.parametrize("wide", [True, False], ids=["exp2", "exp"])
@pytest.mark.parametrize("approximate, low, high", [("none", -12.5, 13), ("tanh", -8, 21)])
def test_the_tables_of_gelu_are_right_in_every_cell(approximate, low, high, wide, monkeypatch):
    """Many random numbers in each part of the table; each block has some next to 0 and to the ends."""
    ops = importlib.import_module("tinygrad_ms.ops.gelu")
    monkeypatch.setattr(ops, "widest", lambda name: wide)
    monkeypatch.setattr(ops, "_tables", functools.cache(ops._tables.__wrapped__))
    rng = np.random.default_rng(0)
    parts = [rng.uniform(a, b, 30_000) for a, b in ((low, -6), (-6, -1), (-1, 0), (-1e-3, 1e-3), (0, high))]
    x = rng.permutation(np.concatenate(parts)).astype("float32")
    case = accuracy.Case(lambda x: tg.gelu(x, approximate=approximate), None)
    name = "gelu" if approximate == "none" else "gelu tanh"
    found, right = (accuracy.value_and_slope(case, x.astype(kind), size=len(x)) for kind in ("float32", "float64"))
    for i, (f, r) in enumerate(zip(found, right)):
        assert accuracy.error(f, r, "float32", x, name if i else None) <= 4


EXTREMES = [math.inf, -math.inf, math.nan, 0.0, -0.0, 1e-40, 1e-7, 45.0, -45.0, 88.9, -88.9, 360.0, -360.0, 720.0, -1e4]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(accuracy.BARS))
def test_extremes_among_many_ordinary_numbers(name, dtype):
    """Blocks that hold one are computed in another way than the others; the results are those of few numbers."""
    x = np.random.default_rng(0).standard_normal(110_000).astype(dtype)
    places = np.arange(len(EXTREMES)) * 7001
    x[places] = EXTREMES
    case, near = accuracy.CASES[name], (places[:, None] + np.arange(-2, 3)).ravel()
    for many, few in zip(accuracy.value_and_slope(case, x, size=len(x)), accuracy.value_and_slope(case, x[near], 100)):
        many, few = many[near].astype("longdouble"), few.astype("longdouble")
        number = np.isfinite(few)
        np.testing.assert_array_equal(many[~number], few[~number])
        bound = 8 * np.maximum(np.spacing(np.abs(few[number]).astype(dtype)), np.finfo(dtype).smallest_subnormal)
        bound = np.maximum(bound, 1e-8 if name in accuracy.ZEROS and dtype == "float32" else 0)
        assert (np.abs(many[number] - few[number]) <= bound).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extremes_in_the_cross_entropy_of_many_logits(dtype):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal(110_000).astype(dtype), rng.integers(0, 2, 110_000).astype(dtype)
    places = np.arange(len(EXTREMES)) * 7001
    x[places], near = EXTREMES, (places[:, None] + np.arange(3)).ravel()

    def both(x, t):
        x = tg.tensor(x, requires_grad=True)
        losses = tg.binary_cross_entropy_with_logits(x, t, reduction="none")
        losses.sum().backward()
        return losses.numpy(), x.grad.numpy()

    for many, few in zip(both(x, t), both(x[near], t[near])):
        np.testing.assert_allclose(many[near], few, rtol=8 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", list(accuracy.ZEROS))
def test_derivatives_keep_their_digits_around_their_zeros(name, dtype):
    x = np.linspace(accuracy.ZEROS[name] - 1, accuracy.ZEROS[name] + 1, 40_001).astype(dtype)
    pairs = [accuracy.value_and_slope(accuracy.CASES[name], x.astype(kind)) for kind in (dtype, "float64")]
    value, slope = (accuracy.error(*pair, dtype, x, zero) for pair, zero in zip(zip(*pairs), (None, name)))
    assert max(value, slope) <= accuracy.BARS[name][dtype]


FIXED = {  # at x: value and derivative, with mpmath
    "coth": [
        (-2.5, -1.0135673098126086, -0.027318691520768226),
        (0.3, 3.432738430321742, -10.783693131007775),
        (3.0, 1.0049698233136892, -0.009964345771147631),
        (30.0, 1.0, -3.502604305078608e-26),
    ],
    "csch": [
        (-2.5, -0.16528366985509557, -0.16752612461098454),
        (0.3, 3.2838533966984236, -11.272609754389267),
        (30.0, 1.871524593768035e-13, -1.871524593768035e-13),
        (300.0, 1.0296400444824027e-130, -1.0296400444824027e-130),
    ],
    "elu": [
        (-20.0, -0.9999999979388464, 2.061153622438558e-09),
        (-2.5, -0.9179150013761012, 0.0820849986238988),
        (0.3, 0.3, 1.0),
        (6.0, 6.0, 1.0),
    ],
    "expm1": [
        (-20.0, -0.9999999979388464, 2.061153622438558e-09),
        (-2.5, -0.9179150013761012, 0.0820849986238988),
        (0.3, 0.3498588075760031, 1.3498588075760032),
        (6.0, 402.4287934927351, 403.4287934927351),
    ],
    "gelu": [
        (-1.1, -0.14923266704102092, -0.10397133378942293),
        (-0.77, -0.1699004586838402, -0.007728015002588496),
        (-0.74, -0.16994099790194503, 0.00514192718512852),
        (-0.5, -0.15426876936299344, 0.13250487534383715),
        (-20.0, -5.507248237212468e-88, -1.1014360483133464e-86),
        (-5.0, -1.4332578593959695e-06, -7.146946001792295e-06),
        (0.5, 0.34573123063700656, 0.8674951246561629),
        (4.0, 3.9998733150326675, 1.0005036496612265),
    ],
    "gelu tanh": [
        (-1.1, -0.14941895382548914, -0.10365946256914718),
        (-0.77, -0.16997525187761414, -0.007429329804435538),
        (-0.74, -0.1700070829332046, 0.005423540492180083),
        (-0.5, -0.15428599017485609, 0.1326300964653577),
        (-8.0, -3.1077829375011112e-21, -4.7147845041068414e-20),
        (-3.0, -0.003637392081773019, -0.011584166630969726),
        (0.5, 0.34571400982514394, 0.8673699035346423),
        (4.0, 3.9999297540518075, 1.0003351231971227),
    ],
    "log1p": [
        (-0.9, -2.302585092994046, 10.000000000000002),
        (1e-09, 9.999999995e-10, 0.999999999),
        (3.0, 1.3862943611198906, 0.25),
        (1000000000.0, 20.72326583794641, 9.99999999e-10),
    ],
    "log_sigmoid": [
        (-20.0, -20.000000002061153, 0.9999999979388464),
        (-2.5, -2.5788897342925496, 0.9241418199787564),
        (0.3, -0.5543552444685271, 0.425557483188341),
        (6.0, -0.0024756851377304495, 0.0024726231566347743),
    ],
    "mish": [
        (-1.6, -0.2909684233430079, -0.07802671657469906),
        (-1.205, -0.3088224627915584, -0.0033229524859147465),
        (-1.18, -0.3088226552574503, 0.0033502049677911353),
        (-0.8, -0.28396326278162165, 0.13818235018746847),
        (-30.0, -2.807286890651921e-12, -2.713710660963392e-12),
        (-3.0, -0.14564746127562458, -0.09339311453232084),
        (0.5, 0.37524521130489513, 0.8864243753577272),
        (4.0, 3.9974128069762385, 1.00443287690375),
    ],
    "sech": [
        (-20.0, 4.122307244877116e-09, 4.122307244877116e-09),
        (-2.5, 0.16307123192997783, 0.16088840903928417),
        (0.3, 0.9566279119002483, -0.2786777761597717),
        (6.0, 0.004957473893560379, -0.004957412974390003),
    ],
    "selu": [
        (-20.0, -1.758099337223664, 3.6237128249944113e-09),
        (-2.5, -1.6137857588732425, 0.1443135819741343),
        (0.3, 0.31521029620664415, 1.0507009873554805),
        (6.0, 6.304205924132883, 1.0507009873554805),
    ],
    "sigmoid": [
        (-20.0, 2.0611536181902037e-09, 2.061153613941849e-09),
        (-2.5, 0.07585818002124355, 0.07010371654510816),
        (0.3, 0.574442516811659, 0.24445831169074586),
        (6.0, 0.9975273768433652, 0.0024665092913600476),
    ],
    "silu": [
        (-1.5, -0.2736382857095345, -0.041294154299142946),
        (-1.29, -0.2784501259610438, -0.0024930727759546905),
        (-1.25, -0.27837517353163604, 0.0063191550846875815),
        (-0.9, -0.2601454476374964, 0.10410022076695893),
        (-20.0, -4.122307236380407e-08, -3.9161918660646786e-08),
        (-2.5, -0.18964545005310887, -0.09940111134152683),
        (0.3, 0.17233275504349768, 0.6477800103188828),
        (6.0, 5.985164261060191, 1.0123264325915255),
    ],
    "softplus": [
        (-20.0, 2.061153620314381e-09, 2.0611536181902037e-09),
        (-2.5, 0.07888973429254963, 0.07585818002124355),
        (0.3, 0.8543552444685271, 0.574442516811659),
        (6.0, 6.00247568513773, 0.9975273768433652),
    ],
    "tanh": [
        (-20.0, -1.0, 1.6993417021166355e-17),
        (-2.5, -0.9866142981514303, 0.02659222668316062),
        (0.3, 0.2913126124515909, 0.9151369618266292),
        (6.0, 0.9999877116507956, 2.4576547405332702e-05),
    ],
    "atan": [
        (-3.0, -1.2490457723982544, 0.1),
        (0.1, 0.09966865249116204, 0.9900990099009901),
        (5.0, 1.373400766945016, 0.038461538461538464),
        (100000.0, 1.570786326794897, 9.999999999e-11),
    ],
}


@pytest.mark.parametrize("name", list(FIXED))
def test_float64_at_fixed_points(name):
    x, values, slopes = (np.array(column) for column in zip(*FIXED[name]))
    for found, right in zip(accuracy.value_and_slope(accuracy.CASES[name], x), (values, slopes)):
        assert (np.abs(found - right) / np.spacing(np.abs(right))).max() <= 4


def test_the_table_names_every_elementwise_function():
    text = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].strip("| ") for line in text.splitlines() if line.startswith("| ")}
    assert rows >= set(accuracy.CASES)
    covered = {accuracy.named_in(name) for name in rows}
    missing = [n for n in accuracy.elementwise_primitives() if n not in covered and f"`{n}`" not in text]
    assert not missing


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("exponent", [2, 3, 4, 5])
def test_powers_by_products_are_those_of_numpy(kind, exponent):
    x = np.linspace(-3, 3, 41).astype(kind)
    t = tg.tensor(x, requires_grad=True)
    y = t**exponent
    y.sum().backward()
    assert y.dtype == x.dtype
    wide = x.astype("longdouble")
    np.testing.assert_allclose(y.numpy(), wide**exponent, rtol=2 * np.finfo(kind).eps)
    np.testing.assert_allclose(t.grad.numpy(), exponent * wide ** (exponent - 1), rtol=2 * np.finfo(kind).eps)


@pytest.mark.parametrize("dtype", ["int8", "int64", "uint16", "bool"])
@pytest.mark.parametrize("exponent", [3, 4, 3.0])
def test_powers_of_integers_keep_the_dtype_of_numpy(dtype, exponent):
    x = np.array([0, 1, 5, 7]).astype(dtype)
    y = tg.power(tg.tensor(x), exponent)
    right = x**exponent
    np.testing.assert_array_equal(y.numpy(), right)
    assert y.dtype == (right.dtype if right.dtype.kind != "f" else np.dtype("float32")) or y.dtype == right.dtype


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_bce_at_infinite_logits(reduction):
    inf = math.inf
    x = tg.tensor([inf, inf, -inf, -inf, inf], requires_grad=True)
    target = tg.tensor([1.0, 0.0, 0.0, 1.0, 0.5])
    losses = tg.binary_cross_entropy_with_logits(x, target, reduction=reduction)
    if reduction == "none":
        np.testing.assert_array_equal(losses.numpy(), [0, inf, 0, inf, inf])
    losses.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0, 1, 0, -1, 0.5])


def test_the_gradient_of_bce_has_its_digits_where_the_prediction_is_sure():
    x = tg.tensor([40.0, 20.0, -40.0, 3.0], requires_grad=True)
    tg.binary_cross_entropy_with_logits(x, tg.tensor([1.0, 1.0, 0.0, 1.0]), reduction="sum").backward()
    right = [-math.exp(-40), -1 / (1 + math.exp(20)), math.exp(-40), -1 / (1 + math.exp(3))]
    np.testing.assert_allclose(x.grad.numpy(), right, rtol=5e-7)
    z = tg.tensor(np.zeros(1), requires_grad=True)
    loss = tg.binary_cross_entropy_with_logits(z, np.ones(1), reduction="sum")
    second = tg.grad(lambda z: tg.grad(lambda z: tg.binary_cross_entropy_with_logits(z, np.ones(1)))(z).sum())(z)
    assert second.item() == 0.25
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("target", ["labels", "one-hot", "nearly one-hot"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_a_sure_cross_entropy_is_minus_that_of_the_other_classes(dtype, target):
    logits = np.array([[50.0, 1.0, 0.0], [2.0, 0.0, 60.0], [30.0, 0.0, 0.0]], dtype)
    labels = np.array([0, 2, 0])
    others = np.array([[math.exp(-49), math.exp(-50)], [math.exp(-58), math.exp(-60)], [math.exp(-30)] * 2])
    given = np.eye(3, dtype=dtype)[labels]
    if target == "nearly one-hot":
        given[given == 0] = 1e-20
        others -= 1e-20 * (1 + 1e-20)
    x = tg.tensor(logits, requires_grad=True)
    tg.cross_entropy(x, labels if target == "labels" else given, reduction="sum").backward()
    found = x.grad.numpy()[np.arange(3), labels]
    np.testing.assert_allclose(found, -others.sum(axis=1), rtol=1e-5 if dtype == "float32" else 1e-12)
    np.testing.assert_allclose(x.grad.numpy().sum(axis=1), 0, atol=1e-25)


def test_second_derivatives_of_a_sure_cross_entropy_are_the_same_with_labels_and_probabilities():
    logits, labels = np.array([[9.0, 1.0, 0.0], [2.0, 0.0, 7.0]]), np.array([0, 2])
    found = []
    for target in (labels, np.eye(3)[labels]):
        x = tg.tensor(logits, requires_grad=True)
        (first,) = tg.gradients(tg.cross_entropy(x, target), [x], create_graph=True)
        found.append(tg.gradients((first * np.array([1.0, 2.0, -3.0])).sum(), [x])[0].numpy())
    np.testing.assert_allclose(*found, rtol=1e-12)
