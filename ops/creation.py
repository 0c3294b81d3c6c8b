"""Constructors of tensors: zeros, ones, ranges, random numbers. They have no derivative.

The values are made in host memory by NumPy, so that every device gets equal numbers, and then placed on
``device``; zeros and ones are made there. The constructors that end in ``_like`` work where their argument
lives: a Tensor gives a Tensor, a raw array a raw array.
"""

from operator import index as as_int

import numpy

from tinygrad_ms.arrays.devices import default_device, parse_device, to_device
from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, as_dtype, is_host_value
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import card, there
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops.live import live
from tinygrad_ms.random import drawing, generator

__all__ = [
    "arange", "eye", "full", "full_like", "linspace", "ones", "ones_like", "rand", "randn", "zeros",
    "zeros_like",
]  # fmt: skip


def as_shape(*shape) -> tuple[int, ...]:
    """The sizes: ``f(2, 3)``, ``f((2, 3))`` and ``f([2, 3])`` mean the same."""
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    try:
        return tuple(map(as_int, sizes))
    except TypeError:
        raise TypeError(f"a shape or a list of axes is made of integers; got {sizes!r}") from None


def _place(host, device, requires_grad, made_by="") -> Tensor:
    """The array on the device. ``made_by``: the function that makes it there, where nothing need be copied."""
    backend, index = parse_device(device := default_device() if device is None else device)
    if not made_by or backend.name == "cpu":
        result = Tensor(to_device(host, device))
    else:
        with card(backend, index):
            result = Tensor(getattr(backend.xp, made_by)(host.shape, host.dtype))
    result.requires_grad = requires_grad
    return result


def _default_dtype(host):
    """Python floats become float32; integers and booleans get NumPy's dtype."""
    return host.astype(DEFAULT_FLOAT, copy=False) if host.dtype.kind == "f" else host


def _filled(op, shape, value, dtype, default=DEFAULT_FLOAT):
    if isinstance(dtype, int):  # zeros(2, 3)
        raise TypeError(f"{op}: dtype={dtype!r}; a shape of several axes is one tuple: {op}(({shape!r}, {dtype!r}))")
    refuse_tracked(op, value, "use tg.broadcast_to")
    try:
        return numpy.full(shape, value, as_dtype(dtype) if dtype is not None else default)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{op}: {error} (shape={shape!r})") from None


@live("makes")
def zeros(shape, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """Zeros of ``shape`` (an int or a tuple); float32 and on the default device unless told otherwise."""
    return _place(_filled("zeros", shape, 0, dtype), device, requires_grad, "zeros")


@live("makes")
def ones(shape, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """Ones of ``shape`` (an int or a tuple); float32 and on the default device unless told otherwise."""
    return _place(_filled("ones", shape, 1, dtype), device, requires_grad, "ones")


@live("makes")
def full(shape, value, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """The number ``value`` in every element. Without ``dtype``: float32, or int64 or bool for such a value."""
    host = _filled("full", shape, value, dtype, None)
    return _place(host if dtype or is_host_value(value) else _default_dtype(host), device, requires_grad)


def zeros_like(x, dtype=None, shape=None):
    """Zeros with the shape, dtype and device of x: a Tensor for a Tensor, else a raw array."""
    return full_like(x, 0, dtype, shape)


def ones_like(x, dtype=None, shape=None):
    """Ones with the shape, dtype and device of x: a Tensor for a Tensor, else a raw array."""
    return full_like(x, 1, dtype, shape)


def full_like(x, value, dtype=None, shape=None):
    """``value`` everywhere, in the shape, dtype and device of x: a Tensor for a Tensor, else a raw array."""
    if not isinstance(x, (Tensor, numpy.generic)) and type(x) not in BACKENDS:
        x = asarray(x)
    refuse_tracked("full_like", value, "use tg.broadcast_to")
    array = raw(x)
    xp = numpy if isinstance(array, numpy.generic) else BACKENDS[type(array)].xp
    result = there(xp.full, array)(array.shape if shape is None else shape, value, as_dtype(dtype or array.dtype))
    return Tensor(result) if isinstance(x, Tensor) else result


@live("makes")
def arange(start, stop=None, step=1, dtype=None, device=None) -> Tensor:
    """start, start + step, ... below ``stop``; int64 for integers, else float32. ``arange(n)``: from 0 on."""
    refuse_tracked("arange", [start, stop, step], "multiply tg.arange(n) by the tensor")
    host = numpy.arange(start, stop, step) if stop is not None else numpy.arange(0, start, step)
    return _place(host.astype(as_dtype(dtype)) if dtype else _default_dtype(host), device, False)


@live("makes")
def linspace(start, stop, num: int = 50, dtype=None, device=None, endpoint: bool = True) -> Tensor:
    """``num`` evenly spaced numbers from ``start`` to ``stop``, with ``stop`` the last if ``endpoint``."""
    refuse_tracked("linspace", [start, stop], "use start + (stop - start) * tg.linspace(0, 1, num)")
    return _place(numpy.linspace(start, stop, num, endpoint).astype(as_dtype(dtype or DEFAULT_FLOAT)), device, False)


@live("makes")
def eye(n: int, m: int | None = None, k: int = 0, dtype=None, device=None) -> Tensor:
    """The (n, m) matrix with ones on its k-th diagonal; square unless ``m`` is given."""
    return _place(numpy.eye(n, m, k, as_dtype(dtype or DEFAULT_FLOAT)), device, False)


@live("draws")
def rand(*shape, rng=None, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """Uniform random numbers in [0, 1): ``rand(2, 3)``.

    rng: an int (a seed), a ``numpy.random.Generator``, or None for the default one (``manual_seed``).
    The numbers are drawn as float64 on the host: one seed gives the same on every device, and, but for
    rounding, in every dtype.
    """
    with drawing(generator(rng)) as numbers:
        host = numbers.random(as_shape(*shape))
    return _place(host.astype(as_dtype(dtype or DEFAULT_FLOAT)), device, requires_grad)


@live("draws")
def randn(*shape, rng=None, dtype=None, device=None, requires_grad: bool = False) -> Tensor:
    """Random numbers of the standard normal distribution: ``randn(2, 3)``. ``rng`` as for ``rand``."""
    with drawing(generator(rng)) as numbers:
        host = numbers.standard_normal(as_shape(*shape))
    return _place(host.astype(as_dtype(dtype or DEFAULT_FLOAT)), device, requires_grad)
