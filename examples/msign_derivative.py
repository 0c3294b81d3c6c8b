"""Four ways to differentiate msign: error against condition number, time and memory, and the typo of the source.

    python examples/msign_derivative.py               about half a minute
    python examples/msign_derivative.py --size 256 --out runs/msign

Written to --out: error.png, cost.png (with matplotlib) and result.json. The mathematics: docs/msign.md.
"""

# %% Settings
import argparse
import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from common import pyplot, save_figure

import tinygrad_ms as tg
from tinygrad_ms.ops.iterations.coefficients import POLISH, TABLES
from tinygrad_ms.ops.matrix_sign.msign import msign_unrolled
from tinygrad_ms.ops.matrix_sign.sylvester import msign_dense_vjp

# %% The ways: each gives the gradient of <G, msign(M)> with respect to M


def by_tape(function):
    def gradient(M, G):
        x = tg.tensor(M)
        x.requires_grad = True
        function(x).backward(tg.tensor(G))
        return x.grad.numpy()

    return gradient


WAYS = {
    "mcsgn solve (msign)": by_tape(tg.msign),
    "svd closed form": by_tape(lambda x: tg.msign(x, method="svd")),
    "through 8 steps": by_tape(msign_unrolled),
    "through 8 steps, checkpoint": by_tape(tg.checkpoint(msign_unrolled)),
    "dense block, eps = 1e-3": lambda M, G: msign_dense_vjp(M, G, eps=1e-3, steps=8),
}


# %% Error against condition number


def reference(n, m, kappa, G, random):
    """M with the singular values 1 .. 1/kappa, and the exact gradient: its singular vectors are known beforehand."""
    u = np.linalg.qr(random.standard_normal((n, n)))[0]
    v = np.linalg.qr(random.standard_normal((m, n)))[0]
    s = kappa ** -np.linspace(0, 1, n)
    B = u.T @ G
    C = B @ v
    inner = (C - C.T) / (s[:, None] + s)
    return (u * s) @ v.T, u @ inner @ v.T + u @ ((B - C @ v.T) / s[:, None])


def errors(n, m, kappas, dtype, random):
    """Relative Frobenius errors of every way, as lists over kappa."""
    table = {name: [] for name in WAYS}
    for kappa in kappas:
        G = random.standard_normal((n, m))
        M, expected = reference(n, m, kappa, G, random)
        for name, gradient in WAYS.items():
            difference = gradient(M.astype(dtype), G.astype(dtype)) - expected
            table[name].append(float(np.linalg.norm(difference) / np.linalg.norm(expected)))
    return table


def print_errors(title, kappas, table):
    print(f"\n{title}\n{'kappa':30s}" + "".join(f"{kappa:>10.0e}" for kappa in kappas))
    for name, row in table.items():
        print(f"{name:30s}" + "".join(f"{error:10.1e}" for error in row))


# %% Time and memory


def held_bytes(function, M):
    """What stays allocated between forward and backward, beyond M."""
    x = tg.tensor(M)
    x.requires_grad = True
    gc.collect()
    tracemalloc.start()
    y = function(x)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del y
    return size


def cost(n, m, random, repeats=5):
    """Best time of forward and gradient, in milliseconds, and memory held for backward, in copies of M."""
    M, G = (random.standard_normal((n, m)).astype("float32") for _ in range(2))
    functions = {
        "mcsgn solve (msign)": lambda x: tg.msign(x, steps=8),
        "svd closed form": lambda x: tg.msign(x, method="svd"),
        "through 8 steps": msign_unrolled,
        "through 8 steps, checkpoint": tg.checkpoint(msign_unrolled),
        "dense block, eps = 1e-3": None,
    }
    table = {}
    for name, function in functions.items():
        gradient = by_tape(function) if function else WAYS[name]
        times = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            gradient(M, G)
            times.append(time.perf_counter() - start)
        memory = held_bytes(function, M) / M.nbytes if function else 1.0  # the dense way keeps O
        table[name] = {"ms": min(times[1:]) * 1e3, "copies of M": memory}
    return table


# %% The typo of the source


