"""Normalisation of features: layer_norm and rms_norm, one primitive for both.

With c the features centred (layer_norm) or as they are (rms_norm), r = (mean(c^2) + eps)^(-1/2) and h = r c,
the Jacobian of h is symmetric: dh = r (P dx - h mean(h dx)), where P subtracts the mean, or nothing. So VJP
and JVP share one function. Only the arguments are saved: computing h again costs less than keeping it.
"""

from math import prod

from tinygrad_ms.engine.primitive import primitive

__all__ = ["layer_norm", "rms_norm"]


def _mean(x, axes):
    return x.sum(axis=axes, keepdims=True) / max(1, prod(x.shape[axis] for axis in axes))


def _normalized(x, axes, eps, center):
    """h and r; half precision is left for float32, whose sums of squares do not overflow."""
    if x.dtype.itemsize < 4:
        x = x.astype("float32")
    c = x - _mean(x, axes) if center else x
    r = 1 / (_mean(c * c, axes) + eps) ** 0.5
    return c * r, r


def _jacobian(u, h, r, axes, center):
    """The (symmetric) Jacobian of h times u."""
    return r * ((u - _mean(u, axes) if center else u) - h * _mean(h * u, axes))


def _normalize_vjp(needed, g, x, weight, axes, eps, center):
    h, r = _normalized(x, axes, eps, center)
    return _jacobian(g * weight, h, r, axes, center) if needed[0] else None, g * h if needed[1] else None


def _normalize_jvp(tangents, x, weight, axes, eps, center):
    h, r = _normalized(x, axes, eps, center)
    by_x = None if tangents[0] is None else _jacobian(tangents[0], h, r, axes, center) * weight
    by_weight = None if tangents[1] is None else h * tangents[1]
    return by_x if by_weight is None else by_weight if by_x is None else by_x + by_weight


@primitive(
    vjp=_normalize_vjp,
    jvp=_normalize_jvp,
    formula=r"y = w h,\; h = r c:\quad"
    r"\bar x = r\,(P(\bar y w) - h\,\mathrm{mean}(h\,\bar y w)),\quad \bar w = \bar y h",
    source="Ba et al. 2016, arXiv:1607.06450, eq. 3; Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4",
    floats=True,
)
def normalize(xp, x, weight, /, axes, eps, center):
    """weight * (x over ``axes`` with mean 0, if ``center``, and mean square 1)."""
    if any(not -x.ndim <= axis < x.ndim for axis in axes):
        raise ValueError(f"normalize: x has shape {x.shape}, which has not all of the axes {axes}")
    return (_normalized(x, axes, eps, center)[0] * weight).astype(x.dtype, copy=False)


def layer_norm(x, weight=None, bias=None, eps: float = 1e-5, axes=-1):
    r"""$y = w (x - \mu) / \sqrt{\sigma^2 + \epsilon} + b$, with mean and variance over ``axes``.

    weight, bias: broadcast against x; without them 1 and 0. Half precision is computed in float32.
    Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 3.
    """
    y = normalize(x, 1.0 if weight is None else weight, axes=_tuple(axes), eps=eps, center=True)
    return y if bias is None else y + bias


def rms_norm(x, weight=None, eps: float = 1e-6, axes=-1):
    r"""$y = w x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$ with the mean over ``axes``, an int or a tuple.

    weight: broadcasts against x; without it 1. Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """
    return normalize(x, 1.0 if weight is None else weight, axes=_tuple(axes), eps=eps, center=False)


def _tuple(axes):
    return (axes,) if isinstance(axes, int) else tuple(axes)
