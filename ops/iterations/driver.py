"""What all iterations on batches of raw matrices use: scaling, slices that fit a cache, buffers, the loop.

An iteration runs rows of ``coefficients`` on a batch: ``polar`` for msign, ``block_solve`` for an equation.
"""

from collections.abc import Callable
from copy import copy
from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, host
from tinygrad_ms.cards import on_its_card
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.launches import launcher
from tinygrad_ms.ops.iterations.coefficients import Schedule
from tinygrad_ms.ops.iterations.kernels import largest_elements_of, ordinary_factor
from tinygrad_ms.ops.linalg.parts import per_matrix


def diagonal(S, n, first_row=0):
    """A view (batch, n) of the diagonals of the n x n blocks of contiguous S (batch, rows, >= n) from ``first_row``."""
    width = S.shape[-1]
    return S.reshape(S.shape[0], -1)[:, first_row * width : (first_row + n) * width : width + 1]


def squared_norm(xp, x):
    """||x_i||_F^2 of a contiguous batch: on a CPU as products of a row and a column, one BLAS dot each.

    On a GPU a product with one element would leave the whole sum to few threads: there it is a reduction.
    """
    flat = x.reshape(x.shape[0], -1)
    if not is_numpy(xp):
        return xp.linalg.norm(flat, axis=1) ** 2
    return xp.matmul(flat[:, None, :], flat[:, :, None])[:, 0, 0]


def scale_by_power_of_two(xp, M, out):
    """out <- M times a power of two per matrix, so that its largest element lies in [1/2, 1). Returns (power, element).

    The squares of the result are in range.
    """
    largest = xp.maximum(M.max(axis=(1, 2)), -M.min(axis=(1, 2)))
    limit = xp.finfo(M.dtype).maxexp - 4
    power = xp.minimum(xp.maximum(xp.frexp(largest)[1], -limit), limit)
    xp.multiply(M, per_matrix(xp.ldexp(xp.ones_like(largest), -power)), out=out)
    return power, largest


def normalise(xp, M, out, scale=1.0, work=None):
    """out <- M / (scale ||M||_F) per matrix and return ||M||_F, without overflow or underflow; 0 stays 0.

    ``work`` holds M in range for a while (contiguous; default: out). A matrix with an infinite element has norm NaN.
    """
    work = out if work is None else work
    power, largest = scale_by_power_of_two(xp, M, work)
    norm = xp.sqrt(squared_norm(xp, work)) + (largest - largest)
    xp.multiply(work, per_matrix(1 / xp.where(norm == 0, 1, norm * scale)), out=out)
    return xp.ldexp(norm, power)


# --- extreme scales: f(M) of a homogeneous f is f(s M) times a power of s, which is a constant of the tape ----------

ORDINARY = {"f": (2.0**-32, 2.0**32), "d": (2.0**-256, 2.0**256)}  # by NumPy's letter of the dtype


@on_its_card
def largest_elements(*matrices):
    """The largest absolute element of each matrix (of several, together), (..., 1, 1)."""
    xp = BACKENDS[type(matrices[0])].xp
    largest = [abs(x).max(axis=(-2, -1), keepdims=True) for x in matrices]
    return largest[0] if len(largest) == 1 else xp.maximum(*largest)


def power_of_two(xp, largest, step=1):
    """The power of two that brings ``largest`` near one; one for 0, infinity and NaN. ``step`` divides its exponent."""
    limit = xp.finfo(largest.dtype).maxexp // 8 * 8 - 8
    power = xp.frexp(xp.where(xp.isfinite(largest), largest, 0))[1]
    power = xp.minimum(xp.maximum(power, -limit), limit) // step * step
    return xp.ldexp(xp.ones_like(largest), -power)


