"""The strict device: NumPy that behaves as CuPy 14 does wherever the two differ.

What passes here runs on CuPy, though no GPU is present. `xp` stands for the module `cupy`, `ndarray` for
`cupy.ndarray`. These differences from NumPy are reproduced:

- arrays never become NumPy arrays by themselves; NumPy arrays and lists are refused as operands and values;
- reductions and `x[0, 0]` give 0-d arrays; there is no `__index__`; reading a value on the host is a
  synchronisation, which `STATS` counts and `forbid_sync()` forbids;
- host data is copied, never aliased; `empty` holds NaN instead of lucky zeros;
- integer-array indices wrap around; of several assignments to one place any may win (here the first does);
- float -> integer casts saturate; nothing warns; linear algebra gives NaN where NumPy raises LinAlgError, and the
  vectors of `eigh` and `svd` have other signs;
- elementwise kernels take subnormal float32 numbers for 0 (``-ftz=true``); an integer power with a negative exponent
  is 0, 1 or -1; the remainder of floats is a - floor(a / b) b; reductions of a 0-d array over axis 0 or -1 raise;
- results land on the current device (``Device``), whichever their operands are on, and a kernel refuses operands on
  another one, as on cards without access to each other: ``tinygrad_ms.testing.two_devices`` gives a second device;
- names, keywords and ufunc methods that CuPy lacks are missing (`tinygrad_ms.testing.cupy_gaps`).

Not modelled: reductions that flush subnormal numbers, streams, asynchronous errors, memory pools, the memory order of
results, copies between overlapping views.
"""

import operator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from tinygrad_ms.ops.fused.devices.kernel import FUNCTIONS
from tinygrad_ms.precision import current as precision
from tinygrad_ms.testing import cupy_gaps as gaps
from tinygrad_ms.testing.cupy_launches import launches, of_index

__all__ = [
    "STATS", "Device", "SyncForbidden", "array", "asarray", "asnumpy", "forbid_sync", "gemm", "launch", "ndarray",
    "one_launch", "reset_stats", "xp",
]  # fmt: skip

STATS = SimpleNamespace(calls=0, sync=0, h2d=0, d2h=0)
"""Counts since `reset_stats()`: kernel launches, synchronisations, copies to the device and to the host."""

_sync_forbidden: ContextVar[bool] = ContextVar("sync_forbidden", default=False)


class SyncForbidden(RuntimeError):
    """Something inside `forbid_sync()` made the host wait for the device."""


def reset_stats():
    """Set every counter of `STATS` to 0."""
    STATS.calls = STATS.sync = STATS.h2d = STATS.d2h = 0


@contextmanager
def forbid_sync():
    """Raise SyncForbidden at every synchronisation inside the block, in this thread or async task."""
    token = _sync_forbidden.set(True)
    try:
        yield
    finally:
        _sync_forbidden.reset(token)


def _synchronize(what):
    if _sync_forbidden.get():
        raise SyncForbidden(
            f"{what} makes the host wait for the device, which forbid_sync() forbids here: "
            "keep the value on the device, or read it after the block"
        )
    STATS.sync += 1


# -- Devices -------------------------------------------------------------------------------------------------

_current: ContextVar[int] = ContextVar("current_device", default=0)


class Device:
    """`cupy.cuda.Device`: a context in which the device of that number is the current one."""

    def __init__(self, number):
        self.id, self._tokens = number, []

    def __enter__(self):
        self._tokens.append(_current.set(self.id))
        return self

    def __exit__(self, *exception):
        _current.reset(self._tokens.pop())


def _check_device(x):
    if x._device != _current.get():
        raise ValueError(
            "Array device must be same as the current device: "
            f"array device = {x._device} while current = {_current.get()}"
        )


# -- In and out of the wrapper -------------------------------------------------------------------------------

_PYTHON_SCALARS = (bool, int, float, complex)
_SCALARS = frozenset(_PYTHON_SCALARS) | {np.dtype(code).type for code in "?bhilqBHILQefdFD"}


