"""Functions that move elements without changing them: reshape, permute, broadcast, concatenate, split, pad.

Each is linear, y = P x with a matrix P of zeros and ones, so its derivative rule is the transpose P^T.
"""

import math
from operator import index as as_int

import numpy

from tinygrad_ms.engine.primitive import linear, primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.creation import as_shape, zeros_like
from tinygrad_ms.ops.operands import as_operand, is_followed, view_of

__all__ = [
    "broadcast_to", "concat", "expand_dims", "flatten", "flip", "matrix_transpose", "moveaxis", "pad",
    "permute_dims", "ravel", "repeat", "reshape", "roll", "split", "squeeze", "stack", "swapaxes", "tile",
    "transpose", "unstack",
]  # fmt: skip

LINEAR_MAP = "y = P x with a 0-1 matrix P; its transpose"


# --- axes ---------------------------------------------------------------------------------------------------


def one_axis(op: str, axis, ndim: int) -> int:
    """``axis`` counted from the left. Raises ValueError out of range."""
    number = as_int(axis)
    if not -ndim <= number < ndim:
        raise ValueError(f"{op}: axis {axis} is out of bounds for an array of dimension {ndim}")
    return number % ndim


def all_axes(op: str, axis, ndim: int) -> tuple[int, ...]:
    """``axis`` (None: all; an int or a tuple) as distinct axes counted from the left. Raises ValueError."""
    if axis is None:
        return tuple(range(ndim))
    if ndim == 0 and axis in (0, -1):  # as in NumPy: a reduction of a 0-d array may name axis 0 or -1
        return ()
    axes = tuple(one_axis(op, a, ndim) for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))
    if len(set(axes)) < len(axes):
        raise ValueError(f"{op}: axis {axis} names an axis twice")
    return axes


def along(axis: int, start=None, stop=None, step=None) -> tuple:
    """The index with a slice of one axis and the whole of the others."""
    return (slice(None),) * axis + (slice(start, stop, step),)


def before(g, ndim: int) -> tuple[int, ...]:
    """The shape of the cotangent g before its last ``ndim`` axes: the size of the stack, if g is a stack."""
    return g.shape[: len(g.shape) - ndim]


def from_the_end(axis, ndim: int):
    """``axis`` (None: all; an int or a tuple) counted from the right, so that it is right for a stack, too."""
    if axis is None or not ndim:
        return tuple(range(-ndim, 0))
    return tuple(from_the_end(a, ndim) for a in axis) if isinstance(axis, tuple) else axis - ndim * (axis >= 0)


# --- one array in another form ------------------------------------------------------------------------------


@linear(
    transpose=lambda g, x_shape, shape: g.reshape(before(g, len(shape) if isinstance(shape, tuple) else 1) + x_shape),
    batched=True,
    formula=r"\bar x = \mathrm{reshape}(\bar y)",
    source=LINEAR_MAP,
    view=True,
    moves=True,
)
def reshape(xp, x, /, shape):
    """x with the same elements, in row-major order, in another shape, where one size may be -1.

    The result is a view where the memory layout allows it. The method takes ``x.reshape(2, 3)``, too. Raises ValueError
    if the numbers of elements differ.

    >>> tg.arange(6).reshape(2, -1)
    Tensor([[0, 1, 2],
            [3, 4, 5]], dtype=int64)
    """
    return x.reshape(shape)


def flatten(x, start_axis: int = 0, end_axis: int = -1):
    """x with the axes from ``start_axis`` to ``end_axis`` made one: (2, 3, 4) becomes (24,), or from axis 1 (2, 12)."""
    x = as_operand(x)
    if not x.shape:
        return reshape(x, shape=(1,))
    first, last = one_axis("flatten", start_axis, x.ndim), one_axis("flatten", end_axis, x.ndim)
    if first > last:
        raise ValueError(f"flatten: start_axis {start_axis} comes after end_axis {end_axis} (x has shape {x.shape})")
    return reshape(x, shape=(*x.shape[:first], math.prod(x.shape[first : last + 1]), *x.shape[last + 1 :]))


