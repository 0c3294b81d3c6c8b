"""Devices by name: "cpu", "cuda", "cuda:1"; which one is the default, and how an array gets from one to another."""

import os
from typing import Any

import numpy

from tinygrad_ms.arrays.memory import memory_info
from tinygrad_ms.arrays.registry import BACKENDS, FAMILIES, Backend, probe_cuda


def parse_device(device: str) -> tuple[Backend, int]:
    """``"cuda:1"`` -> (backend of the family, 1). Raises ValueError or RuntimeError that give the reason."""
    family, _, index = str(device).partition(":")
    if family == "cuda":
        if problem := probe_cuda():
            raise RuntimeError(f"device={device!r} cannot be used: {problem}")
    elif family not in FAMILIES:
        known = ", ".join(sorted({*FAMILIES, "cuda"}))
        raise ValueError(f"device={device!r} is unknown: the devices are {known}")
    backend = FAMILIES[family]
    number = int(index) if index.isdigit() else -1 if index else 0
    if number < 0 or (number and not backend.multi_device):
        raise ValueError(f"device={device!r} cannot be used: {family!r} has no device of that number")
    return backend, number


_default_device: Any = None  # its name, once it is chosen


def default_device() -> str:
    """``set_default_device``, else ``TINYGRAD_MS_DEVICE``, else "cuda" where a GPU works, else "cpu"."""
    if _default_device is None:
        set_default_device(os.environ.get("TINYGRAD_MS_DEVICE") or ("cpu" if probe_cuda() else "cuda"))
    return _default_device


def set_default_device(device: str | None) -> None:
    """Where ``tensor`` and the initialisers place data when no ``device=`` is given; None: choose anew."""
    global _default_device
    if device is not None:
        parse_device(device)
    _default_device = device


def device_info() -> dict[str, str]:
    """What was found: the default device, the array libraries, the reason if CuPy is not usable, the allocator."""
    cuda = f"not usable: {problem}" if (problem := probe_cuda()) else f"CuPy {FAMILIES['cuda'].xp.__version__}"
    return {"default": default_device(), "cpu": f"NumPy {numpy.__version__}", "cuda": cuda, "memory": memory_info()}


def to_device(array, device: str):
    """The raw array on ``device``: the same array if it is there, else a copy. From card to card it is direct."""
    backend, index = parse_device(device)
    here = BACKENDS[type(array)]
    if here.name == backend.name and here.index_of(array) == index:
        return array
    return backend.from_host(array if here is backend else here.to_host(array), index)
