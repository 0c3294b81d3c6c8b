"""Back-propagation by hand, line by line, beside what the tape finds.

    python examples/backprop_by_hand.py

1. The four equations of back-propagation on a sigmoid network, with plain NumPy arrays.
2. A network so small that every chain rule can be written out: two hidden neurons, one output.
3. Softmax with cross-entropy, where the whole derivative is softmax(Z) - Y.

Every matrix is found twice, is shown whole, and must agree to 1e-12 in each element; otherwise the program ends with
exit status 1. The graph of network 2, with all values and gradients, is drawn into --out. The ``# %%`` lines divide the
file into cells for editors that run them.

Source of the equations, by whose numbers they are called: Microsoft ai-edu, "Basic derivative formulas",
https://github.com/microsoft/ai-edu.
"""

# %% Two columns that must agree
import argparse
import sys
from pathlib import Path

import numpy as np

import tinygrad_ms as tg

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--out", type=Path, default=Path("runs/backprop_by_hand"), help="folder of the picture")
folder = parser.parse_args().out
TOLERANCE = 1e-12
worst = 0.0
tg.set_default_device("cpu")  # beside plain NumPy arrays, also where there is a GPU


def title(text):
    print(f"\n{text}\n{'-' * len(text)}")


def rows_of(matrix):
    """The rows of a matrix as text, every element in it."""
    return ["".join(f"{number:10.5f}" for number in row) for row in np.atleast_2d(matrix)]


def show(**matrices):
    """Matrices below their names."""
    for name, matrix in matrices.items():
        print(f"  {name}, {' x '.join(map(str, matrix.shape))}:")
        print("\n".join(f"    {row}" for row in rows_of(matrix)))


def compare(name, by_hand, by_tape):
    """Both matrices, whole, and the largest difference of all elements."""
    global worst
    by_hand, by_tape = np.asarray(by_hand), by_tape.numpy()
    assert by_hand.shape == by_tape.shape, f"{name}: {by_hand.shape} by hand, {by_tape.shape} by the tape"
    difference = float(abs(by_hand - by_tape).max())
    worst = max(worst, difference if np.isfinite(difference) else np.inf)
    verdict = f"difference {difference:.1e}{'' if difference <= TOLERANCE else '  DIFFERENT'}"
    if not by_hand.shape:
        print(f"  {name:38} by hand {by_hand:9.5f}, by the tape {by_tape:9.5f}, {verdict}")
        return
    print(f"  {name}, {' x '.join(map(str, by_hand.shape))}: largest {verdict}")
    pairs = list(zip(rows_of(by_hand), rows_of(by_tape)))
    width = max(len("by hand"), len(pairs[0][0]))
    print(f"    {'by hand':>{width}}   {'by the tape':>{width}}")
    print("\n".join(f"    {left:>{width}}   {right:>{width}}" for left, right in pairs))


def variable(array, name):
    """A leaf of the tape: its gradient is kept in .grad."""
    x = tg.tensor(array, requires_grad=True)
    x.name = name
    return x


print('Numbers such as (80) are those of Microsoft ai-edu, "Basic derivative formulas", github.com/microsoft/ai-edu')

# %% 1. A sigmoid network, 4 inputs, hidden layers of 5 and 3, 2 outputs
#
#     z^l = W^l a^(l-1) + b^l        a^l = sigma(z^l)        C = |y - a^L|^2 / 2
#
# Vectors are columns. Layer 1 is the input; the weights W^l lead into layer l.
rng = np.random.default_rng(0)
sizes = [4, 5, 3, 2]
L = len(sizes)
W = {l: rng.standard_normal((sizes[l - 1], sizes[l - 2])) for l in range(2, L + 1)}
b = {l: rng.standard_normal((sizes[l - 1], 1)) for l in range(2, L + 1)}
a1 = rng.standard_normal((4, 1))
y = np.array([[0.0], [1.0]])


def sigma(z):
    return 1 / (1 + np.exp(-z))


