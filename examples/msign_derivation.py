"""The derivative of msign, line by line: equations (1) to (23) of Su Jianlin, with numbers.

    python examples/msign_derivation.py

Source: Su Jianlin, The derivative of msign, https://spaces.ac.cn/archives/11025 (in Chinese). Each line prints one
equation and how far its two sides are apart, for a square M (5 x 5) and a wide one (4 x 7). What holds a
differential is held against central differences of an SVD. The program ends with exit status 1 where a gap is wider
than the bar beside it. Where the source is not exact, the line says so. docs/msign.md derives the same in words, with
our own way beside it. The ``# %%`` lines divide the file into cells.
"""

# %% The matrices, and what the lines are held against
import sys

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.ops.iterations.coefficients import fixed_rows

tg.set_default_device("cpu")
random = np.random.default_rng(5)
SHAPES = [(5, 5), (4, 7)]
failures = []


def reference(M):
    """msign by NumPy's SVD: it shares no code with the library."""
    u, _, vt = np.linalg.svd(M, full_matrices=False)
    return u @ vt


def differences(f, M, E, h=1e-5):
    """(f(M + h E) - f(M - h E)) / 2h: about nine digits."""
    return (f(M + h * E) - f(M - h * E)) / (2 * h)


def gradient_by_differences(M, C):
    """The gradient of L = <C, msign(M)>, element by element."""
    out = np.zeros_like(M)
    for place in np.ndindex(M.shape):
        E = np.zeros_like(M)
        E[place] = 1
        out[place] = (C * differences(reference, M, E)).sum()
    return out


def gap(a, b):
    return float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / max(np.linalg.norm(b), 1e-300))


def show(number, text, gaps, bar):
    """One equation: the gaps for both shapes, and the bar that they have to be below."""
    gaps = [gaps] if isinstance(gaps, float) else list(gaps)
    if not all(g <= bar for g in gaps):
        failures.append(number)
    shown = "".join(f"{g:10.1e}" for g in gaps)
    print(f"{number:>5} {text:78}{shown:20}   bar {bar:.0e}")


class Case:
    """M, a cotangent C of O = msign(M), a change dM, and dO and dL/dM by differences."""

    def __init__(self, n, m):
        draw = lambda: random.standard_normal((n, m))
        self.M, self.C, self.dM, self.any = draw(), draw(), draw(), draw()
        self.O = reference(self.M)
        self.dO = differences(reference, self.M, self.dM)
        self.gradient = gradient_by_differences(self.M, self.C)
        self.U, s, vt = np.linalg.svd(self.M)  # U n x n, V m x m, as in (1)
        self.V, self.s = vt.T, s
        self.left = np.concatenate([s, np.zeros(n - len(s))])  # the singular values along the rows of Y, ...
        self.right = np.concatenate([s, np.zeros(m - len(s))])  # ... and along its columns
        self.A, self.B = self.M @ self.O.T, self.O.T @ self.M


cases = [Case(*shape) for shape in SHAPES]
square, wide = cases
print(f"{'':84}" + "".join(f"{n} x {m}".rjust(10) for n, m in SHAPES))


def both(f):
    return [f(case) for case in cases]


# %% Two definitions: msign (1), (2) and mcsgn (3), (4)
show(
    "(1)",
    "O = U V^T: all singular values are one",
    both(lambda c: gap(np.linalg.svd(c.O)[1], np.ones(len(c.s)))),
    1e-13,
)
show(
    "(2)",
    "O = (M M^T)^{-1/2} M = M (M^T M)^{-1/2}, the second with the pseudo-inverse",
    both(
        lambda c: max(
            gap(tg.inv_sqrtm(c.M @ c.M.T, pseudo=True) @ c.M, c.O),
            gap(c.M @ tg.inv_sqrtm(c.M.T @ c.M, pseudo=True), c.O),
        )
    ),
    1e-11,
)
P = np.eye(5) + 0.3 * random.standard_normal((5, 5))
values = np.array([2.0, 0.7, 0.3, -0.5, -1.5])
X = P @ np.diag(values) @ np.linalg.inv(P)
root = P @ np.diag(1 / np.sqrt(values**2)) @ np.linalg.inv(P)
show("(3)", "mcsgn(X) = X (X^2)^{-1/2} for square X: mcsgn by scaled Newton", gap(tg.mcsgn(X), X @ root), 1e-12)
show(
    "(4)",
    "mcsgn(P L P^{-1}) = P csgn(L) P^{-1}",
    gap(tg.mcsgn(X), P @ np.diag(np.sign(values)) @ np.linalg.inv(P)),
    1e-12,
)


# %% The same iteration for both: (5), (6)
def iterate(X, rows, step):
    for a, b, c in rows:
        X = step(X, a, b, c)
    return X


def step_5(X, a, b, c):
    S = X.T @ X
    return a * X + b * X @ S + c * X @ S @ S