def _wrap(a, base=None):
    """A strict array around `a` without a copy; a scalar becomes a 0-d array."""
    self = object.__new__(ndarray)
    self._a = a if type(a) is np.ndarray else np.asarray(a)
    self._base = base
    self._device = _current.get() if base is None else base._device
    return self


def _unsupported(x):
    return TypeError(f"Unsupported type {type(x)}")


def _operand(x):
    """What NumPy gets for an operand: device arrays and scalars pass, everything else is refused."""
    if type(x) is ndarray:
        _check_device(x)
        return x._a
    if type(x) in _SCALARS:
        return x
    raise _unsupported(x)


def _argument(x):
    """As `_operand`; None, strings and sequences of device arrays pass as well."""
    if isinstance(x, (list, tuple)):
        for item in x:
            if type(item) is not ndarray:
                raise _unsupported(item if isinstance(item, np.ndarray) else x)
        return [item._a for item in x]
    if type(x) is ndarray:
        return x._a
    return x if x is None or isinstance(x, str) else _operand(x)


def _arrays(operands):
    for x in operands:
        if type(x) is ndarray:
            yield x
        elif isinstance(x, (list, tuple)):
            yield from _arrays(x)


def _host(x):
    """Host data, or lists that may hold device arrays, as NumPy can read it."""
    if isinstance(x, (list, tuple)):
        return [_host(item) for item in x]
    return x._a if type(x) is ndarray else x


def _result(r, operands=()):
    """Wrap what NumPy returned; an operand that came back is itself again, a view gets its base."""
    if isinstance(r, (tuple, list)):
        return (list if isinstance(r, list) else tuple)(_result(item, operands) for item in r)
    if type(r) is np.ndarray:
        for operand in operands:
            for x in operand if isinstance(operand, (list, tuple)) else (operand,):
                if type(x) is ndarray:
                    if x._a is r:
                        return x
                    if r.base is not None and np.may_share_memory(r, x._a):
                        return _wrap(r, x._owner())
        return _wrap(r)
    return _wrap(r) if isinstance(r, np.generic) or type(r) in _PYTHON_SCALARS else r


_SMALLEST = np.finfo(np.float32).smallest_normal


def _flush(a):
    """What an elementwise kernel sees, or writes: float32 numbers below the normal ones are 0 (`-ftz=true`)."""
    if not isinstance(a, (np.ndarray, np.generic)) or a.dtype != np.float32:
        return a
    small = (np.abs(a) < _SMALLEST) & (a != 0)
    return np.where(small, np.copysign(np.float32(0), a), a) if small.any() else a


def _factor(a):
    """What a product of float32 sees: under `tg.matmul_precision("tf32")` numbers of 10 bits of fraction."""
    if precision() == "float32" or type(a) is not np.ndarray or a.dtype != np.float32:
        return a
    bits = a.view(np.uint32) if a.ndim else a.reshape(1).view(np.uint32).reshape(())
    rounded = (bits + np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(a), rounded.view(np.float32), a)


def _settle(a):
    """`_flush` in place."""
    if (flushed := _flush(a)) is not a:
        a[...] = flushed


def _power(a, b, **options):
    """`cupy.power`: of integers with a negative exponent 1 or -1 for these bases, else 0."""
    dtype = np.result_type(a, b)
    if dtype.kind not in "iu" or not (negative := np.less(b, 0)).any():
        return np.power(a, b, **options)
    whole = np.asarray(np.power(a, np.where(negative, 0, b).astype(dtype), **options))
    unit = np.where(np.equal(a, -1), np.where(np.remainder(b, 2) == 0, 1, -1), np.equal(a, 1))
    whole[...] = np.where(negative, unit, whole)
    return whole


def _floor_divide(a, b, **options):
    """`cupy.floor_divide`: floor(a / b) in floats, where NumPy corrects the quotient by the remainder."""
    if np.result_type(a, b).kind != "f":
        return np.floor_divide(a, b, **options)
    return np.floor(np.divide(a, b), **options)


