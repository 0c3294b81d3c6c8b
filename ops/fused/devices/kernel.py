"""Kernels for devices that make their results: what all have in common, and their launch."""

import hashlib

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches.kernels import Kernel
from tinygrad_ms.ops.fused.devices.text import PRELUDE

__all__: list[str] = []

FUNCTIONS: dict[str, tuple] = {}  # by the name in a text: the kernel, and the constants in that text
THREADS, MOST_BLOCKS = 256, 1 << 16
MOST_TEXTS = 64  # of one kernel that are kept


class Making(Kernel):
    """It takes ``takes`` arrays, and numbers behind them. Its reference gives the results, too."""

    options: tuple[str, ...] = ()  # of the compiler
    makes, written = 0, ()  # as of kernels for a CPU: it takes no arrays to write into

    def __init__(self, name, takes, reference, dtypes):
        super().__init__(name, dtypes)
        self.takes, self.reference = takes, reference
        self.made: dict[tuple, object] = {}  # by device family, dtypes and constants: the function

    def text(self, dtypes, constants) -> str:
        """The text for arrays of these dtypes, given as characters, with NAME where its name goes."""
        raise NotImplementedError

    def shapes_of(self, arrays, numbers) -> list[tuple]:
        """Shape and dtype of each result."""
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

    launched = __call__
