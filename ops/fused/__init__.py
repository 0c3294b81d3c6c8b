"""Compiled kernels: faster, the same results within the accuracy of docs/accuracy.md.

For large arrays on a CPU:

    pip install "tinygrad-ms[fast]"        # numba; without it NumPy does all

``find("gelu", x)`` is the one door. A forward or a rule asks it for a large array. If the answer is None, NumPy does
the work. The formula in NumPy stays the reference, and all arrays but large contiguous ones of a CPU use it. A kernel
is compiled at its first use, which takes about a second, and kept on disk ($TINYGRAD_MS_CACHE, else
~/.cache/tinygrad_ms). It gives no floating-point warnings.

On devices one launch replaces several, for arrays of any size (``devices``). Nothing has to be installed.
TINYGRAD_MS_FUSED=0 in the environment, or ``set_fused(False)``, turns all of them off.
"""

import importlib
import importlib.util
import os
import warnings

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, FAMILIES
from tinygrad_ms.engine.backward import ORDERS

__all__: list[str] = []

LEAST = 30_000  # elements; for fewer a kernel saves hardly any time
_state: dict = {"on": os.environ.get("TINYGRAD_MS_FUSED", "") != "0", "kernels": None, "devices": None}
UFUNCS: list = []  # (primitive, ufunc) of the ops that are a function of NumPy, and no kernel
INSTALLED = importlib.util.find_spec("numba") is not None


def set_fused(on: bool) -> None:
    """Whether compiled kernels are used. Raises RuntimeError for True where neither numba nor a GPU is."""
    if on and not INSTALLED and "cuda" not in FAMILIES:
        raise RuntimeError('set_fused: compiled kernels need numba: pip install "tinygrad-ms[fast]", or numba')
    _state["on"] = bool(on)


def is_on() -> bool:
    """Whether compiled kernels are used. The answer does not load numba."""
    return _state["on"] and INSTALLED


def loaded() -> dict:
    """All kernels by name; an empty dict if they are not used."""
    return (_state["kernels"] or _load()) if is_on() else {}


def find(name: str, first, *others):
    """The compiled kernel of that name for these arrays; None if there is none for them.

    They must have one dtype that the kernel takes, and one shape. Arrays of NumPy must be large, and have no gaps but
    where the kernel takes them. Arrays that ``tg.compile`` records may get a kernel, too; its list then calls it.
    """
    if not _state["on"]:
        return None
    if type(first) is not numpy.ndarray:
        recorder = BACKENDS[type(first)].recorder if type(first) in BACKENDS else None
        return (recorder.kernel if recorder else _load_devices().find)(name, first, *others)
    if not INSTALLED or first.size < LEAST:
        return None
    kernel = (_state["kernels"] or _load()).get(name)
    if kernel is None or first.dtype not in kernel.dtypes or kernel.takes not in (None, 1 + len(others)):
        return None
    for a in (first, *others):
        if type(a) is not numpy.ndarray or a.dtype != first.dtype or a.shape != first.shape:
            return None
        if not ((flags := a.flags).c_contiguous or kernel.gaps) or not flags.aligned:
            return None
    return kernel if kernel.ready(first.dtype) else None


def devices_do(x):
    """The calls of kernels for the array x of a device; None for an array of NumPy, and if kernels are off."""
    return _load_devices() if _state["on"] and not isinstance(x, numpy.ndarray) else None


def _load_devices():
    """The calls of the kernels of devices. Their modules are loaded when this is first called."""
    if _state["devices"] is None:
        from tinygrad_ms.ops.fused.devices import calls

        _state["devices"] = calls
    return _state["devices"]


def _load() -> dict:
    """All kernels by name, none of them compiled."""
    try:
        importlib.import_module("numba")
        from tinygrad_ms.ops.fused import (
            activations,
            arithmetic,
            functions,
            labels,
            layouts,
            matrices,
            norms,
            products,
            rows,
            steps,
            walk,
        )  # they fill KERNELS
        from tinygrad_ms.ops.fused.kernels import KERNELS
    except ImportError as error:  # a numba that does not fit this NumPy, say
        warnings.warn(f"tinygrad_ms: no compiled kernels, NumPy does all: {error}", RuntimeWarning, stacklevel=4)
        _state["on"] = False
        return {}
    _state["kernels"] = KERNELS
    arithmetic.share_arithmetic(UFUNCS, is_on)
    ORDERS.insert(1, lambda tape, grads: walk.from_the_end(tape, grads) if _state["on"] else reversed(tape))
    return KERNELS
