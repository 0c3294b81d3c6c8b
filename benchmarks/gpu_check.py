"""What a card says of tinygrad_ms: are the values right, how many launches and waits, how fast beside the others?

    bash benchmarks/gpu_check.sh                    # everything, about 8 minutes at most
    bash benchmarks/gpu_check.sh --only times       # parts, separated by commas: facts, samples, tests, launches, ...
    bash benchmarks/gpu_check.sh --dry              # without a card: the strict device and small sizes

Parts: facts (versions, the card, ``doctor``), samples (value, gradient, second order and forward mode of every op
against NumPy), tests (``pytest -m gpu``), launches (kernels and waits of a warm step), times (beside PyTorch eager and
compiled, and JAX, in turns), memory (peaks). Each part is a process with a time limit: one that fails or hangs costs
the others nothing. Results: DIR/gpu_check.json, and DIR/gpu_check.md as tables.
"""

import argparse
import gc
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {"facts": 60, "samples": 150, "tests": 100, "launches": 60, "times": 160, "memory": 60}  # seconds
STAGES = ("value", "vjp", "second", "jvp")


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry", action="store_true", help="on the strict device, to see that everything runs")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds for everything")
    parser.add_argument("--only", help="parts, separated by commas")
    parser.add_argument("--out", default="gpu_check", help="folder of the results")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--shard", default="0/1", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def put(options, **row):
    """Add a row to the results of the part that runs."""
    with open(Path(options.out) / f"{options.part}.{options.shard.split('/')[0]}.jsonl", "a") as file:
        file.write(json.dumps(row, default=str) + "\n")


