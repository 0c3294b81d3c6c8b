"""Which array library and device an array belongs to: a registry array type -> Backend. The only file that imports CuPy."""

import ctypes
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import prod
from typing import Any

import numpy


@dataclass(frozen=True)
class Backend:
    """An array library with its doors to host memory (NumPy arrays)."""

    name: str  # the device family: "cpu", "cuda", "strict"
    xp: Any  # the namespace a forward takes its functions from
    array_type: type
    from_host: Callable  # (NumPy array, index of the device) -> array; always a copy
    to_host: Callable  # array -> NumPy array; NumPy's own arrays are returned as they are
    index_of: Callable = lambda array: 0  # which device of the family holds the array
    several: bool = False  # more than one device: mixing them must be checked

    def device_of(self, array) -> str:
        index = self.index_of(array)
        return f"{self.name}:{index}" if index else self.name


BACKENDS: dict[type, Backend] = {}  # by exact array type
_families: dict[str, Backend] = {}  # by device family
_cuda_problem: str | None = None  # why CuPy is not usable, once probed


def register(backend: Backend) -> None:
    """Make the arrays of ``backend`` usable in tensors, and its name usable as ``device=``."""
    BACKENDS[backend.array_type] = _families[backend.name] = backend


register(Backend("cpu", numpy, numpy.ndarray, lambda host, index: numpy.array(host), lambda array: array))


def _keep_freed_memory(size=2**28):
    """Let glibc keep up to ``size`` bytes of freed arrays for the next ones, which else cost a page fault every 4 KiB.

    It gives back what is free above 128 KiB, which made training steps up to twice as long. Its own environment
    variables (MALLOC_TRIM_THRESHOLD_ and the others) go before. Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
            mallopt(mmap_threshold, 2**25)  # larger arrays come from the system each time: this is glibc's limit
            mallopt(trim_threshold, size)


_keep_freed_memory()


def _probe_cuda() -> str | None:
    """Import CuPy once and run one kernel; None if it works, else the reason why not."""
    global _cuda_problem
    if "cuda" in _families:
        return None
    if _cuda_problem is None:
        if importlib.util.find_spec("cupy") is None:
            _cuda_problem = "CuPy is not installed (pip install 'tinygrad-ms[cuda13]', or [cuda12] for CUDA 12)"
            return _cuda_problem
        try:
            import cupy

            if not cupy.cuda.is_available():
                raise RuntimeError("no CUDA driver or device was found")
            int(cupy.arange(3).sum())  # a driver without NVRTC or headers fails only at the first kernel
        except Exception as error:
            _cuda_problem = f"CuPy is installed, but {type(error).__name__}: {error}"
            return _cuda_problem

        def from_host(host, index):
            with cupy.cuda.Device(index):
                return cupy.asarray(host)

        several = cupy.cuda.runtime.getDeviceCount() > 1
        register(Backend("cuda", cupy, cupy.ndarray, from_host, cupy.asnumpy, lambda a: a.device.id, several))
    return _cuda_problem


def parse_device(device: str) -> tuple[Backend, int]:
    """``"cuda:1"`` -> (backend of the family, 1). Raises ValueError or RuntimeError that give the reason."""
    family, _, index = str(device).partition(":")
    if family == "cuda":
        if problem := _probe_cuda():
            raise RuntimeError(f"device={device!r} cannot be used: {problem}")
    elif family not in _families:
        known = ", ".join(sorted({*_families, "cuda"}))
        raise ValueError(f"device={device!r} is unknown: the devices are {known}")
    backend = _families[family]
    number = int(index) if index.isdigit() else -1 if index else 0
    if number < 0 or (number and not backend.several):
        raise ValueError(f"device={device!r} cannot be used: {family!r} has no device of that number")
    return backend, number


_default_device: Any = None  # a string once chosen


def default_device() -> str:
    """``set_default_device``, else ``TINYGRAD_MS_DEVICE``, else "cuda" where a GPU works, else "cpu"."""
    if _default_device is None:
        set_default_device(os.environ.get("TINYGRAD_MS_DEVICE") or ("cpu" if _probe_cuda() else "cuda"))
    return _default_device


def set_default_device(device: str | None) -> None:
    """Where ``tensor`` and the initialisers place data when no ``device=`` is given; None: choose anew."""
    global _default_device
    if device is not None:
        parse_device(device)
    _default_device = device


def device_info() -> dict[str, str]:
    """What was found: the default device, the array libraries and versions, and why CuPy is not usable if so."""
    problem = _probe_cuda()
    cuda = f"not usable: {problem}" if problem else f"CuPy {_families['cuda'].xp.__version__}"
    return {"default": default_device(), "cpu": f"NumPy {numpy.__version__}", "cuda": cuda}


def to_device(array, device: str):
    """The raw array on ``device``: itself if it is there already, else a copy through host memory."""
    backend, index = parse_device(device)
    here = BACKENDS[type(array)]
    if here is backend and here.index_of(array) == index:
        return array
    return backend.from_host(here.to_host(array), index)


def host_array(value, dtype=None) -> numpy.ndarray:
    """A NumPy array of a Python number, a list or a NumPy value. Raises TypeError where that is not numeric."""
    try:
        array = numpy.asarray(value, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise TypeError(f"cannot make a tensor of {type(value).__name__}: {error}") from None
    if not is_number_dtype(array.dtype):
        raise TypeError(
            f"cannot make a tensor of dtype {array.dtype} ({type(value).__name__}): numbers and booleans only"
        )
    return array


def is_number_dtype(dtype) -> bool:
    return dtype.kind in "fiub" or dtype.name == "bfloat16"


def is_float(dtype) -> bool:
    """Carries gradients: float16, bfloat16 (which NumPy calls a void), float32, float64."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name == "bfloat16")


