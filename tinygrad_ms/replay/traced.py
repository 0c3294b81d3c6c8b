"""The recording array. It stands for an array of NumPy, CuPy or a test device, and records every call that it sees.

The registry gets one more array type for each library that is recorded. A recording array answers every question like
the array that it stands for. It computes at once, and tells its trace the function and the arguments. Reading it as a
number of Python raises ``Untraceable``. So no value of a step can leave the list unseen.
"""

import operator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, Backend
from tinygrad_ms.ops.fused import find
from tinygrad_ms.replay.refusal import Untraceable, user_line

active: ContextVar[Any] = ContextVar("tinygrad_ms.trace", default=None)  # the trace that is recorded in this thread


class Traced:
    """An array in a trace. ``inner``: the array, or the NumPy scalar, that it stands for."""

    __slots__ = ("inner", "value", "trace", "__weakref__")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 10_000
    shape: Any
    dtype: Any
    copy: Any

    def __init__(self, inner, value, trace):
        self.inner, self.value, self.trace = inner, value, trace

    @property  # type: ignore[misc]
    def __class__(self):
        """The type that is recorded. ``isinstance`` sees it."""
        return type(self.inner)

    @property
    def base(self):
        """Never None, because the memory belongs to the array that it stands for. So nobody takes it over."""
        return self.inner

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if "out" in kwargs and isinstance(kwargs["out"], tuple) and len(kwargs["out"]) == 1:
            (kwargs["out"],) = kwargs["out"]
        return self.trace.call(ufunc if method == "__call__" else getattr(ufunc, method), inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        return self.trace.call(function, args, kwargs)

    def __array__(self, *args, **kwargs):
        if not self.trace.open:
            return numpy.asarray(self.inner, *args, **kwargs)
        raise read()

    def __bool__(self):
        return self.trace.truth(self)

    def __len__(self):
        return len(self.inner)

    def __iter__(self):
        return (self[i] for i in range(len(self.inner)))

    def __getitem__(self, key):
        return self.trace.call(operator.getitem, (self, key), {})

    def __setitem__(self, key, value):
        self.trace.call(operator.setitem, (self, key, value), {})

    def __pow__(self, other):
        if type(self.inner) is numpy.ndarray and type(other) in (int, float) and other in POWERS:
            return self.trace.call(POWERS[other], (self,), {})  # NumPy does the same
        return NotImplemented if leaves_to(other) else self.trace.call(operator.pow, (self, other), {})

    def __ipow__(self, other):
        return self.trace.call(ufunc_of(self, "power"), (self, other), {"out": self})

    def __rpow__(self, other):
        return self.trace.call(operator.pow, (other, self), {})

    def __repr__(self):
        return f"<{self.value} {self.dtype} {self.shape}>"

    def __format__(self, spec):  # for a message; nothing is computed from it
        return format(self.inner, spec)

    def __copy__(self):
        return self.copy()

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        raise read()


POWERS = {2: numpy.square, 0.5: numpy.sqrt, -1: numpy.reciprocal}


def leaves_to(other) -> bool:
    """Whether the other operand, such as a Tensor, computes the operator."""
    return getattr(other, "__array_ufunc__", 0) is None


def read(line="") -> Untraceable:
    return Untraceable(
        f"compile: {line or user_line()}: the values of a tensor are read here as numbers, which a replay would not do"
        " again"
    )


def ufunc_of(x, name):
    return getattr(BACKENDS[type(x.inner)].xp if type(x.inner) in BACKENDS else numpy, name)


def _binary(name, reflected=False):
    def method(self, other):
        if leaves_to(other):
            return NotImplemented
        return self.trace.call(ufunc_of(self, name), (other, self) if reflected else (self, other), {})

    return method


def _in_place(name):
    def method(self, other):
        if type(self.inner) not in BACKENDS:  # a scalar
            return self.trace.call(ufunc_of(self, name), (self, other), {})
        return self.trace.call(ufunc_of(self, name), (self, other), {"out": self})

    return method


def _unary(name):
    return lambda self: self.trace.call(ufunc_of(self, name), (self,), {})


def _method(name):
    return lambda self, *args, **kwargs: self.trace.call(name, (self, *args), kwargs)


def _reader(function):
    def method(self, *args):
        if not self.trace.open:
            return function(self.inner, *args)
        raise read()

    return method


def _attach():
    for name in "shape dtype ndim size nbytes itemsize strides flags device".split():
        setattr(Traced, name, property(operator.attrgetter(f"inner.{name}")))
    for name in "T mT real imag".split():
        setattr(Traced, name, property(_method(name)))
    for name in """all any argmax argmin argpartition argsort astype byteswap choose clip compress conj copy cumprod
                   cumsum diagonal dot fill flatten max mean min nonzero partition prod put ravel repeat reshape round
                   searchsorted sort squeeze std sum swapaxes take trace transpose var view""".split():
        if name != "trace":  # that is a slot of Traced
            setattr(Traced, name, _method(name))
    ufuncs = {
        "add": "add", "sub": "subtract", "mul": "multiply", "matmul": "matmul", "truediv": "divide",
        "floordiv": "floor_divide", "mod": "remainder", "and": "bitwise_and", "or": "bitwise_or",
        "xor": "bitwise_xor", "lshift": "left_shift", "rshift": "right_shift",
    }  # fmt: skip
    for name, ufunc in ufuncs.items():
        setattr(Traced, f"__{name}__", _binary(ufunc))
        setattr(Traced, f"__r{name}__", _binary(ufunc, reflected=True))
        setattr(Traced, f"__i{name}__", _in_place(ufunc))
    for name, ufunc in dict(
        eq="equal", ne="not_equal", lt="less", le="less_equal", gt="greater", ge="greater_equal"
    ).items():
        setattr(Traced, f"__{name}__", _binary(ufunc))
    for name, ufunc in dict(neg="negative", pos="positive", abs="absolute", invert="invert").items():
        setattr(Traced, f"__{name}__", _unary(ufunc))
    readers = dict(item="item", tolist="tolist", tobytes="tobytes", get="get", __contains__="__contains__")
    for name, method in readers.items():
        setattr(Traced, name, _reader(lambda x, *args, method=method: getattr(x, method)(*args)))
    for function in (int, float, complex, operator.index):
        setattr(Traced, f"__{function.__name__}__", _reader(function))


_attach()


# --- the libraries of recording arrays --------------------------------------------------------------------------------


class Library:
    """``xp`` of recording arrays: the functions of a library. Each call goes to the active trace."""

    def __init__(self, real):
        self.records = real

    def __getattr__(self, name):
        found = getattr(self.records, name)
        if isinstance(found, ModuleType) or type(found).__name__ == "SimpleNamespace":
            found = Library(found)
        elif callable(found) and (not isinstance(found, type) or name == "empty"):
            found = function_of(found)
        setattr(self, name, found)
        return found


class function_of:
    """A function of a library. The trace sees its calls, and those of its methods if it is a ufunc."""

    def __init__(self, function):
        self._function, self.__name__ = function, getattr(function, "__name__", "function")

    def __call__(self, *args, **kwargs):
        trace, function = active.get(), self._function
        if trace is None or trace.hidden:
            return function(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})
        count = getattr(function, "nin", None)
        if count is not None and len(args) == count + 1:
            args, kwargs = args[:count], {**kwargs, "out": args[count]}
        return trace.call(function, args, kwargs)

    def __getattr__(self, name):
        return function_of(getattr(self._function, name))


