"""What tiny ops cost, forward and backward: beside another checkout, and beside PyTorch eager where it is installed.

    python benchmarks/bench_ops.py [--beside PATH] [--no-torch] [--only chain walk ...] [--repeats 31] [--json FILE]

The cases stand in cases.py. Each side is a process of its own: this checkout, the one at PATH, PyTorch. They share one
core, have one thread each and take turns case by case, so they never run at the same time. They start anew twice on the
way. A ratio is the median over the rounds of the ratios within one round, with its quartiles; below 1 this checkout is
the faster one. A checkout beside itself had ratios of 0.98 to 1.03 on a busy machine: finer differences say nothing.
Without --beside, only the cases run that say something alone: chains (beside PyTorch) and raw arrays (beside NumPy).
At last: the time of 100,000 ops over that of 10,000, which is 10 if time is linear.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from cases import CASES

HERE = Path(__file__).resolve().parents[1]
LINEAR = "linear/100,000"
SITTINGS = 3  # the workers start anew so often: where memory happens to lie is worth some percent


class Side:
    """A process that runs cases when told to."""

    def __init__(self, kind: str, root: Path):
        threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        self.worker = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("cases.py")), kind, str(root)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, **threads, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        self.kind = kind
        self.facts = {**self.answer(), **(commit(root) if kind == "ours" else {})}

    def answer(self) -> dict:
        line = self.worker.stdout.readline()
        if not line:
            raise SystemExit(f"bench_ops: a worker ({self.kind}) ended with status {self.worker.wait()}")
        return json.loads(line)

    def run(self, name: str) -> dict[str, float]:
        """{part: seconds} of one run."""
        print(name, file=self.worker.stdin, flush=True)
        return self.answer()

    def close(self):
        self.worker.stdin.close()
        self.worker.wait()


def commit(root: Path) -> dict[str, str]:
    """The commit of a checkout, and whether files differ from it."""
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"commit": head.stdout.strip() + (" with changes" if changes.returncode else "")}


Rounds = dict[str, list[dict[str, float]]]  # {side: the parts of each round}


def take_turns(sides: dict[str, Side], repeats: int, times: dict[str, Rounds]) -> None:
    """Run every case of ``times`` on every side, and add what it took; the order turns round from round to round."""
    for repeat in range(repeats):
        for name, rounds in times.items():
            order = [who for who, side in sides.items() if side.kind == "ours" or CASES[name].torch]
            for who in reversed(order) if repeat % 2 else order:
                rounds.setdefault(who, []).append(sides[who].run(name))


def paired(these, others) -> dict[str, float]:
    """The median, and the quartiles, of the ratios of neighbours in time."""
    ratios = [a / b for a, b in zip(these, others)]
    low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {"median": median, "low": low, "high": high}


def summary(name: str, rounds: Rounds) -> dict:
    """The figures of one case: microseconds by part, and the ratios of this checkout to the others."""
    scale, raw = 1e6 / CASES[name].calls, name.startswith("raw/")
    result: dict = {"title": CASES[name].title, "us": {}, "ratio": {}}
    for who, runs in rounds.items():
        result["us"][who] = {part: scale * statistics.median(run[part] for run in runs) for part in runs[0]}
        if raw:
            result["ratio"][f"{who} / NumPy"] = paired([r["op"] for r in runs], [r["NumPy"] for r in runs])
    ours = rounds["this"]
    for who, runs in rounds.items():
        if who == "this":
            continue
        result["ratio"][f"this / {who}"] = ratio = paired([whole(r, raw) for r in ours], [whole(r, raw) for r in runs])
        if len(ours[0]) > 1 and not raw:
            ratio["parts"] = {p: paired([r[p] for r in ours], [r[p] for r in runs])["median"] for p in ours[0]}
    return result


def whole(parts: dict[str, float], raw: bool) -> float:
    return parts["op"] if raw else sum(parts.values())


def show(results: dict[str, dict]) -> None:
    """A table; a new head where the columns change."""
    head = None
    for result in results.values():
        columns = {who: " + ".join(f"{x:,.2f}" for x in parts.values()) for who, parts in result["us"].items()}
        for what, ratio in result["ratio"].items():
            columns[what] = "{median:.2f} [{low:.2f}, {high:.2f}]".format(**ratio)
            columns[what] += "".join(f" {x:.2f}" for x in ratio.get("parts", {}).values())
        parts = " + ".join(result["us"]["this"])
        if head != (parts, list(columns)):
            head = (parts, list(columns))
            print(f"\n{parts:40}" + "".join(f"{name:>28}" for name in columns))
        print(f"{result['title']:40}" + "".join(f"{text:>28}" for text in columns.values()))


def pick(only: list[str] | None, beside: bool) -> list[str]:
    groups = only or (["chain", "unary", "walk", "raw", "program"] if beside else ["chain", "raw"])
    return [name for name in CASES if name != LINEAR and name.startswith(tuple(groups))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--beside", type=Path, metavar="PATH", help="another checkout of this project")
    parser.add_argument("--torch", action=argparse.BooleanOptionalAction, help="default: where PyTorch is installed")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="what the names of the cases begin with")
    parser.add_argument("--repeats", type=int, default=31, help="rounds; at least 15 for a ratio that is to be trusted")
    parser.add_argument("--json", help="also write the figures to this file")
    options = parser.parse_args()
    options.repeats = SITTINGS * max(1, round(options.repeats / SITTINGS))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # for the workers, too: all on the same core
    places = {"this": ("ours", HERE)}
    if options.beside:
        places["beside"] = ("ours", options.beside.resolve())
    if options.torch or (options.torch is None and importlib.util.find_spec("torch")):
        places["PyTorch"] = ("torch", HERE)
    load, linear = [os.getloadavg()], []
    times: dict[str, Rounds] = {name: {} for name in pick(options.only, bool(options.beside))}
    for sitting in range(SITTINGS):
        sides = {who: Side(*place) for who, place in places.items()}
        take_turns(sides, options.repeats // SITTINGS, times)
        if not options.only:
            linear += [sides["this"].run(LINEAR) for _ in range(2)]
        for who, side in sides.items():
            side.close()
            if not sitting:
                print(f"{who}: " + ", ".join(f"{key} {value}" for key, value in side.facts.items()))
    results = {name: summary(name, rounds) for name, rounds in times.items()}
    print("Microseconds of CPU time per op, or per step of a program: medians.")
    print("Ratios: median [quartiles], then the medians part by part.")
    show(results)
    if "PyTorch" not in places:
        print("(without PyTorch: pip install torch)")
    if linear:
        results["time of 100,000 ops over 10,000"] = ratio = statistics.median(
            r["100,000"] / r["10,000"] for r in linear
        )
        print(f"time of 100,000 ops over that of 10,000: {ratio:.1f}")
    load.append(os.getloadavg())
    print("load of the machine over 1, 5, 15 minutes:", " and ".join(" ".join(f"{x:.1f}" for x in l) for l in load))
    if options.json:
        from measure import facts

        about = {**facts(), "repeats": options.repeats, "load before and after": load}
        about["sides"] = {who: side.facts for who, side in sides.items()}
        Path(options.json).write_text(
            json.dumps({"facts": about, "results": results}, indent=1) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
