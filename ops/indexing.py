"""Selecting elements and putting them back: x[index], take, index_update, one_hot, embedding, sort.

Selection is a linear map y = P x; its transpose P^T adds every element of y at the place in x that it came
from. The basic index (numbers, slices, None, ...) selects each element once, so its transpose assigns; an
index with arrays may select an element several times, so its transpose accumulates.

Index arrays live on the device of x. Lists in an index are host data and are copied to it. On the CPU an index out of
range raises IndexError everywhere. On a GPU the host would have to wait for that answer. There ``take`` and
``embedding`` of floats give NaN, and ``one_hot`` gives zeros; x[index] wraps around in silence, as in CuPy.
"""

from types import EllipsisType, NoneType

import numpy

from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, host_array, is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import sum_to
from tinygrad_ms.cards import on_its_card, there
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.primitive import linear, no_derivative
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops.added_rows import add_rows
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import along, broadcast_to, one_axis, ravel
from tinygrad_ms.ops.watch import note_read
from tinygrad_ms.options import as_int

__all__ = [
    "argsort", "embedding", "index_add", "index_update", "nonzero", "one_hot", "sort", "take",
    "take_along_axis",
]  # fmt: skip

SELECTION = "y = P x with a 0-1 matrix P; its transpose"
INT = numpy.dtype("int64")
BASIC = frozenset((int, slice, NoneType, EllipsisType))


# --- x[index] and its transpose -----------------------------------------------------------------------------


def getitem(x, index):
    """x[index]: numbers, slices, None and ``...`` give a view; integer arrays, masks and lists a copy.

    A repeated index accumulates in the gradient. A mask makes the host wait for a GPU, which must count its
    elements. Raises IndexError for an index out of range (on the CPU), of floats, or of the wrong shape.
    """
    if type(index) in BASIC or (type(index) is tuple and BASIC.issuperset(map(type, index))):
        return _getitem(x, index=index)
    x, index = _on_device("getitem", x, index)
    return (_getitem if BASIC.issuperset(map(type, index)) else gather)(x, index=index)


@linear(
    transpose=lambda g, x_shape, index: place(g, index=index, shape=x_shape),
    formula=r"y = x[i]:\quad \bar x = 0, \; \bar x[i] = \bar y",
    source=SELECTION,
    view=True,
    moves=True,
)
def _getitem(xp, x, /, index):
    """x[index] for numbers, slices, None and Ellipsis: a view of x."""
    y = x[index]
    if isinstance(y, numpy.generic):  # with an Ellipsis NumPy gives a view of a single element, too
        y = x[(*index, ...) if isinstance(index, tuple) else (index, ...)]
    return y


@linear(
    transpose=lambda g, index: _getitem(g, index=index),
    formula=r"y = 0, \; y[i] = g:\quad \bar g = \bar y[i]",
    source=SELECTION,
    moves=True,
)
def place(xp, g, /, index, shape):
    """Zeros of ``shape`` with g at the basic ``index``: the transpose of x[index]."""
    y = xp.zeros(shape, g.dtype)
    y[index] = g
    return y


@linear(
    transpose=lambda g, x_shape, index: scatter_add(g, index=index, shape=x_shape),
    formula=r"y_k = x_{i_k}:\quad \bar x_j = \sum_{k:\, i_k = j} \bar y_k",
    source=SELECTION,
    moves=True,
)
def gather(xp, x, /, index):
    """x[index] with integer arrays or boolean masks in the tuple ``index``: a copy of what they select."""
    try:
        if len(index) == 1 and index[0].dtype.kind == "i":
            return x.take(index[0], axis=0)  # twice as fast as NumPy's x[index]
        return x[index]
    except IndexError as error:
        shapes = ", ".join(str(item.shape) for item in index if type(item) not in BASIC)
        raise IndexError(
            f"gather: x[index] with x of shape {x.shape} and index arrays of shape {shapes}: {error}"
        ) from None


