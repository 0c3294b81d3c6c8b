"""Samples of ops/matrix_sign/lyapunov.py, closed_form.py and sylvester.py: the equations, and mcsgn."""

import numpy as np
from scipy.linalg import signm
from scipy.linalg import solve_sylvester as scipy_sylvester

from tests.samples import Sample, normal

ADAPTS = "the residual decides when to stop"


def spd(*shape, seed=0, least=0.5):
    """Symmetric positive definite matrices."""
    x = normal(*shape, shape[-1], seed=seed) / shape[-1] ** 0.5
    return x @ x.swapaxes(-1, -2) + least * np.eye(shape[-1])


def stable(n, seed=0):
    """Unsymmetric, complex spectrum in the right half plane."""
    return normal(n, n, seed=seed) / n + 1.5 * np.eye(n)


def real_spectrum(values, seed=0):
    v = np.eye(len(values)) + normal(len(values), len(values), seed=seed) / 8
    return v @ np.diag(values) @ np.linalg.inv(v)


def batched(solve):
    def reference(A, *others, **constants):
        lead = np.broadcast_shapes(*(x.shape[:-2] for x in (A, *others)))
        spread = [np.broadcast_to(x, (*lead, *x.shape[-2:])) for x in (A, *others)]
        out = np.empty((*lead, *(others[-1] if others else A).shape[-2:]))
        for i in np.ndindex(*lead):
            out[i] = solve(*(x[i] for x in spread), **constants)
        return out

    return reference


def lyapunov(A, C, parity=0, **_):
    def part(X):
        return (X + parity * X.T) / 2 if parity else X

    return part(scipy_sylvester((A + A.T) / 2, (A + A.T) / 2, part(C)))


def skew_with_inverse(P, C, **_):
    return batched(lambda P, C: lyapunov(P, C, -1))(P, C), np.linalg.inv(P)


upper = np.triu(np.ones((3, 3)), 1)
real = real_spectrum([2.0, -1.0, 1.5, -0.5])

SAMPLES = {
    "solve_lyapunov": [
        *(
            Sample((spd(4), normal(4, 4)), {"parity": parity, "steps": steps}, batched(lyapunov), order=3, sync=sync)
            for parity in (-1, 0, 1)
            for steps, sync in ((None, ADAPTS), (9, ""))
        ),
        Sample((spd(2, 3), normal(3, 3)), {}, batched(lyapunov), note="broadcast", sync=ADAPTS),
        Sample((spd(3), normal(2, 3, 3)), {"parity": 1}, batched(lyapunov), note="broadcast", sync=ADAPTS),
        Sample((spd(3) + 0.1 * upper, normal(3, 3)), {}, batched(lyapunov), note="unsymmetric", sync=ADAPTS),
        Sample((spd(1), normal(1, 1)), {}, batched(lyapunov), note="number", sync=ADAPTS),
        Sample((np.zeros((0, 3, 3)), np.zeros((0, 3, 3))), {}, batched(lyapunov), note="empty"),
        Sample((np.zeros((0, 0)), np.zeros((0, 0))), {}, lambda A, C: C, note="empty"),
    ],
    "solve_by_eigenvalues": [
        *(
            Sample((A, normal(4, 4)), {"parity": parity}, batched(lyapunov), order=3)
            for parity in (-1, 0, 1)
            for A in (spd(4), -spd(4), np.diag([3.0, -1.0, 2.0, 0.5]) + 0.1 * spd(4))
        ),
        Sample((spd(2, 3), normal(3, 3)), {}, batched(lyapunov), note="broadcast"),
        Sample((spd(3) + 0.1 * upper, normal(3, 3)), {}, batched(lyapunov), note="unsymmetric"),
        Sample((np.zeros((0, 3, 3)), np.zeros((0, 3, 3))), {}, batched(lyapunov), note="empty"),
    ],
    "solve_skew_with_inverse": [
        Sample((spd(4), normal(4, 4)), {}, skew_with_inverse, sync=ADAPTS),
        Sample((spd(2, 3), normal(2, 3, 3)), {"steps": 9}, skew_with_inverse),
        Sample((np.zeros((0, 3, 3)), np.zeros((0, 3, 3))), {}, lambda P, C: (P, P), note="empty"),
    ],
    "solve_sylvester": [
        *(
            Sample((stable(3), stable(4, seed=1), normal(3, 4)), {"steps": steps}, batched(solve), order=3, sync=s)
            for solve in (lambda A, B, C, **_: scipy_sylvester(A, B, C),)
            for steps, s in ((None, ADAPTS), (12, ""))
        ),
        Sample(
            (real_spectrum([1.0, 2.0]), real_spectrum([0.5, 1.0, 3.0]), normal(2, 3)), {"spectrum": "real"},
            batched(lambda A, B, C, **_: scipy_sylvester(A, B, C)), sync=ADAPTS,
        ),
        Sample(
            (stable(3), np.stack([stable(2, seed=1), stable(2, seed=2)]), normal(1, 3, 2)), {},
            batched(lambda A, B, C: scipy_sylvester(A, B, C)), note="broadcast", sync=ADAPTS,
        ),
        Sample((np.zeros((0, 0)), np.eye(2), np.zeros((0, 2))), {}, lambda A, B, C: C, note="empty"),
    ],
    "mcsgn": [
        Sample((normal(4, 4, seed=3) + 0.3 * np.eye(4),), {}, lambda x: signm(x), sync=ADAPTS),
        Sample((real,), {"steps": 12}, lambda x, steps: signm(x)),
        Sample((real,), {"spectrum": "real"}, lambda x, spectrum: signm(x), sync=ADAPTS),
        Sample((real,), {"spectrum": "real", "normalise": "trace", "steps": 12}, lambda x, **_: signm(x)),
        Sample(
            (np.stack([real, -real.T]),), {"spectrum": "real", "steps": 10},
            lambda x, **_: np.stack([signm(m) for m in x]),
        ),
        Sample((np.zeros((2, 0, 0)),), {}, lambda x: x, note="empty"),
    ],
}  # fmt: skip