def is_host_value(value) -> bool:
    """A NumPy array or scalar: data that brings its own dtype."""
    return isinstance(value, (numpy.ndarray, numpy.generic))


def format_array(array, indent: int = 0, **options) -> str:
    """The values as NumPy prints them (this copies a device array to the host)."""
    host = BACKENDS[type(array)].to_host(array)
    return numpy.array2string(host, separator=", ", prefix=" " * indent, threshold=100, **options)


def as_dtype(dtype) -> numpy.dtype:
    """The NumPy dtype of a name or type. Raises TypeError for what is unknown, and for no number (complex, text)."""
    try:
        result = numpy.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype={dtype!r} is unknown; expected one such as 'float32', 'int64' or 'bool'") from None
    if not is_number_dtype(result):
        raise TypeError(f"dtype={dtype!r} cannot be that of a tensor: it holds floats, integers or booleans")
    return result


DEFAULT_FLOAT = numpy.dtype("float32")


def sum_over(x, axes):
    """x, an array or Tensor, summed over ``axes`` (not negative, increasing), which stay with length 1.

    NumPy's float32 and float64 as products with ones where the last axes go, the last but one, or the first ones: BLAS
    reads short rows ten times as fast as a reduction does.
    """
    if type(x) is numpy.ndarray and x.dtype.char in "fd" and x.size and 0 < len(axes) < x.ndim:
        kept = x.ndim  # before the last axes that go
        while kept and kept - 1 in axes:
            kept -= 1
        count = prod(x.shape[kept:])
        if kept < x.ndim and count <= MOST_ONES and (kept == x.ndim - 1 or x.flags.c_contiguous):
            y = x.reshape((*x.shape[:kept], count)) @ ones(x.dtype)[:count, None]
            y = y.reshape(x.shape[:kept] + (1,) * (x.ndim - kept))
            rest = axes[: len(axes) - (x.ndim - kept)]
            return sum_over(y, rest) if rest else y
        count = prod(x.shape[axis] for axis in axes)
        if axes == (x.ndim - 2,) and count <= MOST_ONES:
            return ones(x.dtype)[None, :count] @ x
        if axes[-1] == len(axes) - 1 and x.flags.c_contiguous:
            y = numpy.ones(count, x.dtype) @ x.reshape((count, -1))
            return y.reshape((1,) * len(axes) + x.shape[len(axes) :])
    return x.sum(axis=axes, keepdims=True)


MOST_ONES = 4096  # NumPy sums longer rows in pairs, with smaller rounding errors


@cache
def ones(dtype):
    """``MOST_ONES`` ones, kept."""
    return numpy.ones(MOST_ONES, dtype)
