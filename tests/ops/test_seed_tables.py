"""Every row of the tables of three documents, by the tape and by central differences.

Parr and Howard, The Matrix Calculus You Need For Deep Learning; Microsoft ai-edu, Basic derivative
formulas (its table of functions of one variable is in test_elementwise); AIDIY, Matrix derivatives.
A row stands here in the layout in which it is true. Rows that are printed otherwise: test_matrix_calculus.
"""

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.jacobians import EXACT, NUMERIC, assert_agree, check

RNG = np.random.default_rng(1)
ONES = np.ones(3)
I = np.eye(3)
w, x = RNG.standard_normal(3), RNG.standard_normal(3) + 3.0
z = np.float64(0.7)
POINT = np.array([1.3, 0.8])  # x and y of Parr and Howard section 3

A = RNG.standard_normal((3, 3))
X = RNG.standard_normal((3, 3)) + 3 * I
S = np.linalg.inv(X)
COLUMN, ROW = RNG.standard_normal((3, 1)), RNG.standard_normal((1, 3))
TALL, WIDE = RNG.standard_normal((3, 2)), RNG.standard_normal((2, 3))
P, Q = (RNG.standard_normal((3, 2)), RNG.standard_normal((2, 4)))  # constants of matching sizes beside TALL and WIDE


def rows(**tables):
    """pytest parameters from {table: {row: values}}."""
    return [
        pytest.param(*values, id=f"{table.replace('_', ' ')}: {name}")
        for table, entries in tables.items()
        for name, values in entries.items()
    ]


# --- Parr and Howard: vectors, numerator layout throughout ------------------------------------------------------------

THREE = {  # section 3 and the two functions of section 4
    "gradient of 3 x^2 y": (lambda p: 3 * p[0] ** 2 * p[1], POINT, [[6 * POINT.prod(), 3 * POINT[0] ** 2]]),
    "gradient of 2 x + y^8": (lambda p: 2 * p[0] + p[1] ** 8, POINT, [[2, 8 * POINT[1] ** 7]]),
    "both stacked": (
        lambda p: tg.stack([3 * p[0] ** 2 * p[1], 2 * p[0] + p[1] ** 8]),
        POINT,
        [[6 * POINT.prod(), 3 * POINT[0] ** 2], [2, 8 * POINT[1] ** 7]],
    ),
    "identity (4.1)": (lambda v: v * 1, x, I),
    "m = 2 functions of n = 3 (4.1)": (
        lambda v: tg.stack([v[0] * v[1], tg.sin(v[2]) * v[0]]),
        x,
        [[x[1], x[0], 0], [np.sin(x[2]), 0, x[0] * np.cos(x[2])]],
    ),
}

ELEMENTWISE = {  # sections 4.2 and 8.2
    "w + x by w": (lambda v: v + x, w, I),
    "w - x by w": (lambda v: v - x, w, I),
    "w * x by w": (lambda v: v * x, w, np.diag(x)),
    "w / x by w": (lambda v: v / x, w, np.diag(1 / x)),
    "w + x by x": (lambda v: w + v, x, I),
    "w - x by x": (lambda v: w - v, x, -I),
    "w * x by x": (lambda v: w * v, x, np.diag(w)),
    "w / x by x": (lambda v: w / v, x, np.diag(-w / x**2)),
    "max(w, x) by w": (lambda v: tg.maximum(v, [0.0, -9.0, 9.0]), w, np.diag(w > [0.0, -9.0, 9.0])),
    "w > x by w": (lambda v: tg.where(v > x, 1.0, 0.0) + 0 * v, w, 0 * I),
    "f(w) * g(x) by w": (lambda v: tg.sin(v) * tg.exp(x), w, np.diag(np.cos(w) * np.exp(x))),
    "f(w) / g(x) by x": (lambda v: tg.sin(w) / tg.exp(v), x, np.diag(-np.sin(w) * np.exp(-x))),
}

SCALAR = {  # sections 4.3 and 8.3
    "x + z by x": (lambda v: v + z, x, I),
    "x + z by z": (lambda s: x + s, z, ONES[:, None]),
    "x z by x": (lambda v: v * z, x, z * I),
    "x z by z": (lambda s: x * s, z, x[:, None]),
}

