"""LaCT's fast weights as published, in plain NumPy: where tests/golden/lact.npz comes from.

    python -m tests.lact_reference        # writes tests/golden/lact.npz

Written for these tests from the published formulas: Zhang et al. 2025, arXiv:2505.23884, sections 3 and 4, and what its
public code does beside them (large chunks that are applied before they are learnt, a last chunk that is only applied,
momentum by the mean over a chunk, five rows of Newton-Schulz coefficients, + 1e-7 and + 1e-5 beside the norms, the
prenorm variant). Nothing is copied from that code, and it was not run to make the file. Left out are its casts to
bfloat16 and float32: everything is float64.

Inputs come from NumPy's legacy generator, whose streams are frozen. The functions are holomorphic (no abs, no conj), so
that derivatives come from a complex step, exact to rounding: d/dt f(x + t u) = Im f(x + i h u) / h, h = 1e-100.
"""

from pathlib import Path

import numpy as np

ROWS = (
    (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
)  # fmt: skip
CASES = {  # prenorm, muon, momentum, whether the norms get their + 1e-5 and + 1e-7
    "postnorm": (False, True, True, True),
    "prenorm": (True, True, True, True),
    "no momentum": (True, True, False, True),
    "plain": (False, False, True, True),
    "bare norms": (True, True, True, False),
}
INPUTS = ("w0", "w1", "w2", "q", "k", "v", "lr0", "lr1", "lr2", "momentum")
SIZES = {"batch": 2, "tokens": 17, "chunk": 5, "d": 6, "hidden": 8}  # two chunks learn, and a third and a rest
GOLDEN = Path(__file__).parent / "golden" / "lact.npz"


def inputs(seed):
    """The arguments of the published function, for two sequences (or heads): tokens in rows."""
    random, (b, T, _, d, h) = np.random.RandomState(seed), SIZES.values()
    draw = random.standard_normal
    unit = lambda x: x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-5)
    w0, w1, w2 = draw((b, h, d)) / d**0.5, draw((b, d, h)) / h**0.5, draw((b, h, d)) / d**0.5
    q, k, v = unit(draw((b, T, d))), unit(draw((b, T, d))), draw((b, T, d))
    rates = [np.log1p(np.expm1(1e-3) * np.exp(draw((b, T, 1)))) for _ in range(3)]  # softplus(x + softplus^-1(1e-3))
    return dict(zip(INPUTS, (w0, w1, w2, q, k, v, *rates, 1 / (1 + np.exp(-draw((b, T, 1)))))))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def length(x, axis=None):
    return np.sqrt((x * x).sum(axis=axis, keepdims=True))


def orthogonalised(G, guard):
    if G.shape[0] > G.shape[1]:
        return orthogonalised(G.T, guard).T
    X = G / (length(G) + guard)
    for a, b, c in ROWS:
        S = X @ X.T
        X = a * X + (b * S + c * S @ S) @ X
    return X


def one_sequence(w0, w1, w2, q, k, v, lr0, lr1, lr2, momentum, case):
    prenorm, muon, has_momentum, guarded = CASES[case]
    row_guard, norm_guard = (1e-5, 1e-7) if guarded else (0, 0)
    used = kept = [w0, w1, w2]
    first = [length(w, axis=1) for w in used]
    m = [0, 0, 0]
    T, chunk, out = len(q), SIZES["chunk"], []
    for start in range(0, T, chunk):
        here = slice(start, start + chunk)
        W0, W1, W2 = used
        x = q[here] @ W0.T
        out.append((x * sigmoid(x) * (q[here] @ W2.T)) @ W1.T)
        if start + chunk >= T:  # nobody asks after the last chunk
            break
        gate, linear, dh = k[here] @ W0.T, k[here] @ W2.T, v[here] @ W1
        s = sigmoid(gate)
        d_gate = dh * linear * s * (1 + gate * (1 - s))
        D = [
            d_gate.T @ (lr0[here] * k[here]),
            v[here].T @ (lr1[here] * gate * s * linear),
            (dh * gate * s).T @ (lr2[here] * k[here]),
        ]
        if has_momentum:
            D = m = [new + momentum[here].mean() * old for new, old in zip(D, m)]
        kept = [w + (orthogonalised(step, norm_guard) if muon else step) for w, step in zip(kept, D)]
        used = [w / (length(w, axis=1) + row_guard) * norm for w, norm in zip(kept, first)]
        kept = kept if prenorm else used
    return np.concatenate(out)


def lact(arguments, case):
    """(batch, T, d): what the fast weights answer."""
    return np.stack([one_sequence(*(x[i] for x in arguments.values()), case) for i in range(SIZES["batch"])])


def directions(seed):
    """A direction for each input, and a cotangent."""
    random = np.random.RandomState(seed + 100)
    return {name: random.standard_normal(x.shape) for name, x in inputs(seed).items()}, random.standard_normal(
        (SIZES["batch"], SIZES["tokens"], SIZES["d"])
    )


def results(case, seed):
    """The output, and the derivative of its product with the cotangent along the direction of each input."""
    arguments, (along, cotangent) = inputs(seed), directions(seed)
    slopes = [
        (lact({**arguments, name: arguments[name] + 1e-100j * along[name]}, case) * cotangent).sum().imag / 1e-100
        for name in INPUTS
    ]
    return lact(arguments, case), np.array(slopes)


def everything():
    arrays = {}
    for seed, case in enumerate(CASES):
        arrays[f"{case}/output"], arrays[f"{case}/slopes"] = results(case, seed)
    return arrays


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **everything())
    print(f"{GOLDEN}: {GOLDEN.stat().st_size:,} bytes")