# %% Forward, by hand: remember every z and a, for backward needs them
z, a = {}, {1: a1}
for l in range(2, L + 1):
    z[l] = W[l] @ a[l - 1] + b[l]
    a[l] = sigma(z[l])
C = ((y - a[L]) ** 2).sum() / 2


# %% Backward, by hand: the error delta^l = dC/dz^l travels from the output to the input
def sigma_prime(z):
    return sigma(z) * (1 - sigma(z))


delta = {L: (a[L] - y) * sigma_prime(z[L])}  #                                         (80)
for l in range(L - 1, 1, -1):
    delta[l] = (W[l + 1].T @ delta[l + 1]) * sigma_prime(z[l])  #                      (81)
dC_db = {l: delta[l] for l in delta}  #                                                (82)
dC_dW = {l: delta[l] @ a[l - 1].T for l in delta}  # element j, k: delta_j a_k         (83)

# %% The same by the tape: write the forward pass, call backward()
W_tape = {l: variable(W[l], f"W{l}") for l in W}
b_tape = {l: variable(b[l], f"b{l}") for l in b}
z_tape, activation = {}, tg.tensor(a1)
for l in range(2, L + 1):
    z_tape[l] = tg.matmul(W_tape[l], activation) + b_tape[l]
    z_tape[l].retain_grad()  # interior tensors give their gradient away unless asked to keep it
    activation = tg.sigmoid(z_tape[l])
C_tape = ((y - activation) ** 2).sum() / 2
C_tape.backward()

title("1. Sigmoid network 4-5-3-2: z = W a + b, a = sigma(z), cost C = |y - a|^2 / 2")
print("  a1 (4)", *(f"-- W{l} {W[l].shape}, b{l} -> sigma -> a{l} ({sizes[l - 1]})" for l in W), "-> C\n")
print("layer 1, the input a, and the target y of the last layer")
show(a=a1, y=y)
for l in W:
    print(f"layer {l}: weights from layer {l - 1}, biases, and what the forward pass makes of them")
    show(W=W[l], b=b[l], z=z[l], a=a[l])
print("the cost at the output")
compare("C = |y - a|^2 / 2", C, C_tape)
for l in range(L, 1, -1):
    print(f"layer {l}, on the way back")
    rule = (
        "(80) delta = (a - y) * sigma'(z)"
        if l == L
        else "(81) delta = W^T delta * sigma'(z), W and delta of the layer above"
    )
    compare(rule, delta[l], z_tape[l].grad)
    compare("(82) dC/db = delta", dC_db[l], b_tape[l].grad)
    compare("(83) dC/dW = delta a^T, a of the layer below", dC_dW[l], W_tape[l].grad)

# %% 2. Two hidden neurons, every chain rule written out
#
#     z1 = w11 x1 + w12 x2 + b1     a1 = sigma(z1)
#     z2 = w21 x1 + w22 x2 + b2     a2 = sigma(z2)      z3 = v1 a1 + v2 a2 + b3     a3 = sigma(z3)
#     e = (y - a3)^2 / 2
#
# The text writes layers as superscripts; here each variable has a name of its own.
x1, x2, target = 0.5, -1.0, 0.8
value = {
    "w11": 0.7, "w12": -0.4, "w21": 0.3, "w22": 0.9, "b1": 0.1, "b2": -0.2, "v1": 1.2, "v2": -0.6, "b3": 0.05,
}  # fmt: skip
p = {name: variable(np.float64(v), name) for name, v in value.items()}
hidden1 = tg.sigmoid(p["w11"] * x1 + p["w12"] * x2 + p["b1"])
hidden2 = tg.sigmoid(p["w21"] * x1 + p["w22"] * x2 + p["b2"])
output = tg.sigmoid(p["v1"] * hidden1 + p["v2"] * hidden2 + p["b3"])
e = (target - output) ** 2 / 2
e.backward(retain_graph=True)  # only to draw it below