def _remainder(a, b, **options):
    """`cupy.remainder`: a - floor(a / b) b in floats."""
    if np.result_type(a, b).kind != "f":
        return np.remainder(a, b, **options)
    return np.subtract(a, _floor_divide(a, b) * b, **options)


def _divmod(a, b):
    return _floor_divide(a, b), _remainder(a, b)


def _supported(dtype):
    dtype = np.dtype(dtype)
    if dtype.name != "bfloat16" and (dtype.kind not in "biufc" or dtype.char in "gG"):
        raise ValueError(f"Unsupported dtype {dtype}")
    return dtype


def _cast(a, dtype, order="K"):
    """`a.astype(dtype)` as in CUDA: float -> integer saturates at 32 or 64 bits, narrower ones then wrap."""
    dtype = _supported(dtype)
    with np.errstate(all="ignore"):
        if a.dtype.kind != "f" or dtype.kind not in "iu":
            return a.astype(dtype, order=order)
        wide = np.dtype(f"{dtype.kind}{max(dtype.itemsize, 4)}")
        low, high = int(np.iinfo(wide).min), int(np.iinfo(wide).max)
        r = a.astype(wide, order=order)
        r[a <= low], r[a >= float(high)] = low, high
        # PTX ISA, cvt: NaN becomes 0 between 32-bit types, the top bit alone where 64 bits take part.
        r[np.isnan(a)] = 0 if max(a.dtype.itemsize, wide.itemsize) < 8 else low or (high + 1) // 2
        return r.astype(dtype, copy=False)


def _poison(a):
    """Fill fresh memory with values that no test overlooks."""
    a.fill(np.nan if a.dtype.kind in "fcV" else True if a.dtype.kind == "b" else np.iinfo(a.dtype).max)
    return a


def _function(name, f):
    """NumPy's function or method `f` on device arrays, with CuPy's restrictions on its arguments."""
    missing = frozenset(key for key, names in gaps.MISSING_KEYWORDS.items() if name in names)
    count = gaps.ARRAY_ARGUMENTS.get(name, 1)

    def call(*args, **kwargs):
        raw, named = [_argument(x) for x in args[:count]], kwargs
        if raw and type(raw[0]) in _SCALARS:
            raise _unsupported(raw[0])
        if kwargs:
            for key in missing.intersection(kwargs):
                raise TypeError(f"{name}() got an unexpected keyword argument {key!r}")
            named = {
                k: _operand(v) if k != "axis" and isinstance(v, (ndarray, np.ndarray)) else v for k, v in kwargs.items()
            }
        if name in gaps.SYNCHRONIZING or (name == "where" and len(args) == 1):
            _synchronize(f"{name}()")
        if name in gaps.REDUCTIONS and raw[0].ndim == 0:
            axis = kwargs.get("axis", args[1] if len(args) > 1 else None)
            if axis not in (None, ()):
                raise np.exceptions.AxisError(f"axis {axis} is out of bounds for array of dimension 0")
        if name in gaps.PRODUCTS:
            raw = [_factor(x) for x in raw]
        with np.errstate(all="ignore"):
            r = f(*raw, *args[count:], **named)
        STATS.calls += launches(name, raw, r, named.get("out"))
        result = _result(r, (*args, *kwargs.values()))
        if type(result) is not ndarray or result._base is None:  # a view needs no kernel
            for x in _arrays((*args, *kwargs.values())):
                if name not in gaps.LIKES:
                    _check_device(x)
        return result

    call.__name__ = call.__qualname__ = name
    return call


# -- The array -----------------------------------------------------------------------------------------------


def _yields_to(other):
    """Whether an operator leaves the work to that of `other`: by NEP 13, else by `__array_priority__`."""
    try:
        return other.__array_ufunc__ is None
    except AttributeError:
        return getattr(other, "__array_priority__", 0) > ndarray.__array_priority__


