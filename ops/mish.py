"""mish: x tanh(ln(1 + e)), where tanh(ln(1 + e)) = e (e + 2) / (e (e + 2) + 2), with e = e^x."""

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import decay, in_blocks, on_devices
from tinygrad_ms.ops.comparisons import minimum
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.smooth_activations import kept
from tinygrad_ms.ops.tables import tabulated

__all__ = ["mish"]

_LARGE = 40.0  # above this tanh(softplus(x)) is 1


# With u = 1 + e the slope is 4 e u n / (u^2 + 1)^2, n = x + (u^2 + u + 1 + 1 / u) / 4. With d = x - c, and u_c at c,
# n = n(c) + d + (u - u_c) (u + u_c + 1 - 1 / (u u_c)) / 4, where u - u_c = (e + e^c) tanh(d / 2). The c here is within
# 3e-6 of the zero, so that n(c) is tiny and the two other terms have one sign. Its few bits make d exact.
_C, _E_C, _N_C = -1.1924285888671875, 0.3034833321209802, 3.2269449157498075e-06  # c, e^c, n(c)


@on_devices("mish", sample=(8,), wide=True)
def _mish_kernel(xp, x, itemsize):
    z = xp.minimum(x, _LARGE)
    e, times_e = decay(xp, z, itemsize)
    q = e + 2
    m = e * q + 2
    if itemsize < 8:  # float64 has digits to spare
        r = 1 / m
        q *= r
        r *= r
        r *= 1 + e
        r *= z
        r *= 4
        r += q
    else:
        u, d, both = 1 + e, z - _C, e + _E_C
        n = d + (both * xp.tanh(0.5 * d) * (0.25 * (both + 3 - 1 / ((1 + _E_C) * u))) + _N_C)
        r = 4 * u * n / (m * m)
        q /= m
    q *= x
    return times_e(q), times_e(r)


_quick_mish = tabulated(_mish_kernel, -20, 20, 8)


def _mish_slope(x):
    z = minimum(x, _LARGE)
    e = exp(z)
    r = 1 / (e * (e + 2) + 2)
    return e * ((e + 2) * r + 4 * z * (1 + e) * r * r)


@elementwise(
    rule=lambda g, x, slope: g * (_mish_slope(wide(x)) if slope is None else slope),
    cache=("slope",),
    floats=True,
    formula=r"y = x \tanh \ln(1 + e^x), \quad \frac{dy}{dx} = \frac{n}{n + 2} + \frac{4 x e^x (1 + e^x)}{(n + 2)^2},"
    r" \quad n = e^x (e^x + 2)",
    source="Misra, 2019, eq. (1)",
    notes="NaN at -inf, as in PyTorch; the gradient at inf is 1, NaN in PyTorch.",
)
def mish(xp, x):
    """x tanh(softplus(x))."""
    how = dict(quick=_quick_mish, quick_in="f", results=2, spare=2, under="ignore")
    return kept(*in_blocks(xp, _mish_kernel, x, x.dtype.itemsize, **how))
