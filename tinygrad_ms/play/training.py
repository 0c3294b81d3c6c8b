"""A training that goes step by step, and shows all it knows after each: what the page draws is what the engine has."""

import base64
import threading
import time
from collections import deque

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms import nn
from tinygrad_ms.data import train_test_split
from tinygrad_ms.play.points import make
from tinygrad_ms.play.settings import ACTIVATIONS, OPTIMIZERS, Settings

GRID, MAP = 72, 24  # points along a side of the plane, and of the map of one neuron
SHOWN = 24  # images of digits, and neurons of a layer


class Training:
    """A network on its data. Loss, gradients and boundary belong to the weights as they are; ``step`` changes these.

    ``lock``: one request at a time.
    """

    def __init__(self, settings: Settings):
        self.settings, self.lock = settings, threading.Lock()
        self.points = make(settings)
        features, classes = self.points.features, self.points.classes
        self.train, self.test = train_test_split(np.arange(len(classes)), test_fraction=0.3, seed=settings.seed)
        sizes = [features.shape[1], *(neurons for neurons, _ in settings.layers), len(self.points.class_names)]
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(zip(sizes, sizes[1:])):
            layers.append(nn.Linear(before, after, rng=settings.seed + i, device="cpu"))
            layers += [ACTIVATIONS[activation]() for _, activation in settings.layers[i : i + 1]]
        self.net = nn.Sequential(*layers)
        self.optimizer = OPTIMIZERS[settings.optimizer](self.net, settings.lr)
        self.rng = np.random.default_rng(settings.seed)
        self.waiting = np.empty(0, int)  # what is left of an epoch
        self.steps, self.stopped = 0, ""
        self.history: deque[list] = deque(maxlen=10_000)  # step, loss of its batch, loss and share right held out
        self.look()
        self.differentiate()

    # --- a step ---------------------------------------------------------------------------------------------

    def differentiate(self) -> None:
        """The next batch, its loss and gradients at the present weights."""
        if len(self.waiting) == 0:
            self.waiting = self.rng.permutation(self.train)
        self.batch, self.waiting = np.split(self.waiting, [self.settings.batch])
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.value = loss.item()
        self.history.append([self.steps, plain(self.value), None, None])
        if not np.isfinite(self.value):
            self.stopped = f"The loss is {self.value} at step {self.steps}: a smaller learning rate may help."

    def loss(self):
        features = tg.tensor(self.points.features[self.batch], name="x", device="cpu")
        labels = tg.tensor(self.points.classes[self.batch], name="class", device="cpu")
        return tg.softmax_cross_entropy(self.net(features), labels)

    def step(self) -> None:
        """Change the weights by the gradients that are there, then take those of the next batch."""
        self.optimizer.step()
        self.steps += 1
        self.differentiate()

    def run(self, steps: int, seconds: float) -> None:
        """So many steps, or fewer where time is up."""
        end = time.perf_counter() + seconds
        with np.errstate(all="ignore"):
            for _ in range(steps):
                if self.stopped:
                    break
                self.step()
                if time.perf_counter() > end:
                    break
            self.measure()

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def measure(self) -> None:
        """Loss and share of right answers on the points that are not trained on."""
        scores = self.scores(self.points.features[self.test])
        truth = self.points.classes[self.test]
        with np.errstate(all="ignore"):
            top = scores.max(axis=1, keepdims=True)
            logs = scores - top - np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
        right = float((scores.argmax(axis=1) == truth).mean())
        self.history[-1][2:] = [plain(-logs[np.arange(len(truth)), truth].mean()), right]

    def scores(self, features) -> np.ndarray:
        with tg.no_grad():
            return self.net(tg.tensor(features, device="cpu")).numpy().astype("float64")

    # --- what is shown --------------------------------------------------------------------------------------

    def look(self) -> None:
        """The plane that is drawn: the two features, or the two main axes through the mean of more."""
        features = self.points.features
        self.axes = np.eye(2, features.shape[1], dtype="float32")
        self.middle = np.zeros(features.shape[1], "float32")
        if features.shape[1] > 2:
            self.middle = features.mean(axis=0)
            self.axes = np.linalg.svd(features - self.middle, full_matrices=False)[2][:2]
        elif features.shape[1] == 1:
            self.axes = np.eye(1, dtype="float32")
        flat = self.flat()
        reach = 1.1 * np.abs(flat - (low := flat.min(axis=0)) - (flat.max(axis=0) - low) / 2).max() or 1.0
        centre = low + (flat.max(axis=0) - low) / 2
        self.frame = [
            float(centre[0] - reach),
            float(centre[0] + reach),
            float(centre[1] - reach),
            float(centre[1] + reach),
        ]

    def flat(self) -> np.ndarray:
        flat = (self.points.features - self.middle) @ self.axes.T
        return flat if flat.shape[1] == 2 else np.column_stack([flat, np.zeros(len(flat))])

    def plane(self, n) -> np.ndarray:
        """The features of n x n points of the plane, row by row from the top."""
        x0, x1, y0, y1 = self.frame
        xs, ys = np.meshgrid(np.linspace(x0, x1, n), np.linspace(y1, y0, n))
        places = np.column_stack([xs.ravel(), ys.ravel()])[:, : len(self.axes)]
        return (self.middle + places @ self.axes).astype("float32")

    def facts(self) -> dict:
        """What does not change: the points, the frame, the images."""
        points, shown = self.points, self.test[:SHOWN]
        held_out = np.zeros(len(points.classes), int)
        held_out[self.test] = 1
        return {
            "points": np.round(self.flat(), 4).tolist(), "classes": points.classes.tolist(),
            "test": held_out.tolist(), "frame": self.frame, "names": points.names, "class_names": points.class_names,
            "slice": points.features.shape[1] > 2, "parameters": sum(p.size for p in self.net.parameters()),
            "images": None if points.images is None else packed(16 * points.images[shown]),
            "truth": points.classes[shown].tolist(),
        }  # fmt: skip

    def state(self, since: int = 0) -> dict:
        """What changes: numbers, boundary, weights and gradients. ``since``: the first step that the page lacks."""
        if self.history[-1][3] is None:
            self.measure()
        with np.errstate(all="ignore"):
            scores = self.scores(self.plane(GRID))
            likely = np.exp(scores - scores.max(axis=1, keepdims=True))
            sure = likely.max(axis=1) / likely.sum(axis=1)
        layers = [layer for layer in self.net.layers if isinstance(layer, nn.Linear)]
        shown = self.points.features[self.test[:SHOWN]]
        return {
            "step": self.steps, "loss": plain(self.value), "test_loss": self.history[-1][2],
            "right": self.history[-1][3], "stopped": self.stopped, "batch": self.batch.tolist(),
            "history": [row for row in self.history if row[0] >= since],
            "grid": packed(scores.argmax(axis=1)), "sure": packed(255 * np.nan_to_num(sure)),
            "layers": [{"weight": picture(p.weight), "bias": picture(p.bias)} for p in layers], "maps": self.maps(),
            "answers": self.scores(shown).argmax(axis=1).tolist() if self.points.images is not None else None,
        }  # fmt: skip

    def maps(self) -> list[list[str]]:
        """What each neuron says about the plane: of each hidden layer the first neurons, as images."""
        maps, values = [], tg.tensor(self.plane(MAP), device="cpu")
        with tg.no_grad(), np.errstate(all="ignore"):
            for layer in self.net.layers[:-1]:
                values = layer(values)
                if not isinstance(layer, nn.Linear):
                    found = values.numpy()[:, :SHOWN].T
                    spread = np.abs(found).max(axis=1, keepdims=True)
                    maps.append([packed(row) for row in 127.5 * (1 + found / np.where(spread > 0, spread, 1))])
        return maps

    def page(self) -> str:
        """The step page of this very step: its batch, weights, loss and gradients."""
        with tg.graph.recording() as record:
            loss = self.loss()
        title = f"Step {self.steps} on {self.settings.data}: loss {self.value:.4g}"
        return tg.graph.page({"loss": loss}, params=self.net, values=record, title=title)


def picture(parameter) -> dict:
    """A parameter and its gradient as signed images, with the largest size of each."""
    weight, gradient = parameter.numpy(), parameter.grad.numpy()
    shape = weight.shape if weight.ndim == 2 else (len(weight), 1)
    parts = {"rows": shape[0], "columns": shape[1]}
    for name, array in (("value", weight), ("gradient", gradient)):
        most = float(np.abs(array).max()) if np.isfinite(array).all() else float("nan")
        scaled = np.nan_to_num(array / most) if most > 0 else np.zeros_like(array)
        parts |= {name: packed(127.5 * (1 + scaled)), f"{name}_most": plain(most)}
    return parts


def packed(array) -> str:
    """Numbers from 0 to 255 as base64, one byte each."""
    return base64.b64encode(np.clip(np.nan_to_num(array), 0, 255).astype("uint8").tobytes()).decode()


def plain(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