def _operator(f, reflected=False, inplace=False):
    def method(self, other):
        if type(other) is not ndarray and type(other) not in _SCALARS and _yields_to(other):
            return NotImplemented
        a, b = _operand(self), _operand(other)
        STATS.calls += launches(f.__name__, (a, b), None)
        a, b = map(_factor if f is np.matmul else _flush, (a, b))
        with np.errstate(all="ignore"):
            if inplace:
                f(a, b, out=self._a)
                if f is not np.matmul:
                    _settle(self._a)
                return self
            r = f(b, a) if reflected else f(a, b)
            return _result(r if f is np.matmul else _flush(r))

    return method


def _index(shape, key):
    """(key for NumPy with integer arrays wrapped into their axes, how many arrays it has, whether a mask)."""
    items = list(key) if isinstance(key, tuple) else [key]
    arrays, masks = 0, False
    for i, k in enumerate(items):
        if k is None or k is Ellipsis or isinstance(k, (slice, np.integer)) or type(k) is int:
            continue
        if isinstance(k, (bool, np.bool_, list, tuple, np.ndarray)):
            STATS.h2d += 1  # CuPy copies these to the device silently
            k = np.array(_host(k))
            k = k.astype(int) if isinstance(items[i], (list, tuple)) and k.size == 0 else k
        elif type(k) is ndarray:
            k = _operand(k)
        if not isinstance(k, np.ndarray) or k.dtype.kind not in "biu":
            what = k.dtype if isinstance(k, np.ndarray) else type(k)
            raise IndexError(f"indices are integers, slices, None, Ellipsis, integer or bool arrays: {what}")
        items[i], arrays, masks = k, arrays + 1, masks or k.dtype.kind == "b"
    if masks:
        _synchronize("a boolean mask as index")
    if arrays:
        widths = [
            0 if k is None or k is Ellipsis else k.ndim if isinstance(k, np.ndarray) and k.dtype.kind == "b" else 1
            for k in items
        ]
        axis = 0
        for i, (k, width) in enumerate(zip(items, widths, strict=True)):
            if k is Ellipsis:
                width = len(shape) - sum(widths)
            elif isinstance(k, np.ndarray) and k.dtype.kind != "b" and axis < len(shape) and shape[axis]:
                items[i] = k.astype(np.intp) % shape[axis]
            axis += width
    return tuple(items), arrays, masks


class ndarray:
    """An array of the strict device. `ndarray(shape, dtype)` is uninitialised; use `asarray` for host data.

    `base` is the array whose memory a view shows, None for an owner. Methods and operators come from below.
    """

    __slots__ = ("_a", "_base", "_device", "__weakref__")
    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]
    get: Any

    def __init__(self, shape, dtype=float, order="C"):
        self._a, self._base = _poison(np.empty(shape, _supported(dtype), order)), None
        self._device = _current.get()

    base = property(lambda self: self._base)
    device = property(lambda self: Device(self._device))

    def _owner(self):
        return self if self._base is None else self._base

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    # NumPy's functions on device arrays are sent on to their namesakes here, as CuPy does.
    def __array_ufunc__(self, f, method, *inputs, **kwargs):
        f = getattr(xp, f.__name__, None)
        known = all(type(x) in _SCALARS or isinstance(x, (ndarray, np.ndarray)) for x in inputs)
        if f is None or method not in ("__call__", "at") or not known:
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return (f if method == "__call__" else f.at)(*inputs, **kwargs)

    def __array_function__(self, f, types, args, kwargs):
        module = xp
        for part in f.__module__.split(".")[1:]:
            module = getattr(module, part, None)
        f = getattr(module, f.__name__, None)
        known = all(issubclass(t, (ndarray, np.ndarray)) for t in types)
        return f(*args, **kwargs) if f is not None and known else NotImplemented

    def __reduce__(self):
        return array, (self.get(),)

    def __copy__(self):
        return array(self)

    def __deepcopy__(self, memo):
        return array(self)

    def __len__(self):
        return len(self._a)

    def __iter__(self):
        return (self[i] for i in range(len(self._a)))

    def __getitem__(self, key):
        key, arrays, _ = _index(self._a.shape, key)
        if arrays:
            _check_device(self)
            STATS.calls += of_index(arrays)
            return _wrap(np.array(self._a[key]))
        if not any(k is Ellipsis for k in key):
            key += (Ellipsis,)  # makes x[0, 0] a 0-d view, not a scalar
        return _wrap(self._a[key], self._owner())

    def __setitem__(self, key, value):
        a = _operand(self)
        key, arrays, masks = _index(a.shape, key)
        STATS.calls += of_index(arrays)
        if type(value) is ndarray:
            value = _cast(_operand(value), a.dtype)
        elif arrays and type(value) not in _SCALARS:
            STATS.h2d += 1  # here CuPy converts what it refuses under plain indices
            value = np.array(_host(value), a.dtype)
        elif not isinstance(value, np.ndarray):
            value = _operand(value)
        elif value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if not arrays or masks:
            a[key] = value
        else:  # the places in reverse, so that the first of several values for one place wins, not the last
            places = np.arange(a.size).reshape(a.shape)[key]
            values = np.empty(places.shape, a.dtype)
            values[...] = value
            np.put(a, places.ravel()[::-1], values.ravel()[::-1])

    def fill(self, value):
        self[...] = value

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if casting is not None and not np.can_cast(self._a.dtype, dtype, casting):
            raise TypeError(f"astype: cannot cast {self._a.dtype} to {dtype} under casting={casting!r}")
        if copy or self._a.dtype != dtype:
            _check_device(self)
        return array(self, dtype, copy, order)

    def copy(self, order="C"):
        """A copy on the current device, also from another one."""
        return array(self, order=order)

    def take(self, indices, axis=None, out=None):
        return _take(self, indices, axis, out)


