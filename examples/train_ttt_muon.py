"""Train a TTT-Muon RNN to remember pairs of keys and values, the rare ones too.

    python examples/train_ttt_muon.py                      MQAR with repeats by Zipf's law: a few minutes on a laptop
    python examples/train_ttt_muon.py --update plain       the fast weights learn by plain gradient steps
    python examples/train_ttt_muon.py --compare            all four updates, the same seeds: one plot and one table
    python examples/train_ttt_muon.py --task uniform       no repeats: every update learns it, in less than a minute
    python examples/train_ttt_muon.py --task chars         predict the characters of Python's help texts
    python examples/train_ttt_muon.py --resume runs/zipf-muon-0/checkpoint.npz
    mpiexec -n 2 python examples/train_ttt_muon.py         the same batches, shared out to two processes

--update: muon (the exact smooth msign with its analytic derivative), ns5 (five unconverged Newton-Schulz steps,
differentiated step by step), plain (the gradient itself), frozen (the fast weights never change).
Written to --out: curves.png, checkpoint.npz, result.json; with --compare also comparison.png, comparison.md and
comparison.json.
"""

# %% Settings
import argparse
import json
import math
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import common
from common import Diverged, begin, count, end, number, progress, pyplot, read, save_figure, say, settings

import tinygrad_ms as tg
from tinygrad_ms import distributed, nn, optim
from tinygrad_ms.data import MQAR, load_text, windows

UPDATES = {  # of the fast weights
    "muon": dict(update="muon", msign="smooth"),
    "ns5": dict(update="muon", msign="ns5"),
    "plain": dict(update="plain"),
    "frozen": dict(update="frozen"),
}
COLOURS = {"muon": "#0072B2", "ns5": "#E69F00", "plain": "#D55E00", "frozen": "#666666"}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--task", choices=TASKS, default="zipf")
    add("--update", choices=UPDATES, default="muon", help="how the fast weights learn")
    add("--steps", type=count(1), help="default 1200 (zipf), 400 (uniform), 300 (chars); with --resume, up to how many")
    add("--batch-size", type=count(1), help="default 32; 64 for uniform")
    add("--chunk", type=count(1), help="tokens per inner step; default 32, 8 for uniform")
    add("--lr", type=number(0, least_itself=False), default=4e-3)
    add(
        "--base-lr",
        type=number(0, least_itself=False),
        default=0.3,
        help="what the learned rates of the inner steps start from",
    )
    add("--inner-step", type=number(0), default=0.3, help="the size of an inner step along msign")
    add("--dim", type=count(1), default=64)
    add("--heads", type=count(1), default=2)
    add("--blocks", type=count(1), default=1)
    add("--seed", type=count(0), default=0, help="picks the initial weights and the sequences")
    add("--device", help='"cpu", "cuda", "cuda:1"; default: a GPU where CuPy finds one, else the CPU')
    add("--save-memory", action="store_true", help="keep the states between chunks only, compute each chunk again")
    add("--compile", action="store_true", help="record the training step once and replay it: the same numbers, faster")
    add("--out", type=Path, help="folder of the results; default runs/TASK-UPDATE-SEED, runs/TASK-compare")
    add("--resume", type=Path, metavar="CHECKPOINT", help="go on from a checkpoint, with the settings it was made with")
    add("--compare", action="store_true", help="train every update from the same seeds")
    add("--seeds", type=count(0), nargs="+", help="of the comparison; default: --seed alone")
    add("--quiet", action="store_true", help="no progress bar")
    options = read(parser, arguments)
    if options.dim % options.heads:
        parser.error(f"--dim is {options.dim}, which is no multiple of the {options.heads} --heads")
    if options.compare and options.resume:
        parser.error("--compare trains from the beginning; leave out --resume")
    if options.seeds and not options.compare:
        parser.error("--seeds are those of a comparison; give --seed, or --compare too")
    if options.device:
        try:
            tg.zeros(1, device=options.device)
        except (ValueError, RuntimeError) as error:
            parser.error(str(error))
    for name, value in TASKS[options.task].defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    name = "compare" if options.compare else f"{options.update}-{options.seed}"
    options.out = options.out or Path("runs") / f"{options.task}-{name}"
    return options