SUMS = {  # sections 4.4 and 8.4
    "sum f(x) by x": (lambda v: (v * v * v).sum(), x, [3 * x**2]),
    "sum of f_i of all x": (lambda v: tg.matmul(A, v).sum(), x, [A.sum(axis=0)]),
    "sum(x) by x": (lambda v: tg.sum(v), x, [ONES]),
    "sum(x z) by x": (lambda v: tg.sum(v * z), x, [z * ONES]),
    "sum(x z) by z": (lambda s: tg.sum(x * s), z, [[x.sum()]]),
    "u = w * x by x": (lambda v: w * v, x, np.diag(w)),
    "y = sum(u) by u": (lambda u: tg.sum(u), w * x, [ONES]),
    "w . x by x": (lambda v: tg.dot(w, v), x, [w]),
    "w . x by w": (lambda v: tg.dot(v, x), w, [x]),
}

t = np.float64(1.2)
u = t**3
ONE_VARIABLE = {  # sections 4.5.1 and 4.5.2
    "sin x^2": (lambda v: tg.sin(v * v), t, 2 * t * np.cos(t**2)),
    "ln (sin x^3)^2, from the parts": (
        lambda v: tg.log(tg.sin(v**3) ** 2), t, 1 / np.sin(u) ** 2 * 2 * np.sin(u) * np.cos(u) * 3 * t**2,
    ),
    "ln (sin x^3)^2, substituted": (
        lambda v: tg.log(tg.sin(v**3) ** 2), t, 6 * np.sin(u) * t**2 * np.cos(u) / np.sin(u) ** 2,
    ),
    "ln (sin x^3)^2, cancelled": (lambda v: tg.log(tg.sin(v**3) ** 2), t, 6 * t**2 * np.cos(u) / np.sin(u)),
    "u1 = x^2 by x": (lambda v: v**2, t, 2 * t),
    "u2 = x + u1 by x alone": (lambda v: v + t**2, t, 1.0),
    "u2 = x + u1 by u1": (lambda v: t + v, t**2, 1.0),
    "x + x^2, total": (lambda v: v + v**2, t, 1 + 1 * 2 * t),
    "sin(x + x^2), total": (lambda v: tg.sin(v + v**2), t, np.cos(t + t**2) * (1 + 2 * t)),
    "u2 = x u1 by x alone": (lambda v: v * t**2, t, t**2),
    "u2 = x u1 by u1": (lambda v: t * v, t**2, t),
    "x x^2, total": (lambda v: v * v**2, t, 3 * t**2),
}  # fmt: skip

VECTOR = {  # section 4.5.3
    "f(g(x)) = (ln x^2, sin 3x)": (
        lambda v: tg.stack([tg.log(v**2), tg.sin(3 * v)]), t, [[2 / t], [3 * np.cos(3 * t)]],
    ),
    "df/dg": (
        lambda g: tg.stack([tg.log(g[0]), tg.sin(g[1])]),
        np.array([t**2, 3 * t]),
        [[1 / t**2, 0], [0, np.cos(3 * t)]],
    ),
    "dg/dx": (lambda v: tg.stack([v**2, 3 * v]), t, [[2 * t], [3]]),
    "diagonal df/dg dg/dx": (lambda v: tg.sin(v * v), x, np.diag(np.cos(x**2)) @ np.diag(2 * x)),
}  # fmt: skip

b = np.float64(0.4)
OFF = np.float64(b - w @ x - 1)  # a bias that switches the unit off
ON = np.float64(b - w @ x + 1)
MIXED = np.array([-1.5, 0.5, 2.0])
NEURON = {  # section 5
    "w . x + b by w": (lambda v: tg.dot(v, x) + b, w, [x]),
    "w . x + b by b": (lambda v: tg.dot(w, x) + v, b, [[1]]),
    "max(0, z), z < 0": (lambda v: tg.maximum(0, v), -t, [[0]]),
    "max(0, z), z > 0": (lambda v: tg.maximum(0, v), t, [[1]]),
    "max(0, x) broadcast": (lambda v: tg.maximum(0, v), MIXED, np.diag([0, 1, 1])),
    "activation by w, off": (lambda v: tg.relu(tg.dot(v, x) + OFF), w, [0 * x]),
    "activation by w, on": (lambda v: tg.relu(tg.dot(v, x) + ON), w, [x]),
    "activation by b, off": (lambda v: tg.relu(tg.dot(w, x) + v), OFF, [[0]]),
    "activation by b, on": (lambda v: tg.relu(tg.dot(w, x) + v), ON, [[1]]),
}

