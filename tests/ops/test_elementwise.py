"""Elementary functions beyond the derivative suite: the tables of ai-edu, every order, the edges of their
domains."""

import math
import warnings

import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.ops.normal import gaussian

inf = math.inf


def derivative(f, x, order=1):
    """The derivative of a function of each element, through the tape ``order`` times."""
    x = tg.tensor(np.asarray(x, dtype=float), requires_grad=True)
    y = f(x)
    for _ in range(order):
        if not y.requires_grad:  # a polynomial differentiated until it is constant
            return np.zeros(x.shape)
        x.grad = None
        y.sum().backward(create_graph=True)
        y = x.grad
    return y.numpy()


# --- the table of ai-edu ----------------------------------------------------------------------------------

UNIT = np.linspace(-0.9, 0.9, 7)
LINE = np.linspace(-2.6, 2.7, 8)
POSITIVE = np.linspace(0.1, 4.0, 7)


def sec(x):
    return 1 / np.cos(x)


def csc(x):
    return 1 / np.sin(x)


def csch(x):
    return 1 / np.sinh(x)


TABLE = {
    "(1) constant": (lambda x: x * 0 + 3, lambda x: 0 * x, LINE),
    "(2) x^a": (lambda x: x**2.7, lambda x: 2.7 * x**1.7, POSITIVE),
    "(3) log_a x": (lambda x: tg.log_base(x, 3), lambda x: 1 / (x * np.log(3)), POSITIVE),
    "(4) ln x": (tg.log, lambda x: 1 / x, POSITIVE),
    "(5) a^x": (lambda x: 3**x, lambda x: 3**x * np.log(3), LINE),
    "(6) e^x": (tg.exp, np.exp, LINE),
    "(7) e^-x": (lambda x: tg.exp(-x), lambda x: -np.exp(-x), LINE),
    "(8) sin": (tg.sin, np.cos, LINE),
    "(9) cos": (tg.cos, lambda x: -np.sin(x), LINE),
    "(10) tan": (tg.tan, lambda x: sec(x) ** 2, LINE),
    "(11) cot": (tg.cot, lambda x: -(csc(x) ** 2), LINE),
    "(12) arcsin": (tg.asin, lambda x: 1 / np.sqrt(1 - x**2), UNIT),
    "(13) arccos": (tg.acos, lambda x: -1 / np.sqrt(1 - x**2), UNIT),
    "(14) arctan": (tg.atan, lambda x: 1 / (1 + x**2), LINE),
    "(15) arccot": (tg.acot, lambda x: -1 / (1 + x**2), LINE),
    "(16) sinh": (tg.sinh, np.cosh, LINE),
    "(17) cosh": (tg.cosh, np.sinh, LINE),
    "(18) tanh": (tg.tanh, lambda x: 1 / np.cosh(x) ** 2, LINE),
    "(19) coth": (tg.coth, lambda x: -(csch(x) ** 2), LINE),
    "(20) sech": (tg.sech, lambda x: -np.tanh(x) / np.cosh(x), LINE),
    "(21) csch": (tg.csch, lambda x: -csch(x) / np.tanh(x), LINE),
    "(30) u + v": (lambda x: tg.sin(x) + x**3, lambda x: np.cos(x) + 3 * x**2, LINE),
    "(31) u - v": (lambda x: tg.sin(x) - x**3, lambda x: np.cos(x) - 3 * x**2, LINE),
    "(32) u v": (lambda x: tg.sin(x) * x**3, lambda x: np.cos(x) * x**3 + 3 * x**2 * np.sin(x), LINE),
    "(33) u / v": (
        lambda x: tg.sin(x) / tg.cosh(x),
        lambda x: (np.cos(x) * np.cosh(x) - np.sinh(x) * np.sin(x)) / np.cosh(x) ** 2,
        LINE,
    ),
    "(50) f(g(x))": (lambda x: tg.exp(tg.sin(x)), lambda x: np.exp(np.sin(x)) * np.cos(x), LINE),
    "(51) f(g(h(x)))": (lambda x: tg.log(tg.cosh(x**2)), lambda x: 1 / np.cosh(x**2) * np.sinh(x**2) * 2 * x, LINE),
    "(70) sigmoid": (tg.sigmoid, lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2, LINE),
    "(71) tanh": (tg.tanh, lambda x: 1 - np.tanh(x) ** 2, LINE),
}


