"""A walk through "The Matrix Calculus You Need For Deep Learning" by Terence Parr and Jeremy Howard.

    python examples/matrix_calculus_tour.py

Each section's functions, and the Jacobian of each found three ways: by the formula of the section, by the
tape, and by central differences. The tape must agree with the formula to 1e-12, the differences to 1e-8;
otherwise the program ends with exit status 1. Section numbers are the paper's; section 8 is a summary of the
others. The ``# %%`` lines divide the file into cells.

Jacobians are in numerator layout: row i holds the derivatives of y_i, column k those by x_k. What the paper
prints and is not so is listed in docs/matrix_calculus.md.
"""

# %% Three ways to a Jacobian
import sys

import numpy as np

import tinygrad_ms as tg

tg.set_default_device("cpu")  # beside plain NumPy arrays, also where there is a GPU
failures = []


def by_tape(f, x):
    """Exact: the chain rule along the recorded operations."""
    return tg.jacobian(f, x, layout="numerator").numpy()


def by_differences(f, x, h=1e-5):
    """About eight digits: move one element of x at a time, (f(x + h) - f(x - h)) / 2h."""
    columns = []
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = h
        step = step.reshape(x.shape)
        columns.append((np.ravel(f(x + step)) - np.ravel(f(x - step))) / (2 * h))
    return np.stack(columns, axis=1)


def section(number, text):
    print(f"\n{number} {text}\n{'=' * (len(number) + 1 + len(text))}")
    print(f"{'':46}{'shape':>7}  formula - tape  formula - differences")


def show(name, f, x, formula, words=""):
    """One function: the Jacobian, and how far the other two ways are from the formula."""
    x, formula = np.asarray(x, dtype=float), np.atleast_2d(np.asarray(formula, dtype=float))
    tape, numeric = by_tape(f, x), by_differences(f, x)
    assert tape.shape == numeric.shape == formula.shape, (tape.shape, numeric.shape, formula.shape)
    gaps = [float(abs(formula - other).max() / max(1, abs(formula).max())) for other in (tape, numeric)]
    if not (gaps[0] <= 1e-12 and gaps[1] <= 1e-8):
        failures.append(name)
    label, shape = name + (" = " + words if words else ""), " x ".join(map(str, formula.shape))
    print(f"{label:46}{shape:>7}  {gaps[0]:14.1e}  {gaps[1]:21.1e}")
    numbers = np.array2string(tape + 0.0, precision=4, suppress_small=True, prefix="    ")
    print(f"    {numbers}")


# %% 3 Partial derivatives
# One number from several. The gradient is the row of all partial derivatives.
section("3", "Vector calculus and partial derivatives")
x, y = point = np.array([1.0, 2.0])
show("grad 3 x^2 y", lambda p: 3 * p[0] ** 2 * p[1], point, [6 * x * y, 3 * x**2], "[6xy, 3x^2]")

# %% 4 Matrix calculus
# Several functions: stack their gradients. The rows are the functions, the columns the variables.
section("4", "Matrix calculus")
show("grad 2x + y^8", lambda p: 2 * p[0] + p[1] ** 8, point, [2, 8 * y**7], "[2, 8y^7]")


def both(p):
    return tg.stack([3 * p[0] ** 2 * p[1], 2 * p[0] + p[1] ** 8])


show("both stacked", both, point, [[6 * x * y, 3 * x**2], [2, 8 * y**7]], "[[6xy, 3x^2], [2, 8y^7]]")
print("denominator layout, the transpose:")
print("   ", str(tg.jacobian(both, point, layout="denominator").numpy()).replace("\n", "\n    "))

# %% 4.1 The Jacobian in general
section("4.1", "Generalization of the Jacobian")
w = np.array([0.5, -1.0, 2.0])
x = np.array([3.0, 4.0, 5.0])
show("d x / dx", lambda x: x * 1, x, np.eye(3), "I")

# %% 4.2 Elementwise operations of two vectors
# y_i depends on w_i and x_i alone, so the Jacobian is diagonal. The paper prints -I for w - x by w; it is I.
section("4.2", "Derivatives of elementwise binary operators")
show("d(w + x)/dw", lambda w: w + x, w, np.eye(3), "I")
show("d(w + x)/dx", lambda x: w + x, x, np.eye(3), "I")
show("d(w - x)/dw", lambda w: w - x, w, np.eye(3), "I")
show("d(w - x)/dx", lambda x: w - x, x, -np.eye(3), "-I")
show("d(w * x)/dw", lambda w: w * x, w, np.diag(x), "diag(x)")
show("d(w * x)/dx", lambda x: w * x, x, np.diag(w), "diag(w)")
show("d(w / x)/dw", lambda w: w / x, w, np.diag(1 / x), "diag(1 / x_i)")
show("d(w / x)/dx", lambda x: w / x, x, np.diag(-w / x**2), "diag(-w_i / x_i^2)")

# %% 4.3 A scalar stretched to a vector
# Broadcasting z to every element: by x still a diagonal, by z a column.
section("4.3", "Derivatives involving scalar expansion")
z = 0.7
show("d(x + z)/dx", lambda x: x + z, x, np.eye(3), "I")
show("d(x + z)/dz", lambda z: x + z, z, np.ones((3, 1)), "1")
show("d(x z)/dx", lambda x: x * z, x, z * np.eye(3), "I z")
show("d(x z)/dz", lambda z: x * z, z, x[:, None], "x")