DATA = RNG.standard_normal((8, 3))  # X of section 6: one input vector per row
TARGET = RNG.standard_normal(8)
UNIT = DATA @ w + b
ACTIVE = UNIT > 0  # some are, some are not
ERROR = UNIT - TARGET


def cost(weights, bias, data=DATA, target=TARGET):
    return ((target - tg.relu(tg.matmul(data, weights) + bias)) ** 2).mean()


LOSS = {  # section 6; the case distinction belongs to each input vector
    "u by w": (lambda v: tg.relu(tg.matmul(DATA, v) + b), w, ACTIVE[:, None] * DATA),
    "v = y - u by w": (lambda v: TARGET - tg.relu(tg.matmul(DATA, v) + b), w, -1.0 * ACTIVE[:, None] * DATA),
    "C by w": (lambda v: cost(v, b), w, [2 / 8 * (ACTIVE * ERROR) @ DATA]),
    "C by w, N = 1, on": (
        lambda v: cost(v, 9.0, DATA[:1], TARGET[:1]),
        w,
        [2 * (UNIT[0] - b + 9 - TARGET[0]) * DATA[0]],
    ),
    "u by b": (lambda v: tg.relu(DATA @ w + v), b, ACTIVE[:, None]),
    "v = y - u by b": (lambda v: TARGET - tg.relu(DATA @ w + v), b, -1.0 * ACTIVE[:, None]),
    "C by b": (lambda v: cost(w, v), b, [[2 / 8 * (ACTIVE * ERROR).sum()]]),
    "C by (w, b) as one vector": (
        lambda v: ((TARGET - tg.relu(tg.matmul(np.c_[DATA, np.ones(8)], v))) ** 2).mean(),
        np.r_[w, b],
        [2 / 8 * (ACTIVE * ERROR) @ np.c_[DATA, np.ones(8)]],
    ),
}

TABLES_001 = rows(
    _3=THREE, _4_2=ELEMENTWISE, _4_3=SCALAR, _4_4=SUMS, _4_5=ONE_VARIABLE, _4_5_3=VECTOR, _5=NEURON, _6=LOSS
)


@pytest.mark.parametrize("f, at, formula", TABLES_001)
def test_rows_of_001(f, at, formula):
    formula = np.asarray(formula, dtype=float)
    if formula.ndim == 0:
        check(f, at, "tensor", formula)
    else:
        check(f, at, "numerator", formula)
        check(f, at, "denominator", formula.T)  # section 4: the other layout is the transpose


def test_the_derivative_of_max_at_zero_is_zero_for_relu_and_shared_for_maximum():
    """Parr and Howard section 5 gives 0 at z = 0, and so does relu; maximum divides a tie as PyTorch does."""
    zero = np.float64(0)
    assert tg.grad(tg.relu)(zero) == 0 and tg.grad(lambda v: tg.maximum(0, v))(zero) == 0.5


CASES = {  # the table at the end of 4.5.3: f of u of x, each a scalar or a vector; 8.5 names them
    "scalar f, scalar u, scalar x": (lambda u: tg.sin(u), lambda v: v**2, t),
    "scalar f, vector u, scalar x": (lambda u: (u * u * u).sum(), lambda v: x * v, t),
    "scalar f, scalar u, vector x": (lambda u: tg.sin(u), lambda v: tg.dot(w, v), x),
    "scalar f, vector u, vector x": (lambda u: (u * u * u).sum(), lambda v: tg.matmul(A, v), x),
    "vector f, scalar u, scalar x": (lambda u: x * u**2, lambda v: tg.sin(v), t),
    "vector f, vector u, scalar x": (lambda u: tg.matmul(WIDE, tg.sin(u)), lambda v: x * v, t),
    "vector f, scalar u, vector x": (lambda u: x * u**2, lambda v: tg.dot(w, v), x),
    "vector f, vector u, vector x": (lambda u: tg.matmul(WIDE, tg.sin(u)), lambda v: tg.matmul(A, v), x),
}