def ravel(x):
    """x as a vector, in row-major order."""
    return flatten(x)


def squeeze(x, axis=None):
    """x without its axes of size one, or those that ``axis`` names. Raises ValueError for another size."""
    x = as_operand(x)
    axes = all_axes("squeeze", axis, x.ndim)
    if axis is not None and any(x.shape[a] != 1 for a in axes):
        raise ValueError(f"squeeze: axis {axis} of x, of shape {x.shape}, has a size other than one")
    return reshape(x, shape=tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in axes))


def expand_dims(x, axis):
    """x with new axes of size one at the places ``axis`` (an int or a tuple) of the result."""
    x = as_operand(x)
    count = len(axis) if isinstance(axis, (tuple, list)) else 1
    axes = all_axes("expand_dims", axis, x.ndim + count)
    sizes = iter(x.shape)
    return reshape(x, shape=tuple(1 if i in axes else next(sizes) for i in range(x.ndim + count)))


@linear(
    transpose=lambda g, axes: permute_dims(g, axes=inverse_permutation(axes, g.ndim - len(axes))),
    batched=True,
    formula=r"\bar x = \bar y \text{ with the axes permuted back}",
    source=LINEAR_MAP,
    view=True,
    moves=True,
)
def permute_dims(xp, x, /, axes):
    """x with its axes in the order ``axes``: axis i of the result is axis ``axes[i]`` of x. A view."""
    return x.transpose(axes)


@linear(
    transpose=lambda g: g.T if g.ndim == 2 else matrix_transpose(g), formula=r"Y = X^T:\quad \bar X = \bar Y^T",
    source=LINEAR_MAP, batched=True, view=True, moves=True,
)  # fmt: skip
def _transpose(xp, x):
    """The transpose of a matrix. A view."""
    if x.ndim != 2:
        raise ValueError(f"transpose: x has shape {x.shape}; expected a matrix")
    return x.T


def inverse_permutation(axes, before: int = 0) -> tuple[int, ...]:
    """The permutation that undoes ``axes``. As many axes as ``before`` says stand before them and stay."""
    inverse = [0] * len(axes)
    for i, axis in enumerate(axes, before):
        inverse[axis] = i
    return (*range(before), *inverse)


def transpose(x, axes=None):
    """The axes of x reversed, or in the order ``axes``, as in NumPy. For a matrix it is the transpose."""
    if axes is None and type(x) is Tensor and x.data.ndim == 2:
        return _transpose(x) if x.node is not None or is_followed(x) else view_of(x, x.data.T)
    x = as_operand(x)
    return permute_dims(x, axes=tuple(range(x.ndim))[::-1] if axes is None else tuple(axes))


def matrix_transpose(x):
    """The last two axes of x, (..., n, m), swapped: the transposes of a batch of matrices."""
    x = as_operand(x)
    if x.ndim < 2:
        raise ValueError(f"matrix_transpose: x has shape {x.shape}; expected a matrix or a batch of matrices")
    return swapaxes(x, -2, -1)


def swapaxes(x, axis1: int, axis2: int):
    """x with two axes swapped. A view."""
    x = as_operand(x)
    axes = list(range(x.ndim))
    a, b = one_axis("swapaxes", axis1, x.ndim), one_axis("swapaxes", axis2, x.ndim)
    axes[a], axes[b] = b, a
    return permute_dims(x, axes=tuple(axes))


def moveaxis(x, source, destination):
    """A view of x with the axes ``source`` (an int or a tuple) moved to ``destination``, others in order."""
    x = as_operand(x)
    here, there = all_axes("moveaxis", source, x.ndim), all_axes("moveaxis", destination, x.ndim)
    if len(here) != len(there):
        raise ValueError(f"moveaxis: source {source} and destination {destination} name different numbers of axes")
    order = [axis for axis in range(x.ndim) if axis not in here]
    for place, axis in sorted(zip(there, here)):
        order.insert(place, axis)
    return permute_dims(x, axes=tuple(order))