# %% 4.4 Sums
# One number from a vector: a row.
section("4.4", "Vector sum reduction")
show("d sum(x)/dx", lambda x: tg.sum(x), x, np.ones(3), "1^T")
show("d sum(x z)/dx", lambda x: tg.sum(x * z), x, z * np.ones(3), "[z, z, z]")
show("d sum(x z)/dz", lambda z: tg.sum(x * z), z, x.sum(), "sum(x)")
show("d sum(sin x)/dx", lambda x: tg.sum(tg.sin(x)), x, np.cos(x), "[cos x_i]")

# %% 4.5.1 One variable, one path
# Name every intermediate result, differentiate each, multiply.
section("4.5.1", "Single-variable chain rule")
t = 1.1
show("d sin(t^2)/dt", lambda t: tg.sin(t**2), t, 2 * t * np.cos(t**2), "2t cos(t^2)")
u1 = t**3
u2 = np.sin(u1)
u3 = u2**2
parts = [3 * t**2, np.cos(u1), 2 * u2, 1 / u3]  # du1/dt, du2/du1, du3/du2, du4/du3
show("d ln(sin(t^3)^2)/dt", lambda t: tg.log(tg.sin(t**3) ** 2), t, np.prod(parts), "1/u3 2u2 cos(u1) 3t^2")
show("... cancelled", lambda t: tg.log(tg.sin(t**3) ** 2), t, 6 * t**2 / np.tan(t**3), "6t^2 cos(t^3)/sin(t^3)")

# %% 4.5.2 One variable, several paths
# t reaches y directly and through u = t^2: the contributions of the paths add up, whatever joins them.
section("4.5.2", "Single-variable total-derivative chain rule")
du_dt = 2 * t
show("d(t + t^2)/dt", lambda t: t + t**2, t, 1 + 1 * du_dt, "1 + 1 du/dt")
show("d sin(t + t^2)/dt", lambda t: tg.sin(t + t**2), t, np.cos(t + t**2) * (1 + du_dt), "cos(t + t^2)(1 + 2t)")
show("d(t t^2)/dt", lambda t: t * t**2, t, t**2 + t * du_dt, "u + t du/dt = 3t^2")

# %% 4.5.3 Vectors
# The sums over paths are a matrix product: the outer function's Jacobian times the inner, in that order.
section("4.5.3", "Vector chain rule")


def g(t):
    return tg.stack([t**2, 3 * t])


def f(g):
    return tg.stack([tg.log(g[0]), tg.sin(g[1])])


df_dg, dg_dt = np.diag([1 / t**2, np.cos(3 * t)]), np.array([[2 * t], [3]])
show("dg/dt, g = (t^2, 3t)", g, t, dg_dt)
show("df/dg, f = (ln g1, sin g2)", f, g(np.float64(t)), df_dg)
show("df(g(t))/dt", lambda t: f(g(t)), t, df_dg @ dg_dt, "df/dg dg/dt")
A = np.array([[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]])
show("d sin(A w)/dw", lambda w: tg.sin(tg.matmul(A, w)), w, np.diag(np.cos(A @ w)) @ A, "diag(cos(A w)) A")

# %% 5 One neuron
section("5", "The gradient of neuron activation")
b = -5.0
show("d(w.x)/dw", lambda w: tg.dot(w, x), w, x, "1^T diag(x) = x^T")
show("d(w.x + b)/db", lambda b: tg.dot(w, x) + b, b, 1, "1")
show("d max(0, v)/dv", lambda v: tg.relu(v), [-1.0, 0.5, 2.0], np.diag([0, 1, 1]), "diag(v_i > 0)")
off = b - 10
show("d activation/dw, z > 0", lambda w: tg.relu(tg.dot(w, x) + b), w, x, "x^T")
show("d activation/db, z > 0", lambda b: tg.relu(tg.dot(w, x) + b), b, 1, "1")
show("d activation/dw, z <= 0", lambda w: tg.relu(tg.dot(w, x) + off), w, 0 * x, "0^T")
show("d activation/db, z <= 0", lambda b: tg.relu(tg.dot(w, x) + b), off, 0, "0")

# %% 6 The loss
# C = 1/N sum_i (y_i - max(0, w.x_i + b))^2. An input vector that leaves the neuron off contributes nothing:
# the distinction of cases stays inside the sum (the paper moves it out).
section("6", "The gradient of the neural network loss function")
X = np.array([[1.0, 2.0, 0.5], [0.0, 1.0, -1.0], [2.0, -1.0, 1.0], [-1.0, 0.5, 1.5]])
y = np.array([1.0, 0.0, 2.0, -1.0])
N, b = len(X), 0.25
e = X @ w + b - y
on = X @ w + b > 0
print(f"input vectors that switch the neuron on: {np.flatnonzero(on) + 1} of 1..{N}")


def cost(w, b):
    return ((y - tg.relu(tg.matmul(X, w) + b)) ** 2).mean()


show("dC/dw", lambda w: cost(w, b), w, 2 / N * (on * e) @ X, "2/N sum of e_i x_i^T, i on")
show("dC/db", lambda b: cost(w, b), b, 2 / N * (on * e).sum(), "2/N sum of e_i, i on")
w_hat, X_hat = np.append(w, b), np.c_[X, np.ones(N)]  # (w, b) as one vector, a 1 at the end of each x_i
joint = 2 / N * (on * e) @ X_hat
show("dC/d(w, b)", lambda v: ((y - tg.relu(tg.matmul(X_hat, v))) ** 2).mean(), w_hat, joint, "both at once")

# %% The verdict
print(f"\n{'All three ways agree.' if not failures else 'THEY DIFFER: ' + ', '.join(failures)}")
if failures:
    sys.exit(1)
