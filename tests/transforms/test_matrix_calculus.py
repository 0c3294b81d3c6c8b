"""What the documents print and is not so, and what the transforms promise when they are composed.

SLIPS holds each wrong or conditional statement of the sources (named in test_seed_tables) with what is
printed and what is true. The printed form must fail, the correct one must agree with the tape and with
central differences, and docs/matrix_calculus.md must list exactly these.
"""

import contextlib
import re
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.jacobians import EXACT, assert_agree, check

ROOT = Path(__file__).resolve().parents[2]
RNG = np.random.default_rng(2)


@dataclass
class Slip:
    """The derivative of ``f`` at ``at``, as printed and as it is."""

    f: object
    at: np.ndarray
    printed: object
    correct: object
    layout: str = "tensor"


SLIPS = {}

# --- Parr and Howard --------------------------------------------------------------------------------------------------

w, x = RNG.standard_normal(3), RNG.standard_normal(3) + 3.0
t = np.float64(1.2)
SLIPS["Parr and Howard §4.2, table, row −"] = Slip(
    lambda v: v - x, w, lambda: -np.eye(3), lambda: np.eye(3), "numerator"
)


def zero_op_zero():
    with np.errstate(invalid="ignore"):
        return np.where(np.eye(3) == 1, np.diag(1 / x), np.float64(0) / np.float64(0))


SLIPS["Parr and Howard §4.2, 0 ⊙ 0"] = Slip(lambda v: v / x, w, zero_op_zero, lambda: np.diag(1 / x), "numerator")

A, B = RNG.standard_normal((2, 3)), RNG.standard_normal((3, 3))
J_inner, J_outer = B * np.cos(w), A * np.exp(B @ np.sin(w))
composed = lambda v: tg.matmul(A, tg.exp(tg.matmul(B, tg.sin(v))))
SLIPS["Parr and Howard §4.5.1, forward order"] = Slip(
    composed, w, lambda: J_inner @ J_outer, lambda: J_outer @ J_inner, "numerator"
)  # fmt: skip
one = np.float64(1)
SLIPS["Parr and Howard §4.5.2, change of y"] = Slip(
    lambda v: v + v**2, one, lambda: (2 + 2**2) - (1 + 1**2), lambda: 1 + 2 * one
)
SLIPS["Parr and Howard §4.5.2, total and partial"] = Slip(
    lambda v: tg.sin(v + v**2), t, lambda: np.cos(t + t**2) * 1, lambda: np.cos(t + t**2) * (1 + 2 * t)
)
SLIPS["Parr and Howard §4.5.3, table of cases"] = Slip(
    composed, w, lambda: J_outer @ J_inner[:, :1], lambda: J_outer @ J_inner, "numerator"
)
v3 = np.array([-1.5, 0.5, 2.0])
SLIPS["Parr and Howard §5, max of a vector"] = Slip(
    lambda v: tg.maximum(0, v), v3, lambda: (v3 > 0) * 1.0, lambda: np.diag((v3 > 0) * 1.0), "numerator"
)

DATA, TARGET, BIAS = RNG.standard_normal((8, 3)), RNG.standard_normal(8), np.float64(0.2)
UNIT = DATA @ w + BIAS
ERROR, ACTIVE = UNIT - TARGET, UNIT > 0
ACTIVE_MEAN = ERROR[ACTIVE].mean()


def cost(weights, bias):
    return ((TARGET - tg.relu(tg.matmul(DATA, weights) + bias)) ** 2).mean()