def step_6(X, a, b, c):
    square = X @ X
    return a * X + b * X @ square + c * X @ square @ square


rows = fixed_rows(8, "su")  # the table after (5), its row 6 with -1.268 (see below)
by_5 = lambda c: iterate(c.M / np.linalg.norm(c.M), rows, step_5)
show(
    "(5)",
    "X <- a X + b X (X^T X) + c X (X^T X)^2 from M / |M|_F: O after 8 rows",
    both(lambda c: gap(by_5(c), c.O)),
    1e-10,
)
show("", "  and tg.msign(M, steps=8) is that iteration", both(lambda c: gap(tg.msign(c.M, steps=8), by_5(c))), 1e-13)
by_6 = iterate(X / np.sqrt(np.trace(X @ X)), rows, step_6)
show(
    "(6)", "X <- a X + b X^3 + c X^5 from X / (tr X^2)^{1/2}: mcsgn for real eigenvalues", gap(by_6, tg.mcsgn(X)), 1e-10
)
show(
    "",
    "  and tg.mcsgn(X, steps=8, normalise='trace') is that iteration",
    gap(tg.mcsgn(X, steps=8, normalise="trace"), by_6),
    1e-12,
)
a, b, c = rows[5]
printed = [*rows[:5], (a, -b, c), *rows[6:]]
blown = np.linalg.norm(iterate(np.eye(5) / np.sqrt(5), printed, step_5))
print(f"      Row 6 of the table reads +1.268 in print; with that sign I (5 x 5) becomes a matrix of norm {blown:.0e}.")

# %% The derivation: (7) to (14)
show("(7)", "M = O M^T O", both(lambda c: gap(c.O @ c.M.T @ c.O, c.M)), 1e-13)
show(
    "(8)",
    "dM = dO M^T O + O dM^T O + O M^T dO, dO by differences",
    both(lambda c: gap(c.dO @ c.M.T @ c.O + c.O @ c.dM.T @ c.O + c.O @ c.M.T @ c.dO, c.dM)),
    1e-8,
)
show(
    "(9)",
    "dL = <G, dM>: the differences of L = <C, O> along dM, and the gradient's share",
    both(lambda c: gap((c.C * c.dO).sum(), (c.gradient * c.dM).sum())),
    1e-7,
)
tr = np.trace
show(
    "(10)",
    "tr(A B) = tr(B A) = tr(A^T B^T) = tr(B^T A^T)",
    both(lambda c: max(gap(tr(x), tr(c.M @ c.C.T)) for x in (c.C.T @ c.M, c.M.T @ c.C, c.C @ c.M.T))),
    1e-12,
)
show(
    "(11)",
    "tr(X^T dM) = tr(M^T O X^T dO) + tr(O^T X O^T dM) + tr(X^T O M^T dO), any X",
    both(
        lambda c: gap(
            tr(c.M.T @ c.O @ c.any.T @ c.dO) + tr(c.O.T @ c.any @ c.O.T @ c.dM) + tr(c.any.T @ c.O @ c.M.T @ c.dO),
            tr(c.any.T @ c.dM),
        )
    ),
    1e-7,
)
show(
    "(12)",
    "tr((X^T - O^T X O^T) dM) = tr((M^T O X^T + X^T O M^T) dO), any X",
    both(
        lambda c: gap(
            tr((c.any.T - c.O.T @ c.any @ c.O.T) @ c.dM), tr((c.M.T @ c.O @ c.any.T + c.any.T @ c.O @ c.M.T) @ c.dO)
        )
    ),
    1e-7,
)


def solution(case):
    """The X of (14), by the singular vectors: (16) divided by s_i + s_j."""
    E = case.U.T @ case.C @ case.V
    return case.U @ (E / (case.left[:, None] + case.right)) @ case.V.T


def by_13(case, X):
    return X - case.O @ X.T @ case.O


show(
    "(13)",
    "dL/dM = X - O X^T O, for the X of (14), and the differences of L",
    both(lambda c: gap(by_13(c, solution(c)), c.gradient)),
    1e-7,
)
show("(14)", "X O^T M + M O^T X = dL/dO = C", both(lambda c: gap(solution(c) @ c.B + c.A @ solution(c), c.C)), 1e-12)

# %% In theory: (15) to (18)
Y = lambda c: c.U.T @ solution(c) @ c.V
show(
    "(15)",
    "U Y (S^T S)^{1/2} V^T + U (S S^T)^{1/2} Y V^T = C",
    both(lambda c: gap(c.U @ (Y(c) * c.right) @ c.V.T + c.U @ (c.left[:, None] * Y(c)) @ c.V.T, c.C)),
    1e-12,
)
show(
    "(16)",
    "Y (S^T S)^{1/2} + (S S^T)^{1/2} Y = U^T C V",
    both(lambda c: gap(Y(c) * c.right + c.left[:, None] * Y(c), c.U.T @ c.C @ c.V)),
    1e-12,
)
by_17 = square.U @ ((square.U.T @ square.C @ square.V) / (square.s[:, None] + square.s)) @ square.V.T
show("(17)", "Y = (U^T C V) / (s_i + s_j), square M of full rank", gap(by_13(square, by_17), square.gradient), 1e-7)