def plain(x):
    """A value with raw arrays instead of recording arrays."""
    if type(x) in KINDS:
        return x.inner
    if type(x) in (tuple, list):
        return type(x)([plain(item) for item in x])
    return x


KINDS: set[type] = set()  # the types of recording arrays
_kind_of: dict[type, type] = {}  # recorded type -> type of the recording array


class TracedScalar(Traced):
    """A NumPy scalar in a trace. Like a scalar, it is not an array."""

    __slots__ = ()


KINDS.add(TracedScalar)


def recording_type(real: Backend) -> type:
    """The type that records the arrays of a backend. The first call makes and registers it."""
    kind = _kind_of.get(real.array_type)
    if kind is None:
        kind = type("Traced", (Traced,), {"__slots__": ()})
        BACKENDS[kind] = Backend(
            real.name, Library(real.xp), kind, real.from_host, _to_host, lambda a: real.index_of(a.inner),
            real.multi_device, recorder,
        )  # fmt: skip
        _kind_of[real.array_type] = kind
        KINDS.add(kind)
    return kind


def _to_host(x):
    if not x.trace.open:
        return BACKENDS[type(x.inner)].to_host(x.inner)
    raise read()


class recorder:
    """What the engine asks of recording arrays, but of no others (``Backend.recorder``)."""

    @staticmethod
    def run(primitive, arrays, constants):
        """Run the forward of an op. The active trace sees it."""
        if (trace := active.get()) is not None:
            return trace.run_op(primitive, arrays, constants)
        real = next(BACKENDS[type(plain(a))] for a in arrays if type(plain(a)) in BACKENDS)
        return primitive.forward(real.xp, *map(plain, arrays), **{k: plain(v) for k, v in constants.items()})

    @staticmethod
    def lift(arrays):
        """The arguments of an op, with recording arrays instead of plain ones."""
        trace = active.get()
        if trace is None:
            return arrays
        return [trace.lift(x) if type(x) in BACKENDS and type(x) not in KINDS else x for x in arrays]

    @staticmethod
    def kernel(name, *arrays):
        """The compiled kernel of that name, if there is one for these arrays; a recording notes its call."""
        kernel, trace = find(name, *map(plain, arrays)), active.get()
        if kernel is None or trace is None or not trace.open or trace.hidden:
            return kernel and (lambda *given: kernel(*map(plain, given)))
        return trace.kernel(kernel)

    @staticmethod
    def numbers(optimizer, p, options, state):
        """The factors of an update, as arrays that each replay fills again."""
        return p.trace.numbers(optimizer, p, options, state)
