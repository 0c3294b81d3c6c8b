"""Train an MLP on handwritten digits, and show what it learnt.

    python examples/train_mlp.py                        the bundled 8 x 8 digits, about ten seconds on a laptop
    python examples/train_mlp.py --data mnist           MNIST (the error says how to get it if it is not there)
    python examples/train_mlp.py --resume runs/digits/checkpoint.npz
    mpiexec -n 2 python examples/train_mlp.py           the same batches, shared out to two processes

Written to --out: curves.png, misclassified.png, graph.svg (graph.dot without a renderer), checkpoint.npz, result.json.
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
from tinygrad_ms.data import DataLoader, load_digits, load_fashion_mnist, load_mnist, train_test_split

LOADERS = {"digits": load_digits, "mnist": load_mnist, "fashion": load_fashion_mnist}
OPTIMIZERS = {
    "sgd": lambda params, lr=0.1: optim.SGD(params, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "adam": lambda params, lr=2e-3: optim.Adam(params, lr=lr),
    "adamw": lambda params, lr=2e-3: optim.AdamW(params, lr=lr, weight_decay=0.05),
    "muon": lambda params, lr=0.02: optim.Muon(params, lr=lr, adamw_lr=2e-3, weight_decay=0.05),
}


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--data", choices=LOADERS, default="digits")
    add("--device", help='"cpu", "cuda", "cuda:1"; default: a GPU where CuPy finds one, else the CPU')
    add("--optimizer", choices=OPTIMIZERS, default="adamw")
    add("--lr", type=number(0, least_itself=False), help="learning rate; each optimizer has its own default")
    add("--epochs", type=int, default=40, help="default 40; with --resume, up to how many the run goes on")
    add("--batch-size", type=int, default=64)
    add(
        "--hidden",
        type=count(1),
        nargs="*",
        help="widths of the hidden layers; default 256 256 (digits), 512 256 (others)",
    )
    add("--dropout", type=number(0, 1), default=0.3)
    add("--label-smoothing", type=number(0, 1), default=0.05)
    add(
        "--seed",
        type=count(0),
        default=0,
        help="picks the split, the initial weights, the batches and the dropout masks",
    )
    add("--compile", action="store_true", help="record the training step once and replay it: the same numbers, faster")
    add("--out", type=Path, help="folder of the results; default runs/DATA")
    add("--resume", type=Path, metavar="CHECKPOINT", help="go on from a checkpoint, with the settings it was made with")
    add("--quiet", action="store_true", help="no progress bar")
    options = read(parser, arguments)
    if options.epochs < 1 or options.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    if options.device:
        try:
            tg.set_default_device(options.device)
        except (ValueError, RuntimeError) as error:
            parser.error(str(error))
    if options.hidden is None:
        options.hidden = [256, 256] if options.data == "digits" else [512, 256]
    options.out = options.out or Path("runs") / options.data
    return options


# %% The model, its data, one epoch
def build_model(sizes, dropout, seed):
    """Linear, ReLU, Dropout, ... , Linear."""
    rng = np.random.default_rng(seed)
    layers = []
    for inputs, outputs in zip(sizes, sizes[1:-1]):
        layers += [nn.Linear(inputs, outputs, rng=rng), nn.ReLU(), nn.Dropout(dropout, rng=rng)]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1], rng=rng))


def load(name, seed):
    """A held-out fifth is the test set; inputs are scaled by the largest pixel value."""
    dataset = LOADERS[name]()
    x = dataset.images.reshape(len(dataset.images), -1).astype(np.float32) / dataset.images.max()
    return train_test_split(x, dataset.labels, test_fraction=0.2, seed=seed)


def loss_of(model, x, y, smoothing=0.0):
    return tg.softmax_cross_entropy(model(x), y, label_smoothing=smoothing)


@tg.no_grad()
def update_of(model, optimizer, schedule, smoothing):
    """One step of training, as a function of a batch."""

    def update(x, y):
        loss = loss_of(model, x, y, smoothing)
        optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        return loss

    return update


def evaluate(model, x, y):
    """Mean loss and predictions on a host data set."""
    model.eval()
    losses, predictions = [], []
    for xb, yb in DataLoader(x, y, batch_size=1024, device=model.parameters()[0].device):
        logits = model(xb)
        losses.append(tg.softmax_cross_entropy(logits, yb).item() * len(xb))
        predictions.append(logits.argmax(axis=1).numpy())
    model.train()
    return sum(losses) / len(x), np.concatenate(predictions)


class Run(common.Run):
    """Everything a checkpoint holds: the run can stop after any epoch and go on as if it had not."""

    def __init__(self, options):
        self.options = options
        self.x, self.x_test, self.y, self.y_test = load(options.data, options.seed)
        self.sizes = [self.x.shape[1], *options.hidden, int(self.y.max()) + 1]
        self.model = distributed.DataParallel(build_model(self.sizes, options.dropout, options.seed))
        self.device = self.model.parameters()[0].device
        self.loader = DataLoader(
            self.x,
            self.y,
            batch_size=options.batch_size,
            shuffle=True,
            seed=options.seed,
            drop_last=True,
            device=self.device,
        )
        rate = {} if options.lr is None else {"lr": options.lr}
        self.optimizer = OPTIMIZERS[options.optimizer](self.model.parameters(), **rate)
        steps = options.epochs * len(self.loader)
        self.schedule = optim.CosineLR(self.optimizer, steps, warmup_steps=steps // 40)
        update = update_of(self.model, self.optimizer, self.schedule, options.label_smoothing)
        self.update = tg.compile(update) if options.compile else update
        self.history = []  # one dict per epoch

    parts = ("model", "optimizer", "schedule", "loader")
    records = ("history",)

    @property
    def done(self):
        """How many epochs are."""
        return len(self.history)

    def epoch(self, bar):
        losses = []
        for x, y in self.loader:
            before = [p.data.copy() for p in self.model.parameters()]
            losses.append(self.model.average(self.update(x, y)).item())
            if not math.isfinite(losses[-1]):
                cause = self.first_nan(before, x, y)
                raise Diverged(f"training diverged in epoch {self.done + 1}: {cause}. Try a smaller --lr")
            accuracy = f"{self.history[-1]['accuracy']:.1%}" if self.history else "-"
            bar.set_postfix(loss=f"{losses[-1]:.3f}", accuracy=accuracy, refresh=False)
            bar.update()
        test_loss, predictions = evaluate(self.model, self.x_test, self.y_test)
        accuracy = float((predictions == self.y_test).mean())
        self.history.append({"loss": float(np.mean(losses)), "test_loss": test_loss, "accuracy": accuracy})
        return predictions

    def first_nan(self, parameters, x, y):
        """Repeat the step that failed with every op inspected; say which made the first NaN."""
        with tg.no_grad():
            for p, data in zip(self.model.parameters(), parameters):
                p.copy_(data)
        try:
            with tg.detect_nan(), self.model.no_sync():
                loss_of(self.model, x, y, self.options.label_smoothing).backward()
        except FloatingPointError as error:
            return str(error)
        return "the loss is infinite, no op made a NaN: the numbers overflowed"


# %% What to show at the end
def confusion_matrix(labels, predictions, classes):
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def print_confusion(counts):
    width = len(str(counts.max())) + 1
    print("confusion matrix (rows: true class, columns: predicted)")
    print("     " + "".join(f"{c:>{width}}" for c in range(len(counts))))
    for c, row in enumerate(counts):
        print(f"{c:>4} " + "".join(f"{n or '.':>{width}}" for n in row))


def draw_curves(history, path):
    plt = pyplot()
    epochs = np.arange(1, len(history) + 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.plot(
        epochs,
        [h["loss"] for h in history],
        "o-",
        ms=3,
        color="#0072B2",
        label="training (dropout and label smoothing included)",
    )
    left.plot(epochs, [h["test_loss"] for h in history], "s--", ms=3, color="#D55E00", label="test")
    losses = [h[kind] for h in history for kind in ("loss", "test_loss")]
    scale = "log" if max(losses) > 10 * min(losses) else "linear"  # with few ticks a log scale is hard to read
    left.set(xlabel="epoch", ylabel="cross-entropy (nats)", yscale=scale)
    left.legend()
    right.plot(epochs, [100 * h["accuracy"] for h in history], "s--", ms=3, color="#D55E00")
    right.set(xlabel="epoch", ylabel="test accuracy (%)")
    for axis in (left, right):
        axis.grid(alpha=0.3)
        axis.xaxis.get_major_locator().set_params(integer=True)
    save_figure(plt, figure, path)


def draw_misclassified(images, labels, predictions, path, most=24):
    plt = pyplot()
    wrong = np.flatnonzero(labels != predictions)[:most]
    columns = min(8, max(3, len(wrong)))
    rows = max(1, -(-len(wrong) // columns))
    figure, axes = plt.subplots(rows, columns, figsize=(columns * 1.3, rows * 1.6), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, i in zip(axes.flat, wrong):
        axis.imshow(images[i], cmap="gray_r")
        axis.set_title(f"is {labels[i]}, said {predictions[i]}", fontsize=10)
    total = int((labels != predictions).sum())
    figure.suptitle(
        f"{total} of {len(labels)} test images misclassified" + (f"; the first {most}" if total > most else "")
    )
    save_figure(plt, figure, path)


def draw_graph(run, folder):
    """The tape of one training step: SVG, or DOT text where no renderer is installed."""
    x, y = next(iter(DataLoader(run.x, run.y, batch_size=run.options.batch_size, device=run.device)))
    x.name, y.name = "images", "labels"
    graph = tg.graph.build(loss_of(run.model, x, y, run.options.label_smoothing), params=run.model)
    try:
        return graph.render(folder / "graph.svg")
    except RuntimeError as error:
        print(f"graph: {error}; writing DOT text instead")
        return graph.render(folder / "graph.dot")


def finish(run, predictions, seconds):
    folder = run.options.out
    accuracy = run.history[-1]["accuracy"]
    run.save(folder / "checkpoint.npz")
    if distributed.rank() > 0:
        return {"accuracy": accuracy}
    counts = confusion_matrix(run.y_test, predictions, run.sizes[-1])
    print(f"\ntest accuracy {accuracy:.2%} ({int((predictions == run.y_test).sum())} of {len(run.y_test)} images)")
    print_confusion(counts)
    side = math.isqrt(run.x.shape[1])
    written = ["checkpoint.npz", "result.json"]
    try:
        draw_curves(run.history, folder / "curves.png")
        draw_misclassified(run.x_test.reshape(-1, side, side), run.y_test, predictions, folder / "misclassified.png")
        written += ["curves.png", "misclassified.png"]
    except ImportError:
        print("no PNG pictures: matplotlib is not installed (pip install matplotlib)")
    written.append(Path(draw_graph(run, folder)).name)
    result = {
        "settings": settings(run.options),
        "accuracy": accuracy, "history": run.history, "confusion": counts.tolist(), "seconds": seconds,
        "parameters": sum(p.size for p in run.model.parameters()), "device": run.device, "version": tg.__version__,
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(result, indent=1))
    print(f"{', '.join(sorted(written))} written to {folder}")
    return result


# %% The command
def main(arguments=None):
    options = parse(arguments)
    try:
        return train(options)
    except (OSError, tg.CheckpointError) as error:
        end(f"error: {error}")


def stop(number, frame):
    raise KeyboardInterrupt


def train(options):
    run = begin(Run, options, "epochs")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)  # as Ctrl-C
    options.out.mkdir(parents=True, exist_ok=True)
    say(f"{options.data}: {len(run.x)} training and {len(run.x_test)} test images; on {run.device}")
    say(run.model.summary(run.x[:1]))
    checkpoint = options.out / "checkpoint.npz"
    bar = progress(options.epochs * len(run.loader), len(run.history) * len(run.loader), options.quiet, "batch")
    start = time.perf_counter()
    predictions = None
    try:
        while len(run.history) < options.epochs:
            run.save(checkpoint)  # of whole epochs: the place to go on from
            predictions = run.epoch(bar)
    except KeyboardInterrupt:
        bar.close()
        end(f"\nstopped in epoch {len(run.history) + 1}; go on with: python {sys.argv[0]} --resume {checkpoint}")
    except Diverged as error:
        bar.close()
        end(f"error: {error}")
    bar.close()
    if predictions is None:
        predictions = evaluate(run.model, run.x_test, run.y_test)[1]
    return finish(run, predictions, time.perf_counter() - start)


if __name__ == "__main__":
    tg.keep_freed_memory()
    distributed.init()
    main()
