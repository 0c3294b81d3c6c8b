"""Samples of ops/matrix_sign/msign.py and smooth.py, and of the square roots of lyapunov.py."""

import numpy as np
from scipy.linalg import sqrtm

from tests.samples import Sample, normal
from tests.samples.matrix_sign.equations import ADAPTS, batched, spd


def msign(M, eps=0.0, **_):
    u, s, vt = np.linalg.svd(M, full_matrices=False)
    e = eps * np.linalg.norm(M, axis=(-2, -1))[..., None]
    return (u * (s / np.hypot(s, e))[..., None, :]) @ vt


def smooth(M, eps, **_):
    y = msign(M, eps)
    e = eps * np.linalg.norm(M, axis=(-2, -1), keepdims=True)
    P = batched(sqrtm)(M.mT @ M + e**2 * np.eye(M.shape[-1]))
    return y, e * np.linalg.inv(P), e / eps


def polar(M, **_):
    y = msign(M)
    return y, y.mT @ M


def nuclear(M, **_):
    return np.linalg.norm(M, "nuc", axis=(-2, -1)), msign(M)


def step(X, a, b, c):
    u, s, vt = np.linalg.svd(X, full_matrices=False)
    return (u * (s * (a + s * s * (b + s * s * c)))[..., None, :]) @ vt


wide, tall, square = normal(3, 5), normal(2, 5, 3), normal(3, 3, seed=1) + np.eye(3)
rank_two = normal(4, 2) @ normal(2, 4, seed=1)


def zero(n, m, **options):
    M = np.zeros((n, m))
    return Sample((M,), options, lambda M, **_: M, smooth=False, gradient=(M,), note="zero", sync=ADAPTS)


SMOOTH = [
    Sample((tall,), {"eps": 0.1, "steps": 9}, smooth),
    Sample((square,), {"eps": 0.1}, smooth, sync=ADAPTS),
    Sample((rank_two,), {"eps": 0.2}, smooth, note="rank deficient", sync=ADAPTS),
    Sample(
        (np.zeros((4, 3)),),
        {"eps": 0.1},
        lambda M, eps: (M, np.zeros((3, 3)), np.zeros((1, 1))),
        smooth=False,
        gradient=(np.zeros((4, 3)),),
        note="zero",
        sync=ADAPTS,
    ),
    Sample(
        (np.zeros((0, 4, 3)),), {"eps": 0.1}, lambda M, eps: (M, np.zeros((0, 3, 3)), np.zeros((0, 1, 1))), note="empty"
    ),
]

GRAM = {"method": "eigh"}