BY_W = lambda v: cost(v, BIAS)
SLIPS["Parr and Howard §6.1, cases outside the sum"] = Slip(
    BY_W, w, lambda: [2 / 8 * ERROR @ DATA], lambda: [2 / 8 * (ACTIVE * ERROR) @ DATA], "numerator"
)
SLIPS["Parr and Howard §6.1, update of w"] = Slip(
    lambda v: cost(v[:, 0], BIAS), w[:, None],
    lambda: w[:, None] * 0 + [2 / 8 * (ACTIVE * ERROR) @ DATA],  # NumPy makes a matrix of a column and a row
    lambda: (2 / 8 * (ACTIVE * ERROR) @ DATA)[:, None], "denominator",
)  # fmt: skip
BY_B = lambda v: cost(w, v)
SLIPS["Parr and Howard §6.2, cases outside the sum"] = Slip(
    BY_B, BIAS, lambda: 2 / 8 * ERROR.sum(), lambda: 2 / 8 * (ACTIVE * ERROR).sum()
)
SLIPS["Parr and Howard §6.2, average error"] = Slip(
    BY_B, BIAS, lambda: ERROR[ACTIVE].sum() / 8, lambda: 2 * ERROR[ACTIVE].sum() / 8
)
w_hat, x_hat = np.append(w, BIAS)[:, None], np.append(x, 1.0)[None, :]  # as printed: a column and a row
SLIPS["Parr and Howard §6.2, augmented x"] = Slip(
    lambda v: tg.sum(v * x_hat.T), w_hat, lambda: x_hat.T, lambda: x_hat, "numerator"
)
SLIPS["Parr and Howard §8.4, first component"] = Slip(
    lambda v: tg.sum(v * v), w, lambda: [np.r_[2 * w, 2 * w[1:]]], lambda: [2 * w], "numerator"
)
SLIPS["Parr and Howard §8.4, dot product"] = Slip(
    lambda v: tg.dot(v * v, x), w, lambda: [x], lambda: [2 * w * x], "numerator"
)

# --- ai-edu --------------------------------------------------------------------------------------------------

C, D = RNG.standard_normal((2, 2)), RNG.standard_normal((3, 4))
TALL, P, Q = RNG.standard_normal((3, 2)), RNG.standard_normal((3, 2)), RNG.standard_normal((2, 4))
L34, R24 = RNG.standard_normal((3, 4)), RNG.standard_normal((2, 4))
I2 = np.eye(2)
SLIPS["ai-edu (60)"] = Slip(lambda v: tg.sum(C * tg.matmul(A, v)), TALL, lambda: C @ np.kron(A, I2), lambda: A.T @ C)
SLIPS["ai-edu (61)"] = Slip(
    lambda v: tg.sum(D * tg.matmul(v, Q)), TALL, lambda: D @ np.kron(np.eye(3), Q.T), lambda: D @ Q.T
)
SLIPS["ai-edu (62)"] = Slip(lambda v: tg.matmul(v.T, P), TALL, lambda: P, lambda: np.einsum("il,kj->ijkl", I2, P))
SLIPS["ai-edu (63)"] = Slip(
    lambda v: tg.matmul(tg.matmul(L34.T, v), R24), TALL,
    lambda: L34 @ R24.T, lambda: np.einsum("ki,lj->ijkl", L34, R24),
)  # fmt: skip
SLIPS["ai-edu (64)"] = Slip(
    lambda v: tg.matmul(tg.matmul(R24.T, v.T), L34), TALL,
    lambda: L34 @ R24.T, lambda: np.einsum("li,kj->ijkl", R24, L34),
)  # fmt: skip


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def slope(v):
    return sigmoid(v) * (1 - sigmoid(v))


SLIPS["ai-edu (70), rule cited"] = Slip(tg.sigmoid, t, lambda: 0 - np.exp(-t), lambda: slope(t))
SLIPS["ai-edu (94), proof"] = Slip(
    lambda s: tg.matmul(B + s * L34[:, :3], B.T + s * D[:, :3]), np.float64(0),
    lambda: L34[:, :3] * B.T + B * D[:, :3], lambda: L34[:, :3] @ B.T + B @ D[:, :3],
)  # fmt: skip

# The network of the text and its names: inputs a1, weights W1 to the hidden a2, weights W2 to the output a3.
W1, W2, b2, b3 = (
    RNG.standard_normal((2, 2)),
    RNG.standard_normal((1, 2)),
    RNG.standard_normal(2),
    RNG.standard_normal(1),
)
a1, y = RNG.standard_normal(2), 0.3
z2 = W1 @ a1 + b2
a2 = sigmoid(z2)
z3 = W2 @ a2 + b3
delta3 = (sigmoid(z3) - y) * slope(z3)
delta2 = W2[0] * delta3 * slope(z2)


def two_neurons(first, second):
    hidden = tg.sigmoid(tg.matmul(first, a1) + b2)
    return 0.5 * tg.sum((y - tg.sigmoid(tg.matmul(second, hidden) + b3)) ** 2)


