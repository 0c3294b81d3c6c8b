"""Ours beside PyTorch, JAX, mygrad, HIPS autograd, steps by hand and bare products: everything, with one command.

    python benchmarks/compare.py                    # all of it: about half an hour on a quiet machine
    python benchmarks/compare.py --only GPT LeNet   # workloads whose names or groups begin so
    python benchmarks/compare.py --clock cpu        # on a busy machine: CPU time of one thread
    python benchmarks/compare.py --quick            # small sizes and few rounds: only to see that it runs
    python benchmarks/compare.py --tables           # README.md and docs/speed.md from the figures that are there

Each contender is a process of its own, with --threads threads and as many cores; what is not installed is named and
left out. First every contender's losses or gradients are compared with ours: if one is off by more than the tolerance
of the workload, the run stops. Then they take turns, the order turning from round to round: a rest, some calls that do
not count, some that do. All start anew for each of the --sittings. A figure is a median over all rounds, a ratio the
median of the ratios within one round. Memory is what one step needs at its peak beyond what is there before (the
high-water mark of the process, Linux only).
"""

import argparse
import gc
import importlib.util
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "compare.json"
FORCED = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # unset for the contenders: NumPy's BLAS as people have it
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

CONTENDERS = {  # label: (class in frameworks.py, its options, the module that it needs)
    "ours": ("Ours", {}, "numpy"),
    "ours fast": ("Ours", dict(fused=True), "numba"),
    "ours eigh": ("Ours", dict(method="eigh"), "numpy"),
    "ours svd": ("Ours", dict(method="svd"), "numpy"),
    "compiled": ("Ours", dict(compiled=True), "numpy"),
    "compiled fast": ("Ours", dict(compiled=True, fused=True), "numba"),
    "PyTorch": ("Torch", {}, "torch"),
    "PyTorch fused": ("Torch", dict(fused=True), "torch"),
    "PyTorch through 8 steps": ("Torch", dict(msign="PyTorch autodiff, steps"), "torch"),
    "JAX jit": ("Jax", {}, "jax"),
    "mygrad": ("MyGrad", {}, "mygrad"),
    "autograd": ("Autograd", {}, "autograd"),
    "NumPy by hand": ("Side", "BY_HAND", "numpy"),  # these two run what is in floors.py
    "products alone": ("Side", "PRODUCTS", "numpy"),
}
UNCHECKED = ("products alone",)  # they have no result


# --- the process of a contender -----------------------------------------------------------------------------


class Worker:
    """A method for each request of the parent."""

    def __init__(self, label, threads):
        import frameworks

        kind, options, self.module = CONTENDERS[label]
        self.floors = options if kind == "Side" else None
        self.side = getattr(frameworks, kind)(threads, **({} if self.floors else options))
        self.run, self.compiled = None, label.startswith("compiled")

    def facts(self):
        import measure

        if self.module != "torch":
            name = {"numpy": "NumPy", "numba": "numba"}.get(self.module, self.module)
            blas = "XLA's own" if self.module == "jax" else measure.blas()
            return {"version": f"{name} {measure.installed(self.module)}", "blas": blas}
        about = self.side.lib.__config__.show().splitlines()
        return {
            "version": f"PyTorch {measure.installed('torch')}",
            "blas": next((line.strip(" -") for line in about if "Math Kernel" in line or "BLAS" in line), "unknown"),
        }

    def answer(self, name):
        """The results of the first steps, lists of arrays; or the sentence with which tg.compile refuses."""
        import floors
        import workloads

        self.run = None
        gc.unfreeze()
        gc.collect()
        work = workloads.WORKLOADS[name]
        try:
            self.run = getattr(floors, self.floors)[name]() if self.floors else work.make(self.side)
            found = [work.compared(self.arrays(self.run())) for _ in range(max(work.steps, 3 * self.compiled))]
        except RuntimeError as error:
            if not self.compiled:
                raise
            return str(error)
        gc.collect()
        gc.freeze()  # what imports and models left need not be visited again and again
        return found[: work.steps] if work.steps > 1 else found[-1:]

    def arrays(self, value):
        value = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
        return [self.side.numpy(item).copy() for item in value]

    def turn(self, rest, least, clock):
        """Seconds of a call: after a rest, and calls for a third of it that do not count; for ``least`` seconds.

        The idle threads of one library spin for some time (20 ms were seen) on the cores that the next one needs.
        """
        time.sleep(rest)
        awake = time.perf_counter() + rest / 3
        self.run()
        while time.perf_counter() < awake:
            self.run()
        now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
        calls, start = 0, now()
        while not calls or now() - start < least:
            self.run()
            calls += 1
        return (now() - start) / calls

    def peak(self):
        """Bytes at the high-water mark of one step, beyond those before it; None on other systems than Linux."""
        import ctypes

        try:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)  # what freed arrays left would hide what the step takes
            with open("/proc/self/clear_refs", "w") as file:
                file.write("5")  # the mark starts anew
        except (OSError, AttributeError):
            return None
        before = resident("VmRSS")
        self.run()
        return max(0, resident("VmHWM") - before)


