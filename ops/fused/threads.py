"""How many threads run compiled kernels; and threads of Python for them, where BLAS has none (``team.py``).

Kernels release the lock of the interpreter. Several callers may run kernels at once, and a child of a fork starts new
threads. Parts are made so that no result depends on the number of threads.
"""

import os
from contextlib import suppress
from itertools import count

from tinygrad_ms.options import as_int

__all__: list[str] = []

_ONE_OF_MANY = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS")  # set by launchers of MPI programs
_state: dict = {"threads": 0, "pool": None, "size": 0}  # 0 threads: not yet known


def set_num_threads(threads: int | None) -> None:
    """How many threads run a compiled kernel on a large array; None: choose anew from the environment.

    They are threads of OpenBLAS, where NumPy has it: at most as many as it has. Results do not depend on the number.
    It does not change how many threads BLAS takes for its own work.
    Raises ValueError unless it is an integer of at least 1.
    """
    _state["threads"] = 0 if threads is None else as_int(threads, "set_num_threads: threads", least=1)


def get_num_threads() -> int:
    """How many threads run a compiled kernel on a large array.

    That is ``set_num_threads``, else OPENBLAS_NUM_THREADS or OMP_NUM_THREADS, else the processors that this process
    may use; and 1 under a launcher of MPI, unless one of these says more.
    """
    return _state["threads"] or _chosen()


def _chosen() -> int:
    """The number of threads that the environment asks for, kept until ``set_num_threads``."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = [os.environ.get(name, "") for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")]
    numbers = [int(text) for text in given if text.isdigit() and int(text)]
    shared = any(os.environ.get(name, "1") != "1" for name in _ONE_OF_MANY)
    _state["threads"] = min([*numbers[:1], available]) if numbers or not shared else 1
    return _state["threads"]


def deal_out(work, parts: int) -> None:
    """Run work(i) for each i below ``parts``, on several threads."""
    threads, numbers = min(get_num_threads(), parts), count()

    def take_parts():
        while (i := next(numbers)) < parts:
            work(i)

    helpers = []
    with suppress(RuntimeError):  # at its end the interpreter takes no more work
        for _ in range(threads - 1):
            helpers.append(_pool(threads - 1).submit(take_parts))
    try:
        take_parts()
    finally:
        for helper in helpers:
            if not helper.cancel():  # otherwise it has not begun, and nothing is left to do
                helper.result()


def _pool(size):
    """The threads that help, at least so many."""
    if _state["size"] < size:
        from concurrent.futures import ThreadPoolExecutor

        _state["pool"], _state["size"] = ThreadPoolExecutor(size, "tinygrad_ms"), size
    return _state["pool"]


def _forget():
    _state.update(pool=None, size=0)


if hasattr(os, "register_at_fork"):  # threads do not survive it
    os.register_at_fork(after_in_child=_forget)