def _attach():
    for name in "shape dtype ndim size nbytes itemsize strides flags".split():
        setattr(ndarray, name, property(operator.attrgetter(f"_a.{name}")))

    def part(name):
        return property(lambda self: _result(getattr(self._a, name), (self,)))

    for name in "T mT real imag".split():
        setattr(ndarray, name, part(name))
    for name in """all any argmax argmin argpartition argsort choose clip compress conj cumprod cumsum
                   diagonal dot flatten max mean min nonzero partition prod ravel repeat reshape round
                   searchsorted sort squeeze std sum swapaxes trace transpose var view""".split():
        setattr(ndarray, name, _function(name, getattr(np.ndarray, name)))

    def reader(name, f):
        def read(self, *args):
            _synchronize(f"{name.strip('_')}()")
            STATS.d2h += 1
            return f(self._a, *args)

        return read

    for f in (bool, int, float, complex, repr, str, format):
        setattr(ndarray, f"__{f.__name__}__", reader(f.__name__, f))
    for name in ("item", "tolist", "tobytes"):
        setattr(ndarray, name, reader(name, getattr(np.ndarray, name)))
    ndarray.get = reader("get", np.ndarray.copy)

    ufuncs: dict[str, Any] = {
        "add": np.add, "sub": np.subtract, "mul": np.multiply, "matmul": np.matmul, "pow": _power,
        "truediv": np.divide, "floordiv": _floor_divide, "mod": _remainder, "divmod": _divmod,
        "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift,
        "rshift": np.right_shift,
    }  # fmt: skip
    for name, g in ufuncs.items():
        setattr(ndarray, f"__{name}__", _operator(g))
        setattr(ndarray, f"__r{name}__", _operator(g, reflected=True))
        if name not in ("matmul", "divmod"):
            setattr(ndarray, f"__i{name}__", _operator(g, inplace=True))
    for name in ("lt", "le", "eq", "ne", "gt", "ge"):
        setattr(ndarray, f"__{name}__", _operator(getattr(operator, name)))
    for name in ("neg", "pos", "abs", "invert"):
        setattr(ndarray, f"__{name}__", _function(name, getattr(operator, name)))


_attach()


# -- Functions that need more than unwrapping ----------------------------------------------------------------