@pytest.mark.parametrize("f, inner, at", rows(_4_5_3_and_8_5=CASES))
def test_the_vector_chain_rule_of_001_covers_every_case(f, inner, at):
    middle = np.asarray(inner(at))
    product = tg.jacobian(f, middle, layout="numerator") @ tg.jacobian(inner, at, layout="numerator")
    check(lambda v: f(inner(v)), at, "numerator", product)


# --- AIDIY: matrices, each row in every layout --------------------------------------------------------------


def commute(m, n):
    """K with vec(X^T) = K vec(X) for X of shape (m, n), both flattened row by row."""
    return np.eye(m * n).reshape(m, n, m * n).swapaxes(0, 1).reshape(m * n, m * n)


def layouts(f, at, numerator, y_shape):
    """A row in the three layouts of sections 1 and 2, from its numerator form."""
    numerator = np.asarray(numerator)
    tensor = numerator.reshape(*y_shape, *at.shape)
    return {"numerator": (f, at, numerator), "denominator": (f, at, numerator.T), "tensor": (f, at, tensor)}


kron = np.kron
DET = np.linalg.det(X)
TABLE_004 = {  # section 3
    "AX": layouts(lambda v: tg.matmul(WIDE, v), TALL, kron(WIDE, np.eye(2)), (2, 2)),
    "XA": layouts(lambda v: tg.matmul(v, Q), TALL, kron(np.eye(3), Q.T), (3, 4)),
    "X^T A X": layouts(
        lambda v: tg.matmul(tg.matmul(v.T, A), v), TALL,
        kron(TALL.T @ A, np.eye(2)) + kron(np.eye(2), (A @ TALL).T) @ commute(3, 2), (2, 2),
    ),
    "tr(AX)": layouts(lambda v: tg.trace(tg.matmul(WIDE, v)), TALL, WIDE.T.reshape(1, 6), ()),
    "tr(X A X^T)": layouts(
        lambda v: tg.trace(tg.matmul(tg.matmul(v, A), v.T)), WIDE, (WIDE @ (A + A.T)).reshape(1, 6), (),
    ),
    "det X": layouts(lambda v: tg.det(v), X, (DET * S.T).reshape(1, 9), ()),
    "X^-1": layouts(lambda v: tg.inv(v), X, -kron(S, S.T), (3, 3)),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["numerator", "denominator", "tensor"])
@pytest.mark.parametrize("name", TABLE_004)
def test_rows_of_004_in_every_layout(name, layout):
    f, at, formula = TABLE_004[name][layout]
    check(f, at, layout, formula)


PRINTED_004 = {  # section 3 as printed, where and in what layout it is true
    "AX, X a column: A^T": (lambda v: tg.matmul(WIDE, v), COLUMN, "denominator", WIDE.T),
    "XA, X a row: A": (lambda v: tg.matmul(v, P), ROW, "denominator", P),
    "X^T A X, X a column: AX + A^T X": (
        lambda v: tg.matmul(tg.matmul(v.T, A), v), COLUMN, "denominator", A @ COLUMN + A.T @ COLUMN,
    ),
    "tr(X^T A X): AX + A^T X": (
        lambda v: tg.trace(tg.matmul(tg.matmul(v.T, A), v)), TALL, "tensor", A @ TALL + A.T @ TALL,
    ),
    "tr(AX): A^T": (lambda v: tg.trace(tg.matmul(WIDE, v)), TALL, "tensor", WIDE.T),
    "tr(X A X^T): X (A + A^T)": (
        lambda v: tg.trace(tg.matmul(tg.matmul(v, A), v.T)), WIDE, "tensor", WIDE @ (A + A.T),
    ),
    "det X: det(X) X^-T": (lambda v: tg.det(v), X, "tensor", DET * S.T),
    "X^-1: -X^-T (x) X^-1": (lambda v: tg.inv(v), X, "denominator", -kron(S.T, S)),
}  # fmt: skip


