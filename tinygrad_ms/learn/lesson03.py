"""The graph"""

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

POINTS = ((2.0, 0.5), (-1.0, 1.5), (0.3, -0.7))


def recorded(x1, x2):
    x1, x2 = tg.tensor(x1, dtype="float64", requires_grad=True), tg.tensor(x2, dtype="float64", requires_grad=True)
    return x1, x2, tg.sin(x1 * x2) + x1


@exercise(*POINTS, truth=lambda x1, x2: recorded(x1, x2)[2].item())
def read_tape(x1, x2):
    """A tape says: v0 = leaf x1, v1 = leaf x2, v2 = multiply(v0, v1), v3 = sin(v2), v4 = add(v3, v0). Compute
    v4 for two numbers."""
    return np.sin(x1 * x2) + x1


read_tape.wrong("The last line reads v0. Which leaf is that?", lambda x1, x2: np.sin(x1 * x2) + x2)
read_tape.wrong("The sine reads v2, not a leaf.", lambda x1, x2: np.sin(x1) + x1)
read_tape.wrong("The last line is another operation.", lambda x1, x2: np.sin(x1 * x2) * x1)


@exercise(
    *POINTS,
    truth=lambda x1, x2: tuple(frame.gradient(lambda v: np.sin(v[0] * v[1]) + v[0], np.array([x1, x2])).tolist()),
)
def two_slopes(x1, x2):
    """The slopes of y = sin(x1 · x2) + x1, found by hand on the graph: return two numbers, by `x1` and by `x2`."""
    inner = np.cos(x1 * x2)
    return inner * x2 + 1, inner * x1


two_slopes.wrong(
    "x1 reaches y by two paths. Only the one through the sine is there.",
    lambda x1, x2: (np.cos(x1 * x2) * x2, np.cos(x1 * x2) * x1),
)
two_slopes.wrong(
    "The step from x1 · x2 back to each factor is missing: what does the product change by if one factor moves?",
    lambda x1, x2: (np.cos(x1 * x2) + 1, np.cos(x1 * x2)),
)
two_slopes.wrong(
    "The product hands each factor the wrong number: if x1 moves, the product changes by how much of x2?",
    lambda x1, x2: (np.cos(x1 * x2) * x1 + 1, np.cos(x1 * x2) * x2),
)


def facts(value, slope, times):
    return f"value {value:.4f}, slope {slope:.4f}, tanh recorded {times} times"


def tape_of_tanh(answer, x):
    """What is compared, in words."""
    leaf = tg.tensor(x, dtype="float64", requires_grad=True)
    y = answer(leaf)
    if not isinstance(y, tg.Tensor) or y.node is None:
        return f"value {float(y):.4f}, off the tape"
    return facts(y.item(), tg.gradients(y, leaf).item(), str(y.tape()).count("tanh("))


@exercise(
    0.5, -1.2, look=tape_of_tanh, shown=False,
    truth=lambda x: facts(np.tanh(x) ** 2, frame.gradient(lambda x: np.tanh(x) ** 2, x), 1),
)  # fmt: skip
def shared(x):
    """For a tensor `x` that requires a gradient, tanh(x) · tanh(x), recorded so that tanh stands on the tape
    once."""
    t = tg.tanh(x)
    return t * t


shared.wrong(
    "Value and slope are right, but tanh stands on the tape twice: each call is an operation of its own.",
    lambda x: tg.tanh(x) * tg.tanh(x),
)
shared.wrong(
    "The result has left the tape: a number or an array remembers nothing. Stay with tensors.",
    lambda x: np.tanh(x.item()) ** 2,
)
shared.wrong("That is the tanh of a square; asked for is the square of a tanh.", lambda x: tg.tanh(x * x))
