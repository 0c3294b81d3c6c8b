"""Compiled kernels on devices: CUDA C that checks itself before it is used, one launch each.

A kernel has a text for each dtype, and a reference in calls of the array library. ``xp.RawModule`` (CuPy's; that of
the strict device runs the reference) makes a function of the text. It is the whole text that a card runs, so tests
run it on a CPU, too. Before its first use on a device a kernel computes a few small arrays there. One that fails, or
is off its reference, is switched off with one warning, and calls of the array library do its work.
"""

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import card
from tinygrad_ms.launches.kernels import DTYPES, KERNELS
from tinygrad_ms.ops.fused.devices import labels, masks, normalization, softmax  # they fill KERNELS
from tinygrad_ms.ops.fused.devices.each import Each
from tinygrad_ms.ops.fused.references import REFERENCES

__all__: list[str] = []


def named(name):
    """The kernel of that name, made of its formula in NumPy if it is one of single elements."""
    if name not in KERNELS and name in REFERENCES:
        Each(name, *REFERENCES[name])
    return KERNELS.get(name)


def find(name, first, *others):
    """The kernel of that name for these arrays of a device; None where there is none for them.

    The arrays are of one dtype and shape, and not empty.
    """
    backend, kernel = BACKENDS.get(type(first)), named(name)
    if backend is None or kernel is None or not first.size or first.dtype.char not in kernel.dtypes:
        return None
    if isinstance(kernel, Each) and kernel.takes != 1 + len(others):
        return None
    for a in others:
        if type(a) is not type(first) or a.dtype != first.dtype or a.shape != first.shape:
            return None
    recorder = backend.recorder
    if recorder is not None:
        return recorder.kernel(name, first, *others)
    if not hasattr(backend.xp, "RawModule"):
        return None
    return kernel if kernel.ready(backend, first.dtype.char, first) else None


def self_check(device: str) -> dict[str, str]:
    """What each kernel does wrong on the device, by kernel and dtype; "" where it works.

    It compiles and runs all kernels that are known so far on small arrays. One that does wrong is switched off there,
    with a warning.
    Raises ValueError for a device without kernels of this kind, such as "cpu".
    """
    backend, index = parse_device(device)
    if not hasattr(backend.xp, "RawModule"):
        raise ValueError(f"self_check: device {device!r} has no kernels of this kind; expected one such as 'cuda'")
    found = {}
    for name in REFERENCES:
        named(name)
    with card(backend, index):
        like = backend.xp.empty(0)
        for name, kernel in [*KERNELS.items()]:
            for dtype in kernel.dtypes:
                if dtype != "E" or "bfloat16" in numpy.sctypeDict:  # registered by ml_dtypes
                    kernel.ready(backend, dtype, like)
                    found[f"{name} {DTYPES[dtype]}"] = kernel.checked[backend.name, dtype]
    return found
