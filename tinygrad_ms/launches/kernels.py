"""Kernels for devices: what all have in common, and those that write into arrays that are given, one launch each.

    @elementwise("T x, float64 a", "T y", "y = (T)a * x")
    def scaled(xp, x, a, y):
        xp.multiply(x, a, out=y)

    scaled(x, 2.0, y)        # CuPy compiles the text; other libraries run the array functions

The text of a scalar body in C stands beside the same in array functions. The arrays to write come last. ``T`` is the
dtype of the arrays, ``i`` the number of the element.
"""

import warnings
from math import prod
from typing import Any

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, Backend
from tinygrad_ms.launches import launcher

DTYPES = {"e": "float16", "E": "bfloat16", "f": "float32", "d": "float64"}
NEAR = {"e": 2e-3, "E": 1e-2, "f": 1e-5, "d": 1e-12}  # how far a result of a self-check may be off its reference
KERNELS: dict[str, "Kernel"] = {}


class Kernel:
    """A kernel by its name, for arrays of ``dtypes``. It has to compute a sample right before its first use.

    Each kind has ``reference(xp, *given)`` and ``launched(*given)``: the results of array functions and of the text.
    """

    reference: Any
    launched: Any

    def __init__(self, name, dtypes):
        self.name = self.__name__ = name
        self.dtypes = dtypes
        self.checked: dict[tuple, str] = {}  # by device family and dtype: what is wrong, or ""
        KERNELS[name] = self

    def samples(self, dtype) -> list:
        """Arguments for a self-check: NumPy arrays of that dtype, and numbers."""
        raise NotImplementedError

    def ready(self, backend: Backend, dtype: str, like) -> bool:
        """Whether it works on devices of that family, for arrays of that dtype: found out once, where ``like`` is."""
        key = (backend.name, dtype)
        if key not in self.checked:
            try:
                self.checked[key] = self.problem(backend, dtype, backend.index_of(like))
            except Exception as error:  # of the compiler, the driver, the card
                self.checked[key] = f"{type(error).__name__}: {error}"
            if problem := self.checked[key]:
                text = f"tinygrad_ms: the kernel {self.name} of {DTYPES[dtype]} is not used on {backend.name}"
                warnings.warn(f"{text}, where calls of the array library do its work: {problem}", RuntimeWarning, 4)
        return not self.checked[key]

    def problem(self, backend, dtype, index) -> str:
        """What the kernel does wrong with a few small arrays; "" if nothing."""
        if getattr(backend.xp.RawModule, "runs_references", False):
            return ""
        samples = self.samples(dtype)
        found = self.launched(*[backend.from_host(a, index) if isinstance(a, numpy.ndarray) else a for a in samples])
        with numpy.errstate(all="ignore"):
            right = self.reference(numpy, *samples)
        for f, r in zip(map(backend.to_host, found), right, strict=True):
            f, r = f.astype("float64"), numpy.asarray(r).astype("float64")
            if not numpy.allclose(f, r, rtol=NEAR[dtype], atol=NEAR[dtype], equal_nan=True):
                return f"a result is {f.ravel()[:4]}, its reference {r.ravel()[:4]}"
        return ""


# --- kernels that write into arrays that are given --------------------------------------------------------------------

PER_MATRIX = ("top", "size", "norm")  # arrays with one number for each matrix
NUMBERS = {  # of a sample, by their names
    "width": 3, "sign": -1.0, "a": 0.5, "r": 0.25, "p": 0.75, "scale": 1.5, "factor": 0.5, "low": 1e-9, "high": 0.5,
    "limit": 120, "step": 2, "lanes": 4, "most": 0.25,
    "shrink": 0.75,
}  # fmt: skip


class InPlace(Kernel):
    """``rule`` is its reference. ``texts``: the body, or what a reduction makes of an element, of two, of the sum."""

    def __init__(self, rule, inputs, outputs, texts, identity=None, dtypes="fd"):
        super().__init__(rule.__name__, dtypes)
        self.rule, self.inputs, self.outputs, self.texts, self.identity = rule, inputs, outputs, texts, identity
        words = [text.split() for text in f"{inputs}, {outputs}".split(", ")]
        self.declared = [(len(word) == 3, word[-2], word[-1]) for word in words]  # whether raw, type, name
        self.takes = inputs.count(",") + 1
        self.sized = all(raw or is_number(kind, name) for raw, kind, name in self.declared)  # no array says how many
        typed = (i for i, (_, kind, name) in enumerate(self.declared) if kind == "T" and not is_number(kind, name))
        self.typed = next(typed)  # the number of an array whose dtype is T
        self.made = None  # what CuPy has made of the text

    def __call__(self, *given) -> None:
        found, backend = launcher(given[-1]), BACKENDS[type(given[-1])]
        if found is not None and self.ready(backend, given[self.typed].dtype.char, given[-1]):
            found.launch(self, given)
        else:
            self.rule(backend.xp, *given)

    def reference(self, xp, *given):
        self.rule(xp, *given)
        return given[self.takes :]

    def launched(self, *given):
        launcher(given[-1]).launch(self, given)
        return given[self.takes :]

    def size(self, given) -> int:
        """The number of elements: of a result, or of all of them, end to end, where they are ``raw``."""
        sizes = [x.size for (raw, *_), x in zip(self.declared[self.takes :], given[self.takes :]) if not raw]
        return sizes[0] if sizes else sum(x.size for x in given[self.takes :])

    def samples(self, dtype):
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
        return given

    def sample_shape(self, raw, name, gradients) -> tuple:
        """The shape of an array in a sample: two matrices, or three elements of each gradient."""
        if gradients:
            return (3 if name[0] in "gm" else 1,) if raw else (4,) if name == "part" else (3 * gradients,)
        if self.identity is not None and name == self.declared[-1][2]:
            return (2,)
        return (2, 1, 1) if name in PER_MATRIX else (2, 3, 3)


def is_number(kind, name) -> bool:
    """Whether a parameter is a number: s1, s2, ... say where arrays start, c0, ... and o0, ... belong to a step."""
    return name == "shrink" or (name in NUMBERS and kind != "T") or (name[1:].isdigit() and name[0] in "sco")


def elementwise(inputs, outputs, text):
    """A kernel for each element of arrays that broadcast."""
    return lambda rule: InPlace(rule, inputs, outputs, (text,))


def per_matrix_reduction(inputs, outputs, each, both, last, identity="0"):
    """A kernel that reduces the last two axes of (batch, n, m) to (batch,)."""
    return lambda rule: InPlace(rule, inputs, outputs, (each, both, last), identity)
