"""A tape in 60 lines"""

import numpy as np

from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise


@exercise(
    (3.0, 2.0), (-1.5, 0.5),
    truth=lambda u, v: (u / v, *frame.gradient(lambda p: p[0] / p[1], np.array([u, v]))),
)  # fmt: skip
def divide(u, v):
    """A division for the tape: return three numbers, the value u / v and its local derivatives by `u` and by
    `v`."""
    return u / v, 1 / v, -u / v**2


divide.wrong(
    "The sign of the last is wrong: if v grows, does a quotient of positive numbers grow?",
    lambda u, v: (u / v, 1 / v, u / v**2),
)
divide.wrong(
    "Hold u at 1: then the last is the slope of 1/v. How does it change when v doubles?",
    lambda u, v: (u / v, 1 / v, -u / v),
)
divide.wrong("The two derivatives have changed places.", lambda u, v: (u / v, -u / v**2, 1 / v))


@exercise(np.tanh(0.3), np.tanh(-1.2), truth=lambda y: frame.gradient(np.tanh, np.arctanh(y)))
def tanh_local(y):
    """The local derivative of tanh, from its result alone: `y` is tanh(x), and x is not kept."""
    return 1 - y * y


tanh_local.wrong("y is the tanh already; it is taken a second time.", lambda y: 1 - np.tanh(y) ** 2)
tanh_local.wrong("That is the rule of the sigmoid.", lambda y: y * (1 - y))
tanh_local.wrong(
    "tanh rises as fast at -x as at x, so the slope is the same for y and -y. Yours is not.", lambda y: 1 - y
)

TAPES = (  # y = (a + b) b, and a · a · a by two products
    ([(), (), (0, 1), (2, 1)], [(), (), (1.0, 1.0), (3.0, 5.0)]),
    ([(), (0, 0), (1, 0)], [(), (2.0, 2.0), (2.0, 4.0)]),
)


def by_solving(parents, local):
    """The sum over all paths: the last row of (I - L)^-1, where L holds the local derivatives."""
    table = np.zeros((len(parents), len(parents)))
    for k, (above, slopes) in enumerate(zip(parents, local)):
        for parent, slope in zip(above, slopes):
            table[k, parent] += slope
    return np.linalg.inv(np.eye(len(parents)) - table)[-1]


def walk(parents, local, *, backwards=True, add=True, multiply=True):
    gradients = [0.0] * len(parents)
    gradients[-1] = 1.0
    for k in reversed(range(len(parents))) if backwards else range(len(parents)):
        for parent, slope in zip(parents[k], local[k]):
            sent = gradients[k] * slope if multiply else gradients[k]
            gradients[parent] = sent + (gradients[parent] if add else 0.0)
    return gradients


@exercise(*TAPES, truth=by_solving)
def backward(parents, local):
    """Walk a tape from its end. Value k was made from the values with the numbers `parents[k]`, and `local[k]`
    holds its derivative by each of them. Return a list: the slope of the last value by every value of the tape."""
    slopes = [0.0] * len(parents)
    slopes[-1] = 1.0
    for k in reversed(range(len(parents))):
        for parent, slope in zip(parents[k], local[k]):
            slopes[parent] += slopes[k] * slope
    return slopes


backward.wrong(
    "Where two paths meet, the second overwrites the first. They should add up.",
    lambda parents, local: walk(parents, local, add=False),
)
backward.wrong(
    "It reads the tape from its start: a value hands on its slope before it has received it.",
    lambda parents, local: walk(parents, local, backwards=False),
)
backward.wrong(
    "It hands on what arrives as it is. On the way to a parent it is multiplied by something.",
    lambda parents, local: walk(parents, local, multiply=False),
)
