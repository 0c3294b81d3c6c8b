"""Kernels for devices, one launch each: the text of a scalar body in C beside the same in array functions.

    @elementwise("T x, float64 a", "T y", "y = (T)a * x")
    def scaled(xp, x, a, y):
        xp.multiply(x, a, out=y)

    scaled(x, 2.0, y)        # CuPy compiles the text; other libraries run the array functions

The arrays to write come last and are given. ``T`` is the dtype of the arrays, ``i`` the number of the element.
"""

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches import OF_FAMILIES, launcher

KERNELS: dict[str, "Kernel"] = {}
NUMBERS = {  # of a sample, by their names
    "width": 3, "sign": -1.0, "a": 0.5, "r": 0.25, "p": 0.75, "scale": 1.5, "factor": 0.5, "low": 1e-9, "high": 0.5,
    "limit": 120, "step": 2, "lanes": 4, "most": 0.25,
}  # fmt: skip


class Kernel:
    """A kernel and its reference. ``texts``: the body, or what a reduction makes of an element, of two, of the sum."""

    def __init__(self, rule, inputs, outputs, texts, identity=None):
        self.rule, self.name, self.inputs, self.outputs = rule, rule.__name__, inputs, outputs
        self.texts, self.identity = texts, identity
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

    def declared(self) -> list[tuple[bool, str, str]]:
        """Of each parameter: whether it is ``raw``, its type, its name."""
        words = [text.split() for text in f"{self.inputs}, {self.outputs}".split(", ")]
        return [(len(word) == 3, word[-2], word[-1]) for word in words]

    def sample(self, dtype) -> tuple[list, int]:
        """Small NumPy arrays and numbers to try it with, and the number of elements."""
        count = sum(name[0] == "g" for _, _, name in self.declared())
        given: list = []
        for k, (raw, kind, name) in enumerate(self.declared()):
            last = k + 1 == len(self.declared())
            if name[1:].isdigit() and name[0] in "sco":  # where a gradient starts, a number of a step
                given.append(3 * int(name[1:]) if name[0] == "s" else 0.5 + 0.0625 * k)
            elif name == "shrink":
                given.append(0.75)
            elif name in NUMBERS and kind != "T":
                given.append(NUMBERS[name])
            else:
                shape: tuple = (2, 3, 3)
                if count:
                    shape = (
                        (3,) if name[0] in "gm" and raw else (1,) if raw else (4,) if name == "part" else (3 * count,)
                    )
                elif name in ("top", "size", "norm"):
                    shape = (2, 1, 1)
                elif last and self.identity is not None:
                    shape = (2,)
                x = numpy.cos(numpy.arange(numpy.prod(shape)) + k).reshape(shape)
                x = abs(x) + 0.1 if name[0] == "b" or name == "squares" or shape == (2, 1, 1) else x
                given.append(x.astype(dtype if kind == "T" else kind))
        return given, 3 * count if raw else given[-1].size

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