# %% The tasks: batches by the number of the step, so that a resumed run sees the same ones
class RecallTask:
    """Answer the queries at the end. Accuracy over all of them, and over the tail: pairs shown once."""

    defaults = dict(steps=1200, batch_size=32, chunk=32)
    measure, higher_is_better = "accuracy", True

    def __init__(self, options):
        self.data, self.size, self.seed = self.make(), options.batch_size, options.seed
        self.vocabulary, self.queries = self.data.vocabulary, self.data.queries

    @staticmethod
    def make():
        return MQAR()

    def batch(self, step):
        recall = self.data.batch(self.size, np.random.default_rng((self.seed, step)))
        return recall.tokens, recall.answers

    def evaluate(self, model, batches):
        """Of sequences that training never sees; the same ones for every update and seed."""
        right, shown = [], []
        for i in range(batches):
            recall = self.data.batch(self.size, np.random.default_rng((10**6, 0, i)))
            logits = model(tg.tensor(recall.tokens, device=model.device), self.queries)
            right.append(logits.argmax(axis=-1).numpy() == recall.answers)
            shown.append(recall.shown)
        right, tail = np.concatenate(right), np.concatenate(shown) == 1
        return {"accuracy": float(right.mean()), "tail": float(right[tail].mean())}


class UniformTask(RecallTask):
    """Eight pairs, each shown once."""

    defaults = dict(steps=400, batch_size=64, chunk=8)

    @staticmethod
    def make():
        return MQAR.uniform()


class CharsTask:
    """Predict the next character, 128 of them at a time. An experiment: this does not need an associative memory."""

    defaults = dict(steps=300, batch_size=32, chunk=32)
    measure, higher_is_better = "nats per character", False

    def __init__(self, options):
        text = load_text("python")
        self.train, self.test = text.split()
        self.vocabulary, self.queries = len(text.symbols), 128
        self.size, self.seed = options.batch_size, options.seed

    def batch(self, step):
        return windows(self.train, self.size, self.queries, np.random.default_rng((self.seed, step)))

    def evaluate(self, model, batches):
        losses = []
        for i in range(batches):
            x, y = windows(self.test, self.size, self.queries, np.random.default_rng((10**6, 0, i)))
            losses.append(loss_of(model, x, y).item())
        return {"nats per character": float(np.mean(losses))}


TASKS = {"zipf": RecallTask, "uniform": UniformTask, "chars": CharsTask}


# %% The model
class Block(nn.Module):
    """x + TTT(RMSNorm x), then x + MLP(RMSNorm x)."""

    def __init__(self, dim, heads, rng, **ttt):
        self.norm1 = nn.RMSNorm(dim)
        self.ttt = nn.TTTMuon(dim, heads, rng=rng, **ttt)
        self.norm2 = nn.RMSNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim, rng=rng), nn.SiLU(), nn.Linear(2 * dim, dim, rng=rng))

    def forward(self, x):
        x = x + self.ttt(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    """Tokens (batch, T) -> logits (batch, last, vocabulary) at the last places."""

    def __init__(self, vocabulary, dim=64, heads=2, blocks=1, seed=0, **ttt):
        rng = np.random.default_rng(seed)
        self.embedding = nn.Embedding(vocabulary, dim, rng=rng)
        self.embedding.weight = nn.Parameter(nn.init.normal((vocabulary, dim), std=0.5, rng=rng))
        self.blocks = [Block(dim, heads, rng, **ttt) for _ in range(blocks)]
        self.norm = nn.RMSNorm(dim)
        self.head = nn.Linear(dim, vocabulary, rng=rng)

    @property
    def device(self):
        return self.head.weight.device

    def forward(self, tokens, last=1):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x[:, -last:]))


def loss_of(model, tokens, answers):
    tokens, answers = (tg.tensor(a, device=model.device) for a in (tokens, answers))
    return tg.softmax_cross_entropy(model(tokens, answers.shape[1]), answers)