def with_entry(matrix, i, j, value):
    unit = np.zeros(matrix.shape)
    unit[i, j] = 1
    return matrix * (1 - unit) + unit * value


SLIPS["ai-edu, network, ∂e/∂w₁₂¹"] = Slip(
    lambda v: two_neurons(with_entry(W1, 0, 1, v), W2), W1[0, 1],
    lambda: delta3[0] * W2[0, 1] * slope(z2[1]) * a2[1], lambda: delta3[0] * W2[0, 0] * slope(z2[0]) * a1[1],
)  # fmt: skip
SLIPS["ai-edu (83), superscripts"] = Slip(
    lambda v: two_neurons(W1, with_entry(W2, 0, 0, v)), W2[0, 0],
    lambda: a1[0] * delta2[0], lambda: a2[0] * delta3[0],
)  # fmt: skip
row, column = RNG.standard_normal((1, 3)), RNG.standard_normal((3, 1))
SLIPS["ai-edu, full layer, I^T w^T"] = Slip(
    lambda v: tg.matmul(row, v)[0, 0] + 0.5, column, lambda: np.eye(1).T @ row.T, lambda: row.T @ np.eye(1).T
)
LOGITS, D_LOGITS = RNG.standard_normal((4, 1)), RNG.standard_normal((4, 1))
EXP = np.exp(LOGITS)
log_sum = lambda s: tg.log(tg.sum(tg.exp(LOGITS + s * D_LOGITS)))
SLIPS["ai-edu, d log(1^T exp Z)"] = Slip(
    log_sum, np.float64(0), lambda: D_LOGITS / EXP.sum(), lambda: (EXP * D_LOGITS).sum() / EXP.sum()
)
SLIPS["ai-edu (103), brackets"] = Slip(
    log_sum, np.float64(0),
    lambda: np.ones((4, 1)) * (EXP.T @ D_LOGITS) / EXP.sum(),
    lambda: ((np.ones((4, 1)) * EXP).T @ D_LOGITS / EXP.sum()).item(),
)  # fmt: skip
COUNTS = np.array([[1.0], [0.0], [2.0], [0.5]])
SLIPS["ai-edu, softmax(Z) − Y"] = Slip(
    lambda v: -tg.sum(COUNTS * tg.log_softmax(v, axis=0)), LOGITS,
    lambda: EXP / EXP.sum() - COUNTS, lambda: COUNTS.sum() * EXP / EXP.sum() - COUNTS,
)  # fmt: skip

# --- AIDIY --------------------------------------------------------------------------------------------------

