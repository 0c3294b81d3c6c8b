"""Activation functions: value and slope of each element, or the gradient times a slope."""

from math import copysign

from tinygrad_ms.ops.fused import single
from tinygrad_ms.ops.fused.kernels import each
from tinygrad_ms.ops.fused.machine import two_at
from tinygrad_ms.ops.fused.mathematics import exp
from tinygrad_ms.ops.fused.single import DOWN, LIFT, bell, curve, one_and_more, parts, split

__all__: list[str] = []

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
    return DOWN / one_and_more(40.0 if x > 40.0 else x)


@each(wide=False)
def sigmoid_rule(x, g, /):
    w = single.exp_below(-abs(x))
    return g * (w / (1.0 + w * (2.0 + w)))


@each(wide=False)
def tanh(x, /):
    m = single.expm1_below(-2.0 * abs(x))
    return copysign(m / (m + 2.0), x)


@each(wide=False)
def tanh_rule(x, g, /):
    w = single.exp_below(-2.0 * abs(x))
    return g * (w / (0.25 + w * (0.5 + 0.25 * w)))


@each(results=2, wide=False)
def softplus(x, /, beta):
    z = beta * x
    w = single.exp_below(-abs(z))
    y = (0.0 if z <= 0.0 else z) + single.log1p_within(w)
    return y / beta, (1.0 if z >= 0.0 else w) / (1.0 + w)


@each(results=2, wide=False)
def elu(x, /, alpha, scale):
    t, d = split(0.0 if x > 0.0 else -130.0 if x < -130.0 else x, LIFT)
    lifted = two_at(t)
    s = lifted * DOWN
    y = scale * x if x > 0.0 else scale * alpha * (s * d + (s - 1.0))
    return y, scale if x > 0.0 else scale * alpha * ((1.0 + d) * lifted * DOWN)


@each(results=2)
def gelu_tanh(x, /):
    a = abs(x)
    a = 100.0 if a > 100.0 else a
    w = exp(-a * (LINE + CUBE * a * a))
    q = 1.0 / (1.0 + w)
    low = -a * w * q
    slope = w * q * (1.0 - a * q * (LINE + 3.0 * CUBE * a * a))
    return (x if x > 0.0 else 0.0) + low, 1.0 - slope if x > 0.0 else slope


@each(wide=False)
def silu(x, /):
    """Above 40 it is x. NaN at -inf."""
    z = 40.0 if x > 40.0 else x
    return z / one_and_more(z) * DOWN - (z - x)


@each(wide=False)
def silu_rule(x, g, /):
    """The slope at -a is w m / (1 + w)^2, with m = 1 - a + w and w = e^-a = s (1 + d). m needs the digits of d."""
    a = abs(x)
    a = 130.0 if a > 130.0 else a
    t, r, low = parts(-a, LIFT)
    d = r + (curve(r + low) + low)
    lifted = two_at(t)
    s = lifted * DOWN
    m = ((1.0 - a) + s) + s * d
    w = s + s * d
    slope = (m + m * d) / (1.0 + w * (2.0 + w)) * lifted * DOWN + 0.0 * x
    return g * (1.0 - slope if x > 0.0 else slope)


@each(wide=False)
def gelu(x, /):
    """x Phi(x) is made of a Phi(-a) = phi(a) a M(a), with a M(a) / sqrt(2 pi) = n / (m + sqrt(2 pi) n).

    M(a) is nearly 1 / a for large a.
    """
    a = abs(x)
    a = 15.0 if a > 15.0 else a
    power, rest = bell(a)
    n = 0.3040005564689636 + a * (0.07000072300434113 + a * 0.007457513362169266)
    n = a * (0.7699921727180481 + a * (0.7040551900863647 + a * n))
    m = 0.17708458006381989 + a * (0.018609993159770966 + a * 1.805832766876847e-06)
    m = 1.5399836301803589 + a * (0.7067567110061646 + a * m)
    return (x if x > 0.0 else 0.0) - n / (m + 2.506627082824707 * n) * power * rest


@each(wide=False)
def gelu_rule(x, g, /):
    """Phi(x) + x phi(x) is made of phi(a) (M(a) - a), M(a) - a = M(c) - c + (a - c) (m / h - 1).

    t is (a - c) / sqrt(2 pi), and n is (M(a) - a) / sqrt(2 pi).
    """
    a = abs(x)
    a = 15.0 if a > 15.0 else a
    power, rest = bell(a)
    m = -0.1691066175699234 + a * -0.022703267633914948
    m = -0.6712020635604858 + a * (-0.5174558758735657 + a * m)
    h = 0.8428508639335632 + a * (0.2423287332057953 + a * 0.03020079806447029)
    h = 1.0061441659927368 + a * (1.4435230493545532 + a * h)
    t = a * 0.3989424705505371 - 0.29992157220840454
    n = t * (m / h) - 5.751001452836135e-09 - t
    slope = n * power * rest
    return g * (1.0 - slope if x > 0.0 else slope)
