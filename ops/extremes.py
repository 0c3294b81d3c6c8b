"""The largest and the smallest elements along axes, and their places. ``axis``, ``keepdims``: as in reductions.py."""

from functools import reduce

import numpy

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import no_derivative, primitive
from tinygrad_ms.ops.shapes import restore_axes
from tinygrad_ms.ops.short_rows import MANY, folded, slices

__all__ = ["argmax", "argmin", "max", "min"]


def tie_weights(x, y, axis, keepdims):
    """1 at the extreme element, 1/k at each of k equal ones, 0 elsewhere."""
    ties = wide((x == restore_axes(y, x.shape, axis, keepdims)).astype(x.dtype))
    return ties / ties.sum(axis=axis, keepdims=True)


def to_extremes(g, x, y, axis, keepdims):
    """g at the extreme element, g / k at each of k equal ones, 0 elsewhere."""
    g, y = (restore_axes(z, x.shape, axis, keepdims) for z in (g, y))
    places = slices(x, axis) if type(g) is type(x) and g.shape == y.shape and g.dtype == x.dtype else None
    if places is None:
        return g * tie_weights(x, y, axis, True)
    ties = [x[place] == y for place in places]
    count = reduce(numpy.add, [tie.view("uint8") for tie in ties]).astype(g.dtype)
    g, result = numpy.divide(g, count, out=count), numpy.empty_like(x)  # all in the order that the memory of x has
    for place, tie in zip(places, ties):
        numpy.multiply(g, tie, out=result[place])
    return result


def _extreme(name):
    return primitive(
        vjp=lambda g, x, y, axis, keepdims: to_extremes(g, x, y, axis, keepdims),
        jvp=lambda t, x, y, axis, keepdims: (t * tie_weights(x, y, axis, keepdims)).sum(axis=axis, keepdims=keepdims),
        formula=rf"y = \{name}_i x_i:\quad \bar x_i = \bar y \, \frac{{[x_i = y]}}{{\#\{{j : x_j = y\}}}}",
        source="Parr and Howard, section 5; the mean of the subgradients at ties",
        batched=True,
        notes="k equal extremes receive 1/k of the gradient each",
    )


@_extreme("max")
def max(xp, x, axis=None, keepdims=False):
    """The largest element over ``axis``; NaN if there is one. Equal ones share the gradient equally.

    Raises ValueError for no elements.

    >>> x = tg.tensor([1.0, 3.0, 3.0], requires_grad=True)
    >>> x.max().backward()
    >>> x.grad.tolist()
    [0.0, 0.5, 0.5]
    """
    y = folded(numpy.maximum, x, axis, keepdims) if x.size >= MANY else None
    return x.max(axis=axis, keepdims=keepdims) if y is None else y


@_extreme("min")
def min(xp, x, axis=None, keepdims=False):
    """The smallest element over ``axis``; NaN if there is one. Equal ones share the gradient equally.

    Raises ValueError for no elements.
    """
    y = folded(numpy.minimum, x, axis, keepdims) if x.size >= MANY else None
    return x.min(axis=axis, keepdims=keepdims) if y is None else y


@no_derivative(formula=r"\arg\max_i x_i")
def argmax(xp, x, axis=None, keepdims=False):
    """The index of the largest element along ``axis`` (None: in the flattened x). Of equal ones it is the first."""
    return xp.argmax(x, axis=axis, keepdims=keepdims)


@no_derivative(formula=r"\arg\min_i x_i")
def argmin(xp, x, axis=None, keepdims=False):
    """The index of the smallest element along ``axis`` (None: in the flattened x). Of equal ones it is the first."""
    return xp.argmin(x, axis=axis, keepdims=keepdims)
