"""Kernels for devices, one launch each: the text of a scalar body in C beside the same in array functions.

    @elementwise("T x, float64 a", "T y", "y = (T)a * x")
    def scaled(xp, x, a, y):
        xp.multiply(x, a, out=y)

    scaled(x, 2.0, y)        # CuPy compiles the text; other libraries run the array functions

The arrays to write come last and are given. ``T`` is the dtype of the arrays, ``i`` the number of the element.
"""

from math import prod
from typing import Any

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches import OF_FAMILIES, launcher

PER_MATRIX = ("top", "size", "norm")  # arrays with one number for each matrix
KERNELS: dict[str, "Kernel"] = {}
NUMBERS = {  # of a sample, by their names
    "width": 3, "sign": -1.0, "a": 0.5, "r": 0.25, "p": 0.75, "scale": 1.5, "factor": 0.5, "low": 1e-9, "high": 0.5,
    "limit": 120, "step": 2, "lanes": 4, "most": 0.25,
    "shrink": 0.75,
}  # fmt: skip


class Kernel:
    """A kernel and its reference. ``texts``: the body, or what a reduction makes of an element, of two, of the sum."""

    def __init__(self, rule, inputs, outputs, texts, identity=None):
        self.rule, self.name, self.inputs, self.outputs = rule, rule.__name__, inputs, outputs
        self.texts, self.identity = texts, identity
        words = [text.split() for text in f"{inputs}, {outputs}".split(", ")]
        self.declared = [(len(word) == 3, word[-2], word[-1]) for word in words]  # whether raw, type, name
        self.sized = all(raw or is_number(kind, name) for raw, kind, name in self.declared)  # no array says how many
        typed = (i for i, (_, kind, name) in enumerate(self.declared) if kind == "T" and not is_number(kind, name))
        self.typed = next(typed)  # the number of an array whose dtype is T
        self.made = None  # what CuPy has made of the text
        self.problems: dict[str, str] = {}  # by dtype: what is wrong with it on this machine, "" if nothing
        KERNELS[self.name] = self

    def __call__(self, *given, size=None) -> None:
        """Run it. ``size``: the number of elements, where no array says it (all are ``raw``)."""
        found = launcher(given[-1])
        if found is None:
            self.rule(BACKENDS[type(given[-1])].xp, *given)
        else:
            found.launch(self, given, size)

    def sample(self, dtype) -> tuple[list, int]:
        """Small NumPy arrays and numbers to try it with, and the number of elements."""
        gradients = sum(name[0] == "g" for _, _, name in self.declared)
        given: list[Any] = []
        for k, (raw, kind, name) in enumerate(self.declared):
            if name in NUMBERS and is_number(kind, name):
                given.append(NUMBERS[name])
            elif is_number(kind, name):
                given.append(3 * int(name[1:]) if name[0] == "s" else 0.5 + 0.0625 * k)
            else:
                shape = self.sample_shape(raw, name, gradients)
                x = numpy.cos(numpy.arange(prod(shape)) + k).reshape(shape)
                x = abs(x) + 0.1 if name[0] == "b" or name in ("squares", *PER_MATRIX) else x
                given.append(x.astype(dtype if kind == "T" else kind))
        return given, 3 * gradients if raw else given[-1].size

    def sample_shape(self, raw, name, gradients) -> tuple:
        """The shape of an array in a sample: two matrices, or three elements of each gradient."""
        if gradients:
            return (3 if name[0] in "gm" else 1,) if raw else (4,) if name == "part" else (3 * gradients,)
        if self.identity is not None and name == self.declared[-1][2]:
            return (2,)
        return (2, 1, 1) if name in PER_MATRIX else (2, 3, 3)

    def problem(self, run, xp, dtype) -> str:
        """What ``run`` does wrong with a sample, in arrays of xp; "" if nothing."""
        given, size = self.sample(dtype)
        sides = [[xp.array(x) if isinstance(x, numpy.ndarray) else x for x in given] for _ in range(2)]
        run(self, sides[0], size)
        self.rule(xp, *sides[1])
        near = 1e-5 if numpy.dtype(dtype).itemsize < 8 else 1e-12
        for found, right in zip(*sides):
            if type(found) in BACKENDS:
                a, b = map(BACKENDS[type(found)].to_host, (found, right))
                if not numpy.allclose(a, b, rtol=near, atol=near, equal_nan=True):
                    return f"a result is {a.ravel()[:4]}, its reference {b.ravel()[:4]}"
        return ""


def is_number(kind, name) -> bool:
    """Whether a parameter is a number: s1, s2, ... say where arrays start, c0, ... and o0, ... belong to a step."""
    return name == "shrink" or (name in NUMBERS and kind != "T") or (name[1:].isdigit() and name[0] in "sco")


def elementwise(inputs, outputs, text):
    """A kernel for each element of arrays that broadcast."""
    return lambda rule: Kernel(rule, inputs, outputs, (text,))


def per_matrix_reduction(inputs, outputs, each, both, last, identity="0"):
    """A kernel that reduces the last two axes of (batch, n, m) to (batch,)."""
    return lambda rule: Kernel(rule, inputs, outputs, (each, both, last), identity)


def self_check(device: str) -> dict[str, str]:
    """What each kernel that is known so far does wrong with a sample on the device, by name and dtype; "" if nothing.

    Raises ValueError for a device without kernels of this kind, such as "cpu".
    """
    backend, _ = parse_device(device)
    if (found := OF_FAMILIES.get(backend.name)) is None:
        raise ValueError(f"self_check: device {device!r} has no kernels of this kind; expected one such as 'cuda'")
    dtypes = {name: [d for d in ("float32", "float64") if OTHER[d] not in name] for name in KERNELS}
    return {f"{n} {d}": KERNELS[n].problem(found.run, backend.xp, d) for n in dtypes for d in dtypes[n]}


OTHER = {"float32": "float64", "float64": "float32"}  # which a name holds whose text is for one dtype
