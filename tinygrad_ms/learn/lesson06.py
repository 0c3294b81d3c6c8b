"""Reverse against forward"""

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.learn import frame
from tinygrad_ms.learn.frame import exercise

A = np.arange(9.0).reshape(3, 3) / 10 - 0.3


def mix(x):
    """tanh(A x)"""
    return tg.tanh(tg.tensor(A) @ x)


def waves(x):
    """sin(x) x0"""
    return tg.sin(x) * x[0]


AT = np.array([0.5, -1.0, 2.0])
PLACES = ((mix, AT, 0), (waves, AT, 1), (mix, -AT, 2))


def by_differences(f, x):
    return frame.jacobian(lambda x: f(tg.tensor(x)).numpy(), x)


@exercise(*PLACES, truth=lambda f, x, k: by_differences(f, x)[:, k])
def column(f, x, k):
    """Column `k` (counted from 0) of the Jacobian of `f` at the vector `x`, by one call of `tg.jvp`."""
    return tg.jvp(f, (x,), (np.eye(len(x))[k],))[1]


column.wrong(
    "That is row k. Forward mode pushes a direction of the inputs to the results.",
    lambda f, x, k: tg.vjp(f, x)[1](np.eye(len(x))[k])[0],
)
column.wrong(
    "jvp returns two things. This is the value of f.", lambda f, x, k: tg.jvp(f, (x,), (np.eye(len(x))[k],))[0]
)
column.wrong(
    "The direction moves all inputs at once, so that the columns add up.",
    lambda f, x, k: tg.jvp(f, (x,), (np.ones(len(x)),))[1],
)


@exercise(*PLACES, truth=lambda f, x, i: by_differences(f, x)[i])
def row(f, x, i):
    """Row `i` (counted from 0) of the Jacobian of `f` at the vector `x`, by one call of `tg.vjp`. `f` has as
    many results as inputs."""
    return tg.vjp(f, x)[1](np.eye(len(x))[i])[0]


row.wrong(
    "That is column i. Reverse mode pulls a weight on the results back to the inputs.",
    lambda f, x, i: tg.jvp(f, (x,), (np.eye(len(x))[i],))[1],
)
row.wrong(
    "All results have weight 1, so that the rows add up. Only one result is asked for.",
    lambda f, x, i: tg.vjp(f, x)[1](np.ones(len(x)))[0],
)
row.wrong("vjp returns two things. This is the value of f.", lambda f, x, i: tg.vjp(f, x)[0])


@exercise((1, 1000), (6, 1), (3, 8), (5, 5), truth=lambda m, n: sorted([m, n])[0], shown=False)
def passes(m, n):
    """How many passes a whole Jacobian of `m` results and `n` inputs takes, if the cheaper of the two modes is
    chosen."""
    return min(m, n)


passes.wrong("That is the dearer of the two modes.", lambda m, n: max(m, n))
passes.wrong("That is the number of elements. One pass gives a whole row or a whole column.", lambda m, n: m * n)
passes.wrong("That is reverse mode in every case. When is the other one cheaper?", lambda m, n: m)