SQUARE = B + 3 * np.eye(3)
S, DET = np.linalg.inv(SQUARE), np.linalg.det(SQUARE)
SLIPS["AIDIY §1, scalar and matrix rows"] = Slip(
    lambda v: tg.sum(tg.sin(v)), TALL, lambda: np.cos(TALL), lambda: np.cos(TALL).reshape(1, 6), "numerator"
)
SLIPS["AIDIY §1, pq × mn"] = Slip(
    lambda v: tg.matmul(v, Q), TALL, lambda: np.kron(np.eye(3), Q.T), lambda: np.kron(np.eye(3), Q), "denominator"
)
SLIPS["AIDIY §3, AX"] = Slip(lambda v: tg.matmul(A, v), TALL, lambda: A.T, lambda: np.kron(A.T, I2), "denominator")
SLIPS["AIDIY §3, XA"] = Slip(lambda v: tg.matmul(v, Q), TALL, lambda: Q, lambda: np.kron(np.eye(3), Q), "denominator")
SLIPS["AIDIY §3, AX and XA, numerator"] = Slip(lambda v: tg.matmul(A, v), column, lambda: A.T, lambda: A, "numerator")
SLIPS["AIDIY §3, X^T A X"] = Slip(
    lambda v: tg.matmul(tg.matmul(v.T, B), v), TALL,
    lambda: B @ TALL + B.T @ TALL,
    lambda: np.einsum("il,kj->ijkl", I2, B @ TALL) + np.einsum("ik,jl->ijkl", TALL.T @ B, I2),
)  # fmt: skip
SLIPS["AIDIY §3, traces"] = Slip(
    lambda v: tg.trace(tg.matmul(A, v)), np.ones((3, 2)), lambda: A.T, lambda: A.T.reshape(1, 6), "numerator"
)
SLIPS["AIDIY §3, determinant"] = Slip(
    lambda v: tg.det(v), SQUARE, lambda: DET * S.T, lambda: DET * S.T.reshape(1, 9), "numerator"
)
SLIPS["AIDIY §3, inverse"] = Slip(
    lambda v: tg.inv(v), SQUARE, lambda: -np.kron(S.T, S), lambda: -np.kron(S, S.T), "numerator"
)
SIN = np.sin(TALL)
SLIPS["AIDIY §4, scalar case"] = Slip(
    lambda v: tg.sum(tg.exp(tg.matmul(A, tg.sin(v)))), TALL,
    lambda: np.trace(np.exp(A @ SIN).T @ (np.kron(A, I2) * np.cos(TALL).ravel())),
    lambda: np.einsum("ij,ijkl->kl", np.exp(A @ SIN), np.einsum("ik,jl,kl->ijkl", A, I2, np.cos(TALL))),
)  # fmt: skip
SLIPS["AIDIY §4, matrix case"] = Slip(
    lambda v: tg.matmul(A, tg.matmul(B, v)), column, lambda: A.T @ B.T, lambda: B.T @ A.T, "denominator"
)
LAYER, SAMPLES = RNG.standard_normal((2, 3)), RNG.standard_normal((3, 5))
G_LAYER = np.exp(LAYER @ SAMPLES + 0.5)
SLIPS["AIDIY §5, bias"] = Slip(
    lambda v: tg.sum(tg.exp(LAYER @ SAMPLES + v)), np.full((2, 1), 0.5),
    lambda: sum(G_LAYER), lambda: G_LAYER.sum(axis=1, keepdims=True),
)  # fmt: skip


@pytest.mark.parametrize("slip", SLIPS.values(), ids=SLIPS)
def test_the_printed_form_fails_and_the_correct_one_holds(slip):
    correct = np.asarray(slip.correct(), dtype=float)
    check(slip.f, slip.at, slip.layout, correct)
    with contextlib.suppress(ValueError):  # sizes that do not multiply are a failure, too
        printed = np.asarray(slip.printed(), dtype=float)
        assert printed.shape != correct.shape or not abs(printed - correct).max() <= 0.1 * abs(correct).max()


def test_the_page_lists_exactly_the_slips_tested_here():
    page = (ROOT / "docs" / "matrix_calculus.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ((?:Parr and Howard|ai-edu|AIDIY)[^|]*?) \|", page, re.MULTILINE)
    assert sorted(listed) == sorted(SLIPS)


# --- the lessons ------------------------------------------------------------------------------------------


def run_example(name, capsys, *arguments):
    """What the example prints, and the exit status it asks for (0 where it runs to its end)."""
    status, before = 0, list(sys.argv)
    sys.argv[:] = [name, *map(str, arguments)]
    try:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.argv[:] = before
    return status, capsys.readouterr().out


def test_backprop_by_hand_shows_whole_matrices_that_agree(capsys, tmp_path):
    status, out = run_example("backprop_by_hand.py", capsys, "--out", tmp_path)
    assert status == 0 and "DIFFER" not in out and "Microsoft ai-edu" in out
    gaps = [float(gap) for gap in re.findall(r"difference (\S+)$", out, re.MULTILINE)]
    assert len(gaps) == 1 + 3 * 3 + 9 + 4 and max(gaps) <= 1e-12
    assert all(f"({n})" in out for n in (80, 81, 82, 83))
    block = out.partition("a of the layer below, 5 x 4:")[2].splitlines()[2:7]
    pairs = [(line.split()[:4], line.split()[4:]) for line in block]
    assert all(left == right and len(left) == 4 for left, right in pairs)
    assert {name: out.count(f"  {name}, ") for name in "Wbzay"} == dict(W=3, b=3, z=3, a=4, y=1)
    drawn = next(tmp_path.glob("two_neurons.*")).read_text()
    assert all(name in drawn for name in ("w11", "w22", "v1", "b3"))