def by_18(case, epsilon, kept=None):
    """(18) with an epsilon. ``kept``: without what lies outside of [:r, :r]."""
    E = case.U.T @ case.C @ case.V / (case.left[:, None] + case.right + epsilon)
    if kept is not None:
        E[kept:], E[:, kept:] = 0, 0
    return by_13(case, case.U @ E @ case.V.T)


show("(18)", "Y = (U^T C V) / (s_i + s_j + e) for e = 1e-9", both(lambda c: gap(by_18(c, 1e-9), c.gradient)), 1e-7)
dropped = gap(by_18(wide, 0, kept=4), wide.gradient)
print(
    "      The source says that U^T C V must vanish outside of [:r, :r]. For a wide M of full rank it need not: without"
    f"\n      that part the gradient is wrong by {dropped:.0%}. There s_i + s_j = s_i > 0, and no limit is needed."
)
E = square.U[:, :4] @ np.diag(square.s[:4]) @ square.V[:, :4].T  # of rank 4
growth = []
for e in (1e-2, 1e-4, 1e-6):
    u, s, vt = np.linalg.svd(E)
    X4 = u @ (u.T @ square.C @ vt.T / (s[:, None] + s + e)) @ vt
    growth.append(np.linalg.norm(X4))
print(
    "      Where M loses rank the limit does not exist: |X| is "
    + ", ".join(f"{g:.0e}" for g in growth)
    + " for e = 1e-2, 1e-4, 1e-6 and rank 4 of 5."
)

# %% In practice: the Sylvester equation by mcsgn, (19) to (23)
X5 = tg.solve_sylvester(square.A, square.B, square.C)
show(
    "(19)",
    "A X + X B = C with A = M O^T, B = O^T M: tg.solve_sylvester",
    gap(square.A @ X5 + X5 @ square.B, square.C),
    1e-12,
)


def block(case, e=0.0, corner=None):
    n, m = case.M.shape
    corner = -case.C if corner is None else corner
    return np.block([[case.A + e * np.eye(n), corner], [np.zeros((m, n)), -case.B - e * np.eye(m)]])


def shear(X):
    n, m = X.shape
    return np.block([[np.eye(n), X], [np.zeros((m, n)), np.eye(m)]])


show(
    "(20)",
    "[[A, -C], [0, -B]] = [[I, X], [0, I]] [[A, 0], [0, -B]] [[I, X], [0, I]]^{-1}",
    both(lambda c: gap(shear(solution(c)) @ block(c, corner=0 * c.C) @ np.linalg.inv(shear(solution(c))), block(c))),
    1e-12,
)
signs = np.diag([1.0] * 5 + [-1.0] * 5)
show(
    "(21)",
    "mcsgn of that = [[I, X], [0, I]] mcsgn([[A, 0], [0, -B]]) [[I, X], [0, I]]^{-1}",
    gap(tg.mcsgn(block(square)), shear(X5) @ tg.mcsgn(block(square, corner=0 * X5)) @ np.linalg.inv(shear(X5))),
    1e-11,
)
show(
    "(22)",
    "              = [[I, -2 X], [0, -I]]",
    gap(tg.mcsgn(block(square)), signs + np.block([[0 * X5, -2 * X5], [0 * X5, 0 * X5]])),
    1e-11,
)


def by_23(case, e):
    """(23): M is scaled by its norm first, else e would mean another thing for every scale of M."""
    x = tg.tensor(case.M, requires_grad=True)
    if e == 1e-3:
        y = tg.msign(x, steps=14, vjp="dense")
    else:
        dense = tg.ops.matrix_sign.sylvester.msign_dense_vjp
        y = tg.msign(x, vjp=lambda G, M, O: dense(M, G, O=O, eps=e, steps=None))
    y.backward(tg.tensor(case.C))
    return gap(x.grad.numpy(), case.gradient)


show(
    "(23)",
    "X = -mcsgn([[A + e I, -C], [0, -B - e I]])[:n, n:] / 2, e = 1e-3, 14 steps",
    both(lambda c: by_23(c, 1e-3)),
    2e-2,
)
show("", "  the same with e = 1e-6", both(lambda c: by_23(c, 1e-6)), 2e-5)


def ours(case):
    x = tg.tensor(case.M, requires_grad=True)
    tg.msign(x).backward(tg.tensor(case.C))
    return gap(x.grad.numpy(), case.gradient)


show("ours", "P W + W P = O^T C - C^T O on the small side, no e: tg.msign's own rule", both(ours), 1e-7)
print(f"\n{'all equations hold' if not failures else 'these do not hold: ' + ', '.join(failures)}")
if __name__ == "__main__":
    sys.exit(1 if failures else 0)
