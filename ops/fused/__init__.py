"""Compiled kernels for large arrays on a CPU: faster, the same results within the accuracy of docs/accuracy.md.

    pip install "tinygrad-ms[fast]"        # numba; without it NumPy does all

``find("gelu", x)`` is the one door. A forward or a rule asks it where its array is large, and goes its own way where
the answer is None. The formula in NumPy stays the reference; what is not a large contiguous array of a CPU always
takes it. A kernel is compiled at its first use, which takes about a second, and kept on disk ($TINYGRAD_MS_CACHE, else
~/.cache/tinygrad_ms). It gives no floating-point warnings.
TINYGRAD_MS_FUSED=0 in the environment, or ``set_fused(False)``, turns all of them off.
"""

import importlib
import importlib.util
import os
import warnings

import numpy

from tinygrad_ms.arrays.registry import BACKENDS

__all__: list[str] = []

LEAST = 30_000  # elements: below, what NumPy takes is hardly longer
_state: dict = {"on": os.environ.get("TINYGRAD_MS_FUSED", "") != "0", "kernels": None}
INSTALLED = importlib.util.find_spec("numba") is not None


def set_fused(on: bool) -> None:
    """Whether compiled kernels are used. Raises RuntimeError for True where numba is not installed."""
    if on and not INSTALLED:
        raise RuntimeError('set_fused: compiled kernels need numba: pip install "tinygrad-ms[fast]", or numba')
    _state["on"] = bool(on)


def is_on() -> bool:
    """Whether compiled kernels are used, as far as one can say without loading numba."""
    return _state["on"] and INSTALLED


def loaded() -> dict:
    """All kernels by name; none where they are not used."""
    return (_state["kernels"] or _load()) if is_on() else {}


def find(name: str, first, *others):
    """The compiled kernel of that name for these arrays; None where there is none for them.

    They must be large, contiguous NumPy arrays of one dtype that the kernel takes, and of one shape; or those that
    ``tg.compile`` records, whose list then calls the kernel.
    """
    if not _state["on"] or not INSTALLED or first.size < LEAST:
        return None
    if type(first) is not numpy.ndarray:
        recorder = BACKENDS[type(first)].recorder if type(first) in BACKENDS else None
        return recorder.kernel(name, first, *others) if recorder else None
    kernel = (_state["kernels"] or _load()).get(name)
    if kernel is None or first.dtype not in kernel.dtypes or kernel.takes not in (None, 1 + len(others)):
        return None
    for a in (first, *others):
        if type(a) is not numpy.ndarray or a.dtype != first.dtype or a.shape != first.shape:
            return None
        if not (flags := a.flags).c_contiguous or not flags.aligned:
            return None
    return kernel if kernel.ready(first.dtype) else None


def _load() -> dict:
    """All kernels by name, none of them compiled."""
    try:
        importlib.import_module("numba")
        from tinygrad_ms.ops.fused import activations, functions, layouts, norms, rows, steps  # they fill KERNELS
        from tinygrad_ms.ops.fused.kernels import KERNELS
    except ImportError as error:  # a numba that does not fit this NumPy, say
        warnings.warn(f"tinygrad_ms: no compiled kernels, NumPy does all: {error}", RuntimeWarning, stacklevel=4)
        _state["on"] = False
        return {}
    _state["kernels"] = KERNELS
    return KERNELS