@pytest.mark.parametrize("f, at, layout, formula", rows(_004_3=PRINTED_004))
def test_printed_rows_of_004_where_they_are_true(f, at, layout, formula):
    check(f, at, layout, formula)


def test_the_inverse_row_of_004_is_also_the_numerator_form_of_matrices_stacked_column_by_column():
    by_columns = lambda v: tg.inv(v.reshape(3, 3).T).T.reshape(9)
    check(by_columns, X.T.ravel(), "numerator", -kron(S.T, S))


def test_definitions_of_004():
    """Sections 1 and 2: a gradient has the shape of X; the element for (i, j) and (k, l) in each layout."""
    f = lambda v: tg.matmul(v.T, tg.sin(v))
    assert tg.jacobian(lambda v: tg.sum(f(v)), TALL).shape == TALL.shape
    tensor = tg.jacobian(f, TALL).numpy()
    numerator, denominator = (tg.jacobian(f, TALL, layout=name).numpy() for name in ("numerator", "denominator"))
    assert tensor.shape == (2, 2, 3, 2) and numerator.shape == (4, 6) and denominator.shape == (6, 4)
    for i, j, k, l in np.ndindex(tensor.shape):
        assert tensor[i, j, k, l] == numerator[2 * i + j, 2 * k + l] == denominator[2 * k + l, 2 * i + j]


def test_chain_rules_of_004():
    """Section 4: a trace per element of X; outer times inner, in denominator layout inner times outer."""
    inner, outer = (lambda v: tg.matmul(A, tg.sin(v))), (lambda v: tg.matmul(tg.exp(v), P @ Q))
    Y = inner(X)
    f = lambda v: tg.sum(tg.cos(v))
    G, dY = tg.jacobian(f, Y).numpy(), tg.jacobian(inner, X).numpy()
    traces = [[np.trace(G.T @ dY[:, :, k, l]) for l in range(3)] for k in range(3)]
    check(lambda v: f(inner(v)), X, "tensor", np.array(traces))
    composed = lambda v: outer(inner(v))
    for layout, product in (("numerator", lambda a, b: a @ b), ("denominator", lambda a, b: b @ a)):
        jacobians = [tg.jacobian(g, at, layout=layout).numpy() for g, at in ((outer, Y), (inner, X))]
        assert_agree(tg.jacobian(composed, X, layout=layout), product(*jacobians), EXACT)


W_LAYER, X_LAYER, B_LAYER = (RNG.standard_normal((2, 3)), RNG.standard_normal((3, 5)), RNG.standard_normal((2, 1)))
WEIGHTS = RNG.standard_normal((2, 5))


def loss(Y):
    return tg.sum(WEIGHTS * tg.sin(Y))


Y_LAYER = W_LAYER @ X_LAYER + B_LAYER
G_LAYER = WEIGHTS * np.cos(Y_LAYER)  # dL/dY


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


NETWORK_004 = {  # section 5; one sample per column
    "linear layer by W": (lambda v: loss(tg.matmul(v, X_LAYER) + B_LAYER), W_LAYER, G_LAYER @ X_LAYER.T),
    "linear layer by X": (lambda v: loss(tg.matmul(W_LAYER, v) + B_LAYER), X_LAYER, W_LAYER.T @ G_LAYER),
    "linear layer by b": (lambda v: loss(W_LAYER @ X_LAYER + v), B_LAYER, G_LAYER.sum(axis=1, keepdims=True)),
    "activation sigmoid": (
        lambda v: loss(tg.sigmoid(v)), Y_LAYER,
        WEIGHTS * np.cos(sigmoid(Y_LAYER)) * sigmoid(Y_LAYER) * (1 - sigmoid(Y_LAYER)),
    ),
    "activation tanh": (
        lambda v: loss(tg.tanh(v)), Y_LAYER, WEIGHTS * np.cos(np.tanh(Y_LAYER)) * (1 - np.tanh(Y_LAYER) ** 2),
    ),
    "activation relu": (
        lambda v: loss(tg.relu(v)), Y_LAYER, WEIGHTS * np.cos(np.maximum(0, Y_LAYER)) * (Y_LAYER > 0),
    ),
}  # fmt: skip


