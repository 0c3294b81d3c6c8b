"""Compiled kernels on devices: CUDA C that checks itself before it is used, one launch each.

A kernel has a text for each dtype, and a reference in calls of the array library. ``xp.RawModule`` (CuPy's; that of
the strict device runs the reference) makes a function of the text. It is the whole text that a card runs, so tests
run it on a CPU, too. Before its first use on a device a kernel computes a few small arrays there. One that fails, or
is off its reference, is switched off with one warning, and calls of the array library do its work.
"""

import hashlib
import inspect
import warnings

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.registry import BACKENDS, Backend
from tinygrad_ms.ops.fused.symbols import NAMES, written

__all__: list[str] = []

KERNELS: dict[str, "Kernel"] = {}
FUNCTIONS: dict[str, tuple] = {}  # by the name in a text: the kernel, and the constants in that text
DTYPES = {"e": "float16", "E": "bfloat16", "f": "float32", "d": "float64"}
TYPES = {
    "e": "half", "E": "brain", "f": "float", "d": "double", "b": "signed char", "h": "short", "i": "int",
    "l": "long long", "q": "long long", "B": "unsigned char", "H": "unsigned short", "I": "unsigned",
    "L": "unsigned long long", "Q": "unsigned long long",
}  # fmt: skip
THREADS, MOST_BLOCKS = 256, 1 << 16
MOST_TEXTS = 64  # of one kernel that are kept
NEAR = {"e": 2e-3, "E": 1e-2, "f": 1e-5, "d": 1e-12}  # how far a result of a self-check may be off its reference

PRELUDE = """
#ifndef TINYGRAD_MS_PRELUDE
#define TINYGRAD_MS_PRELUDE
struct half {  // float16 as its bits: needs no header of CUDA
    unsigned short bits;
    __device__ operator float() const {
        unsigned sign = (unsigned)(bits & 0x8000) << 16, rest = bits & 0x7fff;
        if (rest >= 0x7c00) return __uint_as_float(sign | 0x7f800000 | (rest & 0x3ff) << 13);
        if (rest < 0x400) return (sign ? -1.0f : 1.0f) * (float)rest * 5.9604644775390625e-8f;
        return __uint_as_float(sign | ((rest << 13) + 0x38000000));
    }
    __device__ void operator=(float x) {  // to the nearest, halves to the even one
        unsigned n = __float_as_uint(x), sign = n >> 16 & 0x8000, rest = n & 0x7fffffff;
        if (rest > 0x7f800000) bits = (unsigned short)(sign | 0x7e00);
        else if (rest >= 0x477ff000) bits = (unsigned short)(sign | 0x7c00);
        else if (rest < 0x38800000)  // adding 1/2 rounds to multiples of 2^-24
            bits = (unsigned short)(sign | (__float_as_uint(__uint_as_float(rest) + 0.5f) - 0x3f000000));
        else bits = (unsigned short)(sign | ((rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13));
    }
};
struct brain {  // bfloat16
    unsigned short bits;
    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
    __device__ void operator=(float x) {
        unsigned n = __float_as_uint(x);
        bits = (unsigned short)((n & 0x7fffffff) > 0x7f800000 ? n >> 16 | 0x40 : (n + 0x7fff + (n >> 16 & 1)) >> 16);
    }
};
__device__ inline float infinity() { return __uint_as_float(0x7f800000); }
__device__ inline float not_a_number() { return __uint_as_float(0x7fc00000); }
template <class R> __device__ inline R maximum(R a, R b) { return a > b || a != a ? a : b; }
template <class R> __device__ inline R minimum(R a, R b) { return a < b || a != a ? a : b; }
#define ROWS for (long long i = blockIdx.x; i < rows; i += gridDim.x)
#define ALONG for (long long j = threadIdx.x; j < n; j += blockDim.x)
template <class R> __device__ inline R across(R (*join)(R, R), R v, R none) {  // of all threads of a block, for all
    __shared__ R part[32];
    for (int o = 16; o; o >>= 1) v = join(v, __shfl_xor_sync(0xffffffff, v, o));
    if (blockDim.x > 32) {
        __syncthreads();
        if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
        __syncthreads();
        v = threadIdx.x % 32 < blockDim.x / 32 ? part[threadIdx.x % 32] : none;
        for (int o = 16; o; o >>= 1) v = join(v, __shfl_xor_sync(0xffffffff, v, o));
    }
    return v;
}
template <class R> __device__ inline R add(R a, R b) { return a + b; }
template <class R> __device__ inline R total_of(R v) { return across(add<R>, v, (R)0); }
template <class R> __device__ inline R largest_of(R v) { return across(maximum<R>, v, (R)-infinity()); }
#endif
"""