def test_backprop_by_hand_fails_where_the_tape_differs(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(
        tg, "softmax_cross_entropy", lambda *a, f=tg.softmax_cross_entropy, **k: f(*a, **k) * (1 + 1e-9)
    )
    status, out = run_example("backprop_by_hand.py", capsys, "--out", tmp_path)
    assert status == 1 and out.count("DIFFERENT") == 2 and "THEY DIFFER" in out
    assert run_example("backprop_by_hand.py", capsys, "--nonsense")[0] == 2


def test_thirty_lines_train_a_network(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out = run_example("train.py", capsys)
    text = (ROOT / "examples" / "train.py").read_text(encoding="utf-8")
    code = [line for line in text.split('"""')[2].splitlines() if line.strip()]
    assert status == 0 and len(code) <= 30 and "argv" not in text
    accuracies = [float(number) for number in re.findall(r"test accuracy (\S+)%", out)]
    assert len(accuracies) == 10 and accuracies[-1] > 95
    assert tg.load("digits.npz")["0.weight"].shape == (128, 64)


def test_the_tour_agrees_in_every_section(capsys):
    status, out = run_example("matrix_calculus_tour.py", capsys)
    assert status == 0 and out.endswith("All three ways agree.\n")
    lines = re.findall(r"^.+ \d x \d +(\S+) +(\S+)$", out, re.MULTILINE)
    assert len(lines) == 40
    assert all(float(tape) <= 1e-12 and float(numeric) <= 1e-8 for tape, numeric in lines)
    headings = re.findall(r"^(\d[\d.]*) .+\n=+$", out, re.MULTILINE)
    assert headings == ["3", "4", "4.1", "4.2", "4.3", "4.4", "4.5.1", "4.5.2", "4.5.3", "5", "6"]


def test_the_tour_fails_where_the_tape_differs(capsys, monkeypatch):
    monkeypatch.setattr(tg, "relu", lambda v: tg.maximum(v, 0.0) * (1 + 1e-9))
    status, out = run_example("matrix_calculus_tour.py", capsys)
    assert status == 1 and "THEY DIFFER: d max(0, v)/dv" in out


# --- transforms of transforms -----------------------------------------------------------------------------

X = RNG.standard_normal((2, 3))
U, V = RNG.standard_normal((2, 2, 3))


def f(v):
    """A scalar function with a full Hessian."""
    return tg.exp(tg.sum(tg.sin(v))) + tg.sum(v * v * v)


def expected_hessian(v):
    s, c = np.exp(np.sin(v).sum()), np.cos(v).ravel()
    return (s * np.outer(c, c) + np.diag((6 * v - s * np.sin(v)).ravel())).reshape(*v.shape, *v.shape)


HV = np.tensordot(expected_hessian(X), V)
ROUTES = {  # so many ways to the Hessian of f times V
    "jvp of grad": lambda f: tg.jvp(tg.grad(f), (X,), (V,))[1],
    "jvp of vjp": lambda f: tg.jvp(lambda v: tg.vjp(f, v)[1](np.float64(1))[0], (X,), (V,))[1],
    "grad of jvp": lambda f: tg.grad(lambda v: tg.jvp(f, (v,), (V,))[1])(X),
    "vjp of grad": lambda f: tg.vjp(tg.grad(f), X)[1](V)[0],
    "vjp of vjp": lambda f: tg.vjp(lambda v: tg.vjp(f, v)[1](np.float64(1))[0], X)[1](V)[0],
    "linearize of grad": lambda f: tg.linearize(tg.grad(f), X)[1](V),
    "grad of <grad, V>": lambda f: tg.grad(lambda v: tg.sum(tg.grad(f)(v) * V))(X),
    "gradients of gradients": lambda f: tg.grad(lambda v: tg.sum(tg.gradients(f(v), v, create_graph=True) * V))(X),
    "hvp": lambda f: tg.hvp(f, X, V),
}


@pytest.mark.parametrize("through", [lambda f: f, tg.checkpoint], ids=["plain", "checkpoint"])
@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_every_route_to_a_hessian_vector_product(route, through):
    assert_agree(route(through(f)), HV, EXACT)


@pytest.mark.parametrize("through", [lambda f: f, tg.checkpoint], ids=["plain", "checkpoint"])
def test_hessian_is_jacobian_of_grad_in_either_mode(through):
    g = through(f)
    assert_agree(tg.hessian(g, X), expected_hessian(X), EXACT)
    for outer in ("reverse", "forward"):
        assert_agree(tg.jacobian(tg.grad(g), X, mode=outer), expected_hessian(X), EXACT)
        for inner in ("reverse", "forward"):
            twice = tg.jacobian(lambda v, m=inner: tg.jacobian(g, v, mode=m), X, mode=outer)
            assert_agree(twice, expected_hessian(X), EXACT)


def test_third_derivatives_by_three_transforms():
    cubic = lambda v: tg.sum(v * v * v * v) / 24
    v = X[0]
    third = np.zeros((3, 3, 3))
    third[range(3), range(3), range(3)] = v
    assert_agree(tg.jacobian(tg.hessian(cubic), v), third, EXACT)
    assert_agree(tg.jacobian(lambda p: tg.hvp(cubic, p, U[0]), v), np.diag(v * U[0]), EXACT)
    assert_agree(tg.hvp(lambda p: tg.jvp(cubic, (p,), (U[0],))[1], v, V[0]), v * U[0] * V[0], EXACT)
    assert_agree(tg.grad(tg.grad(tg.grad(lambda s: s**4 / 24)))(np.float64(1.5)), 1.5, EXACT)


def test_pullback_and_pushforward_are_linear_and_each_is_the_transpose_of_the_other():
    g = lambda v: tg.sin(v) * tg.exp(v.sum())
    pull = lambda c: tg.vjp(g, X)[1](c)[0]
    assert_agree(tg.jvp(pull, (U,), (V,))[1], pull(V).numpy(), EXACT)
    assert_agree(tg.vjp(pull, U)[1](V)[0], tg.jvp(g, (X,), (V,))[1].numpy(), EXACT)
    push = tg.linearize(g, X)[1]
    assert_agree(tg.jvp(push, (U,), (V,))[1], push(V).numpy(), EXACT)
    assert_agree(tg.vjp(push, U)[1](V)[0], pull(V).numpy(), EXACT)
    assert_agree(tg.grad(lambda v: tg.sum(tg.hvp(f, X, v) * U))(V), np.tensordot(expected_hessian(X), U), EXACT)
    assert not pull(V).requires_grad and not push(V).requires_grad


def test_jacobians_reach_what_the_function_closes_over():
    weight = tg.tensor(U, requires_grad=True)
    J = tg.jacobian(lambda v: tg.sum(weight * v * v, axis=1), X, layout="numerator")
    (J * J).sum().backward()  # J[i, (i, k)] = 2 U_ik X_ik
    assert_agree(weight.grad, 8 * U * X**2, EXACT)


def test_hessians_of_trees_and_of_several_arguments():
    bilinear = lambda p: tg.sum(p["a"] * p["b"][0] ** 2)
    H = tg.hessian(bilinear, {"a": U[0], "b": [V[0]]})
    assert_agree(H["a"]["a"], np.zeros((3, 3)), EXACT)
    assert_agree(H["a"]["b"][0], np.diag(2 * V[0]), EXACT)
    assert_agree(H["b"][0]["a"], np.diag(2 * V[0]), EXACT)
    assert_agree(H["b"][0]["b"][0], np.diag(2 * U[0]), EXACT)
    H = tg.hessian(lambda a, b: tg.sum(a * b * b), U[0], V[0], argnums=(0, 1))
    assert_agree(H[0][1], np.diag(2 * V[0]), EXACT)
    assert_agree(H[1][1], np.diag(2 * U[0]), EXACT)


def test_layouts_of_several_results():
    """Each result has the layout asked for; derivatives of layouts are layouts of derivatives."""
    J = tg.jacobian(lambda v: {"sum": v.sum(), "cube": v * v * v}, X, layout="denominator")
    assert J["sum"].shape == (6, 1)
    assert_agree(J["cube"], np.diag(3 * X.ravel() ** 2), EXACT)
    assert_agree(tg.grad(lambda v: tg.trace(tg.jacobian(lambda p: p * p * p, v, layout="numerator")))(X), 6 * X, EXACT)
