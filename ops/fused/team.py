"""Compiled kernels on the threads of BLAS, so that one team of threads does all the work of a program.

Idle threads of OpenBLAS wait for work in a loop. Other threads would share the processors with that loop, and be slower
than one thread alone. So kernels run where products of matrices run. No lock of the interpreter is needed on the way:
a member of the team takes the next part of a call until none is left.
"""

import ctypes
import importlib
from contextlib import suppress
from functools import cache

from tinygrad_ms.ops.fused.threads import get_num_threads
from tinygrad_ms.ops.lines import LINE, empty_on_a_line

__all__: list[str] = []

FEW, MANY = 1 << 16, 300_000  # elements from which threads pay, those of BLAS and those of Python
NAMES = "scipy_openblas_{}64_", "openblas_{}64_", "scipy_openblas_{}", "openblas_{}"  # how builds name their functions
OF_ITS_OWN = 1  # the answer of an OpenBLAS with threads of its own; others use those of OpenMP, or have none


@cache
def team():
    """(The address of gotoblas_pthread, the function that counts its threads); None where NumPy has another BLAS.

    gotoblas_pthread(n, f, words, 0) of OpenBLAS calls f(words) on n threads, and returns when all have returned.
    """
    with suppress(ImportError, AttributeError, OSError):
        library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
        run = ctypes.cast(library.gotoblas_pthread, ctypes.c_void_p).value
        for name in NAMES:
            if hasattr(library, name.format("get_parallel")):
                kind, count = (getattr(library, name.format(what)) for what in ("get_parallel", "get_num_threads"))
                return (run, count) if kind() == OF_ITS_OWN else None
    return None


def members() -> int:
    """How many threads of the team may work on a call; 1: there is no team."""
    threads = get_num_threads()
    return min(threads, found[1]()) if threads > 1 and (found := team()) else 1


def pays(elements: int) -> bool:
    """Whether several threads are faster than one for a kernel on so many elements."""
    return get_num_threads() > 1 and elements >= (FEW if members() > 1 else MANY)


def part_size(elements: int, unit: int = 1) -> int:
    """The number of elements of a part, a multiple of ``unit``: so many that each thread may take four parts."""
    return max(-(-elements // (4 * get_num_threads() * unit)), 1) * unit


def memory_of_parts(parts, length, dtype):
    """A row for each part. It begins with a line of a cache: two threads that write into one line wait for each other.

    A row may be longer than ``length``, to end with a line.
    """
    line = LINE // dtype.itemsize
    length = -(-length // line) * line
    return empty_on_a_line(parts * length, dtype).reshape((parts, length))