@pytest.mark.parametrize("row", TABLE)
def test_derivative_is_the_one_of_the_table(row):
    function, formula, x = TABLE[row]
    np.testing.assert_allclose(derivative(function, x), formula(x), rtol=1e-12, atol=1e-14)


def test_partial_derivatives_and_the_total_derivative():
    """ai-edu, equations 40, 41 and 52: Z = U^2 V with U = sin(x y), V = x + y^2."""
    x, y = (
        tg.tensor([0.7], dtype="float64", requires_grad=True),
        tg.tensor([-1.2], dtype="float64", requires_grad=True),
    )
    u, v = tg.sin(x * y), x + y * y
    (u * u * v).backward()
    a, b = 0.7, -1.2
    s, c = math.sin(a * b), math.cos(a * b)
    np.testing.assert_allclose(x.grad.item(), 2 * s * (a + b * b) * c * b + s * s, rtol=1e-14)
    np.testing.assert_allclose(y.grad.item(), 2 * s * (a + b * b) * c * a + s * s * 2 * b, rtol=1e-14)


# --- every order ------------------------------------------------------------------------------------------


def log1pexp(z):
    return np.log(1 + np.exp(z))


def normal_cdf(z):
    return (1 + scipy.special.erf(z / math.sqrt(2))) / 2


