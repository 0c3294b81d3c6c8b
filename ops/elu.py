"""Exponential linear units: elu and selu."""

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import expm1, fused, in_blocks, times
from tinygrad_ms.ops.comparisons import minimum
from tinygrad_ms.ops.elementwise import exp
from tinygrad_ms.ops.smooth_activations import kept

__all__ = ["elu", "selu"]


@fused("elu", sample=(1.0, 1))
def _elu_kernel(xp, x, alpha, scale):
    m = xp.minimum(x, 0)
    y = expm1(xp, m)
    if scale * alpha != 1:
        y *= scale * alpha
    positive = xp.maximum(x, 0)
    if scale != 1:
        positive *= scale
    y += positive
    slope = xp.exp(m, out=m)
    if not scale == alpha == 1:
        slope *= _elu_factor(x, alpha, scale)
    return y, slope


def _elu_factor(x, alpha, scale):
    return scale * alpha + scale * (1 - alpha) * (x > 0).astype(x.dtype)


def _elu_slope(x, alpha, scale=1):
    return exp(minimum(x, 0)) * _elu_factor(x, alpha, scale)


@elementwise(
    rule=lambda g, x, slope, alpha: times(g, _elu_slope(wide(x), alpha) if slope is None else slope),
    cache=("slope",),
    floats=True,
    formula=r"\frac{dy}{dx} = \begin{cases} 1 & x > 0 \\ \alpha e^x & x \le 0 \end{cases}",
    source="Clevert, Unterthiner and Hochreiter, 2016, eq. (16)",
    notes="The gradient at 0 is alpha, as in PyTorch.",
)
def elu(xp, x, alpha=1.0):
    """x where x > 0, else alpha (e^x - 1)."""
    return kept(*in_blocks(xp, _elu_kernel, x, alpha, 1, double=False, results=2))


_SELU = 1.6732632423543772, 1.0507009873554805  # alpha and scale, fixed point: mean 0, variance 1


@elementwise(
    rule=lambda g, x, slope: times(g, _elu_slope(wide(x), *_SELU) if slope is None else slope),
    cache=("slope",),
    floats=True,
    formula=r"y = \lambda \operatorname{elu}_\alpha x,\quad \frac{dy}{dx} = \begin{cases} \lambda & x > 0 \\"
    r" \lambda \alpha e^x & x \le 0 \end{cases},\quad \lambda = 1.0507,\quad \alpha = 1.6733",
    source="Klambauer, Unterthiner, Mayr and Hochreiter, 2017, eq. (2)",
    notes="The gradient at 0 is lambda alpha = 1.758, as in PyTorch.",
)
def selu(xp, x):
    """lambda elu(x, alpha) with lambda = 1.0507, alpha = 1.6733: keeps mean 0 and variance 1 across layers."""
    return kept(*in_blocks(xp, _elu_kernel, x, *_SELU, double=False, results=2))
