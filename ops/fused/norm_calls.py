"""Calls of the kernels of layer_norm and rms_norm; None if no kernel can take the arguments."""

from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.fused import LEAST, devices_do, find, is_on
from tinygrad_ms.ops.fused.calls import without_gaps
from tinygrad_ms.ops.fused.tiles import LANES
from tinygrad_ms.ops.row_blocks import are_last, as_lines

__all__: list[str] = []


def normalize(x, weight, bias, axes, eps, center):
    """weight (x with mean 0, if ``center``, and mean square 1) + bias over the last axes, or the last but one."""
    if (on := devices_do(x)) is not None:
        return on.normalize(x, weight, bias, axes, eps, center)
    name, vectors, last = _kernel(x, axes, center, weight, *[] if type(bias) is float and not bias else [bias])
    if not name or not (run := find(name, x := without_gaps(x))):
        return None
    y = numpy.empty_like(x)
    run(*_groups(axes, x, y), *vectors, float(eps), last)
    return y


def normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center):
    """The gradients of x, weight and bias."""
    if (on := devices_do(x)) is not None:
        return on.normalize_rule(needed, g, x, weight, bias_shape, axes, eps, center)
    name, vectors, last = _kernel(x, axes, center, weight, *[0.0] if needed[2] else [])
    if not name or type(g) is not type(x):
        return None
    g, x = without_gaps(g), without_gaps(x)
    if not (run := find(f"{name}_rule", g, x)):
        return None
    dx, by_line = numpy.empty_like(x), name == "normalize"
    sums = numpy.empty_like(x, "float64", shape=(2, vectors[0].size) if by_line else vectors[0].shape)
    run(*_groups(axes, g, x, dx), vectors[0], *(sums if by_line else [sums]), float(eps), last)
    if not by_line:
        return dx, sums.astype(x.dtype).reshape(_with_ones(axes, x.shape)), g
    by_weight, by_bias = (
        a.reshape(shape).astype(x.dtype) if shape else a.sum().astype(x.dtype)
        for a, shape in zip(sums, (getattr(weight, "shape", ()), bias_shape))
    )
    return dx, by_weight, by_bias if center else g


def _kernel(x, axes, center, weight, *bias):
    """Its name, its vectors, and its last number. The name is empty if there is no kernel."""
    none: tuple[str, list, float] = "", [], 0.0
    if not isinstance(x, numpy.ndarray) or x.size < LEAST or x.dtype.char != "f" or not axes or not is_on():
        return none
    if not all(isinstance(a, float | numpy.ndarray) for a in (weight, *bias)):
        return none
    last, width = are_last(axes, x), x.shape[-1]
    columns = len(axes) == 1 and axes[0] % x.ndim == x.ndim - 2 and width >= LANES and not center
    if (last or columns) and not bias and (each := _one_per_group(x, axes, weight)) is not None:
        if last:
            return "normalize_each", [each.reshape(-1)], float(center)
        return "normalize_columns", [each.reshape((-1, width))], float(width)
    lines = as_lines(x, axes, weight, *bias or [0.0]) if last else None
    return none if lines is None else ("normalize", lines, float(center))


def _one_per_group(x, axes, weight):
    """The weight with a number for each group of numbers along ``axes``, if it is constant there; else None."""
    whole, shape = _with_ones(axes, x.shape), getattr(weight, "shape", ())
    if type(weight) is float:
        return numpy.full(whole, weight, x.dtype)
    if weight.dtype != x.dtype or len(shape) > x.ndim:
        return None
    if any(p not in (1, q) for p, q in zip(shape, whole[x.ndim - len(shape) :])):
        return None
    return without_gaps(BACKENDS[type(weight)].xp.broadcast_to(weight, whole))


def _with_ones(axes, shape):
    """The shape of sums over ``axes``, which stay with one number."""
    axes = {axis % len(shape) for axis in axes}
    return tuple(1 if k in axes else n for k, n in enumerate(shape))


def _groups(axes, *arrays):
    """The arrays as matrices. A row has all numbers of a group; for columns, those of all columns of a matrix."""
    shape = arrays[0].shape
    return [a.reshape((-1, prod(shape[min(axis % len(shape) for axis in axes) :]))) for a in arrays]