ANALYTIC = {  # name: (ours, the same for complex arguments, centre, radius inside which it is analytic)
    "power": (lambda x: x**2.5, lambda z: z**2.5, 1.5, 0.9),
    "power, integer exponent, at 0": (lambda x: x**4, lambda z: z**4, 0.0, 1.0),
    "power, array exponent, at 0": (lambda x: x ** np.array([3.0]), lambda z: z**3, 0.0, 1.0),
    "power of the exponent": (lambda x: tg.power(0.4, x), lambda z: 0.4**z, 0.3, 1.0),
    "power, both": (lambda x: x**x, lambda z: z**z, 1.2, 0.8),
    "divide": (lambda x: 2 / x, lambda z: 2 / z, -1.5, 0.9),
    "reciprocal": (tg.reciprocal, lambda z: 1 / z, 1.3, 0.8),
    "square": (tg.square, np.square, 1.3, 1.0),
    "sqrt": (tg.sqrt, np.sqrt, 1.3, 0.8),
    "cbrt": (tg.cbrt, lambda z: z ** (1 / 3), 1.3, 0.8),
    "hypot": (lambda x: tg.hypot(x, 1.5), lambda z: np.sqrt(z * z + 2.25), 0.4, 0.9),
    "exp": (tg.exp, np.exp, 0.4, 1.0),
    "expm1": (tg.expm1, np.expm1, 0.4, 1.0),
    "exp2": (tg.exp2, lambda z: 2**z, 0.4, 1.0),
    "log": (tg.log, np.log, 1.3, 0.8),
    "log1p": (tg.log1p, np.log1p, 0.4, 0.8),
    "log2": (tg.log2, np.log2, 1.3, 0.8),
    "log10": (tg.log10, np.log10, 1.3, 0.8),
    "log_base": (lambda x: tg.log_base(x, 3), lambda z: np.log(z) / np.log(3), 1.3, 0.8),
    "log_base, of the base": (lambda x: tg.log_base(2, x), lambda z: np.log(2) / np.log(z), 2.5, 0.9),
    "sin": (tg.sin, np.sin, 0.4, 1.0),
    "cos": (tg.cos, np.cos, 0.4, 1.0),
    "tan": (tg.tan, np.tan, 0.4, 0.8),
    "cot": (tg.cot, lambda z: 1 / np.tan(z), 1.4, 0.8),
    "sec": (tg.sec, lambda z: 1 / np.cos(z), 0.4, 0.8),
    "csc": (tg.csc, lambda z: 1 / np.sin(z), 1.4, 0.8),
    "asin": (tg.asin, np.arcsin, 0.2, 0.6),
    "acos": (tg.acos, np.arccos, 0.2, 0.6),
    "atan": (tg.atan, np.arctan, 0.4, 0.8),
    "acot": (tg.acot, lambda z: math.pi / 2 - np.arctan(z), -0.4, 0.8),
    "atan2, of the ordinate": (lambda x: tg.atan2(x, 2.0), lambda z: np.arctan(z / 2), 0.4, 0.9),
    "atan2, of the abscissa": (lambda x: tg.atan2(2.0, x), lambda z: math.pi / 2 - np.arctan(z / 2), 0.4, 0.9),
    "sinh": (tg.sinh, np.sinh, 0.4, 1.0),
    "cosh": (tg.cosh, np.cosh, 0.4, 1.0),
    "tanh": (tg.tanh, np.tanh, 0.4, 0.9),
    "coth": (tg.coth, lambda z: 1 / np.tanh(z), 1.4, 0.8),
    "sech": (tg.sech, lambda z: 1 / np.cosh(z), 0.4, 0.9),
    "csch": (tg.csch, lambda z: 1 / np.sinh(z), 1.4, 0.8),
    "asinh": (tg.asinh, np.arcsinh, 0.4, 0.8),
    "acosh": (tg.acosh, np.arccosh, 2.2, 0.8),
    "atanh": (tg.atanh, np.arctanh, 0.2, 0.6),
    "erf": (tg.erf, scipy.special.erf, 0.4, 1.0),
    "erfc": (tg.erfc, scipy.special.erfc, 0.4, 1.0),
    "gaussian": (lambda x: gaussian(x, c=0.5), lambda z: np.exp(-z * z / 2), 0.4, 1.0),
    "logit": (tg.logit, lambda z: np.log(z / (1 - z)), 0.4, 0.3),
    "logit, clipped": (lambda x: tg.logit(x, eps=0.01), lambda z: np.log(z / (1 - z)), 0.7, 0.2),
    "sinc": (tg.sinc, np.sinc, 0.4, 1.0),
    "sinc, at 0": (tg.sinc, np.sinc, 0.0, 1.0),
    "remainder": (lambda x: x % 3.0, lambda z: z - 3, 4.2, 0.9),
    "sigmoid": (tg.sigmoid, lambda z: 1 / (1 + np.exp(-z)), 0.4, 1.0),
    "silu": (tg.silu, lambda z: z / (1 + np.exp(-z)), -0.4, 1.0),
    "softplus": (tg.softplus, log1pexp, -0.4, 1.0),
    "log_sigmoid": (tg.log_sigmoid, lambda z: -log1pexp(-z), -0.4, 1.0),
    "mish": (tg.mish, lambda z: z * np.tanh(log1pexp(z)), -0.4, 0.9),
    "logaddexp": (lambda x: tg.logaddexp(x, 0.7), lambda z: np.log(np.exp(z) + np.exp(0.7)), 0.4, 1.0),
    "gelu": (tg.gelu, lambda z: z * normal_cdf(z), 0.4, 1.0),
    "gelu, tanh": (
        lambda x: tg.gelu(x, "tanh"),
        lambda z: z / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3))),
        0.4,
        0.8,
    ),
    "elu": (tg.elu, np.expm1, -1.4, 1.0),
    "selu": (tg.selu, lambda z: 1.0507009873554805 * 1.6732632423543772 * np.expm1(z), -1.4, 1.0),
}


def cauchy(f, centre, radius, order, points=128):
    """The derivative by Cauchy's integral over a circle, to about 12 digits: needs only values of f."""
    angles = 2 * math.pi * np.arange(points) / points
    values = f(centre + radius * np.exp(1j * angles))
    return math.factorial(order) * np.mean(values * np.exp(-1j * order * angles)).real / radius**order


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", ANALYTIC)
def test_derivatives_of_every_order(name, order):
    f, of_complex, centre, radius = ANALYTIC[name]
    found = derivative(f, [centre], order)[0]
    assert abs(found - cauchy(of_complex, centre, radius, order)) <= 1e-9 * max(1, abs(found))


