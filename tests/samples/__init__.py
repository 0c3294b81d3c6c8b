"""Sample inputs of every primitive, one file per topic of ops/. The registry-driven suite checks them all.

Each file has ``SAMPLES: dict[str, list[Sample]]`` by the registered name of the primitive
(``from tests.samples import Sample, normal, positive``).
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass
class Sample:
    """One call of a primitive.

    args: float64 (or integer) NumPy arrays, or Python numbers; kwargs: the constants.
    reference: the value from an independent implementation (NumPy, scipy, a loop), given args and kwargs.
    smooth: False at a tie or kink: value and documented gradient are checked there, not differences.
    gradient: for such points, the documented gradients of ``sum(y)``, one per differentiable argument.
    order: how many derivatives are checked by differences (2; one more at the first sample of a primitive).
    noise: error of the reference relative to its largest element; without it, every element must match.
    sync: why this call must make the host wait for the device; empty: it must not.
    """

    args: tuple
    kwargs: dict[str, Any] = field(default_factory=dict)
    reference: Callable | None = None
    smooth: bool = True
    gradient: tuple | None = None
    order: int = 2
    tolerance: float = 1e-6  # of derivatives against central differences, relative to the largest element
    noise: float = 0.0
    note: str = ""
    sync: str = ""


def normal(*shape, seed=0):
    """Well-spread float64 numbers, the same in every run."""
    return np.random.default_rng(seed).standard_normal(shape)


def positive(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape)


def all_samples() -> dict[str, list[Sample]]:
    """The samples of every topic, by the name of the primitive."""
    merged: dict[str, list[Sample]] = {}
    topics = [module.name for module in pkgutil.walk_packages(__path__, f"{__name__}.") if not module.ispkg]
    for topic in topics:
        for name, samples in importlib.import_module(topic).SAMPLES.items():
            merged.setdefault(name, []).extend(samples)
    return merged