@pytest.mark.parametrize("f, at, formula", rows(_004_5=NETWORK_004))
def test_network_rows_of_004(f, at, formula):
    check(f, at, "tensor", formula)


# --- ai-edu: matrix derivatives, traces and differentials ----------------------------------------------------

B22, B34 = RNG.standard_normal((2, 2)), RNG.standard_normal((3, 4))
C34, D24 = RNG.standard_normal((3, 4)), RNG.standard_normal((2, 4))
c3, c2 = RNG.standard_normal((3, 1)), RNG.standard_normal((2, 1))

MATRIX_002 = {  # (60)-(64) and (101), in the shape of X
    "(60): <B, AX> by X": (lambda v: tg.sum(B22 * tg.matmul(WIDE, v)), TALL, WIDE.T @ B22),
    "(61): <B, XA> by X": (lambda v: tg.sum(B34 * tg.matmul(v, Q)), TALL, B34 @ Q.T),
    "(62): X^T A, columns": (lambda v: tg.matmul(v.T, c3)[0, 0], COLUMN, c3),
    "(62): A^T X, columns": (lambda v: tg.matmul(c3.T, v)[0, 0], COLUMN, c3),
    "(62): tr(X^T A)": (lambda v: tg.trace(tg.matmul(v.T, P)), TALL, P),
    "(63), (101): A^T X B, columns A and B": (lambda v: tg.matmul(tg.matmul(c3.T, v), c2)[0, 0], TALL, c3 @ c2.T),
    "(63): tr(A^T X B)": (lambda v: tg.trace(tg.matmul(tg.matmul(C34.T, v), D24)), TALL, C34 @ D24.T),
    "(64): A^T X^T B, columns A and B": (lambda v: tg.matmul(tg.matmul(c2.T, v.T), c3)[0, 0], TALL, c3 @ c2.T),
    "(64): tr(A^T X^T B)": (lambda v: tg.trace(tg.matmul(tg.matmul(D24.T, v.T), C34)), TALL, C34 @ D24.T),
    "full layer y = wX + b by X": (lambda v: tg.matmul(ROW, v)[0, 0] + b, COLUMN, ROW.T),
    "full layer y = wX + b by w": (lambda v: tg.matmul(v, COLUMN)[0, 0] + b, ROW, COLUMN.T),
}

LABEL = np.array([[0.0], [1.0], [0.0], [0.0]])
LOGITS, D_LOGITS = RNG.standard_normal((4, 1)), RNG.standard_normal((4, 1))
EXP = np.exp(LOGITS)
SOFTMAX = EXP / EXP.sum()
MATRIX_002["softmax and cross-entropy: softmax(Z) - Y"] = (
    lambda v: -tg.sum(LABEL * tg.log(tg.exp(v) / tg.exp(v).sum())), LOGITS, SOFTMAX - LABEL,
)  # fmt: skip
MATRIX_002["softmax and cross-entropy, the op"] = (
    lambda v: tg.softmax_cross_entropy(v.reshape(1, 4), LABEL.reshape(1, 4)), LOGITS, SOFTMAX - LABEL,
)  # fmt: skip


@pytest.mark.parametrize("f, at, formula", rows(_002=MATRIX_002))
def test_matrix_rows_of_002(f, at, formula):
    check(f, at, "tensor", formula)


Y, Z = RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3))
dX, dY = RNG.standard_normal((3, 3)), RNG.standard_normal((3, 3))
G = 3 * X**2 * Y  # the derivative of sum(X^3 * Y)