def test_every_smooth_elementary_function_is_among_them():
    modules = (
        "elementwise",
        "trigonometric",
        "special",
        "activations",
        "smooth_activations",
        "elu",
        "gelu",
        "mish",
        "normal",
        "hyperbolic",
    )
    own = {name: p for name, p in REGISTRY.items() if p.differentiable and p.checks is None}
    names = {name for name, p in own.items() if p.op.__module__.split(".")[-1] in modules}
    linear = {"add", "subtract", "multiply", "negative"}
    steps = {"abs", "sign", "floor", "ceil", "trunc", "round", "floor_divide", "relu", "leaky_relu", "hardtanh"}
    of_axes, inner = (
        {"softmax", "log_softmax"},
        {"sinc_derivative", "normal_cdf", "tanh_slope", "coth_slope", "sigmoid_slope", "sech_slope", "csch_slope"},
    )
    assert names - linear - steps - of_axes - inner <= {name.split(",")[0] for name in ANALYTIC}


# --- accuracy ---------------------------------------------------------------------------------------------


def test_erf_is_accurate_to_the_last_digits():
    x = np.concatenate([np.linspace(-7, 7, 4001), np.geomspace(1e-300, 1, 500)])
    exact = np.vectorize(math.erf)(x)
    found = tg.erf(x)
    np.testing.assert_allclose(found, exact, rtol=1e-15, atol=0)
    single = x[np.abs(x) > 1e-30].astype(np.float32)
    exact = np.vectorize(math.erf)(single.astype(float))
    assert tg.erf(single).dtype == np.float32
    np.testing.assert_allclose(tg.erf(single), exact, rtol=3e-7, atol=0)
    assert np.abs(tg.erf(single) - exact).max() <= 1e-7
    half = np.linspace(-4, 4, 101).astype(np.float16)
    assert np.array_equal(tg.erf(half), np.vectorize(math.erf)(half.astype(float)).astype(np.float16))


@pytest.mark.parametrize("order", range(9))
def test_derivatives_of_sinc_are_accurate_near_zero_and_far_out(order):
    """Against Gauss' rule for the integral of (pi t)^n cos(pi x t + n pi / 2)."""
    x = np.concatenate([np.geomspace(1e-12, 1, 30), np.linspace(-9, 9, 101)])
    nodes, weights = np.polynomial.legendre.leggauss(80)
    t = (nodes + 1) / 2
    exact = ((math.pi * t) ** order * np.cos(math.pi * x[:, None] * t + order * math.pi / 2)) @ (weights / 2)
    np.testing.assert_allclose(
        tg.ops.special.sinc_derivative(x, order=order), exact, rtol=0, atol=1e-12 * np.abs(exact).max()
    )