def resident(what):
    with open("/proc/self/status") as file:
        return next(1024 * int(line.split()[1]) for line in file if line.startswith(what))


def serve(connection, label, threads):
    """Answer (method, arguments) by (True, result), or (False, what went wrong), until the parent closes."""
    try:
        worker = Worker(label, threads)
        connection.send((True, worker.facts()))
        while True:
            method, arguments = connection.recv()
            connection.send((True, getattr(worker, method)(*arguments)))
    except EOFError:
        pass
    except BaseException:
        connection.send((False, traceback.format_exc()))


class Contender:
    """The parent's end of a process."""

    def __init__(self, label, threads):
        self.label, (self.pipe, other) = label, multiprocessing.Pipe()
        self.process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(other, label, threads), daemon=True
        )
        self.process.start()
        other.close()
        self.facts = self.receive()

    def receive(self):
        try:
            fine, result = self.pipe.recv()
        except EOFError:
            raise SystemExit(f"compare: the process of {self.label} ended") from None
        if not fine:
            raise SystemExit(f"compare: {self.label} failed\n{result}")
        return result

    def ask(self, method, *arguments):
        self.pipe.send((method, arguments))
        return self.receive()

    def close(self):
        self.pipe.close()
        self.process.join()


# --- one workload -------------------------------------------------------------------------------------------


def difference(these, those):
    """The largest relative difference of two lists of arrays, by the norms of the arrays; infinite where NaN."""
    import numpy as np

    worst = 0.0
    assert len(these) == len(those), (len(these), len(those))
    for step, other in zip(these, those):
        assert len(step) == len(other), (len(step), len(other))
        for a, b in zip(step, other):
            a, b = a.astype("float64"), b.astype("float64").reshape(a.shape)
            off = float(np.linalg.norm(a - b) / (np.linalg.norm(b) or 1))
            worst = max(worst, off if off == off else float("inf"))
    return worst


def agree(name, work, contenders):
    """{label: difference from the first contender}, {label: why it does not run}; SystemExit beyond the tolerance."""
    first, differences, refused = None, {}, {}
    for label, contender in contenders.items():
        found = contender.ask("answer", name)
        if isinstance(found, str):
            refused[label] = found
        elif label not in UNCHECKED:
            first = found if first is None else first
            differences[label] = off = difference(found, first)
            if not off <= work.tolerance:
                raise SystemExit(
                    f"compare: {work.title}: the results of {label} differ from those of {next(iter(contenders))} by"
                    f" {off:.1e}, relatively; at most {work.tolerance:.0e} is allowed. Nothing is timed."
                )
    return differences, refused


def measure_one(contenders, options, times):
    """Add the seconds of some rounds to ``times`` {label: [...]}; return the peaks of memory in MB."""
    for round in range(options.rounds):
        for label in reversed(contenders) if round % 2 else contenders:
            times.setdefault(label, []).append(contenders[label].ask("turn", *options.turn))
    peaks = {label: contender.ask("peak") for label, contender in contenders.items()}
    return {label: round_to(peak / 1e6) for label, peak in peaks.items() if peak is not None}


def round_to(x, digits=3):
    return float(f"{x:.{digits}g}")


def summary(work, times, about):
    """The medians in milliseconds, and the medians and quartiles of the ratios to PyTorch (to ours without it)."""
    base = "PyTorch" if "PyTorch" in times else "ours"
    result = {"title": work.title, "group": work.group, "tolerance": work.tolerance, "base": base, **about}
    result["ms"] = {label: round_to(1e3 * statistics.median(seconds)) for label, seconds in times.items()}
    ratios = {label: [a / b for a, b in zip(seconds, times[base])] for label, seconds in times.items()}
    result["ratio"] = {label: round_to(statistics.median(found)) for label, found in ratios.items()}
    result["quartiles"] = {
        label: [round_to(q) for q in statistics.quantiles(found, n=4)[::2]] if len(found) > 1 else found * 2
        for label, found in ratios.items()
    }
    return result


def show(name, result):
    figures = [f"{label} {ms:.4g} ms ({result['ratio'][label]:.2f})" for label, ms in result["ms"].items()]
    print(f"{result['title']}:", ", ".join(figures), flush=True)
    for label, sentence in result["refused"].items():
        print(f"    {label}: {sentence}", flush=True)


# --- import -------------------------------------------------------------------------------------------------