DIFFERENTIALS_002 = {  # f, its arguments, their differentials, the differential of f
    "(92) df = tr((df/dX)^T dX)": (lambda a: tg.sum(a * a * a * Y), [X], [dX], np.trace(G.T @ dX)),
    "(93) d(X + Y)": (lambda a, b: a + b, [X, Y], [dX, dY], dX + dY),
    "(94) d(XY)": (lambda a, b: tg.matmul(a, b), [X, Y], [dX, dY], dX @ Y + X @ dY),
    "(95) d(X^T)": (lambda a: a.T * 1, [X], [dX], dX.T),
    "(96) d tr(X)": (lambda a: tg.trace(a), [X], [dX], np.trace(dX)),
    "(97) d(X . Y)": (lambda a, b: a * b, [X, Y], [dX, dY], dX * Y + X * dY),
    "(98) d f(X)": (lambda a: tg.tanh(a), [X], [dX], (1 - np.tanh(X) ** 2) * dX),
    "(102) -Y^T log softmax(Z)": (
        lambda a: -tg.matmul(LABEL.T, tg.log_softmax(a, axis=0)),
        [LOGITS], [D_LOGITS], -LABEL.T @ D_LOGITS + LABEL.sum() * (EXP * D_LOGITS).sum() / EXP.sum(),
    ),
    "(103) Y^T 1 d log(1^T exp Z)": (
        lambda a: LABEL.sum() * tg.log(tg.exp(a).sum()), [LOGITS], [D_LOGITS],
        np.trace(LABEL.T @ np.ones((4, 1)) @ SOFTMAX.T @ D_LOGITS),
    ),
}  # fmt: skip


@pytest.mark.parametrize("f, at, along, formula", rows(_002=DIFFERENTIALS_002))
def test_differentials_of_002_by_forward_mode(f, at, along, formula):
    assert_agree(tg.jvp(f, tuple(at), tuple(along))[1], formula, EXACT)
    h = 1e-5
    moved = [f(*(a + s * h * d for a, d in zip(at, along))) for s in (1, -1)]
    assert_agree((moved[0] - moved[1]) / (2 * h), formula, NUMERIC)


TRACES_002 = {
    "(99) tr(XY) = tr(YX)": (
        lambda v: tg.trace(tg.matmul(v, Q[:, :3])), lambda v: tg.trace(tg.matmul(Q[:, :3], v)), TALL,
    ),
    "(100) tr(A^T (B . C)) = tr((A . B)^T C)": (
        lambda v: tg.trace(tg.matmul(v.T, Y * Z)), lambda v: tg.trace(tg.matmul((v * Y).T, Z)), X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("left, right, at", rows(_002=TRACES_002))
def test_trace_identities_of_002_in_value_and_derivative(left, right, at):
    assert_agree(left(at), right(at), EXACT)
    check(left, at, "tensor", tg.jacobian(right, at).numpy())


def test_the_four_equations_of_back_propagation_of_002():
    """(80)-(83) for a sigmoid network of three layers with the cost |y - a|^2 / 2 and columns as vectors."""
    sizes = [4, 5, 3, 2]
    weights = [RNG.standard_normal((m, n)) for n, m in zip(sizes, sizes[1:])]
    biases = [RNG.standard_normal((m, 1)) for m in sizes[1:]]
    a, target = [RNG.standard_normal((4, 1))], RNG.standard_normal((2, 1))
    for Wl, bl in zip(weights, biases):
        a.append(sigmoid(Wl @ a[-1] + bl))
    slope = [v * (1 - v) for v in a]
    delta = [(a[-1] - target) * slope[-1]]  # (80)
    for Wl, s in zip(weights[:0:-1], slope[-2:0:-1]):
        delta.insert(0, Wl.T @ delta[0] * s)  # (81)

    def network(ws, bs):
        v = a[0]
        for Wl, bl in zip(ws, bs):
            v = tg.sigmoid(tg.matmul(Wl, v) + bl)
        return 0.5 * tg.sum((target - v) ** 2)

    for l in range(3):
        f_b = lambda v: network(weights, [*biases[:l], v, *biases[l + 1 :]])
        f_w = lambda v: network([*weights[:l], v, *weights[l + 1 :]], biases)
        check(f_b, biases[l], "tensor", delta[l])  # (82); dC/db = dC/dz, so this is (80) and (81) too
        check(f_w, weights[l], "tensor", delta[l] @ a[l].T)  # (83)
