"""Normalisation on devices where the weight is a number, or one for each row: kernels without a weight, times it."""

from math import prod

from tinygrad_ms.ops.fused.devices import find

__all__: list[str] = []


def normalize(x, weight, bias, axes, eps, center):
    """weight h, for h = x with mean 0 (if ``center``) and mean square 1 over ``axes``; None where no kernel fits."""
    if not fits(x, weight, axes) or type(bias) is not float or bias or (h := unit(x, axes, eps, center)) is None:
        return None
    return h * weight


def normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center):
    """The gradients of x and weight; there is no bias."""
    if not fits(x, weight, axes) or bias_shape != () or needed[2] or not (run := find("normalize_rule", g, x)):
        return None
    u, z = (turned(a, axes) for a in (g * weight, x))
    n = prod(x.shape[axis] for axis in axes)
    dx = turned(run(u, z, z, x.size // n, n, 0, int(center), float(eps))[0], axes) if needed[0] else None
    if not needed[1]:
        return dx, None, None
    h = unit(x, axes, eps, center)
    h *= g
    return dx, h.sum(axis=axes, keepdims=True), None


def fits(x, weight, axes) -> bool:
    """Whether the axes are the last ones, or the last but one alone, and the weight does not change along them."""
    if type(weight) is not float and (type(weight) is not type(x) or weight.dtype != x.dtype):
        return False
    shape = getattr(weight, "shape", ())
    axes = sorted(axis % x.ndim - x.ndim for axis in axes)
    if len(shape) > x.ndim or any(-axis <= len(shape) and shape[axis] != 1 for axis in axes):
        return False
    return axes == [*range(-len(axes), 0)] or axes == [-2]


def turned(x, axes):
    """x with the axis that is normalised over as the last one; and back."""
    return x.mT if len(axes) == 1 and axes[0] % x.ndim == x.ndim - 2 else x


def unit(x, axes, eps, center):
    """h, or None."""
    if not (run := find("normalize", x)):
        return None
    n, z = prod(x.shape[axis] for axis in axes), turned(x, axes)
    return turned(run(z, z, z, x.size // n, n, 0, 0, int(center), float(eps))[0], axes)