def update_of(model, optimizer, schedule):
    """One step of training, as a function of a batch: the loss, and the norm of the gradients."""

    def update(tokens, answers):
        loss = loss_of(model, tokens, answers)
        optimizer.zero_grad()
        loss.backward()
        norm = optim.clip_grad_norm(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        return loss, norm

    return update


# %% One run
class Run(common.Run):
    """Everything a checkpoint holds: the run can stop after any step and go on as if it had not."""

    def __init__(self, options):
        self.options = options
        self.task = TASKS[options.task](options)
        checkpoint = tg.checkpoint if options.save_memory else None
        self.model = Model(
            self.task.vocabulary, options.dim, options.heads, options.blocks, options.seed, chunk=options.chunk,
            base_lr=options.base_lr, inner_step=options.inner_step, checkpoint=checkpoint, **UPDATES[options.update],
        )  # fmt: skip
        if options.device:
            self.model.to(options.device)
        self.model = distributed.DataParallel(self.model)
        self.optimizer = optim.AdamW(self.model.parameters(), lr=options.lr, betas=(0.9, 0.95), weight_decay=0.01)
        self.schedule = optim.CosineLR(self.optimizer, options.steps, min(50, options.steps // 4), final=0.1)
        update = update_of(self.model, self.optimizer, self.schedule)
        self.update = tg.compile(update) if options.compile else update
        self.losses, self.history, self.seconds = [], [], 0.0

    parts = ("model", "optimizer", "schedule")
    records = ("losses", "history", "seconds")

    @property
    def steps(self):
        """The number of steps that were made."""
        return len(self.losses)

    done = steps  # as in ``common.Run``

    def step(self):
        start = time.perf_counter()
        loss, norm = self.update(*distributed.shard(*self.task.batch(self.done)))
        if not math.isfinite(norm.item()):
            raise Diverged(f"the gradient of step {self.done + 1} has norm {norm.item()}; try a smaller --lr")
        self.losses.append(self.model.average(loss).item())
        self.seconds += time.perf_counter() - start

    @tg.no_grad()
    def evaluate(self, batches=4):
        self.history.append({"step": self.done, **self.task.evaluate(self.model, batches)})


class Stop:
    """Turns Ctrl-C and SIGTERM into a wish to stop after the step that is being made; a second one stops at once."""

    wanted = False

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self.before = {which: signal.signal(which, self.ask) for which in (signal.SIGINT, signal.SIGTERM)}
        else:
            self.before = {}
        return self

    def __exit__(self, *error):
        for which, handler in self.before.items():
            signal.signal(which, handler)

    def ask(self, which, frame):
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True

    def anywhere(self):
        """Whether any of the processes is to stop: all do so after the same step."""
        return distributed.all_reduce(float(self.wanted)).item() > 0


def train(run):
    """Train to the end, measure every twentieth of the way, and write the results."""
    options = run.options
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint, every = options.out / "checkpoint.npz", max(1, options.steps // 20)
    bar = progress(options.steps, run.done, options.quiet, "step")
    saved = run.done
    try:
        run.save(checkpoint)  # only ever between two steps: a checkpoint is of whole ones
        with Stop() as stop:
            while run.done < options.steps and not stop.anywhere():
                run.step()
                bar.update()
                if run.done % every == 0 and run.done < options.steps:
                    run.evaluate()
                    run.save(checkpoint)
                    saved = run.done
                if run.done % 10 == 0:
                    latest = {k: f"{v:.3f}" for k, v in (run.history or [{}])[-1].items() if k != "step"}
                    bar.set_postfix(loss=f"{np.mean(run.losses[-10:]):.3f}", **latest)
            if run.done < options.steps:
                run.save(checkpoint)
                saved = run.done
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        bar.close()
        end(f"\nstopped after {saved} steps; go on with: python {sys.argv[0]} --resume {checkpoint}")
    except Diverged as error:
        bar.close()
        end(f"error: {error}")
    bar.close()
    if not run.history or run.history[-1]["step"] < run.done:
        run.evaluate(batches=32)
    run.save(checkpoint)
    return finish(run)


# %% What to show at the end
def finish(run):
    options, last = run.options, run.history[-1]
    figures = {k: v for k, v in last.items() if k != "step"}
    if distributed.rank() > 0:
        return figures
    per_step = 1000 * run.seconds / max(1, run.done)
    reached = ", ".join(f"{k} {v:.4f}" for k, v in figures.items())
    print(
        f"{options.task}, {options.update}, seed {options.seed}: {reached} after {run.done} steps,"
        f" {run.seconds:.0f} s ({per_step:.0f} ms a step)"
    )
    result = {
        "settings": settings(options), **figures, "steps": run.done, "seconds": run.seconds, "ms per step": per_step,
        "parameters": sum(p.size for p in run.model.parameters()), "device": run.model.device,
        "version": tg.__version__,
        "history": run.history, "losses": [round(loss, 5) for loss in run.losses],
    }  # fmt: skip
    (options.out / "result.json").write_text(json.dumps(result, indent=1))
    draw({options.update: [result]}, run.task, options.out / "curves.png")
    return result


def draw(results, task, path):
    """Loss and the measure of the task over the steps: {update: [result of each seed]}."""
    try:
        plt = pyplot()
    except ImportError:
        print("no PNG picture: matplotlib is not installed (pip install matplotlib)")
        return

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for update, runs in results.items():
        for i, result in enumerate(runs):
            colour, label = COLOURS[update], update if i == 0 else None
            losses, width = np.array(result["losses"]), max(1, len(result["losses"]) // 50)
            smooth = np.convolve(losses, np.ones(width) / width, mode="valid")
            left.plot(np.arange(len(smooth)) + width, smooth, color=colour, lw=1, label=label)
            steps = [h["step"] for h in result["history"]]
            right.plot(steps, [h[task.measure] for h in result["history"]], color=colour, label=label)
            if "tail" in result:
                right.plot(steps, [h["tail"] for h in result["history"]], color=colour, ls="--")
    left.set(xlabel="step", ylabel="cross-entropy (nats)", yscale="log")
    right.set(xlabel="step", ylabel=task.measure + (" (dashed: pairs shown once)" if task.higher_is_better else ""))
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.legend()
    save_figure(plt, figure, path)


def compare(options):
    """Every update from the same seeds; one plot and one table."""
    seeds, results = options.seeds or [options.seed], {}
    for update in UPDATES:
        for seed in seeds:
            part = argparse.Namespace(**vars(options))
            part.update, part.seed, part.out = update, seed, options.out / f"{update}-{seed}"
            results.setdefault(update, []).append(train(Run(part)))
    return write_comparison(results, options.task, options.out) if distributed.rank() == 0 else results


def write_comparison(results, task, folder):
    """The plot and the table of {update: [result of each seed]}."""
    names = [name for name in ("accuracy", "tail", "nats per character") if name in next(iter(results.values()))[0]]
    rows = ["| update | seed | steps | " + " | ".join(names) + " | ms per step |", "|---" * (len(names) + 4) + "|"]
    for update, runs in results.items():
        for result in runs:
            cells = [update, result["settings"]["seed"], result["steps"], *(f"{result[n]:.4f}" for n in names)]
            rows.append("| " + " | ".join(map(str, [*cells, f"{result['ms per step']:.0f}"])) + " |")
    print("\n".join(rows))
    (folder / "comparison.md").write_text("\n".join(rows) + "\n")
    (folder / "comparison.json").write_text(json.dumps(results, indent=1))
    draw(results, TASKS[task], folder / "comparison.png")
    return results


# %% The command
def main(arguments=None):
    options = parse(arguments)
    try:
        if options.compare:
            return compare(options)
        run = begin(Run, options, "steps")
        if not options.resume:
            say(run.model.summary(run.task.batch(0)[0][:1]))
        return train(run)
    except (OSError, tg.CheckpointError) as error:
        end(f"error: {error}")


if __name__ == "__main__":
    tg.keep_freed_memory()
    distributed.init()
    main()
