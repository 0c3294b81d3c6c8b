"""One neuron"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise


def bowl(v):
    """v·v + v0 v1"""
    return (v * v).sum() + v[0] * v[1]


def saddle(v):
    """v0 v1 - v1 v2"""
    return v[0] * v[1] - v[1] * v[2]


def by_steps(f, v, h, left, right, divisor):
    steps = h * np.eye(len(v))
    return np.array([(f(v + right * s) - f(v - left * s)) / divisor for s in steps])


@exercise(
    (bowl, np.array([1.0, -2.0]), 0.5), (saddle, np.array([0.5, 1.0, 3.0]), 0.1),
    truth=lambda f, v, h: frame.gradient(f, v),
)  # fmt: skip
def gradient(f, v, h):
    """The gradient of `f` at the vector `v` by differences with steps `h` to either side: an array with one
    slope for each element of `v`."""
    return np.array([(f(v + step) - f(v - step)) / (2 * h) for step in h * np.eye(len(v))])


gradient.wrong(
    "All elements move at once, so that each slope is the slope along (1, 1, ...). Hold the others still.",
    lambda f, v, h: np.full(len(v), (f(v + h) - f(v - h)) / (2 * h)),
)
gradient.wrong("It looks to one side only.", lambda f, v, h: by_steps(f, v, h, 0, 1, h))
gradient.wrong(
    "It divides by one step, where the two points lie two steps apart.", lambda f, v, h: by_steps(f, v, h, 1, 1, h)
)

X = np.array([2.0, -1.0, 0.5])
NEURONS = ((np.array([0.4, 0.3, -0.4]), 0.1, X), (np.array([0.4, 0.3, -0.8]), -1.5, X), (-X, 9.0, X))


def output(w, b, x):
    return np.maximum(0.0, w @ x + b)


@exercise(
    *NEURONS,
    truth=lambda w, b, x: (
        frame.gradient(lambda w: output(w, b, x), w), frame.gradient(lambda b: output(w, b, x), b)
    ),
)  # fmt: skip
def neuron_gradient(w, b, x):
    """The derivatives of the neuron a = max(0, w · x + b) by its weights and by its bias: return both, `by_w,
    by_b`."""
    on = float(w @ x + b > 0)
    return on * x, on


neuron_gradient.wrong(
    "It does not ask whether the neuron is on. What changes at its output while w · x + b is negative?",
    lambda w, b, x: (x, 1.0),
)
neuron_gradient.wrong(
    "That is the derivative by the inputs x. Asked for is the one by the weights w.",
    lambda w, b, x: (w * float(w @ x + b > 0), float(w @ x + b > 0)),
)
neuron_gradient.wrong(
    "The bias counts like the weight of an input. Of which input? Its derivative is not the output.",
    lambda w, b, x: (x * float(w @ x + b > 0), output(w, b, x)),
)


def sigma(z):
    return 1 / (1 + np.exp(-z))


@exercise(np.linspace(-2.0, 2.0, 5), 0.7, truth=lambda z: np.vectorize(lambda z: frame.gradient(sigma, z))(z))
def sigmoid_slope(z):
    """The derivative of the sigmoid 1/(1 + e⁻ᶻ) at `z`, a number or an array."""
    A = 1 / (1 + np.exp(-z))
    return A * (1 - A)


sigmoid_slope.wrong(
    "In A(1 - A) both A are the value of the sigmoid; one of yours is z itself.", lambda z: sigma(z) * (1 - z)
)
sigmoid_slope.wrong("The denominator of the rule for quotients is squared.", lambda z: np.exp(-z) / (1 + np.exp(-z)))
sigmoid_slope.wrong(
    "This is below zero, but the sigmoid rises everywhere. e⁻ᶻ has an inner derivative.",
    lambda z: -sigma(z) * (1 - sigma(z)),
)
