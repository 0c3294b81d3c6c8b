"""How the benchmarks measure: contenders take turns, ratios are medians over the rounds, facts go with figures."""

import json
import os
import platform
import statistics
import time
from importlib.metadata import PackageNotFoundError, version

import numpy

import tinygrad_ms as tg


def turns(contenders, repeats, warmup=3, rest=0.0, clock=time.perf_counter):
    """Seconds of each contender, one list each: they take turns, so that a busy machine slows all alike.

    The first ``warmup`` rounds do not count. ``rest``: before each turn so many seconds of sleep, and runs that do not
    count for a third of that. The idle threads of one library spin for some time (20 ms were seen) on the cores that
    the next contender needs, and its own take some time to wake. ``clock``: of the wall, or of the processor.
    """
    times = {name: [] for name in contenders}
    for repeat in range(repeats + warmup):
        for name, run in contenders.items():
            if rest:
                time.sleep(rest)
                awake = time.perf_counter() + rest / 3
                while time.perf_counter() < awake:
                    run()
            start = clock()
            run()
            if repeat >= warmup:
                times[name].append(clock() - start)
    return times


def milliseconds(times):
    """The medians of what ``turns`` returned."""
    return {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}


def ratio(times, of, over):
    """The median of the ratios of neighbours in time."""
    return statistics.median(a / b for a, b in zip(times[of], times[over]))


def blas():
    """The BLAS library of NumPy, its threads and the processor it picked its kernels for, if threadpoolctl is there."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return "unknown: pip install threadpoolctl"
    forced = f" (OPENBLAS_CORETYPE={core})" if (core := os.environ.get("OPENBLAS_CORETYPE")) else ""
    return "; ".join(
        f"{x['internal_api']} {x['version']}, {x['num_threads']} threads, kernels for {x.get('architecture')}{forced}"
        for x in threadpool_info()
        if x["user_api"] == "blas" and "numpy" in x["filepath"]
    )


def installed(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def facts():
    return {
        "date": time.strftime("%Y-%m-%d"), "tinygrad_ms": tg.__version__, "python": platform.python_version(),
        "numpy": numpy.__version__, "torch": installed("torch"), "machine": platform.machine(), "blas": blas(),
    }  # fmt: skip


def write(path, results, more=None):
    """The results with the facts, and ``more`` of them, as JSON to ``path``, if there is one."""
    if path:
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"facts": {**facts(), **(more or {})}, "results": results}, file, indent=1)
            file.write("\n")