@linear(
    transpose=lambda g: g,  # for every rule the engine sums over the axes that were broadcast
    batched=True,
    formula=r"\bar x = \sum_{\text{broadcast axes}} \bar y",
    source="Parr and Howard, section 4.3",
    view=True,
    moves=True,
)
def broadcast_to(xp, x, /, shape):
    """x repeated along new axes and axes of size one. Nothing is copied; the result is a read-only view."""
    try:
        return xp.broadcast_to(x, shape)
    except ValueError:
        raise ValueError(
            f"broadcast_to: x has shape {x.shape}, which does not broadcast to {shape}"
            " (sizes must be equal or 1, aligned at the right)"
        ) from None


def restore_axes(g, x_shape, axis, keepdims):
    """Give the result of a reduction over ``axis`` its reduced axes back, with size one."""
    if keepdims or not x_shape:
        return g
    axes = range(len(x_shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    axes = {a % len(x_shape) for a in axes}
    return g.reshape(before(g, len(x_shape) - len(axes)) + tuple(1 if i in axes else n for i, n in enumerate(x_shape)))


@linear(
    transpose=lambda g, axis: flip(g, axis=axis),
    formula=r"y_i = x_{n-1-i}:\quad \bar x_i = \bar y_{n-1-i}",
    source=LINEAR_MAP,
    view=True,
    moves=True,
)
def flip(xp, x, axis=None):
    """The order of the elements reversed along ``axis`` (None: all; an int or a tuple). A view."""
    return xp.flip(x, axis)


@linear(
    transpose=lambda g, shift, axis: roll(g, shift=_negated(shift), axis=axis),
    formula=r"y_i = x_{(i - s) \bmod n}:\quad \bar x_i = \bar y_{(i + s) \bmod n}",
    source=LINEAR_MAP,
    moves=True,
)
def roll(xp, x, /, shift, axis=None):
    """The elements moved ``shift`` places along ``axis``. Those that leave at the end come in at the start.

    With axis None the flattened x is rolled. Tuples roll several axes.
    """
    return xp.roll(x, shift, axis)


def _negated(shift):
    return tuple(-s for s in shift) if isinstance(shift, (tuple, list)) else -shift


@primitive(
    vjp=lambda g, x_shape, widths: g[tuple(slice(a, a + n) for (a, _), n in zip(widths, x_shape))],
    jvp=lambda t, widths: _pad(t, widths=widths),
    formula=r"\bar x = \bar y \text{ without the margins}",
    source="an affine map; the transpose of its linear part",
    moves=True,
)
def _pad(xp, x, /, widths, value=0):
    """x with margins that are full of ``value``."""
    y = xp.full(tuple(a + n + b for (a, b), n in zip(widths, x.shape)), value, x.dtype)
    y[tuple(slice(a, a + n) for (a, _), n in zip(widths, x.shape))] = x
    return y


def pad(x, pad_width, mode: str = "constant", value=0):
    """x with margins: ``pad_width`` is a number for all sides, (before, after), or such a pair for each axis.

    mode: "constant" (filled with ``value``), or "edge", "reflect", "symmetric", "wrap" (copies of elements,
    as NumPy defines them). Raises ValueError for a negative width, or a mode that is none of these.
    """
    x = as_operand(x)
    try:
        widths = numpy.broadcast_to(pad_width, (x.ndim, 2)).tolist()
    except ValueError:
        raise ValueError(
            f"pad: pad_width {pad_width} does not fit x of shape {x.shape};"
            " expected a number, a pair (before, after), or a pair for each axis"
        ) from None
    if any(n < 0 for pair in widths for n in pair):
        raise ValueError(f"pad: pad_width {pad_width} has a negative width; to remove elements use a slice")
    if mode == "constant":
        return _pad(x, widths=tuple(map(tuple, widths)), value=value)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ValueError(f"pad: mode {mode!r} is unknown; expected constant, edge, reflect, symmetric or wrap")
    for axis, width in enumerate(widths):
        if any(width):
            places = numpy.pad(numpy.arange(x.shape[axis]), width, mode)  # the place from which each element comes
            x = x[(slice(None),) * axis + (places.tolist(),)]
    return x


def tile(x, reps):
    """x repeated as a whole, ``reps`` (an int or a tuple) times along each axis, as in NumPy."""
    x = as_operand(x)
    reps = as_shape(reps)
    ndim = max(x.ndim, len(reps))
    shape, reps = (1,) * (ndim - x.ndim) + x.shape, (1,) * (ndim - len(reps)) + reps
    spread = broadcast_to(
        reshape(x, shape=tuple(k for n in shape for k in (1, n))),
        shape=tuple(k for pair in zip(reps, shape) for k in pair),
    )
    return reshape(spread, shape=tuple(r * n for r, n in zip(reps, shape)))


def repeat(x, repeats, axis=None):
    """Every element ``repeats`` times along ``axis`` (None: of the flattened x), as in NumPy.

    repeats: an int, or one int for each element along the axis, as a list or a NumPy array.
    """
    x = as_operand(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = one_axis("repeat", axis, x.ndim)
    n = x.shape[axis]
    counts = numpy.asarray(repeats)
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or (counts < 0).any():
        raise ValueError(f"repeat: repeats must be an int or a list of ints, none of them negative; got {repeats!r}")
    if counts.ndim and counts.size != 1:
        if counts.size != n:
            raise ValueError(f"repeat: repeats has {counts.size} entries for {n} elements along axis {axis}")
        return x[(slice(None),) * axis + (numpy.repeat(numpy.arange(n), counts).tolist(),)]
    times = int(counts.reshape(()))
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    spread = broadcast_to(reshape(x, shape=(*before, n, 1, *after)), shape=(*before, n, times, *after))
    return reshape(spread, shape=(*before, n * times, *after))


# --- several arrays -----------------------------------------------------------------------------------------


def _concat_vjp(needed, g, xs_shape, axis):
    stacked = g.ndim - len(xs_shape[0])
    axis %= len(xs_shape[0])
    parts, start = [], 0
    for wanted, shape in zip(needed, xs_shape):
        stop = start + shape[axis]
        parts.append(g[along(stacked + axis, start, stop)] if wanted else None)
        start = stop
    return parts


@linear(
    transpose=_concat_vjp,
    batched=True,
    formula=r"y = [x_1, x_2, \ldots]:\quad [\bar x_1, \bar x_2, \ldots] = \bar y",
    source=LINEAR_MAP,
    moves=True,
)
def _concat(xp, *xs, axis=0):
    """The arrays one after another."""
    return xp.concatenate(xs, axis)


def concat(xs, axis=0):
    """The arrays of the sequence ``xs`` one after another along ``axis`` (None: of the flattened arrays).

    They must agree in all other sizes. Raises ValueError where they do not, or where there is none.

    >>> tg.concat([[1.0, 2.0], [3.0]])
    Tensor([1., 2., 3.], dtype=float32)
    """
    if not len(xs):
        raise ValueError("concat: the sequence xs is empty; expected at least one array")
    if axis is None:
        xs, axis = [ravel(x) for x in xs], 0
    return _concat(*xs, axis=axis) if axis else _concat(*xs)  # a call with its defaults takes less time


@linear(
    transpose=lambda needed, g, axis: [
        g[(slice(None),) * (axis % g.ndim) + (i,)] if wanted else None for i, wanted in enumerate(needed)
    ],
    formula=r"y_i = x_i:\quad \bar x_i = \bar y_i",
    source=LINEAR_MAP,
    moves=True,
)
def _stack(xp, *xs, axis=0):
    """The arrays along a new axis."""
    together = axis == 0 and xs[0].ndim and len({x.shape for x in xs}) == 1  # NumPy's stack takes longer
    return xp.concatenate(xs).reshape((len(xs), *xs[0].shape)) if together else xp.stack(xs, axis)


def stack(xs, axis: int = 0):
    """The arrays of the sequence ``xs``, all of one shape, along a new axis of the result, ``axis``.

    >>> tg.stack([[1.0, 2.0], [3.0, 4.0]], axis=1)
    Tensor([[1., 3.],
            [2., 4.]], dtype=float32)
    """
    if not len(xs):
        raise ValueError("stack: the sequence xs is empty; expected at least one array")
    return _stack(*xs, axis=axis) if axis else _stack(*xs)


def _parts_or_zeros(parts, shapes):
    """The cotangents of several outputs in order. Outputs that nobody used get zeros."""
    some = next(iter(parts.values()))
    return [parts[i] if i in parts else zeros_like(some, shape=shape) for i, shape in enumerate(shapes)]


@linear(
    transpose=lambda g, x_shape, sizes, axis: concat(
        _parts_or_zeros(g, [(*x_shape[:axis], n, *x_shape[axis + 1 :]) for n in sizes]), axis
    ),
    formula=r"[y_1, y_2, \ldots] = x:\quad \bar x = [\bar y_1, \bar y_2, \ldots]",
    source=LINEAR_MAP,
    view=True,
    outputs="*",
    moves=True,
)
def _split(xp, x, /, sizes, axis):
    """Consecutive parts of the given sizes."""
    stops = numpy.cumsum(sizes).tolist()
    return tuple(x[along(axis, stop - size, stop)] for stop, size in zip(stops, sizes))


def split(x, indices_or_sections, axis: int = 0) -> tuple:
    """x cut along ``axis`` into a tuple of views, as in NumPy. One step joins their gradients.

    indices_or_sections: a number of equal parts, or the places to cut at ([2, 5]: before elements 2 and 5).
    Raises ValueError where x does not divide equally, or where the places decrease.
    """
    x = as_operand(x)
    axis = one_axis("split", axis, x.ndim)
    n = x.shape[axis]
    if isinstance(indices_or_sections, (tuple, list, numpy.ndarray)):
        places = [slice(0, as_int(place)).indices(n)[1] for place in indices_or_sections]
        sizes = tuple(b - a for a, b in zip([0, *places], [*places, n]))
        if min(sizes) < 0:
            raise ValueError(f"split: the places {indices_or_sections} decrease, for {n} elements along axis {axis}")
    else:
        count = as_int(indices_or_sections)
        if count < 1 or n % count:
            raise ValueError(f"split: x has {n} elements along axis {axis}, which is no {count} equal parts")
        sizes = (n // count,) * count
    return _split(x, sizes=sizes, axis=axis)  # type: ignore[return-value]


@linear(
    transpose=lambda g, x_shape, axis: stack(
        _parts_or_zeros(g, [x_shape[:axis] + x_shape[axis + 1 :]] * x_shape[axis]), axis
    ),
    formula=r"y_i = x_i:\quad \bar x_i = \bar y_i",
    source=LINEAR_MAP,
    view=True,
    outputs="*",
    moves=True,
)
def _unstack(xp, x, /, axis):
    """The slices along one axis."""
    return tuple(x[(*(slice(None),) * axis, i, ...)] for i in range(x.shape[axis]))  # the Ellipsis: no NumPy scalars


def unstack(x, axis: int = 0) -> tuple:
    """The slices of x along ``axis`` as a tuple of views. One step joins their gradients.

    Iteration over a tensor uses it. The backward pass of n times ``x[i]`` would make n arrays of the size of x.
    """
    x = as_operand(x)
    axis = one_axis("unstack", axis, x.ndim)
    return _unstack(x, axis=axis) if x.shape[axis] else ()  # type: ignore[return-value]