class Kernel:
    """A kernel by its name, for arrays of ``dtypes``, of which it takes ``takes``, and numbers behind them."""

    options: tuple[str, ...] = ()  # of the compiler

    def __init__(self, name, takes, reference, dtypes):
        self.name = self.__name__ = name
        self.takes, self.reference, self.dtypes = takes, reference, dtypes
        self.made: dict[tuple, object] = {}  # by device family, dtypes and constants: the function
        self.checked: dict[tuple, str] = {}  # by device family and dtype: what is wrong, or ""
        KERNELS[name] = self

    def text(self, dtypes, constants) -> str:
        """The text for arrays of these dtypes, given as characters, with NAME where its name goes."""
        raise NotImplementedError

    def makes(self, arrays, numbers) -> list[tuple]:
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
            module = backend.xp.RawModule(code=PRELUDE + text, options=("--std=c++14", *self.options))
            self.made[key] = module.get_function(name)
        return self.made[key]

    def __call__(self, *given):
        """The results, for arrays and numbers; arrays that are not contiguous are copied."""
        arrays, numbers = given[: self.takes], given[self.takes :]
        backend = BACKENDS[type(arrays[0])]
        xp = backend.xp
        arrays = [a if a.flags.c_contiguous else xp.ascontiguousarray(a) for a in arrays]
        made = [xp.empty(shape, dtype) for shape, dtype in self.makes(arrays, numbers)]
        constants, passed = self.split(arrays, numbers)
        run = self.function(backend, "".join([a.dtype.char for a in arrays]), constants)
        blocks, threads = self.geometry(arrays, numbers)
        typed = [(numpy.float64 if type(n) is float else numpy.int64)(n) for n in passed]
        run(blocks, (threads,), (*arrays, *made, *typed))
        return made

    def ready(self, backend: Backend, dtype: str, index=0) -> bool:
        """Whether it works on devices of that family, for arrays of that dtype; found out once, on number ``index``."""
        key = (backend.name, dtype)
        if key not in self.checked:
            try:
                self.checked[key] = self.problem(backend, dtype, index)
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


class Each(Kernel):
    """A kernel that treats each element alone: ``kernel`` of NumPy, written as text. sample: constants for a check.

    It computes in the dtype of the arrays, half precision in float32; ``wide``: all but float64 as well in float64.
    So a constant ``itemsize``, of a result with fewer bytes than the arithmetic, is 8: there are no digits to spare.
    A fused multiply-add would round once where the formula relies on two roundings.
    """

    options = ("--fmad=false",)

    def __init__(self, name, kernel, takes, sample, wide):
        super().__init__(name, takes, self.in_numpy, "eEfd")
        self.kernel, self.sample, self.wide, self.count = kernel, sample, wide, 0
        names = list(inspect.signature(kernel).parameters)[1 + takes :]
        self.spare = names.index("itemsize") if "itemsize" in names else -1

    def in_numpy(self, xp, *given):
        arrays, constants = given[: self.takes], given[self.takes :]
        wide = [a.astype("float64") for a in arrays]
        return [y.astype(arrays[0].dtype, copy=False) for y in self.kernel(xp, *wide, *constants)]

    def text(self, dtypes, constants):
        real = "float64" if self.wide or dtypes[0] == "d" else "float32"
        if self.spare >= 0 and not self.wide:
            constants = (*constants[: self.spare], 8, *constants[self.spare + 1 :])
        lines, results = written(self.kernel, real, self.takes, constants)
        t, r = TYPES[dtypes[0]], NAMES[real]
        arrays = [f"const {t}* x{k}" for k in range(self.takes)] + [f"{t}* y{k}" for k in range(len(results))]
        return "\n".join([
            f'extern "C" __global__ void NAME({", ".join(arrays)}, long long size) {{',
            "    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;",
            "    for (; i < size; i += (long long)gridDim.x * blockDim.x) {",
            *(f"        const {r} a{k} = x{k}[i];" for k in range(self.takes)),
            *(f"        {line}" for line in lines), *(f"        y{k}[i] = {y};" for k, y in enumerate(results)),
            "    }", "}", "",
        ])  # fmt: skip

    def makes(self, arrays, numbers):
        if not self.count:
            self.count = len(written(self.kernel, "float32", self.takes, numbers)[1])
        return [(arrays[0].shape, arrays[0].dtype)] * self.count

    def samples(self, dtype):
        x = numpy.array([0.0, -0.5, 0.5, -1.28, 0.75, 3.0, -3.0, 9.0, -9.0, 30.0, -30.0, 1e4, -1e4, numpy.nan])
        others = [numpy.cos(numpy.arange(x.size))] * (self.takes - 1)
        return [*[a.astype(DTYPES[dtype]) for a in (x, *others)], *self.sample]

    def geometry(self, arrays, numbers):
        return (min(-(-arrays[0].size // THREADS), MOST_BLOCKS),), THREADS

    def split(self, arrays, numbers):
        return tuple(numbers), (arrays[0].size,)

    def joined(self, constants, passed):
        return constants


def find(name, first, *others):
    """The kernel of that name for these arrays of a device; None where there is none for them.

    The arrays are of one dtype and shape, and not empty.
    """
    backend, kernel = BACKENDS.get(type(first)), KERNELS.get(name)
    if backend is None or kernel is None or not first.size or first.dtype.char not in kernel.dtypes:
        return None
    if isinstance(kernel, Each) and kernel.takes != 1 + len(others):
        return None
    for a in others:
        if type(a) is not type(first) or a.dtype != first.dtype or a.shape != first.shape:
            return None
    recorder = backend.recorder
    if recorder is not None:
        return recorder.launched(find, name, first, *others)
    if not hasattr(backend.xp, "RawModule") or not kernel.ready(backend, first.dtype.char, backend.index_of(first)):
        return None
    return kernel


def self_check(device: str) -> dict[str, str]:
    """What each kernel does wrong on the device, by kernel and dtype; "" where it works.

    It compiles and runs all kernels on small arrays. A kernel that does wrong is switched off there, with a warning.
    Raises ValueError for a device without kernels of this kind, such as "cpu".
    """
    backend, _ = parse_device(device)
    if not hasattr(backend.xp, "RawModule"):
        raise ValueError(f"self_check: device {device!r} has no kernels of this kind; expected one such as 'cuda'")
    found = {}
    for name, kernel in KERNELS.items():
        for dtype in kernel.dtypes:
            if dtype != "E" or "bfloat16" in numpy.sctypeDict:  # registered by ml_dtypes
                kernel.ready(backend, dtype)
                found[f"{name} {DTYPES[dtype]}"] = kernel.checked[backend.name, dtype]
    return found