def test_functions_that_could_overflow_do_not():
    x = np.array([-1e4, -800.0, 800.0, 1e4])
    zero = np.zeros(4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(tg.sech(x), zero)
        np.testing.assert_array_equal(tg.csch(x), zero)
        np.testing.assert_array_equal(tg.sigmoid(x), [0, 0, 1, 1])
        np.testing.assert_array_equal(tg.softplus(x), [0, 0, 800, 1e4])
        np.testing.assert_array_equal(tg.log_sigmoid(x), [-1e4, -800, 0, 0])
        np.testing.assert_array_equal(tg.softmax(x), [0, 0, 0, 1])
        np.testing.assert_array_equal(tg.log_softmax(x), [-2e4, -10800, -9200, 0])
        np.testing.assert_array_equal(tg.logaddexp(x, 0.0), [0, 0, 800, 1e4])


# --- edges of the domains ---------------------------------------------------------------------------------

FINITE = {  # points at an edge where the derivatives are finite
    "x^0 at 0": (lambda x: x**0, [0.0]),
    "x^1 at 0": (lambda x: x**1, [0.0]),
    "x^2.0 at 0": (lambda x: x**2.0, [0.0]),
    "x^[0, 2, 3] at 0": (lambda x: x ** np.array([0.0, 2.0, 3.0]), [0.0, 0.0, 0.0]),
    "0^x": (lambda x: 0**x, [2.0, 3.5]),
    "[0]^x": (lambda x: tg.power(np.zeros(2), x), [2.0, 3.5]),
    "x^3, negative": (lambda x: x**3.0, [-2.0]),
    "x^[-2], negative": (lambda x: x ** np.array([-2.0]), [-2.0]),
    "abs": (abs, [0.0]),
    "maximum": (lambda x: tg.maximum(x, 1.0), [1.0, -inf, inf]),
    "clip": (lambda x: tg.clip(x, -1, 1), [-1.0, 1.0, inf, -inf]),
    "where": (lambda x: tg.where(x > 0, tg.log(tg.where(x > 0, x, 1.0)), 0.0), [0.0, -1.0, 2.0]),
    "atan2": (lambda x: tg.atan2(x, np.array([1.0, -1.0])), [0.0, 0.0]),
    "atan": (tg.atan, [1e10, -1e10]),
    "tanh": (tg.tanh, [1e3, -1e3]),
    "sech": (tg.sech, [1e3, -1e3, 0.0]),
    "csch": (tg.csch, [1e3, -1e3]),
    "asinh": (tg.asinh, [1e200, 0.0]),
    "erf": (tg.erf, [0.0, 100.0]),
    "erfc": (tg.erfc, [0.0, 1e200, -1e200]),
    "logit": (lambda x: tg.logit(x, eps=0.0625), [0.0, 1.0, -1.0, inf, 0.5]),
    "sinc": (tg.sinc, [0.0, 1.0]),
    "sigmoid": (tg.sigmoid, [1e4, -1e4]),
    "silu": (tg.silu, [1e4, -1e4]),
    "softplus": (tg.softplus, [1e4, -1e4]),
    "logaddexp": (lambda x: tg.logaddexp(x, 0.0), [1e4, -1e4, inf, -inf]),
    "elu": (tg.elu, [1e4, -1e4, 0.0]),
    "gelu": (tg.gelu, [1e4, -1e4]),
    "gelu, tanh": (lambda x: tg.gelu(x, "tanh"), [1e4, -1e4]),
    "log_softmax": (tg.log_softmax, [1e4, -1e4, 0.0]),
}


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("name", FINITE)
def test_rules_are_silent_and_finite_where_the_derivative_is(name, order):
    f, x = FINITE[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(derivative(f, x, order)).all()


def test_gradients_of_step_functions_are_zeros():
    for f in (tg.floor, tg.ceil, tg.round, tg.trunc, tg.sign, lambda x: x // 2):
        np.testing.assert_array_equal(derivative(f, LINE), np.zeros(8))


def test_bad_constants_are_named():
    x = tg.tensor([0.5])
    with pytest.raises(ValueError, match="log_base: the base is -2; it must be positive and not 1"):
        tg.log_base(x, -2)
    with pytest.raises(ValueError, match="gelu: approximate is 'erf'; it must be 'none' or 'tanh'"):
        tg.gelu(x, approximate="erf")


def test_bounds_of_clip_that_are_tensors_get_gradients():
    x = tg.tensor([-2.0, -1.0, 0.0, 3.0, np.nan], requires_grad=True)
    low = tg.tensor([-1.0, -1.0, -1.0, -1.0, -1.0], requires_grad=True)
    high = tg.tensor(1.0, requires_grad=True)
    y = tg.clip(x, low, high)
    np.testing.assert_array_equal(y.numpy(), np.clip(x.numpy(), low.numpy(), high.numpy()))
    y.sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0, 1] and low.grad.tolist() == [1, 0, 0, 0, 0] and high.grad.item() == 1
    bounds = [tg.tensor(np.array(t), requires_grad=True) for t in ([-2.0, 0.1, 3.0], -1.0, [0.5, 1.0, 2.0])]
    assert tg.testing.gradcheck(tg.clip, bounds)


# --- PyTorch gives the same, at the edges too -------------------------------------------------------------

EDGES = np.array([-inf, -7.3, -1.0, -0.4, -0.0, 0.0, 0.3, 0.5, 1.0, 2.0, 6.0, inf])
PAIRS = [a.ravel() for a in np.meshgrid(*[np.array([-inf, -2.0, -1.0, -0.0, 0.0, 0.7, 1.0, 3.0, inf])] * 2)]
OF_TORCH = (
    "reciprocal abs sign floor ceil trunc round square sqrt exp expm1 exp2 log log1p log2 log10 sin cos tan"
    " asin acos atan sinh cosh tanh asinh atanh erf erfc logit sinc relu sigmoid"
).split()
OF_TORCH_NN = "leaky_relu hardtanh relu6 elu selu silu softplus gelu mish".split()
OF_TWO = "add subtract multiply divide power hypot maximum minimum remainder atan2 logaddexp".split()


def same_as_torch(ours, of_torch, *points):
    import torch

    ours_in = [tg.tensor(x, requires_grad=True) for x in points]
    torch_in = [torch.tensor(x, requires_grad=True) for x in points]
    y, z = ours(*ours_in), of_torch(*torch_in)
    y.sum().backward()
    z.sum().backward()
    np.testing.assert_allclose(y.numpy(), z.detach().numpy(), rtol=1e-13, atol=1e-15)
    for a, b in zip(ours_in, torch_in):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", OF_TORCH + OF_TORCH_NN + OF_TWO)
def test_values_and_gradients_at_the_edges_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch")
    theirs = getattr(torch.nn.functional if name in OF_TORCH_NN else torch, {"power": "pow"}.get(name, name))
    points = PAIRS if name in OF_TWO else [EDGES]
    if name == "mish":  # NaN in PyTorch at inf, where ours is the limit: the next test
        points = [EDGES[~np.isposinf(EDGES)]]
    if name == "gelu":  # NaN in PyTorch at -inf, and its gradient at both
        points = [EDGES[~np.isinf(EDGES)]]
    if name == "logaddexp":  # NaN in PyTorch where both are -inf
        points = [a[(PAIRS[0] != -inf) | (PAIRS[1] != -inf)] for a in PAIRS]
    same_as_torch(getattr(tg, name), theirs, *points)


def test_gradients_at_infinity_that_are_limits():
    x, a, b = (tg.tensor([v], requires_grad=True) for v in (inf, -inf, -inf))
    tg.mish(x).sum().backward()
    tg.logaddexp(a, b).sum().backward()
    assert (x.grad.item(), a.grad.item(), b.grad.item()) == (1, 0, 0)
    for approximate in ("none", "tanh"):
        x = tg.tensor([-inf, inf], requires_grad=True)
        y = tg.gelu(x, approximate)
        y.backward([1, 1])
        assert (y.tolist(), x.grad.tolist()) == ([0, inf], [0, 1])


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_constants_at_the_edges_do_as_in_pytorch():
    torch = pytest.importorskip("torch")
    for n in (0, 1, 2, 3.0, -1):
        same_as_torch(lambda x: x**n, lambda x: x**n, EDGES)
    for n in (0.0, 1, 2, 0.5):
        same_as_torch(lambda x: n**x, lambda x: n**x, EDGES)
    same_as_torch(lambda x: tg.clip(x, -1, 1), lambda x: torch.clamp(x, -1, 1), EDGES)
    same_as_torch(lambda x: tg.acosh(x), torch.acosh, EDGES[EDGES > -1])
    gelu = torch.nn.functional.gelu
    same_as_torch(lambda x: tg.gelu(x, "tanh"), lambda x: gelu(x, approximate="tanh"), EDGES[~np.isinf(EDGES)])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_the_derivative_of_silu_is_one_where_x_is_large(dtype):
    x = tg.tensor([2e3, 6e4] if dtype == "float16" else [1e3, 1e8, 1e30], dtype=dtype, requires_grad=True)
    tg.silu(x).sum().backward()
    assert (x.grad.numpy() == 1).all()


# --- broadcasting -----------------------------------------------------------------------------------------


def summed_to(g, shape):
    """Undo broadcasting: add up over every axis along which ``shape`` was repeated."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1), keepdims=True)


@settings(max_examples=200)
@given(
    st.sampled_from(["add", "subtract", "multiply", "divide"]),
    mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_dims=4, max_side=3),
)
def test_broadcasting_shapes(name, shapes):
    """The gradient of a broadcast argument is that of the argument repeated in full, added up."""
    random = np.random.default_rng(0)
    a, b = (random.uniform(0.5, 2, shape) for shape in shapes.input_shapes)
    seed = random.standard_normal(shapes.result_shape)
    short = [tg.tensor(x, requires_grad=True) for x in (a, b)]
    full = [tg.tensor(np.broadcast_to(x, shapes.result_shape), requires_grad=True) for x in (a, b)]
    y = getattr(tg, name)(*short)
    assert y.shape == shapes.result_shape
    y.backward(seed)
    getattr(tg, name)(*full).backward(seed)
    for few, many in zip(short, full):
        assert few.grad.shape == few.shape
        expected = summed_to(many.grad.numpy(), few.shape)
        np.testing.assert_allclose(few.grad.numpy(), expected, rtol=1e-12, atol=1e-12)