def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False) -> Any:
    """`cupy.array`: always a copy of host data; a copy of a device array unless `copy` is false."""
    if type(obj) is ndarray:
        a, dtype = obj._a, obj._a.dtype if dtype is None else dtype
        if not copy and a.dtype == dtype and a.ndim >= ndmin and obj._device == _current.get():
            return obj
        STATS.calls += 1
        a = _cast(a, dtype, order)
    else:
        STATS.h2d += 1
        a = np.array(_host(obj), dtype, order=order)
        _supported(a.dtype)
    return _wrap(np.array(a, copy=None, ndmin=ndmin))


def asarray(obj, dtype=None, order=None, *, copy=None, blocking=False) -> Any:
    """`cupy.asarray`: a device array as it is; host data as a copy, never aliased."""
    return array(obj, dtype, bool(copy), order or "K")


def asnumpy(obj) -> np.ndarray:
    """`cupy.asnumpy`: a copy of a device array (synchronises); host data as `numpy.asarray` gives it."""
    return obj.get() if type(obj) is ndarray else np.asarray(obj)


def _empty_like(a, dtype=None, order="K", subok=None, shape=None):
    if type(a) is not ndarray:
        raise _unsupported(a)
    return _wrap(_poison(np.empty_like(a._a, dtype, order, shape=shape)))


def _full(shape, fill_value, dtype=None, order="C"):
    return _wrap(np.full(shape, _operand(fill_value), dtype, order))


def _take(a, indices, axis=None, out=None):
    if isinstance(indices, (list, tuple, np.ndarray)):
        indices = array(indices, int)
    index = _operand(indices)
    return _function("take", lambda x, out: np.take(x, index, axis, out, mode="wrap"))(a, out=out)


def _take_along_axis(a, indices, axis):
    wrapped = indices % (a.size if axis is None else a.shape[axis])
    return _function("take_along_axis", lambda x: np.take_along_axis(x, wrapped._a, axis))(a)


def _without_errors(f):
    """`f` on a stack of matrices, NaN where NumPy raises LinAlgError: CuPy ignores the status codes."""

    def call(a, *rest, **kwargs):
        square = f.__name__ not in ("svd", "pinv", "qr", "lstsq")
        try:
            return f(a, *rest, **kwargs)
        except np.linalg.LinAlgError:
            if a.ndim < 2 or (square and a.shape[-1] != a.shape[-2]):
                raise  # a wrong shape is an error on CuPy too
        probe = np.linalg.inv if f.__name__ == "solve" else lambda m: f(m, *rest, **kwargs)
        a, bad = a.copy(), np.zeros(a.shape[:-2], bool)
        for i in np.ndindex(bad.shape):
            try:
                probe(a[i])
            except np.linalg.LinAlgError:
                bad[i], a[i] = True, np.eye(*a.shape[-2:])
        r = f(a, *rest, **kwargs)
        parts = [np.array(part) for part in (r if isinstance(r, tuple) else (r,))]
        for part in parts:
            if part.dtype.kind in "fc" and part.shape[: bad.ndim] == bad.shape:
                part[bad] = np.nan
        return tuple(parts) if isinstance(r, tuple) else parts[0]

    call.__name__ = f.__name__
    return call


def _other_signs(f):
    """`f`, eigh or svd, with every second vector the other way round: cuSOLVER chooses other signs than LAPACK."""

    def call(*args, **kwargs):
        r = f(*args, **kwargs)
        if not isinstance(r, tuple):
            return r
        first, *rest = r
        k = min(first.shape[-1], rest[-1].shape[-2])
        signs = np.where(np.arange(k) % 2, -1, 1)
        vectors = [first] if f.__name__ == "svd" else [rest[-1]]
        for v in vectors:
            v[..., :k] *= signs.astype(v.dtype)
        if f.__name__ == "svd":
            rest[-1][..., :k, :] *= signs.astype(first.dtype)[:, None]
        return r

    call.__name__ = f.__name__
    return call


def _solve(a, b):
    if b.ndim > 1 and a.shape[:-1] != b.shape[:-1]:
        raise ValueError(
            f"solve: a has shape {a.shape} and b has shape {b.shape}: CuPy does not broadcast, "
            "it takes a (..., M, M) with b (M,) or b (..., M, K)"
        )
    return _without_errors(np.linalg.solve)(a, b)


