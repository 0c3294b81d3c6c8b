"""Draw the gallery: ``python docs/gallery/draw.py [folder]`` writes every picture as SVG, and the page of
the MLP step.

Each function below makes one picture, and is the code to copy for a picture of the same kind.
"""

import sys
from pathlib import Path

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms import nn


def scalar(value, name):
    return tg.tensor(value, dtype="float64", requires_grad=True, name=name)


def numbers(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype("float32")


def neurons():
    """Two neurons, forward and backward, with every value and gradient."""
    x, target = scalar(0.5, "x"), 1.0
    w1, b1, w2, b2 = scalar(1.5, "w1"), scalar(-0.25, "b1"), scalar(-0.8, "w2"), scalar(0.1, "b2")
    with tg.scope("hidden neuron"):
        h = tg.tanh(w1 * x + b1)
    with tg.scope("output neuron"):
        y = w2 * h + b2
    loss = (y - target) ** 2
    return tg.graph.build({"loss": loss}, view="both", values=True, gradients=True, rankdir="LR",
                          title="Two neurons: values, and gradients flowing back")  # fmt: skip


def mlp():
    tg.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    images = tg.tensor(numbers(32, 64), name="images")
    labels = tg.tensor(np.arange(32) % 10, name="labels")
    with tg.graph.recording() as record:
        loss = tg.softmax_cross_entropy(model(images), labels)
    return model, loss, record


def mlp_forward():
    """The forward pass of an MLP, with what each op saves for the gradient."""
    model, loss, _ = mlp()
    return tg.graph.build({"loss": loss}, params=model, saved=True, title="An MLP and its loss")


def mlp_backward():
    """The same step backwards: the rules, and where the gradients end."""
    model, loss, _ = mlp()
    return tg.graph.build(loss, view="backward", params=model, gradients=True, title="Its backward pass")


def cross_entropy_twice():
    """The gradient of the gradient of softmax cross-entropy, as create_graph records it."""
    logits, labels = (
        tg.tensor(numbers(4, 3), requires_grad=True, name="logits"),
        tg.tensor([0, 2, 1, 1], name="labels"),
    )
    direction = tg.tensor(numbers(4, 3, seed=1), name="v")
    tg.softmax_cross_entropy(logits, labels).backward(create_graph=True)
    slope = (logits.grad * direction).sum()
    return tg.graph.build({"slope along v": slope}, view="higher", wrt=logits,
                          title="Softmax cross-entropy: gradient of the gradient")  # fmt: skip


def ttt_muon(chunks):
    """The TTT-Muon layer on a sequence of so many chunks of 4 tokens: the layer and a loss."""
    layer = nn.TTTMuon(16, heads=2, chunk=4, rng=0)
    x = tg.tensor(numbers(2, 4 * chunks, 16), name="x")
    return layer, tg.mean(layer(x) ** 2)


def ttt_muon_folded():
    """A whole sequence of 8 chunks, its repetitions folded and the parts of a chunk closed."""
    layer, loss = ttt_muon(8)
    return tg.graph.build({"loss": loss}, params=layer, depth=3, title="TTT-Muon: 8 chunks, folded")


def ttt_muon_unrolled():
    """One inner step of TTT-Muon, op by op: the chunk that learns, and the chunk that it changes."""
    layer, loss = ttt_muon(2)
    return tg.graph.build({"loss": loss}, params=layer, wrt=layer.cell.weights, fold=False,
                          collapse=("norm", "out"), title="TTT-Muon: one inner step, op by op")  # fmt: skip


def msign_backward():
    """The backward pass of msign, opened down to its Sylvester solve."""
    M, C = tg.tensor(numbers(6, 4), requires_grad=True, name="M"), tg.tensor(numbers(6, 4, seed=1), name="C")
    loss = (tg.msign(M) * C).sum()
    return tg.graph.build({"loss": loss}, view="higher", title="msign and its backward pass: one Sylvester solve")


PICTURES = (
    neurons, mlp_forward, mlp_backward, cross_entropy_twice, ttt_muon_folded, ttt_muon_unrolled, msign_backward,
)  # fmt: skip


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        graph = picture()
        print(f"{graph.render(folder / f'{picture.__name__}.svg')}: {graph!r}")
    model, loss, record = mlp()
    text = tg.graph.page(loss, folder / "mlp_step.html", params=model, values=record, title="One step of an MLP")
    print(f"{folder / 'mlp_step.html'}: {len(text.encode()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