@linear(
    transpose=lambda g, index: gather(g, index=index),
    formula=r"y_j = \sum_{k:\, i_k = j} g_k:\quad \bar g_k = \bar y_{i_k}",
    source=SELECTION,
    flops=lambda arrays, outputs, constants: arrays[0].size,  # one addition for each element
)
def scatter_add(xp, g, /, index, shape):
    """Zeros of ``shape`` with the elements of g added at their places in ``index``: the transpose of gather.

    float16 is accumulated in float32. On a GPU the order of the additions varies, and with it the rounding.
    """
    if "i" not in map(_role, index):  # masks select each element once
        y = xp.zeros(shape, g.dtype)
        y[index] = g
        return y
    dtype = xp.promote_types(g.dtype, "float32") if is_float(g.dtype) else g.dtype
    values = g.astype(dtype, copy=False)
    roles = "".join(map(_role, index)).rstrip(":")
    rows = roles.lstrip(":")
    lead = len(roles) - len(rows)
    if set(rows) == {"i"}:
        first, last = tuple(range(lead)), tuple(range(-lead, 0))
        values = xp.moveaxis(values, first, last)
        y = add_rows(xp, values, index[lead : len(roles)], shape[lead:] + shape[:lead])
        y = xp.moveaxis(y, last, first)
    else:
        y = xp.zeros(shape, dtype)
        xp.add.at(y, index, values)
    return y.astype(g.dtype, copy=False)


def _role(item) -> str:
    """What an item of an index does: i(nteger array), b(oolean mask), : (the whole axis), or other."""
    if isinstance(item, slice):
        return ":" if item == slice(None) else "-"
    return {"b": "b", "i": "i", "u": "i"}[item.dtype.kind] if hasattr(item, "dtype") else "-"


def _on_device(op: str, x, index, value=None) -> tuple:
    """x, and ``index`` as a tuple of basic items and of raw arrays on the device of x.

    If x or ``value`` wants a gradient, index arrays are copied: a later change of them must not change the gradient.
    """
    items = index if isinstance(index, tuple) else (index,)
    if not isinstance(x, Tensor):
        x = as_operand(x)
        if any(isinstance(item, Tensor) for item in items) and not isinstance(x, Tensor):
            x = Tensor(x)
    array = raw(x)
    own = (isinstance(x, Tensor) and x.node is not None) or (isinstance(value, Tensor) and value.node is not None)
    return x, tuple(item if type(item) in BASIC else _index_item(op, array, item, own) for item in items)


def _index_item(op: str, array, item, own: bool):
    if isinstance(item, numpy.integer):
        return int(item)
    if isinstance(item, Tensor):
        note_read(item)
        item = item.data
    backend = BACKENDS[type(array)]
    if type(item) not in BACKENDS:  # a list, a range, True or False
        try:
            item = host_array(item)
        except TypeError:
            what = f"{item!r} ({type(item).__name__})"
            raise TypeError(f"{op}: an index is {what}; expected integers, slices, booleans, None or ...") from None
        item = to_device(item.astype("int64") if item.size == 0 else item, backend.device_of(array))
    elif own:
        item = there(item.copy, item)()
    device, other = backend.device_of(array), BACKENDS[type(item)].device_of(item)
    if device != other:
        raise ValueError(f"{op}: x is on {device} and an index array on {other}; move one with .to(device)")
    if item.dtype.kind not in "iub":
        raise IndexError(f"{op}: an index array has dtype {item.dtype}; expected integers or booleans")
    return item


def _check_range(op: str, indices, low: int, stop: int, what: str, why: str, on_device: bool = True):
    """Raise IndexError unless all ``indices`` are from ``low`` to ``stop - 1``.

    On a device, where the host would wait for this, return instead which of them are, if ``on_device``.
    """
    if on_device and BACKENDS[type(indices)].name != "cpu":
        wide = indices.astype("int64", copy=False)
        return (wide - low if low else wide).view("uint64") < stop - low  # what is negative is huge
    if bool(((indices < low) | (indices >= stop)).any()):
        raise IndexError(
            f"{op}: the {what} range from {indices.min()} to {indices.max()}; expected {low} to {stop - 1} ({why})"
        )


# --- functions with an index array --------------------------------------------------------------------------