def imports(repeats, clock):
    """Milliseconds of ``import numpy``, and of it and ``import tinygrad_ms``, in fresh processes; and the ratio.

    The first process does not count: it writes the bytecode, to a place of its own.
    """
    now = {"wall": "perf_counter", "cpu": "process_time"}[clock]
    code = (
        f"from time import {now} as now; start = now(); import numpy; half = now(); import tinygrad_ms;"
        " print(half - start, now() - start)"
    )
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = folder
        for _ in range(repeats + 1):
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
            pairs.append([float(text) for text in done.stdout.split()])
    numpy, ours = zip(*pairs[1:])
    found = {"numpy": round_to(1e3 * statistics.median(numpy)), "tinygrad_ms": round_to(1e3 * statistics.median(ours))}
    return {"ms": found, "ratio": round_to(statistics.median(b / a for a, b in pairs[1:]))}


# --- the command --------------------------------------------------------------------------------------------


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--only", nargs="+", metavar="NAME", help="what the names or the groups of the workloads begin with")
    add("--contenders", nargs="+", choices=CONTENDERS, metavar="LABEL", help=", ".join(CONTENDERS))
    add("--threads", type=int, help="of every contender, and cores; default 2, 1 for --quick or CPU time")
    add("--sittings", type=int, help="how often the processes start anew; default 3")
    add("--rounds", type=int, help="in each sitting; default 7")
    add("--rest", type=float, default=0.03, help="seconds before a turn")
    add("--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the process, for a machine that is busy")
    add("--quick", action="store_true", help="small sizes, one thread, one sitting of two rounds")
    add("--json", type=Path, help="where the figures go; default: benchmarks/results/compare.json, if all ran")
    add("--tables", action="store_true", help="only write the tables from the figures that are there")
    options = parser.parse_args(arguments)
    options.threads = options.threads or (1 if options.quick or options.clock == "cpu" else 2)
    options.sittings = options.sittings or (1 if options.quick else 3)
    options.rounds = options.rounds or (2 if options.quick else 7)
    options.turn = (0, 0, options.clock) if options.quick else (options.rest, 0.02, options.clock)
    if not (options.json or options.quick or options.only or options.contenders):
        options.json = RESULTS
    return options


def surroundings(options):
    """Set what the processes inherit: threads, cores, the library of this checkout; what was forced on BLAS goes."""
    for variable in THREADS:
        os.environ[variable] = str(options.threads)
    for variable in FORCED:
        os.environ.pop(variable, None)
    os.environ["TINYGRAD_MS_BENCHMARK_QUICK"] = str(int(options.quick))
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: options.threads]))


def missing(contender):
    """Why a contender cannot run here; empty if it can."""
    module = contender[2]
    if importlib.util.find_spec(module) is None:
        return f"{module} is not installed (pip install {module})"
    if module == "numba" and importlib.util.find_spec("tinygrad_ms.ops.fused") is None:
        return "this version has no compiled kernels (tinygrad_ms.ops.fused)"
    return ""


def main(arguments=None):
    options = parse(arguments)
    surroundings(options)
    import tables

    if options.tables:
        tables.write_all()
        return
    from measure import write
    from workloads import WORKLOADS

    wanted = options.contenders or list(CONTENDERS)
    absent = {label: why for label in wanted if (why := missing(CONTENDERS[label]))}
    for label, why in absent.items():
        print(f"{label} is left out: {why}", flush=True)
    only = tuple(options.only or [""])
    chosen = {name: work for name, work in WORKLOADS.items() if name.startswith(only) or work.group.startswith(only)}
    loads, times, about = [os.getloadavg()], {name: {} for name in chosen}, {}
    for sitting in range(options.sittings):
        running: dict[str, Contender] = {}
        for name, work in chosen.items():
            labels = [label for label in CONTENDERS if label in wanted and label in work.sides and label not in absent]
            for label in labels:
                if label not in running:
                    running[label] = Contender(label, options.threads)
                    if not sitting:
                        print(f"{label}: {running[label].facts}", flush=True)
            present = {label: running[label] for label in labels}
            differences, refused = agree(name, work, present)
            present = {label: contender for label, contender in present.items() if label not in refused}
            peaks = measure_one(present, options, times[name])
            about[name] = {"difference": differences, "refused": refused, "peak_mb": peaks}
            if options.sittings > 1:
                print(f"[{sitting + 1} of {options.sittings}]", end=" ")
            show(name, summary(work, times[name], about[name]))
        facts = {label: contender.facts for label, contender in running.items()}
        for contender in running.values():
            contender.close()
    results = {name: summary(work, times[name], about[name]) for name, work in chosen.items()}
    if not options.only:
        results["import"] = imports(1 if options.quick else 11, options.clock)
        print(f"import: {results['import']}")
    loads.append(os.getloadavg())
    print("load over 1, 5, 15 minutes:", " and ".join(" ".join(f"{x:.1f}" for x in load) for load in loads))
    write(options.json, results, dict(
        threads=options.threads, rounds=options.rounds * options.sittings, contenders=facts, absent=absent, load=loads,
        quick=options.quick, clock=options.clock, cpu=tables.processor(),
    ))  # fmt: skip
    if options.json == RESULTS:
        tables.write_all()


if __name__ == "__main__":
    main()
