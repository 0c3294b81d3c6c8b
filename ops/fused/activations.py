"""Activation functions: value and slope of each element, or the gradient times a slope."""

from tinygrad_ms.ops.fused import single
from tinygrad_ms.ops.fused.compiler import two_to
from tinygrad_ms.ops.fused.kernels import each
from tinygrad_ms.ops.fused.mathematics import exp, mills_ratio

__all__: list[str] = []

DENSITY = 0.3989422804014327  # of the normal distribution at 0
LINE, CUBE = 1.5957691216057308, 0.07135481627260025  # 2 sqrt(2 / pi), and 0.044715 times that


@each(dtypes="fd", wide=False)
def relu(x, /):
    return 0.0 if x <= 0.0 else x


@each(dtypes="fd", wide=False)
def relu_rule(g, y, /):
    return g if y > 0.0 else g * 0.0


@each(dtypes="fd", wide=False)
def times(g, slope, /):
    return g * slope


@each()
def exp_rule(x, g, /):
    return g * exp(x)


@each(wide=False)
def sigmoid(x, /):
    w = single.exp(-abs(x))
    return (1.0 if x >= 0.0 else w) / (1.0 + w)


@each(wide=False)
def sigmoid_rule(x, g, /):
    w = single.exp(-abs(x))
    q = 1.0 + w
    return g * (w / (q * q))


@each(wide=False)
def tanh(x, /):
    m = single.expm1_below(-2.0 * abs(x))
    t = m / (m + 2.0)
    return t if x < 0.0 else -t


@each(wide=False)
def tanh_rule(x, g, /):
    w = single.exp(-2.0 * abs(x))
    q = 1.0 + w
    return g * (4.0 * w / (q * q))


@each(results=2)
def silu(x, /):
    """The slopes at x and -x add up to 1."""
    a = -abs(x)
    w = exp(a)
    q = 1.0 / (1.0 + w)
    slope = w * q * (1.0 + a * q)
    return x * (q if x > 0.0 else w * q), 1.0 - slope if x > 0.0 else slope


@each(results=2, wide=False)
def softplus(x, /, beta):
    z = beta * x
    w = single.exp(-abs(z))
    y = (0.0 if z <= 0.0 else z) + single.log1p_within(w)
    return y / beta, (1.0 if z >= 0.0 else w) / (1.0 + w)


@each(results=2, wide=False)
def elu(x, /, alpha, scale):
    n, d = single.rest(0.0 if x > 0.0 else -105.0 if x < -105.0 else x)
    s = two_to(n if n > -126.0 else -126.0)
    y = scale * x if x > 0.0 else scale * alpha * (s * d + (s - 1.0))
    return y, scale if x > 0.0 else scale * alpha * single.scaled(n, d)


@each(results=2)
def gelu(x, /):
    """x Phi(x) and Phi(x) + x phi(x), both made of those at -|x|."""
    a = abs(x)
    a = 15.0 if a > 15.0 else a
    q = exp(-0.5 * a * a)
    r = mills_ratio(a)
    slope = q * (r - DENSITY * a)
    return (x if x > 0.0 else 0.0) - a * q * r, 1.0 - slope if x > 0.0 else slope


@each(results=2)
def gelu_tanh(x, /):
    a = abs(x)
    a = 100.0 if a > 100.0 else a
    w = exp(-a * (LINE + CUBE * a * a))
    q = 1.0 / (1.0 + w)
    low = -a * w * q
    slope = w * q * (1.0 - a * q * (LINE + 3.0 * CUBE * a * a))
    return (x if x > 0.0 else 0.0) + low, 1.0 - slope if x > 0.0 else slope
