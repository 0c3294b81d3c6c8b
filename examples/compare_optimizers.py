"""Muon and AdamW on the digits of train_mlp.py: the same model, batches and schedule; curves and a table.

    python examples/compare_optimizers.py [--seeds 0 1 2] [--epochs 40] [--out runs/optimizers]

Written: optimizers.png, optimizers.json.
"""

# %% Settings
import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import train_mlp
from common import Silent, count, pyplot, save_figure

import tinygrad_ms as tg

COLOURS = {"adamw": "#D55E00", "muon": "#0072B2"}


# %% Train
def curves(optimizer, seed, epochs):
    """Test accuracy after each epoch, and the number of steps in one."""
    run = train_mlp.Run(train_mlp.parse(["--optimizer", optimizer, "--seed", str(seed), "--epochs", str(epochs)]))
    for _ in range(epochs):
        run.epoch(Silent())
    return [h["accuracy"] for h in run.history], len(run.loader)


def compare(seeds, epochs):
    """{optimizer: mean accuracy over the seeds after each epoch}, and the steps of an epoch."""
    means = {}
    for optimizer in COLOURS:
        runs = [curves(optimizer, seed, epochs) for seed in seeds]
        means[optimizer] = np.mean([accuracy for accuracy, _ in runs], axis=0)
    return means, runs[0][1]


# %% Show
def steps_to(accuracy, curve, steps):
    """The steps after which the curve is at ``accuracy`` for the first time, or None."""
    reached = np.flatnonzero(curve >= accuracy)
    return int(reached[0] + 1) * steps if len(reached) else None


def draw(means, steps, path):
    plt = pyplot()
    figure, axis = plt.subplots(figsize=(6.5, 4), layout="constrained")
    for optimizer, curve in means.items():
        axis.plot(np.arange(1, len(curve) + 1) * steps, 100 * curve, color=COLOURS[optimizer], label=optimizer)
    axis.set(xlabel="step", ylabel="test accuracy (%), mean over the seeds", ylim=(90, 100))
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(plt, figure, path)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=count(0), nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=count(1), default=40)
    parser.add_argument("--out", type=Path, default=Path("runs/optimizers"))
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    means, steps = compare(options.seeds, options.epochs)
    result = {"seeds": options.seeds, "steps per epoch": steps}
    for optimizer, curve in means.items():
        result[optimizer] = {"accuracy": [round(float(a), 5) for a in curve]}
        for level in (0.95, 0.97, float(means["adamw"].max())):
            result[optimizer][f"steps to {level:.4f}"] = steps_to(level, curve, steps)
        reached = {k: v for k, v in result[optimizer].items() if k != "accuracy"}
        print(f"{optimizer}: best {curve.max():.4f}, last {curve[-1]:.4f}, {reached}")
    (options.out / "optimizers.json").write_text(json.dumps(result, indent=1))
    try:
        draw(means, steps, options.out / "optimizers.png")
    except ImportError:
        print("no PNG picture: matplotlib is not installed (pip install matplotlib)")
    return result


if __name__ == "__main__":
    tg.keep_freed_memory()
    main()
