"""CUDA C run on a CPU: the text of a kernel, with the keywords defined away, compiled by the host's compiler.

Blocks run one after the other, the threads of a block as coroutines that change places at barriers and shuffles.
"""

import ctypes
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from tinygrad_ms.testing import strict

END = "#endif\n"
COMPILER = (shutil.which("g++") or shutil.which("c++")) if sys.platform == "linux" else None  # ucontext.h
START = """
#include <cmath>
#include <cstring>
#include <ucontext.h>
#include <vector>
using namespace std;
#define __device__
#define __global__
#define __shared__ static
#define __syncthreads() barrier()
struct Index { unsigned x, y; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static float __uint_as_float(unsigned n) { float x; memcpy(&x, &n, 4); return x; }
static unsigned __float_as_uint(float x) { unsigned n; memcpy(&n, &x, 4); return n; }
static ucontext_t scheduler, threads[1024];
static double slots[1024];
static unsigned current;
static bool backwards;  // the last block and the last thread come first
extern "C" void set_backwards(int value) { backwards = value; }
static void barrier() { swapcontext(&threads[current], &scheduler); }
template <class R> static R __shfl_xor_sync(unsigned, R x, int mask) {
    slots[current] = x;
    barrier();
    R y = (R)slots[current ^ mask];
    barrier();
    return y;
}
static void (*body)();
static bool done[1024];
static void start() { body(); done[current] = true; swapcontext(&threads[current], &scheduler); }
static void run_block(unsigned count) {
    static vector<char> stacks(1024 * 65536);
    for (unsigned t = 0; t < count; t++) {
        done[t] = false;
        getcontext(&threads[t]);
        threads[t].uc_stack.ss_sp = &stacks[t * 65536];
        threads[t].uc_stack.ss_size = 65536;
        threads[t].uc_link = 0;
        makecontext(&threads[t], start, 0);
    }
    for (unsigned left = count; left;) {
        left = 0;
        for (unsigned k = 0; k < count; k++) {
            unsigned t = backwards ? count - 1 - k : k;
            if (!done[t]) {
                current = threadIdx.x = t;
                swapcontext(&scheduler, &threads[t]);
                left += !done[t];
            }
        }
    }
}
static void run_all(unsigned bx, unsigned by, unsigned count) {
    blockDim = {count, 1};
    gridDim = {bx, by};
    for (unsigned k = 0; k < bx * by; k++) {
        unsigned n = backwards ? bx * by - 1 - k : k;
        blockIdx = {n % bx, n / bx};
        run_block(count);
    }
}
"""
KERNEL = re.compile(r'extern "C" __global__ void (\w+)\((.*?)\) \{', re.DOTALL)


def build(prelude, texts, folder: Path):
    """A library with a function ``run_NAME`` for each kernel; each text is in a namespace of its own."""
    parts = [START, prelude, "static void** given;"]
    for k, text in enumerate(texts):
        name, parameters = KERNEL.search(text).groups()
        types = [parameter.strip().rpartition(" ")[0] for parameter in parameters.split(",")]
        values = ", ".join(f"*({kind}*)given[{i}]" for i, kind in enumerate(types))
        parts.append(
            f"namespace part{k} {{\n{text}\nstatic void call() {{ {name}({values}); }}\n}}\n"
            f'extern "C" void run_{name}(void** args, unsigned x, unsigned y, unsigned threads)\n'
            f"{{ given = args; body = part{k}::call; run_all(x, y, threads); }}"
        )
    source = folder / "kernels.cpp"
    source.write_text("\n".join(parts))
    library = folder / f"{hashlib.sha256(source.read_bytes()).hexdigest()[:10]}.so"
    command = [COMPILER, "-std=c++17", "-O0", "-w", "-ffp-contract=off", "-shared", "-fPIC", source, "-o", library]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(library))


def launch(library, name, blocks, threads, args):
    """Run a kernel on NumPy arrays and typed numbers."""
    kept = [a if isinstance(a, np.ndarray) else np.asarray(a) for a in args]
    values = [ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else None for a in args]
    pointers = [ctypes.addressof(v) if v is not None else a.ctypes.data for v, a in zip(values, kept)]
    x, y = (*blocks, 1)[:2]
    getattr(library, f"run_{name}")((ctypes.c_void_p * len(args))(*pointers), x, y, *threads)


class RawModule:
    """In the place of ``strict.RawModule``: runs the text. ``folder``: where it is compiled."""

    folder: Path
    made: dict = {}

    def __init__(self, code, options=()):
        prelude, self.text = code[: code.index(END) + len(END)], code[code.index(END) + len(END) :]
        self.name = KERNEL.search(self.text).group(1)
        if self.name not in self.made:
            self.made[self.name] = build(prelude, [self.text], self.folder)

    def get_function(self, name):
        def run(blocks, threads, args):
            launch(self.made[name], name, blocks, threads, [a._a if type(a) is strict.ndarray else a for a in args])

        return run