def attempt(options, what, function):
    """Run it; a failure is a row of the report, not the end of it."""
    try:
        return function()
    except Exception as error:
        put(options, what=what, error=f"{type(error).__name__}: {error}"[:300], trace=traceback.format_exc()[-1500:])
        print(f"  {what}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return None


# --- the parent -------------------------------------------------------------------------------------------------------


def main(options) -> int:
    """Run the parts, gather what they wrote; 1 if a sample, a test or a part went wrong."""
    out, began, spans, broken = Path(options.out), time.perf_counter(), {}, []
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("*.jsonl"):
        old.unlink()
    for part in options.only.split(",") if options.only else LIMITS:
        left = options.budget - (time.perf_counter() - began)
        limit, start = min(LIMITS[part], left), time.perf_counter()
        if limit < 5:
            broken.append(f"{part}: no time was left")
            continue
        print(f"{part}, at most {limit:.0f} s", flush=True)
        shards = max(1, min(8, (os.cpu_count() or 2) // 2)) if part == "samples" else 1
        command = [sys.executable, __file__, "--part", part, "--out", options.out, *["--dry"] * options.dry]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # JAX takes most of a card otherwise
        running = [
            subprocess.Popen([*command, "--shard", f"{i}/{shards}"], cwd=ROOT, env=environment) for i in range(shards)
        ]
        for process in running:
            try:
                process.wait(max(0.1, limit - (time.perf_counter() - start)))
            except subprocess.TimeoutExpired:
                process.kill()
                broken.append(f"{part}: stopped after {limit:.0f} s")
            else:
                broken += [f"{part}: ended with code {process.returncode}"] * (process.returncode != 0)
        spans[part] = round(time.perf_counter() - start, 1)
    found: dict = {"dry": options.dry, "seconds": spans, "broken": broken}
    for part in LIMITS:
        files = sorted(out.glob(f"{part}.*.jsonl"))
        found[part] = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    (out / "gpu_check.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    text = report(found)
    (out / "gpu_check.md").write_text(text, encoding="utf-8")
    print(text)
    wrong = [row for row in found["samples"] if row["status"] != "ok"]
    return int(bool(broken or wrong or any(row.get("code") or "error" in row for p in LIMITS for row in found[p])))


def report(found) -> str:
    """The results as Markdown."""
    lines = ["# tinygrad_ms on a card" + (" (a dry run on the strict device)" if found["dry"] else ""), ""]
    lines += [f"- {row['what']}: {row['value']}" for row in found["facts"] if "value" in row]
    samples, tests = found["samples"], [row for row in found["tests"] if "last" in row]
    if samples:
        lines.append(f"- samples: {sum(row['status'] == 'ok' for row in samples)} of {len(samples)} agree with NumPy")
    lines += [f"- tests: {row['last']}" for row in tests] + [f"- {text}" for text in found["broken"]]
    rows: dict = {}
    for part in ("launches", "times", "memory"):
        for row in found[part]:
            rows.setdefault(row["what"], {}).update(row)
    sides = list(dict.fromkeys(side for row in found["times"] for side in row.get("ms", {}) if side != "ours"))
    if rows:
        head = ["a warm step", "launches", "waits", "ours, ms", "handed over, ms", *(f"ours / {s}" for s in sides)]
        head += ["memory, MB", "PyTorch, MB"]
        lines += ["", "| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
        for what, row in rows.items():
            ms, times = row.get("ms", {}), row.get("ratio", {})
            cells = [what, row.get("launches"), row.get("waits"), ms.get("ours"), row.get("host", {}).get("ours")]
            cells += [*(times.get(side) for side in sides), row.get("mb"), row.get("torch_mb")]
            lines.append(
                "| "
                + " | ".join("-" if c is None else f"{c:.3g}" if type(c) is float else str(c) for c in cells)
                + " |"
            )
    bad = [
        f"- {r['name']} sample {r['sample']}, {r['stage']}: {r['detail'][:160]}" for r in samples if r["status"] != "ok"
    ]
    errors = [f"- {part}, {r['what']}: {r['error']}" for part in LIMITS for r in found[part] if "error" in r]
    return "\n".join([*lines, *(["", "Wrong:", "", *bad, *errors] if bad or errors else []), ""])


# --- what the parts use -----------------------------------------------------------------------------------------------


def device(options) -> str:
    return "strict" if options.dry else "cuda"


def library(options):
    import tinygrad_ms as tg
    import tinygrad_ms.testing  # makes the strict device known

    tg.set_default_device(device(options))
    return tg


def wait(options) -> None:
    if not options.dry:
        import cupy

        cupy.cuda.runtime.deviceSynchronize()


def sides(options) -> dict:
    """The frameworks that are here, by their labels: ``frameworks.py`` on the device."""
    import frameworks

    place = "cpu" if options.dry else "cuda"

    class Ours(frameworks.Ours):
        def __init__(self):  # kernels for devices stay on
            self.lib, self.compiled, self.method = library(options), False, "newton_schulz"

    class Torch(frameworks.Torch):
        def __init__(self, compiled=False):
            super().__init__(1)
            self.compile = self.lib.compile if compiled else lambda function: function
            if place == "cuda" and not self.lib.cuda.is_available():
                raise ImportError("PyTorch sees no card")

        def constant(self, array):
            return self.lib.tensor(array, device=place)

        def leaf(self, array):
            return self.constant(array).requires_grad_()

        def numpy(self, value):
            return value.detach().cpu().numpy()

        def train(self, loss, parameters, data, optimizer):
            return super().train(self.compile(loss), parameters, data, optimizer)

        def pull(self, function, arrays, seed):
            return super().pull(self.compile(function), arrays, seed)

    class Jax(frameworks.Jax):
        def __init__(self):
            super().__init__(1)
            self.lib.devices("cpu" if options.dry else "gpu")

    found = {}
    makers = {"ours": Ours, "PyTorch": Torch, "PyTorch compiled": lambda: Torch(True), "JAX jit": Jax}
    for label, make in makers.items():
        if options.dry and label not in ("ours", "PyTorch"):  # compiling takes its time
            continue
        try:
            found[label] = make()
        except Exception as error:
            print(f"  {label} is not here: {error}", flush=True)
    return found


def through_steps(side, rows):
    """msign as it is usually differentiated: through Newton-Schulz steps."""

    def function(x):
        wide = x.shape[-2] < x.shape[-1]
        x = x / (x * x).sum(axis=(-2, -1), keepdims=True) ** 0.5
        x = x if wide else x.mT
        for a, b, c in rows:
            s = x @ x.mT
            x = a * x + (b * s + c * (s @ s)) @ x
        return x if wide else x.mT

    return function


def workloads(options) -> dict:
    """By name: (what makes a step of a side, the sides that it is for)."""
    if options.dry:
        os.environ["TINYGRAD_MS_BENCHMARK_QUICK"] = "1"
    import numpy as np
    import workloads as known

    from tinygrad_ms.ops.iterations.coefficients import fixed_rows

    def full(size, small):
        return small if options.dry else size

    def msign(shape, **how):
        def make(side):
            def function(x):
                return (
                    side.lib.msign(x, **how)
                    if hasattr(side, "compiled")
                    else through_steps(side, fixed_rows(8, "su"))(x)
                )

            return side.pull(function, [known.conditioned(shape)], known.normal(*shape, seed=2))

        return make

    def pulled(function, *shapes):
        def make(side):
            arrays = [known.normal(*shape, seed=seed) for seed, shape in enumerate(shapes)]
            y = side.numpy(function(side, *map(side.constant, arrays)))
            return side.pull(lambda *leaves: function(side, *leaves), arrays, known.normal(*y.shape, seed=9))

        return make

    def cross_entropy(n, classes):
        def make(side):
            target = side.constant(known.labels(n, classes))
            return side.pull(
                lambda x: side.cross_entropy(x, target), [known.normal(n, classes)], np.ones((), "float32")
            )

        return make

    def embedding(n, rows, width):
        def make(side):
            index = side.constant(known.labels(n, rows))
            return side.pull(
                lambda x: side.embedding(x, index), [known.normal(rows, width)], known.normal(n, width, seed=3)
            )

        return make

    def chain(side, x):
        return side.tanh(x * 1.5 + 0.5) * side.sigmoid(x) + side.exp(-x * x)

    def ttt(side):
        if hasattr(side, "lib") and side.lib.__name__ == "torch" and not options.dry:
            torch, plain = side.lib, side.lib.from_numpy
            torch.set_default_device("cuda")
            torch.from_numpy = lambda array: plain(array).cuda()
        return known.ttt_muon("analytic")(side)

    eager, every = ("ours", "PyTorch"), ("ours", "PyTorch", "PyTorch compiled", "JAX jit")
    found = {}
    for batch in full((256, 4096), (8,)):
        found[f"MLP 784-512-512-10, batch {batch}, Adam"] = (
            known.train_mlp(known.MLPS["MLP Adam"]._replace(batch=batch)),
            every,
        )
    found["TTT-Muon"] = ttt, eager
    for shape in full(((512, 512), (2048, 2048), (4096, 4096), (1024, 4096), (32, 128, 128)), ((8, 8),)):
        text = " x ".join(map(str, shape))
        found[f"msign and VJP, {text}, 8 steps"] = msign(shape, steps=8), every
    found["smooth msign and VJP"] = msign(full((512, 512), (8, 8)), eps=1e-2, steps=8), ("ours",)
    rows = full((8192, 1024), (8, 6))
    found["LayerNorm"] = pulled(lambda side, x, w, b: side.layer_norm(x, w, b), rows, rows[1:], rows[1:]), every
    found["softmax cross-entropy"] = cross_entropy(*full((4096, 10_000), (4, 10))), every
    found["embedding"] = embedding(*full((16_384, 50_000, 512), (8, 10, 4))), every
    found["gelu"] = pulled(lambda side, x: side.gelu(x, approximate="none"), rows), every
    found["8 elementwise ops"] = pulled(chain, full((10_000_000,), (100,))), every
    return found


# --- the parts --------------------------------------------------------------------------------------------------------


def facts(options) -> None:
    tg = library(options)
    for name in ("numpy", "cupy", "torch", "jax", "pytest", "hypothesis"):
        there = importlib.util.find_spec(name) is not None
        put(options, what=name, value=__import__(name).__version__ if there else "absent")
    put(options, what="device", value=tg.device_info())
    if not options.dry:
        import cupy

        card = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
        put(options, what="card", value=f"{card}, CUDA {cupy.cuda.runtime.runtimeGetVersion()}")
    done = subprocess.run([sys.executable, "-m", "tinygrad_ms", "doctor"], capture_output=True, text=True, cwd=ROOT)
    put(options, what="doctor", code=0 if options.dry else done.returncode, output=(done.stdout + done.stderr)[-4000:])


def samples(options) -> None:
    """Every registered sample on the device against NumPy, with the helpers of the suite."""
    warnings.simplefilter("ignore")  # samples at poles
    library(options)
    from tests.ops import test_derivatives as suite

    number, count = map(int, options.shard.split("/"))
    names = sorted(suite.SAMPLES.keys() & suite.PRIMITIVES.keys())
    cases = [(name, i, sample) for name in names for i, sample in enumerate(suite.SAMPLES[name])]
    for name, i, sample in cases[number::count][:: 20 if options.dry else 1]:
        row = {"name": name, "sample": i, "status": "ok", "stage": "", "detail": ""}
        try:
            row.update(judged(suite, name, sample, device(options)))
        except Exception as error:
            row.update(status="error", detail=f"{type(error).__name__}: {error}"[:300])
        put(options, **row)


def judged(suite, name, sample, where) -> dict:
    """What a sample gives on the device beside NumPy: the first stage that differs, if one does."""
    here, there = stages(suite, name, sample, "cpu"), stages(suite, name, sample, where)
    for stage in STAGES:
        right, found = here.get(stage), there.get(stage)
        if right is None or isinstance(right, Exception):
            continue
        if found is None or isinstance(found, Exception):
            return dict(status="error", stage=stage, detail=f"{type(found).__name__}: {found}"[:300])
        worst = difference(suite, found, right)
        if worst > 1e-8:
            alike = difference(suite, found, right, absolute=True) <= 1e-8  # vectors that are fixed but for their signs
            return dict(status="sign" if alike else "differs", stage=stage, detail=f"relative {worst:.1e}")
    return {}


def stages(suite, name, sample, where) -> dict:
    """The results of each stage, or the exception that ended it."""
    done: dict = {}
    try:
        args = suite.arguments(sample, where)
        outputs = suite.as_tuple(suite.call(name, sample, *args, device=where))
        done["value"] = list(outputs)
        total = suite.weighted_sum(outputs, where)
        if total is not None:
            total.backward(create_graph=True)
            first = done["vjp"] = [args[i].grad for i in suite.varied(sample)]
            for i in suite.varied(sample):
                args[i].zero_grad()
            again = suite.weighted_sum([g for g in first if g is not None], where)
            if again is not None:
                again.backward()
                done["second"] = [args[i].grad for i in suite.varied(sample)]
            with suite.forward_mode():
                args = suite.arguments(sample, where)
                outputs = [y for y in suite.as_tuple(suite.call(name, sample, *args, device=where)) if y.requires_grad]
            tangents = suite.weights([args[i] for i in suite.varied(sample)], where)
            given = {args[i].node: t.data for i, t in zip(suite.varied(sample), tangents)}
            done["jvp"] = suite.push_forward([y.node for y in outputs], given)
    except Exception as error:
        done[next((stage for stage in STAGES if stage not in done), "jvp")] = error
    return done


def difference(suite, found, right, absolute=False) -> float:
    """The largest difference relative to the largest element; infinite where NaNs or shapes differ."""
    import numpy as np

    worst = 0.0
    for a, b in zip(found, right, strict=True):
        if a is None or b is None:
            worst = worst if a is b else np.inf
            continue
        a, b = (np.asarray(suite.to_numpy(x), dtype=float) for x in (a, b))
        a, b = (abs(a), abs(b)) if absolute else (a, b)
        if a.shape != b.shape or (np.isfinite(a) != np.isfinite(b)).any():
            return np.inf
        same = np.isfinite(a)
        if (a[~same] == b[~same]).all() if not np.isnan(a).any() else (np.isnan(a) == np.isnan(b)).all():
            scale = max(1.0, abs(b[same]).max(initial=0))
            worst = max(worst, abs(a[same] - b[same]).max(initial=0) / scale)
        else:
            return np.inf
    return float(worst)


def tests(options) -> None:
    if importlib.util.find_spec("pytest") is None:
        put(options, what="pytest", last="pytest is not installed")
        return
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=line"]
    command += ["tests/arrays/test_launches.py"] if options.dry else ["-m", "gpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    (Path(options.out) / "tests.txt").write_text(done.stdout + done.stderr)
    put(options, what="pytest", code=done.returncode, last=(done.stdout.splitlines() or [""])[-1])


def launches(options) -> None:
    """Kernels of a warm step, by PyTorch's profiler (CUPTI), which sees those of CuPy, too; reads that wait."""
    ours, waits = sides(options)["ours"], []
    watch(options, waits)
    for name, (make, _) in workloads(options).items():

        def one(name=name, make=make):
            step = make(ours)
            for _ in range(3):
                step()
            wait(options)
            waits.clear()
            count, where = counted(options, step, waits)
            put(options, what=name, launches=count, waits=len(where), where=sorted(set(where))[:10])

        attempt(options, name, one)
        gc.collect()


def counted(options, step, waits):
    """How many kernels a step launches (None where nobody can say), and where the host waits."""
    if options.dry:
        from tinygrad_ms.testing import strict

        strict.reset_stats()
        step()
        return strict.STATS.calls, ["the host reads"] * strict.STATS.sync
    step()
    where = list(waits)
    wait(options)
    try:
        from torch.profiler import ProfilerActivity, profile
    except ImportError:
        return None, where
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as p:
        step()
        wait(options)
    on_card = [e for e in p.events() if str(e.device_type).endswith("CUDA")]
    return sum(not e.name.startswith(("Memset", "Memcpy")) for e in on_card), where


def watch(options, waits) -> None:
    """Note each read of a value by the host, with its line."""
    if options.dry:
        return
    import cupy

    def spied(name, plain):
        def call(self, *args, **kwargs):
            frame = sys._getframe(1)
            while frame.f_back and "/cupy/" in frame.f_code.co_filename:
                frame = frame.f_back
            waits.append(f"{name} at {Path(frame.f_code.co_filename).name}:{frame.f_lineno}")
            return plain(self, *args, **kwargs)

        return call

    for name in ("get", "item", "tolist", "__bool__", "__int__", "__float__"):
        setattr(cupy.ndarray, name, spied(name, getattr(cupy.ndarray, name)))


def times(options) -> None:
    here = sides(options)
    for name, (make, wanted) in workloads(options).items():
        steps = {}
        for label in wanted:
            if label in here:
                step = attempt(
                    options, f"{name}, {label}", lambda make=make, label=label: warm(options, make(here[label]))
                )
                steps.update({label: step} if step else {})
        if "ours" in steps:
            attempt(options, name, lambda name=name, steps=steps: put(options, what=name, **timed(options, steps)))
        del steps
        gc.collect()


def warm(options, step):
    for _ in range(2 if options.dry else 5):
        step()
    wait(options)
    return step


def timed(options, steps) -> dict:
    """Median milliseconds of steps that take turns, those in which the host hands over, and medians of the ratios."""
    spans: dict = {label: [] for label in steps}
    host: dict = {label: [] for label in steps}
    began = time.perf_counter()
    for turn in range(3 if options.dry else 30):
        if turn > 4 and time.perf_counter() - began > 8:
            break
        for label, step in steps.items():
            wait(options)
            start = time.perf_counter()
            step()
            handed = time.perf_counter()
            wait(options)
            spans[label].append(1e3 * (time.perf_counter() - start))
            host[label].append(1e3 * (handed - start))
    middle = statistics.median
    return {
        "ms": {label: middle(found) for label, found in spans.items()},
        "host": {label: middle(found) for label, found in host.items()},
        "ratio": {k: middle(a / b for a, b in zip(spans["ours"], v)) for k, v in spans.items() if k != "ours"},
    }


def memory(options) -> None:
    here = sides(options)
    for name, (make, _) in workloads(options).items():

        def one(name=name, make=make):
            found = {"mb": peak_of_ours(options, warm(options, make(here["ours"])))}
            gc.collect()
            if "PyTorch" in here and not options.dry:
                found["torch_mb"] = peak_of_torch(here["PyTorch"].lib, warm(options, make(here["PyTorch"])))
            put(options, what=name, **found)

        attempt(options, name, one)
        gc.collect()


def peak_of_ours(options, step):
    """The most bytes in use during a step, in MB."""
    if options.dry:
        step()
        return 0.0
    import cupy

    pool, most = cupy.get_default_memory_pool(), [0]

    class Peak(cupy.cuda.MemoryHook):
        name = "Peak"

        def malloc_postprocess(self, **about):
            most[0] = max(most[0], pool.used_bytes())

    with Peak():
        step()
    wait(options)
    return most[0] / 1e6


def peak_of_torch(torch, step):
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 1e6


PARTS = {f.__name__: f for f in (facts, samples, tests, launches, times, memory)}

if __name__ == "__main__":
    OPTIONS = parse()
    sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
    sys.exit(PARTS[OPTIONS.part](OPTIONS) if OPTIONS.part else main(OPTIONS))