class _Random:
    """Random numbers by CuPy's methods alone; for the same seed other numbers than NumPy's, as on the GPU."""

    _SALT = 0x5EED

    def __init__(self, title, make, seed, names):
        self._title, self._names = title, names
        self._source = make(None if seed is None else [seed, self._SALT])

    def __getattr__(self, name):
        if name not in self._names:
            raise AttributeError(f"{self._title} has no attribute {name!r}")

        def call(*args, dtype=None, **kwargs):
            STATS.calls += 1
            r = _result(getattr(self._source, name)(*map(_host, args), **kwargs))
            return r if dtype is None else r.astype(dtype)

        return call

    def seed(self, seed=None):
        self._source.seed(None if seed is None else [seed, self._SALT])

    def default_rng(self, seed=None):
        return _Random("'Generator' object", np.random.default_rng, seed, gaps.RANDOM_GENERATOR)


def gemm(call, a, b, out, alpha, beta):
    """What cuBLAS does with a `Gemm`; memory is read by steps alone."""
    STATS.calls += 1

    def matrices(x, operand, rows, columns):
        _check_device(x)
        start, turned, row, step = operand
        a = x._a
        steps = np.array((step, row, 1) if not turned else (step, 1, row)) * a.itemsize
        first = np.lib.stride_tricks.as_strided(a, (start + 1,), (a.itemsize,))[start:]
        return np.lib.stride_tricks.as_strided(first, (call.matrices, rows, columns), tuple(steps))

    left = _factor(matrices(a, call.a, call.rows, call.inner))
    right = _factor(matrices(b, call.b, call.inner, call.columns))
    y = matrices(out, call.out, call.rows, call.columns)
    exact = np.dtype("float32") if y.itemsize < 4 else y.dtype
    with np.errstate(all="ignore"):
        found = np.matmul(left.astype(exact, copy=False), right.astype(exact, copy=False)) * exact.type(alpha)
        y[...] = found if beta == 0 else found + exact.type(beta) * y


def launch(kernel, given):
    """A kernel of its own, as one launch: here its reference runs."""
    for x in _arrays(given):
        _check_device(x)
    one_launch(kernel.rule, xp, *given)


def one_launch(f, *args, **kwargs):
    """f(...) as one launch, whatever it calls."""
    before = STATS.calls
    try:
        return f(*args, **kwargs)
    finally:
        STATS.calls = before + 1


# -- The module facade ---------------------------------------------------------------------------------------