w11, w12, w21, w22, b1, b2, v1, v2, b3 = value.values()
h1, h2 = sigma(w11 * x1 + w12 * x2 + b1), sigma(w21 * x1 + w22 * x2 + b2)
o = sigma(v1 * h1 + v2 * h2 + b3)
de_dz3 = (o - target) * o * (1 - o)  # shared by all that follows: compute it once
de_dz1 = de_dz3 * v1 * h1 * (1 - h1)  # e depends on z1 through a1 alone
de_dz2 = de_dz3 * v2 * h2 * (1 - h2)  # and on z2 through a2 alone
by_hand = {
    "v1": ("de/dz3 a1", de_dz3 * h1),
    "v2": ("de/dz3 a2", de_dz3 * h2),
    "b3": ("de/dz3", de_dz3),
    "w11": ("de/dz3 v1 sigma'(z1) x1", de_dz1 * x1),
    "w12": ("de/dz3 v1 sigma'(z1) x2", de_dz1 * x2),  # the text has v2, z2 and a2 in this one: a slip
    "b1": ("de/dz3 v1 sigma'(z1)", de_dz1),
    "w21": ("de/dz3 v2 sigma'(z2) x1", de_dz2 * x1),
    "w22": ("de/dz3 v2 sigma'(z2) x2", de_dz2 * x2),
    "b2": ("de/dz3 v2 sigma'(z2)", de_dz2),
}
title("2. Two hidden neurons and one output")
print(f"  x1 = {x1}, x2 = {x2}, target {target}, " + ", ".join(f"{name} = {v}" for name, v in value.items()))
for name, (formula, derivative) in by_hand.items():
    compare(f"de/d{name:3} = {formula}", derivative, p[name].grad)

# %% The picture of it: black is the way forward, red the way back, each arrow with its number
folder.mkdir(parents=True, exist_ok=True)
graph = tg.graph.build(e, view="both", values=True, gradients=True, rankdir="LR")
try:
    picture = graph.render(folder / "two_neurons.svg")
except RuntimeError:  # no renderer
    picture = graph.render(folder / "two_neurons.dot")
print(f"\n  the graph of these {len(e.tape())} steps, with values and gradients: {picture}")

# %% 3. Softmax with cross-entropy: l = -Y^T log softmax(Z), one column per sample
#
# d log softmax(Z) = dZ - 1 (softmax(Z)^T dZ), so dl = -Y^T dZ + (Y^T 1) softmax(Z)^T dZ   (102), (103)
# and Y^T 1 = 1 leaves dl/dZ = softmax(Z) - Y.
classes, samples = 4, 3
Z = rng.standard_normal((classes, samples))
Y = np.eye(classes)[:, [2, 0, 2]]

softmax = np.exp(Z) / np.exp(Z).sum(axis=0)
loss = -(Y * np.log(softmax)).sum()

Z_parts = variable(Z, "Z")
exponentials = tg.exp(Z_parts)
loss_parts = -(Y * tg.log(exponentials / exponentials.sum(axis=0))).sum()  # from its parts, one op at a time
loss_parts.backward()
Z_op = variable(Z, "Z")
loss_op = tg.softmax_cross_entropy(Z_op.T, Y.T, reduction="sum")  # one op, which takes samples as rows
loss_op.backward()

title("3. Softmax and cross-entropy, 4 classes, 3 samples: a column each")
show(Z=Z, Y=Y)
compare("l, from exp, sum and log", loss, loss_parts)
compare("l, softmax_cross_entropy", loss, loss_op)
compare("dl/dZ = softmax(Z) - Y, from parts", softmax - Y, Z_parts.grad)
compare("dl/dZ = softmax(Z) - Y, one op", softmax - Y, Z_op.grad)

# %% The verdict
agreed = worst <= TOLERANCE
verdict = "All agree" if agreed else "THEY DIFFER"
print(f"\n{verdict}: the largest difference is {worst:.1e} (allowed {TOLERANCE:.0e})")
if not agreed:
    sys.exit(1)