def typo(n=16):
    """||X||_F after each of 8 steps with row 6 as it is printed, b = +1.268, and as it must be, b = -1.268."""
    result = {}
    for name, sign in (("as printed", -1), ("corrected", 1)):
        a, b, c = TABLES["su"][5]
        rows = [*TABLES["su"][:5], (a, sign * b, c), POLISH, POLISH]
        M = np.eye(n)
        result[name] = [float(np.linalg.norm(tg.msign(M, coefficients=rows, steps=k))) for k in range(1, 9)]
    return result


# %% Run


def plot(path, kappas, tables, costs):
    plt = pyplot()
    looks = [
        "o-#0072B2",
        "s--#E69F00",
        "^-.#009E73",
        "",
        "D:#D55E00",
    ]  # apart in grey and for colour-blind readers, too
    figure, axes = plt.subplots(1, len(tables), figsize=(5 * len(tables), 4.2), sharey=True)
    for axis, (title, table) in zip(axes, tables.items(), strict=True):
        for (name, row), look in zip(table.items(), looks, strict=True):
            if look:  # through a checkpoint it is the same gradient
                axis.loglog(kappas[title], row, look[:-7], color=look[-7:], label=name)
        axis.axhline(1, color="grey", linewidth=0.8)
        axis.text(1.1, 2, "1: no digit is right", fontsize=8, color="grey")
        axis.set(title=title, xlabel="condition number", ylim=(1e-17, 1e2))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("relative error of the gradient")
    axes[-1].legend(fontsize=9, loc="lower right")
    figure.tight_layout()
    save_figure(plt, figure, path / "error.png")
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6))
    for axis, what, unit in zip(axes, ("ms", "copies of M"), ("forward + gradient, ms", "memory held, copies of M")):
        names = list(next(iter(costs.values())))
        for k, (shape, table) in enumerate(costs.items()):
            places = np.arange(len(names)) + 0.8 * k / len(costs)
            axis.barh(places, [table[name][what] for name in names], 0.35, label=shape, color=["#0072B2", "#E69F00"][k])
        axis.set_yticks(np.arange(len(names)) + 0.2, names)
        axis.set(xlabel=unit)
        axis.invert_yaxis()
        axis.legend()
    figure.tight_layout()
    save_figure(plt, figure, path / "cost.png")


def main(size=128, out="runs/msign", seed=0):
    random = np.random.default_rng(seed)
    path = Path(out)
    path.mkdir(parents=True, exist_ok=True)
    tables, kappas = {}, {}
    for title, n, m, dtype, largest in (
        ("square, float64", 16, 16, "float64", 8), ("four times as wide, float64", 16, 64, "float64", 8),
        ("square, float32", 16, 16, "float32", 4),
    ):  # fmt: skip
        kappas[title] = [10.0**k for k in range(largest + 1)]
        tables[title] = errors(n, m, kappas[title], dtype, random)
        print_errors(f"Error of the gradient, {title}, {n} x {m}", kappas[title], tables[title])
    costs = {}
    for n, m in ((size, size), (size // 2, 4 * size // 2)):
        costs[f"{n} x {m}"] = table = cost(n, m, random)
        print(f"\n{n} x {m}, float32{'forward + gradient':>36s}{'held for backward':>22s}")
        for name, row in table.items():
            print(f"{name:30s}{row['ms']:15.2f} ms{row['copies of M']:15.2f} x M")
    norms = typo()
    print("\n||X||_F after steps 1 to 8 from the identity of 16 rows; it should end at 4")
    for name, row in norms.items():
        print(f"row 6 {name:12s}" + "".join(f"{x:10.3g}" for x in row))
    result = {"kappa": kappas, "error": tables, "cost": costs, "typo": norms}
    (path / "result.json").write_text(json.dumps(result, indent=1))
    try:
        plot(path, kappas, tables, costs)
        print(f"\nwritten: {path}/error.png, {path}/cost.png, {path}/result.json")
    except ImportError:
        print(f"\nwritten: {path}/result.json; for the plots: pip install matplotlib")
    return result


if __name__ == "__main__":
    tg.keep_freed_memory()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--out", default="runs/msign")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    main(options.size, options.out, options.seed)
