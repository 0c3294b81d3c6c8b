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


def ttt_muon(chunks, tokens=8, width=16, hidden=16):
    """A sequence of chunks of the TTT-Muon cell: apply the fast weights, then take a Muon step on them."""
    weights = {
        name: tg.tensor(numbers(*shape, seed=k, scale=shape[1] ** -0.5), requires_grad=True, name=name)
        for k, (name, shape) in enumerate(
            {"W0": (hidden, width), "W1": (width, hidden), "W2": (hidden, width)}.items()
        )
    }
    rows = {name: tg.norm(w, axis=-1, keepdims=True) for name, w in weights.items()}
    momentum = {
        name: tg.tensor(np.zeros(w.shape, "float32"), name=f"m of {name}") for name, w in weights.items()
    }
    q, k, v = (
        tg.tensor(numbers(chunks, tokens, width, seed=s), requires_grad=True, name=n)
        for s, n in ((5, "q"), (6, "k"), (7, "v"))
    )
    outputs = []
    for c in range(chunks):
        with tg.scope(f"chunk {c}"):
            W0, W1, W2 = weights["W0"], weights["W1"], weights["W2"]
            with tg.scope("apply"):
                x = q[c].T
                outputs.append((W1 @ (tg.silu(W0 @ x) * (W2 @ x))).T)
            with tg.scope("inner gradient"):
                x = k[c].T
                g, u, dh = W0 @ x, W2 @ x, W1.T @ v[c].T
                s = tg.sigmoid(g)
                a = g * s
                D = {
                    "W0": (dh * u * (s * (1 + g * (1 - s)))) @ x.T, "W1": v[c].T @ (a * u).T, "W2": (dh * a) @ x.T,
                }  # fmt: skip
            for name in weights:
                with tg.scope(f"Muon step on {name}"):
                    momentum[name] = D[name] + momentum[name] * 0.9
                    w = weights[name] + tg.msign(momentum[name], eps=1e-2) * 0.3
                    weights[name] = w * (rows[name] / tg.norm(w, axis=-1, keepdims=True))
    with tg.scope("loss"):
        return tg.mean(tg.concat(outputs) ** 2)


def ttt_muon_folded():
    """A whole TTT-Muon sequence of 8 chunks, its repetitions folded and the parts of a chunk closed."""
    return tg.graph.build({"loss": ttt_muon(8)}, depth=1, title="TTT-Muon: 8 chunks, folded")


def ttt_muon_unrolled():
    """One update of the TTT-Muon cell and the chunk that sees it, op by op."""
    return tg.graph.build(
        {"loss": ttt_muon(2)}, fold=False, rankdir="TB", title="TTT-Muon: one chunk unrolled"
    )


def msign_backward():
    """The backward pass of msign, opened down to its Sylvester solve."""
    M, C = tg.tensor(numbers(6, 4), requires_grad=True, name="M"), tg.tensor(numbers(6, 4, seed=1), name="C")
    loss = (tg.msign(M) * C).sum()
    return tg.graph.build(
        {"loss": loss}, view="higher", title="msign and its backward pass: one Sylvester solve"
    )


PICTURES = (
    neurons, mlp_forward, mlp_backward, cross_entropy_twice, ttt_muon_folded, ttt_muon_unrolled, msign_backward,
)  # fmt: skip


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES:
        graph = picture()
        print(f"{graph.render(folder / f'{picture.__name__}.svg')}: {graph!r}")
    model, loss, record = mlp()
    text = tg.graph.page(
        loss, folder / "mlp_step.html", params=model, values=record, title="One step of an MLP"
    )
    print(f"{folder / 'mlp_step.html'}: {len(text.encode()) / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