@on_its_card
def take(x, indices, axis=None):
    """The elements of x at ``indices`` along ``axis`` (None: of the flattened x).

    indices: an integer or an integer array. Its shape replaces that axis. Negative indices count from the end.
    Raises IndexError for an index out of range. A GPU gives NaN instead, without gradient. (An integer x has no NaN:
    there it raises on a GPU, too, and the host waits for this check.)
    """
    x = as_operand(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis = one_axis("take", axis, x.ndim)
    x, index = _on_device("take", x, along(axis)[:-1] + (_integers("take", indices),))
    n = x.shape[axis]
    if type(index[axis]) is not int:
        known = _check_range(
            "take", index[axis], -n, n, "indices", f"axis {axis} of x, of shape {x.shape}", is_float(x.dtype)
        )
        return _only(known, getitem(x, index), x.ndim - axis - 1)
    return getitem(x, index)


def _only(known, y, axes_behind: int):
    """y, with NaN where not ``known`` (None: all are), which stands before its last axes."""
    return y if known is None else where(known.reshape(known.shape + (1,) * axes_behind), y, numpy.nan)


def take_along_axis(x, indices, axis: int = -1):
    """The elements of x that ``indices`` names along ``axis``, one for each place: y[i, j] = x[i, indices[i, j]].

    indices: integers, with as many axes as x. In the other axes its sizes are those of x, or one. ``argsort`` gives
    such indices, and ``argmax`` with keepdims.
    """
    x, grid = places_along("take_along_axis", x, indices, axis)
    return gather(x, index=grid)


def places_along(op: str, x, indices, axis: int) -> tuple:
    """x, and the index with ``indices`` along ``axis`` and every place in the other axes."""
    x = as_operand(x)
    axis = one_axis(op, axis, x.ndim)
    x, (indices,) = _on_device(op, x, (_integers(op, indices),))
    if getattr(indices, "ndim", 0) != x.ndim:
        raise ValueError(
            f"{op}: indices has shape {getattr(indices, 'shape', ())} and x {x.shape}; expected as many axes"
        )
    xp = BACKENDS[type(indices)].xp
    arange = there(xp.arange, indices)
    grid = [arange(n).reshape((-1,) + (1,) * (x.ndim - 1 - i)) for i, n in enumerate(x.shape)]
    grid[axis] = indices
    return x, tuple(grid)


def _integers(op: str, indices):
    """``indices`` as one item of an index. A tuple would mean several axes, so it becomes an array."""
    if isinstance(indices, (list, tuple)):
        indices = list(indices)
    elif type(indices) is bool or getattr(indices, "dtype", INT).kind not in "iu":
        raise IndexError(f"{op}: indices are {getattr(indices, 'dtype', 'bool')}; expected integers")
    return indices


@on_its_card
def embedding(weight, indices, padding_idx=None):
    """Rows of ``weight``, (n, ...), for integer ``indices`` of any shape: y[k] = weight[indices[k]].

    The gradient adds up the rows of equal indices. The gradient of row ``padding_idx`` (-n to n - 1) is 0.
    Raises IndexError for indices outside 0 to n - 1. A GPU gives NaN instead, without gradient: nothing waits.
    """
    weight, (indices,) = _on_device("embedding", as_operand(weight), (_integers("embedding", indices),))
    n = weight.shape[0] if weight.ndim else 0
    if type(indices) is int:
        rows = take(weight, indices, axis=0)
    else:
        known = _check_range("embedding", indices, 0, n, "indices", f"weight has {n} rows", is_float(weight.dtype))
        rows = _only(known, gather(weight, index=(indices,)), weight.ndim - 1)
    if padding_idx is None:
        return rows
    if not -n <= as_int(padding_idx, "embedding: padding_idx") < n:
        raise IndexError(f"embedding: padding_idx is {padding_idx}; expected {-n} to {n - 1} (weight has {n} rows)")
    padding = BACKENDS[type(raw(weight))].xp.asarray(indices % n == padding_idx % n)
    return where(padding.reshape(padding.shape + (1,) * (weight.ndim - 1)), raw(rows), rows)


@no_derivative(formula=r"y_{kc} = [x_k = c]", source="the Iverson bracket", moves=True)
def one_hot(xp, indices, /, num_classes, dtype=None):
    """Ones at the integer labels ``indices``, (...), in zeros of shape (..., num_classes).

    dtype: float32 unless given. Raises TypeError for labels that are no integers, and IndexError for labels
    outside 0 to num_classes - 1. On a GPU their row is 0, as the bracket says: nothing waits for a check.
    """
    if indices.dtype.kind not in "iu":
        raise TypeError(f"one_hot: the labels are {indices.dtype}; expected integers")
    if BACKENDS[type(indices)].name == "cpu":
        _check_range("one_hot", indices, 0, num_classes, "labels", f"num_classes={num_classes}")
    return (indices[..., None] == xp.arange(num_classes)).astype(dtype or DEFAULT_FLOAT)


# --- functional assignment ----------------------------------------------------------------------------------


@linear(
    transpose=(
        lambda g, index: _index_update(g, 0, index=index),
        lambda g, value_shape, index: sum_to(g[index], value_shape),
    ),
    formula=r"y = x, \; y[i] = v:\quad \bar x = \bar y \text{ but } \bar x[i] = 0, \quad \bar v = \bar y[i]",
    source=SELECTION,
    moves=True,
)
def _index_update(xp, x, value, /, index):
    """A copy of x with ``value`` at x[index]."""
    y = x.copy()
    try:
        y[index] = value
    except ValueError:
        shape = getattr(value, "shape", ())
        raise ValueError(
            f"index_update: value has shape {shape}, which does not broadcast to {y[index].shape} of x[index]"
        ) from None
    return y


def index_update(x, index, value):
    """A copy of x in which x[index] = value. It is differentiable in x and in value.

    value: a number, or an array that broadcasts to x[index]; it takes the dtype of x (TypeError for floats
    into integers).
    If ``index`` names an element twice, the array library decides which value stays (in NumPy the last one), but each
    of them receives the gradient. So use distinct indices, or ``index_add``.

    >>> x = tg.zeros(3)
    >>> tg.index_update(x, 1, 5.0), x
    (Tensor([0., 5., 0.], dtype=float32), Tensor([0., 0., 0.], dtype=float32))
    """
    x, index = _on_device("index_update", as_operand(x), index, value)
    return _index_update(x, _ready("index_update", x, value), index=index)


def _ready(op: str, x, value):
    """``value`` in the form in which it can be put into x. A list goes to the device of x. Floats need a float x."""
    if isinstance(value, (list, tuple)):
        refuse_tracked(f"{op}: value", value, "join tensors with tg.stack")
        value = to_device(host_array(value), BACKENDS[type(x)].device_of(x) if type(x) in BACKENDS else x.device)
    if not is_float(x.dtype) and is_float(getattr(value, "dtype", numpy.dtype(type(value)))):
        raise TypeError(f"{op}: x is {x.dtype} and would cut off the fractions of value; use x.astype first")
    return value


@on_its_card
def index_add(x, index, value):
    """A copy of x with ``value`` added at x[index]; values for the same element are all added.

    value: a number, or an array that broadcasts to x[index]; it takes the dtype of x (TypeError for floats
    into integers).
    """
    x, index = _on_device("index_add", as_operand(x), index, value)
    array = raw(x)
    shape = array[index].shape
    value = _ready("index_add", x, value)
    if type(value) in (int, float, bool):
        value = BACKENDS[type(array)].xp.asarray(value, dtype=array.dtype)
    value = broadcast_to(as_operand(value), shape=shape)
    if value.dtype != array.dtype:
        value = value.astype(array.dtype)
    put = place if BASIC.issuperset(map(type, index)) else scatter_add
    return x + put(value, index=index, shape=array.shape)


# --- order --------------------------------------------------------------------------------------------------


@no_derivative(formula=r"\{i : x_i \ne 0\}", outputs="*")
def nonzero(xp, x):
    """The places where x is not zero: a tuple with one integer vector for each axis. The host waits for the device."""
    return xp.nonzero(x)


@no_derivative(formula=r"x_{i_0} \le x_{i_1} \le \ldots", moves=True)
def argsort(xp, x, axis=-1, descending=False):
    """The indices that sort x along ``axis``; equal elements keep their order. NaN counts as largest.

    Raises ValueError for a 0-d x.
    """
    if not x.ndim:
        raise ValueError("argsort: x is 0-d and has no axis to sort along; use x.reshape(1)")
    if not descending:
        return xp.argsort(x, axis=axis, kind="stable")
    return x.shape[axis] - 1 - xp.flip(xp.argsort(xp.flip(x, axis), axis=axis, kind="stable"), axis)


def sort(x, axis: int = -1, descending: bool = False):
    """x sorted along ``axis``. Equal elements keep their order. The gradient goes to where each element came from."""
    x = as_operand(x)
    return take_along_axis(x, argsort(x, axis=axis, descending=descending), axis)