class ufunc:
    """A universal function with as much of NumPy's interface as CuPy has."""

    def __init__(self, f):
        self._f, self.__name__, self.nin, self.nout = f, f.__name__, f.nin, f.nout
        own = {"power": _power, "remainder": _remainder, "floor_divide": _floor_divide, "divmod": _divmod}
        self._call = own.get(f.__name__, f)

    def __call__(self, *args, **kwargs):
        STATS.calls += 1
        inputs, out = [_flush(_operand(x)) for x in args[: self.nin]], args[self.nin :]
        if kwargs:
            if kwargs.keys() - {"out", "dtype", "casting"}:
                raise TypeError(f"Wrong arguments {kwargs}")
            given = kwargs.pop("out", None)
            out = given if isinstance(given, tuple) else out if given is None else (given,)
        if out:
            kwargs["out"] = tuple(x if x is None else _operand(x) for x in out)
        with np.errstate(all="ignore"):
            r = self._call(*inputs, **kwargs)
        if out:
            for x in kwargs["out"]:
                if x is not None:
                    _settle(x)
        else:
            r = tuple(map(_flush, r)) if isinstance(r, tuple) else _flush(r)
        return _result(r, out)

    def __getattr__(self, method):
        if method not in ("reduce", "accumulate", "outer"):
            raise AttributeError(f"'ufunc' object has no attribute {method!r}")
        if method != "outer" and self.__name__ not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.__name__}.{method}` is not supported yet")
        return _function("outer" if method == "outer" else "sum", getattr(self._f, method))

    def at(self, a, indices, b):
        """Unbuffered `a[indices] = f(a[indices], b)`, for the dtypes that have the atomic instruction."""
        if self.__name__ not in gaps.UFUNC_AT:
            raise NotImplementedError(f"`cupy_{self.__name__}.at` is not supported yet")
        dtypes, raw = gaps.UFUNC_AT[self.__name__], _operand(a)
        if raw.dtype.name not in dtypes:
            raise TypeError(f"cupy.{self.__name__}.at supports {', '.join(sorted(dtypes))}, not {raw.dtype}")
        STATS.calls += 1
        values = np.asarray(b) if type(b) in _SCALARS else asarray(b)._a
        self._f.at(raw, _index(raw.shape, indices)[0], _cast(values, raw.dtype))


class RawModule:
    """`cupy.RawModule` for the kernels of the library: each runs its reference in NumPy and counts as one launch."""

    runs_references = True

    def __init__(self, code, options=()):
        pass

    def get_function(self, name):
        kernel, constants = FUNCTIONS[name]

        def launch(blocks, threads, args):
            STATS.calls += 1
            arrays = [_operand(x) for x in args if type(x) is ndarray]
            numbers = kernel.joined(constants, [x.item() for x in args[len(arrays) :]])
            with np.errstate(all="ignore"):
                found = kernel.reference(np, *arrays[: kernel.takes], *numbers)
            for array, value in zip(arrays[kernel.takes :], found, strict=True):
                array[...] = value
                _settle(array)

        return launch


class Namespace:
    """The facade of one module of NumPy: a name is adapted when first used, then kept as an attribute."""

    def __init__(self, name, source, missing=frozenset(), **special):
        self.__name__, self._source, self._missing = name, source, missing
        self.__dict__.update(special)

    def __getattr__(self, name):
        if name.startswith("_") or name in self._missing or not hasattr(self._source, name):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        f = getattr(self._source, name)
        constant = f is None or isinstance(f, (float, type))
        if name in gaps.NOT_MODELLED or isinstance(f, ModuleType) or not (constant or callable(f)):
            raise AttributeError(f"{self.__name__}.{name} is not modelled by the strict device")
        if name in gaps.HOST_FUNCTIONS:
            adapted = _on_host(f)
        elif isinstance(f, np.ufunc) and f.signature is None:
            adapted = ufunc(f)
        else:
            adapted = f if constant else _function(name, f)
        setattr(self, name, adapted)
        return adapted


def _on_host(f):
    return lambda *args, **kwargs: f(*(x._a if type(x) is ndarray else x for x in args), **kwargs)


xp: Any = Namespace(
    "cupy",
    np,
    gaps.MISSING,
    ndarray=ndarray,
    ufunc=ufunc,
    RawModule=RawModule,
    array=array,
    asarray=asarray,
    asanyarray=asarray,
    asnumpy=asnumpy,
    empty=ndarray,
    empty_like=_empty_like,
    full=_full,
    take=_take,
    take_along_axis=_take_along_axis,
    astype=lambda x, dtype, copy=True: x.astype(dtype, copy=copy),
    get_array_module=lambda *arrays: xp if ndarray in map(type, arrays) else np,
    lib=Namespace("cupy.lib", np.lib, stride_tricks=Namespace("cupy.lib.stride_tricks", np.lib.stride_tricks)),
    fft=Namespace("cupy.fft", np.fft, frozenset({"test"})),
    random=_Random("module 'cupy.random'", np.random.RandomState, None, gaps.RANDOM),
    linalg=Namespace(
        "cupy.linalg",
        np.linalg,
        gaps.MISSING_LINALG,
        solve=_function("solve", _solve),
        **{
            name: _function(name, _without_errors(getattr(np.linalg, name)))
            for name in "cholesky det eig eigvals eigvalsh inv lstsq pinv qr slogdet".split()
        },
        **{name: _function(name, _other_signs(_without_errors(getattr(np.linalg, name)))) for name in ("eigh", "svd")},
    ),
)
"""Stands for the module `cupy`."""
