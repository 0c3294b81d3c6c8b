"""Which array library an array belongs to: a registry array type -> Backend. The only file that imports CuPy."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy


@dataclass(frozen=True)
class Backend:
    """An array library with its doors to host memory (NumPy arrays)."""

    name: str  # the device family: "cpu", "cuda", "strict"
    xp: Any  # the namespace with the functions that a forward calls
    array_type: type
    from_host: Callable  # (NumPy array, index of the device) -> array; always a copy
    to_host: Callable  # array -> NumPy array; NumPy's own arrays are returned as they are
    index_of: Callable = lambda array: 0  # which device of the family holds the array
    multi_device: Any = None  # of several devices: number -> the context that makes it the current one; see ``cards``
    recorder: Any = None  # that of ``tg.compile``, for its arrays: ``replay/traced.py``

    def device_of(self, array) -> str:
        return f"{self.name}:{index}" if (index := self.index_of(array)) else self.name


BACKENDS: dict[type, Backend] = {}  # by exact array type
FAMILIES: dict[str, Backend] = {}  # by device family
SEVERAL: dict[type, Backend] = {}  # those with several devices
_cuda_problem: str | None = None  # the reason why CuPy is not usable, once it was tried


def register(backend: Backend) -> None:
    """Make the arrays of ``backend`` usable in tensors, and its name usable as ``device=``."""
    BACKENDS[backend.array_type] = FAMILIES[backend.name] = backend
    SEVERAL.update({backend.array_type: backend} if backend.multi_device else {})


register(Backend("cpu", numpy, numpy.ndarray, lambda host, index: numpy.array(host), lambda array: array))


def probe_cuda() -> str | None:
    """Import CuPy once and run one kernel; None if it works, else the reason why not."""
    global _cuda_problem
    if "cuda" in FAMILIES or _cuda_problem is not None:
        return None if "cuda" in FAMILIES else _cuda_problem
    if importlib.util.find_spec("cupy") is None:
        _cuda_problem = "CuPy is not installed (pip install 'tinygrad-ms[cuda13]', or [cuda12] for CUDA 12)"
        return _cuda_problem
    try:
        import cupy

        if not cupy.cuda.is_available():
            raise RuntimeError("no CUDA driver or device was found")
        int(cupy.arange(3).sum())  # a driver without NVRTC or headers fails only at the first kernel

        def from_host(host, index):  # also from another card
            with cupy.cuda.Device(index):
                return cupy.asarray(host)

        several = cupy.cuda.Device if cupy.cuda.runtime.getDeviceCount() > 1 else None
        register(Backend("cuda", cupy, cupy.ndarray, from_host, cupy.asnumpy, lambda a: a.device.id, several))
    except Exception as error:
        _cuda_problem = f"CuPy is installed, but {type(error).__name__}: {error}"
    return _cuda_problem


def host(array) -> numpy.ndarray:
    """The values of a raw array, or of a scalar of NumPy, as an array of NumPy. The host waits for them."""
    return BACKENDS[type(array)].to_host(array) if type(array) in BACKENDS else numpy.asarray(array)