@on_its_card
def into_range(*matrices, step=1):
    """Powers of two s (..., 1, 1) that bring matrices of extreme scale into range. None if no scale is extreme.

    A scale is ordinary if the square of the largest element is far from the ends of the range. Several matrices get
    one s together. On a GPU the host would have to wait for the answer, so there s is always an array.
    """
    arrays = [raw(x) for x in matrices]
    if len(arrays) == 1 and isinstance(arrays[0], numpy.ndarray) and is_ordinary(arrays[0]):
        return None
    backend = BACKENDS.get(type(arrays[0]))
    if backend is None or any(x.dtype.kind != "f" or x.ndim < 2 or not x.size for x in arrays):
        return None
    if launcher(arrays[0]) is not None:
        return factor_on_device(backend.xp, arrays, step) if arrays[0].dtype.char in ORDINARY else None
    xp, largest = backend.xp, largest_elements(*arrays)
    if largest.dtype.char not in ORDINARY:
        return None
    low, high = ORDINARY[largest.dtype.char]
    extreme = (largest > high) | ((largest < low) & (largest > 0))
    if backend.name == "cpu" and not extreme.any():
        return None
    return xp.where(extreme, power_of_two(xp, largest, step), 1).astype(largest.dtype)


def factor_on_device(xp, arrays, step):
    """``into_range`` in two launches for one array."""
    shape, dtype = (*arrays[0].shape[:-2], 1, 1), arrays[0].dtype
    found = [largest_elements_of(xp, x.reshape((-1, *x.shape[-2:]))) for x in arrays]
    largest, factor = found[0] if len(found) == 1 else xp.maximum(*found), xp.empty(len(found[0]), dtype)
    ordinary_factor(largest, *ORDINARY[dtype.char], xp.finfo(dtype).maxexp // 8 * 8 - 8, step, factor)
    return factor.reshape(shape)


def is_ordinary(x: numpy.ndarray) -> bool:
    """Whether every matrix has an ordinary scale, and none is zero or NaN. It is fast, for NumPy arrays alone."""
    if x.ndim < 2 or not x.size or x.dtype.char not in ORDINARY:
        return False
    low, high = ORDINARY[x.dtype.char]
    if x.ndim == 2:
        above, below = x.max(), -x.min()
        return bool(above <= high and below <= high and (above >= low or below >= low))
    x = x if x.flags.c_contiguous else x.mT
    with numpy.errstate(all="ignore"):
        squares = squared_norm(numpy, x.reshape((-1,) + x.shape[-2:]))  # of a batch this is faster than the maximum
    return low * low <= squares.min() and bool(squares.max() <= high * high)


def is_tracked(x) -> bool:
    """Whether x is on the tape, so that a derivative may be wanted."""
    return getattr(x, "node", None) is not None


# --- slices and buffers ---------------------------------------------------------------------------------------------

SLICE_BYTES = 7 * 2**18  # 1.75 MiB was the fastest with second-level caches of 1 and 2 MiB


def cache_slices(x, arrays: int):
    """Slices of the batch of equal size. ``arrays`` arrays like x fit a CPU's cache; on a GPU there is one slice."""
    count = x.shape[0]
    if not isinstance(x, numpy.ndarray):
        return [slice(0, count)]
    limit = max(1, SLICE_BYTES // (arrays * prod(x.shape[1:]) * x.dtype.itemsize))
    step = -(-count // -(-count // limit))
    return [slice(i, i + step) for i in range(0, count, step)]


class Workspace:
    """Arrays by name. The slices of a batch share them; the first slice is the largest.

    Rows whose length is a multiple of 512 bytes fall on the same few cache sets. With ``pad`` such rows lie one or two
    cache lines further apart, and a CPU reads columns about twice as fast. (CuPy's products would copy such arrays.)
    """

    def __init__(self, xp, dtype):
        self.xp, self.dtype, self.memory = xp, dtype, {}

    def __call__(self, name, *shape, pad=False):
        if pad and is_numpy(self.xp) and shape[-1] * self.dtype.itemsize % 512 == 0:
            shape = (*shape[:-1], shape[-1] + 16)
        if name not in self.memory:
            self.memory[name] = self.xp.empty(prod(shape), self.dtype)
        return self.memory[name][: prod(shape)].reshape(shape)


def is_numpy(xp) -> bool:
    """Whether the arrays are NumPy's, also while ``tg.compile`` records their calls."""
    return xp is numpy or getattr(xp, "records", None) is numpy  # numpy is slow to say that it lacks a name


# --- the driver ----------------------------------------------------------------------------------------------------


class Iteration:
    """A batch in progress. ``arrays`` names what has an entry per matrix, ``results`` what a sub-batch returns."""

    arrays: tuple = ()
    results: tuple = ()
    square: Callable
    update: Callable

    def bind(self):
        """Make the views into the arrays."""

    def run(self, pairs, last=False):
        """One step for each pair (p, q); ``last``: no step follows these."""
        for i, (p, q) in enumerate(pairs):
            self.square()
            self.update(p, q, last=last and i + 1 == len(pairs))

    def take(self, index):
        """A new iteration with the matrices at ``index``."""
        part = copy(self)
        for name in self.arrays:
            if (array := getattr(self, name)) is not None:
                setattr(part, name, array[of_batch(array, index)])
        part.bind()
        return part

    def put(self, index, part):
        for name in self.results:
            if (array := getattr(self, name)) is not None:
                array[of_batch(array, index)] = getattr(part, name)


def of_batch(array, index):
    """The key for the entries ``index`` of a batch. In matrices the batch is the third axis from the end."""
    return index if array.ndim == 1 else (..., index, slice(None), slice(None))


def residual(xp, S, S_diagonal, scale, norm) -> numpy.ndarray:
    """||scale^2 S - I||_F per matrix, on the host; NaN where ``norm`` is 0 or NaN. S is left as it was."""
    target = 1 / scale**2
    S_diagonal -= target
    norm = xp.minimum(norm, xp.finfo(norm.dtype).max)  # the norm of finite elements may overflow
    r = xp.sqrt(squared_norm(xp, S)) / target * (norm / norm)
    S_diagonal += target
    return host(r).astype(float)


def iterate(xp, schedule: Schedule, iteration) -> bool:
    """Run ``schedule`` on an iteration: ``square()`` then ``update(p, q, last)`` for each row.

    With fixed rows nothing is read back. With adaptive rows the host reads the residual of every matrix after the first
    chunk. A matrix with a residual below 0.9 is polished: its singular values lie in [0.3, 1] by then. The others get
    the next chunk. Each group goes on alone, because further steps fill a converged float32 matrix with denormal
    numbers, which are slow. Polishing takes a residual r to 5/8 r^3, so the last step is known beforehand. Returns
    whether adaptive steps have come to the last chunk without convergence.
    """
    if schedule.polishing is None:
        iteration.run(schedule.chunks[0][1], last=True)
        return False
    iteration.run(schedule.chunks[0][1])
    return polish(xp, schedule, iteration, schedule.chunks[1:])


NEAR, CLOSE, CUBIC = 0.9, 0.02, 0.625  # residuals: may be polished, nearly there; a step takes r to CUBIC r^3


def polish(xp, schedule, iteration, chunks) -> bool:
    """Polish the matrices that are near one, and give the others the next of ``chunks``. True if no chunk was left."""
    capped = False
    for polished in range(1, 13):
        iteration.square()
        residual = iteration.residual(schedule.end)  # NaN, as zero matrices have it, counts as done
        large = residual > NEAR
        groups = [g for g in (large, ~large & (residual > CLOSE), ~(residual > CLOSE)) if g.any()]
        if polished == 1 and len(groups) > 1:
            for group in groups:
                index = xp.asarray(numpy.flatnonzero(group))
                part = iteration.take(index)
                capped |= polish(xp, schedule, part, chunks)
                iteration.put(index, part)
            return capped
        if polished == 1 and chunks and large.any():
            start, pairs = chunks[0]
            iteration.rescale(schedule.end / start)
            iteration.run(pairs)
            return polish(xp, schedule, iteration, chunks[1:])
        # After the last chunk a large residual means rank deficiency. We stop before the noise has grown.
        capped |= bool(polished == 1 and large.any())
        done = not (CUBIC * residual**3 > schedule.tolerance).any() or polished == (3 if large.any() else 12)
        iteration.update(*schedule.polishing, last=done)
        if done:
            break
    return capped
