"""Normalisation of features: layer_norm and rms_norm, one primitive for both.

With c the features centred (layer_norm) or as they are (rms_norm), r = (mean(c^2) + eps)^(-1/2) and h = r c,
the Jacobian of h is symmetric: dh = r (P dx - c r^2 mean(c dx)), where P subtracts the mean, or nothing. So VJP and
JVP share one function. Factors with one number per row are multiplied first, so that each large array is read as few
times as possible. Only the arguments are saved, because computing c and r again costs less than keeping them.
"""

from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import sum_over, wide
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops import row_blocks
from tinygrad_ms.ops.fused import norm_calls
from tinygrad_ms.ops.operands import as_number
from tinygrad_ms.ops.scale import in_range, power_of_two
from tinygrad_ms.ops.shapes import broadcast_to, from_the_end
from tinygrad_ms.options import as_axes

__all__ = ["layer_norm", "rms_norm"]


def _mean(x, axes):
    axes = tuple(sorted(axis % x.ndim for axis in axes))
    return sum_over(x, axes) / max(1, prod(x.shape[axis] for axis in axes))


def _centred(x, axes, eps, center):
    """c, r and None. Where squares leave the range of the dtype: c and r of x / s, and s, a power of two per row.

    Half precision is left for float32.
    """
    x = wide(x)
    with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
        c, r = _moments(x, axes, eps, center)
        if 0 in x.shape or in_range(raw(r), raw(x)):
            return c, r, None
    xp = BACKENDS[type(raw(x))].xp
    s = power_of_two(xp, raw(x), tuple(axes))
    s = xp.maximum(s, 1) if eps else s  # for smaller x the constant eps decides
    return *_moments(x / s, axes, eps / s / s, center), s


def _moments(x, axes, eps, center):
    c = x - _mean(x, axes) if center else x
    return c, 1 / (_mean(c * c, axes) + eps) ** 0.5


def _one_per_row(weight, x, axes):
    """Whether the weight is constant along ``axes``, as r is."""
    shape = getattr(weight, "shape", ())
    behind = (axis - x.ndim if axis >= 0 else axis for axis in axes)  # counted from the last axis, as in broadcasting
    return all(-axis > len(shape) or shape[axis] == 1 for axis in behind)


def _jacobian(u, along, c, r, s, scale, axes, center):
    """scale (P u - c r^2 mean(c u)) / s, from a given mean(c u). For scale = r w it is the Jacobian of h times w u."""
    if s is not None:
        scale = scale / s
    v = u * scale
    v -= c * (scale * (r * (r * along)))  # in this order no step overflows unless the result does
    return v - scale * _mean(u, axes) if center else v


def _normalize_vjp(needed, g, x, weight, bias_shape, axes, eps, center):
    axes = from_the_end(axes, x.ndim)
    if (found := norm_calls.normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center)) is not None:
        return found
    if (found := row_blocks.normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center)) is not None:
        return found
    c, r, s = _centred(x, axes, eps, center)
    by_bias, g = g, wide(g)
    if not _one_per_row(weight, x, axes):
        u = g * weight
        by_x = _jacobian(u, _mean(c * u, axes), c, r, s, r, axes, center) if needed[0] else None
        return by_x, (c * g) * r if needed[1] else None, by_bias
    along = _mean(c * g, axes)
    by_x = _jacobian(g, along, c, r, s, r * weight, axes, center) if needed[0] else None
    return by_x, r * along * prod(x.shape[axis] for axis in axes) if needed[1] else None, by_bias


def _normalize_jvp(tangents, x, weight, y, axes, eps, center):
    t, t_weight, t_bias = tangents
    if t is None and t_weight is None:
        return broadcast_to(t_bias, y.shape)
    c, r, s = _centred(x, axes, eps, center)
    by_x = None if t is None else _jacobian(t, _mean(c * t, axes), c, r, s, r, axes, center) * weight
    by_weight = None if t_weight is None else c * (r * t_weight)
    by_both = by_x if by_weight is None else by_weight if by_x is None else by_x + by_weight
    return by_both if t_bias is None else by_both + t_bias


@primitive(
    vjp=_normalize_vjp,
    batched=True,
    jvp=_normalize_jvp,
    formula=r"y = w h + b,\; h = r u:\quad"
    r"\bar x = r\,(P(\bar y w) - h\,\mathrm{mean}(h\,\bar y w)),\quad \bar w = \bar y h,\quad \bar b = \bar y",
    source="Ba et al. 2016, arXiv:1607.06450, eq. 3; Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4",
    floats=True,
)
def normalize(xp, x, weight, bias, /, axes, eps, center):
    """weight h + bias, where h is x with mean square 1 over ``axes``, and with mean 0 if ``center``."""
    if any(not -x.ndim <= axis < x.ndim for axis in axes):
        raise ValueError(f"normalize: x has shape {x.shape}, which has not all of the axes {axes}")
    if (y := norm_calls.normalize(x, weight, bias, axes, eps, center)) is not None:
        return y
    if (y := row_blocks.normalize(xp, x, weight, bias, axes, eps, center)) is not None:
        return y
    c, r, _ = _centred(x, axes, eps, center)
    y = (c * (r * weight)).astype(x.dtype, copy=False)
    return y if type(bias) is float and bias == 0 else y + bias


def layer_norm(x, weight=None, bias=None, eps: float = 1e-5, axes=-1):
    r"""$y = w (x - \mu) / \sqrt{\sigma^2 + \epsilon} + b$, with mean and variance over ``axes``.

    weight, bias: broadcast against x; without them 1 and 0. Half precision is computed in float32.
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 3.
    """
    return _normalized(x, weight, bias, axes, as_number(eps, "layer_norm: eps"), True)


def rms_norm(x, weight=None, eps: float = 1e-6, axes=-1):
    r"""$y = w x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$ with the mean over ``axes``, an int or a tuple.

    weight: broadcasts against x; without it 1. Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """
    return _normalized(x, weight, None, axes, as_number(eps, "rms_norm: eps"), False)


def _normalized(x, weight, bias, axes, eps, center):
    factor, shift = 1.0 if weight is None else weight, 0.0 if bias is None else bias
    return normalize(x, factor, shift, axes=as_axes(axes), eps=eps, center=center)
