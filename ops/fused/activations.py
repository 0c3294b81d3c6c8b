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
    """x Phi(x) is made of a Phi(-a) = e^(-a^2 / 2) y f(2 y - 1), y = a / (a + 3.5)."""
    a = abs(x)
    a = 15.0 if a > 15.0 else a
    t, d = bell(a)
    y = a / (a + 3.5)
    u = 2.0 * y - 1.0
    z = u * u
    p = (-0.0031595886684954166 + u * -0.00047405785880982876) + z * (0.0004105950938537717 + u * 9.698018402559683e-05)
    p = (0.017400139942765236 + u * 0.006483119912445545) + z * p
    p = (0.3154258131980896 + u * -0.11605123430490494) + z * p
    y *= 0.7444160580635071 + u * (-0.565561830997467 + u * p)
    return (x if x > 0.0 else 0.0) - (y + y * d) * two_at(t) * DOWN


@each(wide=False)
def gelu_rule(x, g, /):
    """Phi(x) + x phi(x) is made of e^(-a^2 / 2) n(a), n(a) = R(a) - a / sqrt(2 pi) = n(c) + (a - c) f(u)."""
    a = abs(x)
    a = 15.0 if a > 15.0 else a
    t, d = bell(a)
    u = (a - 3.5) / (a + 3.5)
    z = u * u
    p = (0.00043346802704036236 + u * -2.3301414330489933e-05) + z * -3.85458733944688e-05
    p = (-0.004696459975093603 + u * -0.00024242419749498367) + z * p
    p = (-0.05832875892519951 + u * 0.022017324343323708) + z * p
    p = -0.4693795442581177 + u * (0.11131656169891357 + u * p)
    n = (a - 0.7517915368080139) * p + -6.934385667122436e-09
    slope = (n + n * d) * two_at(t) * DOWN
    return g * (1.0 - slope if x > 0.0 else slope)