SAMPLES = {
    "msign": [
        *(Sample((M,), {"steps": 12, "vjp": "unrolled"}, msign, order=3) for M in (wide, tall, square)),
        Sample((wide,), {"method": "svd", "vjp": "solve"}, msign, order=3, sync=ADAPTS),
        Sample((tall,), {"eps": 0.2, "steps": 9, "vjp": "svd"}, msign),
        Sample((square,), {"eps": 0.2, "steps": 9, "vjp": "unrolled"}, msign),
        Sample((rank_two,), {"eps": 0.2, "vjp": "eigh"}, msign, note="rank deficient", sync=ADAPTS),
        Sample((np.eye(4, 3),), {"vjp": "svd"}, msign, note="repeated", sync=ADAPTS),
        zero(3, 2, steps=8, vjp="unrolled"),
        Sample((np.zeros((0, 4, 3)),), {"vjp": "svd"}, lambda M, vjp: M, note="empty"),
    ],
    "msign_square": [
        Sample((wide,), {}, msign, order=3, sync=ADAPTS),
        Sample((tall,), {"steps": 9}, msign, order=3),
        Sample((square,), {"steps": 9}, msign, order=3),
        Sample((np.eye(3),), {}, msign, order=3, note="repeated", sync=ADAPTS),
        Sample((np.eye(3, 5) * 2,), {}, msign, order=3, note="repeated wide", sync=ADAPTS),
        Sample((normal(1, 4),), {}, msign, note="row", sync=ADAPTS),
        Sample((normal(3, 1, 1),), {"steps": 8}, msign, note="numbers"),
        zero(3, 4),
        Sample((np.zeros((0, 3, 4)),), {}, lambda M: M, note="empty"),
        Sample((np.zeros((0, 4)),), {}, lambda M: M, note="empty"),
    ],
    "msign_smooth": SMOOTH,
    "msign_smooth_recomputing": SMOOTH,
    "msign_closed_form": [
        Sample((tall,), {}, msign, order=3, sync=ADAPTS),
        Sample((square,), {}, msign, order=3, sync=ADAPTS),
        Sample((square,), {"eps": 0.2}, msign, order=3),
        Sample((rank_two,), {"eps": 0.2}, msign, note="rank deficient"),
        Sample((np.eye(4, 3),), {}, msign, note="repeated"),
        Sample((tall,), GRAM, msign, order=3, sync=ADAPTS),
        Sample((square,), GRAM, msign, order=3, sync=ADAPTS),
        Sample((square,), {"eps": 0.2, **GRAM}, msign, order=3, sync=ADAPTS),
        Sample((rank_two,), {"eps": 0.2, **GRAM}, msign, note="rank deficient", sync=ADAPTS),
        Sample((np.eye(4, 3),), GRAM, msign, note="repeated", sync=ADAPTS),
        zero(3, 2),
        zero(3, 2, **GRAM),
        Sample((np.zeros((0, 4, 3)),), {}, lambda M: M, note="empty"),
    ],
    "newton_schulz_step": [
        *(Sample((X / 2,), {"a": 3.4, "b": -4.7, "c": 2.0}, step, order=3) for X in (tall, wide, square)),
        Sample((square,), {"a": 1.5, "b": -0.5, "c": 0.0}, step, note="cubic"),
        Sample((rank_two,), {"a": 1.5, "b": -0.5, "c": 0.1}, step, note="rank deficient"),
        Sample((normal(3, 1, 1),), {"a": 1.5, "b": -0.5, "c": 0.1}, step, note="numbers"),
        Sample((np.zeros((0, 4, 3)),), {"a": 3.4, "b": -4.7, "c": 2.0}, lambda X, a, b, c: X, note="empty"),
    ],
    "msign_tall": [
        Sample((tall,), {}, polar, order=3, sync=ADAPTS),
        Sample((normal(2, 4, 2),), {"steps": 9}, polar),
        Sample((square,), {"steps": 9}, polar),
        Sample((2 * np.eye(4, 3),), {"steps": 9}, polar, note="repeated"),
        Sample((np.zeros((0, 4, 3)),), {}, polar, note="empty"),
    ],
    "nuclear_norm": [
        Sample((wide,), {}, nuclear, sync=ADAPTS),
        Sample((tall,), {"steps": 9}, nuclear),
        Sample((np.eye(3),), {"steps": 9}, nuclear, note="repeated"),
        Sample((np.zeros((0, 4, 3)),), {}, nuclear, note="empty"),
    ],
    "sqrtm": [
        Sample((spd(4),), {}, lambda A: sqrtm(A), order=3, sync=ADAPTS),
        Sample((spd(2, 3),), {"steps": 9}, lambda A, steps: batched(sqrtm)(A)),
        Sample((np.eye(3),), {"steps": 9}, lambda A, steps: A, note="repeated"),
        Sample((np.zeros((0, 3, 3)),), {}, lambda A: A, note="empty"),
    ],
    "inv_sqrtm": [
        Sample((spd(4),), {}, lambda A: np.linalg.inv(sqrtm(A)), order=3, sync=ADAPTS),
        Sample((spd(2, 3),), {"steps": 9}, lambda A, steps: np.linalg.inv(batched(sqrtm)(A))),
        Sample((np.eye(3),), {"steps": 9}, lambda A, steps: A, note="repeated"),
        Sample((np.zeros((0, 3, 3)),), {}, lambda A: A, note="empty"),
        Sample((spd(4),), {"pseudo": True}, lambda A, pseudo: np.linalg.inv(sqrtm(A))),
        Sample((np.zeros((0, 3, 3)),), {"pseudo": True}, lambda A, pseudo: A, note="empty"),
    ],
}  # fmt: skip
