"""Initial values of parameters, as NumPy arrays: ``layer.weight = Parameter(init.he_normal((128, 64)))``.

Every function takes the shape, in the order (fan_out, fan_in, ...) of ``Linear``; ``rng``, a seed or a
numpy.random.Generator (default: the generator of ``tinygrad_ms.manual_seed``); and ``dtype``, float32 by default. The
numbers are drawn on the host in float64 and then rounded. So all devices and dtypes start from the same numbers.
"""

from math import prod, sqrt

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.random import drawing, generator

TAPE = "initial values are off the tape; pass numbers, or x.detach()"


def zeros(shape, dtype=DEFAULT_FLOAT):
    """All zeros, as for biases."""
    return numpy.zeros(shape, dtype)


def ones(shape, dtype=DEFAULT_FLOAT):
    """All ones, as for scales."""
    return numpy.ones(shape, dtype)


def normal(shape, mean=0.0, std=1.0, rng=None, dtype=DEFAULT_FLOAT):
    """Independent N(mean, std^2)."""
    refuse_tracked("init.normal", [mean, std], TAPE)
    with drawing(generator(rng)) as numbers:
        return numbers.normal(mean, std, shape).astype(dtype)


def uniform(shape, low=0.0, high=1.0, rng=None, dtype=DEFAULT_FLOAT):
    """Independent U(low, high)."""
    refuse_tracked("init.uniform", [low, high], TAPE)
    with drawing(generator(rng)) as numbers:
        return numbers.uniform(low, high, shape).astype(dtype)


def he_normal(shape, negative_slope=0.0, mode="fan_in", rng=None, dtype=DEFAULT_FLOAT):
    """N(0, 2 / ((1 + negative_slope^2) fan)). It keeps the variance through (leaky) ReLU layers.

    mode: "fan_in" keeps the variance of the activations, "fan_out" that of the gradients.
    Source: He et al. 2015, arXiv:1502.01852, equations 10, 14 and 15.
    """
    return normal(shape, 0.0, _he_std(shape, negative_slope, mode), rng, dtype)


def he_uniform(shape, negative_slope=0.0, mode="fan_in", rng=None, dtype=DEFAULT_FLOAT):
    """The uniform distribution around 0 with the variance of ``he_normal``."""
    bound = sqrt(3) * _he_std(shape, negative_slope, mode)
    return uniform(shape, -bound, bound, rng, dtype)


def xavier_normal(shape, gain=1.0, rng=None, dtype=DEFAULT_FLOAT):
    """N(0, gain^2 2 / (fan_in + fan_out)), a compromise between activations and gradients.

    Source: Glorot and Bengio 2010, equation 12.
    """
    refuse_tracked("init.xavier_normal", gain, TAPE)
    return normal(shape, 0.0, gain * sqrt(2 / max(1, sum(fans(shape)))), rng, dtype)


def xavier_uniform(shape, gain=1.0, rng=None, dtype=DEFAULT_FLOAT):
    """The uniform distribution around 0 with the variance of ``xavier_normal``.

    Source: Glorot and Bengio 2010, equation 16.
    """
    refuse_tracked("init.xavier_uniform", gain, TAPE)
    bound = gain * sqrt(6 / max(1, sum(fans(shape))))
    return uniform(shape, -bound, bound, rng, dtype)


def orthogonal(shape, gain=1.0, rng=None, dtype=DEFAULT_FLOAT):
    """gain times a uniformly distributed matrix with orthonormal rows or columns, whichever are fewer.

    Further axes count as columns. Source: Saxe et al. 2013, arXiv:1312.6120. The signs are those of Mezzadri 2007,
    arXiv:math-ph/0609050; without them QR does not give the uniform (Haar) distribution.
    """
    fans(shape)
    refuse_tracked("init.orthogonal", gain, TAPE)
    rows, columns = shape[0], prod(shape[1:])
    tall = normal((max(rows, columns), min(rows, columns)), rng=rng, dtype="float64")
    q, r = numpy.linalg.qr(tall)
    q = q * numpy.where(numpy.diagonal(r) < 0, -1.0, 1.0)
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)


kaiming_normal, kaiming_uniform = he_normal, he_uniform
glorot_normal, glorot_uniform = xavier_normal, xavier_uniform


def fans(shape) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight (out, in, ...): the number of links of each output and of each input."""
    if len(shape) < 2:
        raise ValueError(f"init: fan_in and fan_out need a shape (out, in, ...), this is {tuple(shape)}; use normal")
    rest = prod(shape[2:])
    return shape[1] * rest, shape[0] * rest


def _he_std(shape, negative_slope, mode):
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f'init: mode is {mode!r}; expected "fan_in" or "fan_out"')
    fan = fans(shape)[0 if mode == "fan_in" else 1]
    refuse_tracked("init.he", negative_slope, TAPE)
    return sqrt(2 / ((1 + negative_slope**2) * max(1, fan)))
