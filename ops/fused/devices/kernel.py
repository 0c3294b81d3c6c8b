"""A kernel for devices by its name: what all have in common, its launch, its check before the first use."""

import hashlib
import warnings

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, Backend
from tinygrad_ms.ops.fused.devices.text import DTYPES, PRELUDE

__all__: list[str] = []

KERNELS: dict[str, "Kernel"] = {}
FUNCTIONS: dict[str, tuple] = {}  # by the name in a text: the kernel, and the constants in that text
THREADS, MOST_BLOCKS = 256, 1 << 16
MOST_TEXTS = 64  # of one kernel that are kept
NEAR = {"e": 2e-3, "E": 1e-2, "f": 1e-5, "d": 1e-12}  # how far a result of a self-check may be off its reference


class Kernel:
    """A kernel by its name, for arrays of ``dtypes``, of which it takes ``takes``, and numbers behind them."""

    options: tuple[str, ...] = ()  # of the compiler
    makes, written = 0, ()  # as of kernels for a CPU: it takes no arrays to write into

    def __init__(self, name, takes, reference, dtypes):
        self.name = self.__name__ = name
        self.takes, self.reference, self.dtypes = takes, reference, dtypes
        self.made: dict[tuple, object] = {}  # by device family, dtypes and constants: the function
        self.checked: dict[tuple, str] = {}  # by device family and dtype: what is wrong, or ""
        KERNELS[name] = self

    def text(self, dtypes, constants) -> str:
        """The text for arrays of these dtypes, given as characters, with NAME where its name goes."""
        raise NotImplementedError

    def shapes_of(self, arrays, numbers) -> list[tuple]:
        """Shape and dtype of each result."""
        raise NotImplementedError

    def samples(self, dtype) -> list:
        """Arguments for a self-check: NumPy arrays of that dtype, and numbers."""
        raise NotImplementedError

    def geometry(self, arrays, numbers) -> tuple[tuple, int]:
        """How many blocks there are, by axes, and of how many threads."""
        raise NotImplementedError

    def split(self, arrays, numbers) -> tuple[tuple, tuple]:
        """The numbers that stand in the text, and those that the function gets, of 64 bits."""
        return (), numbers

    def joined(self, constants, passed) -> tuple:
        """The numbers of a call, of those in the text and those that the function gets: undoes ``split``."""
        return passed

    def named(self, dtypes, constants=()) -> tuple[str, str]:
        """The name of the function, which no other has, and its text without the prelude."""
        text = self.text(dtypes, constants)
        name = f"{self.name}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"
        FUNCTIONS[name] = self, constants
        return name, text.replace("NAME", name)

    def function(self, backend, dtypes, constants):
        key = (backend.name, dtypes, constants)
        if key not in self.made:
            name, text = self.named(dtypes, constants)
            if len(self.made) >= MOST_TEXTS:
                del self.made[next(iter(self.made))]
            module = backend.xp.RawModule(code=PRELUDE + text, options=("--std=c++17", *self.options))
            self.made[key] = module.get_function(name)
        return self.made[key]

    def __call__(self, *given):
        """The results, for arrays and numbers; arrays that are not contiguous are copied."""
        arrays, numbers = given[: self.takes], given[self.takes :]
        backend = BACKENDS[type(arrays[0])]
        xp = backend.xp
        arrays = [a if a.flags.c_contiguous else xp.ascontiguousarray(a) for a in arrays]
        made = [xp.empty(shape, dtype) for shape, dtype in self.shapes_of(arrays, numbers)]
        constants, passed = self.split(arrays, numbers)
        run = self.function(backend, "".join([a.dtype.char for a in arrays]), constants)
        blocks, threads = self.geometry(arrays, numbers)
        typed = [(numpy.float64 if type(n) is float else numpy.int64)(n) for n in passed]
        run(blocks, (threads,), (*arrays, *made, *typed))
        return made

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
        arrays, numbers = samples[: self.takes], samples[self.takes :]
        found = self(*[backend.from_host(a, index) for a in arrays], *numbers)
        with numpy.errstate(all="ignore"):
            right = self.reference(numpy, *arrays, *numbers)
        for f, r in zip(map(backend.to_host, found), right, strict=True):
            f, r = f.astype("float64"), numpy.asarray(r).astype("float64")
            if not numpy.allclose(f, r, rtol=NEAR[dtype], atol=NEAR[dtype], equal_nan=True):
                return f"a result is {f.ravel()[:4]}, its reference {r.ravel()[:4]}"
        return ""
