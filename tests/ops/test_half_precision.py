"""Half precision is added up in a wider dtype and rounded once: the right value is the float64 one, rounded."""

import numpy as np
import pytest

import tinygrad_ms as tg

RNG = np.random.default_rng(11)
X = RNG.normal(size=(300, 40))
ROWS, LABELS = np.full((6000, 3), 0.1), RNG.integers(0, 40, 300)
LONG = RNG.random((4, 3000)) / 50
CASES = {  # name: (function, its arguments)
    "sum over rows": (lambda a: a.sum(axis=0), ROWS),
    "sum": (lambda a: a.sum(), X),
    "mean of more than 65504": (lambda a: a.mean(), RNG.random((300, 400))),
    "mean over rows": (lambda a: a.mean(axis=0), ROWS),
    "cumsum": (lambda a: tg.cumsum(a, axis=0), ROWS),
    "prod": (lambda a: a.prod(axis=0), 1 + X / 8),
    "cumprod": (lambda a: tg.cumprod(a, axis=0), 1 + X / 20),
    "var": (lambda a: a.var(axis=0), X),
    "std": (lambda a: a.std(axis=1), X),
    "norm": (tg.norm, X),
    "norm 1": (lambda a: tg.norm(a, 1, axis=0), X),
    "max with ties": (lambda a: a.max(axis=0), np.round(X)),
    "max with 70,000 ties": (lambda a: a.max(), np.ones(70_000)),
    "logsumexp": (lambda a: tg.logsumexp(a, axis=1), RNG.normal(size=(3, 70_000))),
    "softmax": (lambda a: tg.softmax(a, axis=1), X),
    "softmax of 70,000 equal classes": (lambda a: tg.softmax(a * 0, axis=1), RNG.normal(size=(2, 70_000))),
    "log_softmax": (lambda a: tg.log_softmax(a, axis=1), RNG.normal(size=(3, 70_000))),
    "logaddexp": (tg.logaddexp, X, X[::-1]),
    "mse": (tg.mse, X * 100, X[::-1] * 50),
    "l1": (tg.l1, X * 10, X[::-1]),
    "huber": (tg.huber, X * 10, X[::-1]),
    "weighted mse": (lambda a, b: tg.mse(a, b, weight=2.0), X * 100, X[::-1]),
    "bce": (lambda a: tg.binary_cross_entropy_with_logits(a, (X > 0).astype(a.dtype)), X * 5),
    "cross_entropy": (lambda a: tg.cross_entropy(a, LABELS), X),
    "smoothed cross_entropy": (lambda a: tg.cross_entropy(a, LABELS, label_smoothing=0.1), X),
    "nll": (lambda a: tg.nll(tg.log_softmax(a), LABELS), X),
    "layer_norm": (lambda a, w: tg.layer_norm(a, w), X, 1 + X[0]),
    "rms_norm": (lambda a, w: tg.rms_norm(a, w), X, 1 + X[0]),
    "broadcast add": (lambda a, b: a + b, ROWS, np.ones(3)),
    "broadcast multiply": (lambda a, b: a * b, ROWS, np.ones(3)),
    "broadcast_to": (lambda a: tg.broadcast_to(a, (5000, 3)), np.ones(3)),
    "tile": (lambda a: tg.tile(a, 5000), np.ones(3)),
    "repeat": (lambda a: tg.repeat(a, 5000), np.ones(3)),
    "vecdot": (lambda a, b: tg.vecdot(a, b, axis=0), X, X[::-1] + 0.5),
    "matmul": (tg.matmul, LONG, LONG.T),
    "matmul of a batch": (tg.matmul, np.stack([LONG, LONG + 0.5]), LONG.T),
    "matmul of vectors": (tg.matmul, LONG[0], LONG[1]),
    "matrix and vector": (tg.matmul, LONG, LONG[1]),
    "linear": (tg.linear, LONG, LONG + 0.5, np.ones(4)),
    "linear without bias": (tg.linear, LONG, LONG + 0.5),
    "einsum": (lambda a, b: tg.einsum("ij,kj->ki", a, b), LONG, LONG + 0.5),
    "einsum of three": (lambda a, b, c: tg.einsum("ij,j,kj->ik", a, b, c), LONG, LONG[0], LONG + 0.5),
    "tensordot": (lambda a, b: tg.tensordot(a, b, axes=2), np.stack([LONG, LONG]), LONG),
    "inner": (tg.inner, LONG, LONG + 0.5),
    "trace": (tg.trace, RNG.random((3000, 3000))),
}
SPACING = {"float16": (2.0**-10, 2.0**-14), "bfloat16": (2.0**-7, 2.0**-126)}  # eps, smallest normal number


def dtype_named(name):
    return np.dtype(name) if name == "float16" else np.dtype(pytest.importorskip("ml_dtypes").bfloat16)


def ulps_off(found, right, name):
    """The distance to the right value in units of the last place of the largest right value near it (of its row)."""
    eps, tiny = SPACING[name]
    size = np.maximum(np.abs(right), tiny)
    if right.ndim:  # sums that cancel are as exact as their terms
        size = np.maximum(size, np.abs(right).max(axis=-1, keepdims=True) / 64)
    return np.max(np.abs(found.astype("float64") - right) / (2.0 ** np.floor(np.log2(size)) * eps))


@pytest.mark.parametrize("name", list(SPACING))
@pytest.mark.parametrize("case", list(CASES))
def test_value_and_gradients_are_those_of_float64_rounded(case, name):
    dtype, (function, *arrays) = dtype_named(name), CASES[case]
    inputs = [tg.tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    exact = [tg.tensor(x.numpy().astype("float64"), requires_grad=True) for x in inputs]
    y, right = function(*inputs), function(*exact)
    assert y.dtype == dtype
    assert ulps_off(y.numpy(), right.numpy(), name) <= 1
    seed = RNG.random(y.shape).astype(dtype)
    y.backward(tg.tensor(seed))
    right.backward(tg.tensor(seed.astype("float64")))
    for x, z in zip(inputs, exact):
        assert x.grad.dtype == dtype
        assert ulps_off(x.grad.numpy(), z.grad.numpy(), name) <= 2


@pytest.mark.parametrize("samples, classes", [(12_288, 1000), (70_000, 2), (200_000, 2)])
@pytest.mark.slow
def test_the_mean_cross_entropy_of_many_samples(samples, classes):
    labels = np.zeros(samples, int)
    soft = np.zeros((samples, classes), "float16")
    soft[:, 0] = 1
    losses = [
        lambda x: tg.cross_entropy(x, labels),
        lambda x: tg.cross_entropy(x, soft),
        lambda x: tg.nll(tg.log_softmax(x), labels),
    ]
    for loss in losses:
        x = tg.tensor(np.zeros((samples, classes), "float16"), requires_grad=True)
        y = loss(x)
        y.backward()
        assert y.item() == np.float16(np.log(classes))
        right = (1 / classes - 1) / samples
        assert abs(float(x.grad.numpy()[0, 0]) - right) <= 2.0**-24  # the spacing of subnormal float16


def test_the_bias_of_linear_is_summed_over_all_rows():
    x = tg.tensor(np.ones((4000, 2), "float16"))
    w = tg.tensor(np.ones((3, 2), "float16"), requires_grad=True)
    b = tg.tensor(np.zeros(3, "float16"), requires_grad=True)
    tg.linear(x, w, b).backward(np.full((4000, 3), 0.25, "float16"))
    assert (b.grad.numpy() == 1000).all() and (w.grad.numpy() == 1000).all()


@pytest.mark.parametrize("create_graph", [False, True])
@pytest.mark.parametrize("op", [tg.softmax, tg.log_softmax])
def test_softmax_has_the_digits_of_half_precision_in_every_order(op, create_graph):
    x = tg.tensor(X.astype("float16"), requires_grad=True)
    z = tg.tensor(x.numpy().astype("float64"), requires_grad=True)
    orders = []
    for t in (x, z):
        y = op(t)
        (first,) = tg.gradients((y[:, 0] - y[:, 1]).sum(), [t], create_graph=create_graph)
        orders.append([y, first, *(tg.gradients(first[:, :2].sum(), [t]) if create_graph else [])])
    for found, right in zip(*orders):
        scale = np.abs(right.numpy()).max()
        assert found.dtype == "float16" and np.abs(found.numpy() - right.numpy()).max() <= 1e-3 * scale


def test_the_gradient_of_an_inner_product_whose_cotangent_is_a_scalar_of_numpy():
    x = tg.tensor(np.array([1, 2, 3], "float16"), requires_grad=True)
    (tg.inner(x, x) * tg.tensor(np.array(1.5, "float16"))).sum().backward()
    assert x.grad.tolist() == [3, 6, 9] and x.grad.dtype == "float16"


@pytest.mark.parametrize("name", ["elu", "gelu", "mish", "selu", "silu", "softplus"])
def test_second_derivatives_of_smooth_activations(name):
    second = tg.grad(tg.grad(getattr(tg, name)))
    for x in (-0.5, 0.7, 3.5):
        half, exact = (second(tg.tensor(np.array(np.float16(x), dtype))).item() for dtype in ("float16", "float64"))
        assert abs(half - exact) <= 4e-3 * abs(exact) + 1e-4  # the first derivative is rounded in between


def test_gradients_of_many_uses_are_added_up_in_float32():
    x = tg.tensor(np.array([0.1], "float16"), requires_grad=True)
    y = sum(x * 0.37 for _ in range(3000)).sum()
    y.backward()
    right = np.float16(3000 * float(np.float16(0.37)))
    assert x.grad.dtype == "float16" and x.grad.item() == right
    rows = tg.jacobian(lambda x: sum(x * 0.37 for _ in range(3000)), np.array([0.1, 0.2], "float16"))
    assert rows.dtype == "float16" and rows.tolist() == [[right, 0], [0, right]]


def test_a_compiled_step_adds_them_up_so_too():
    w = tg.nn.Parameter([0.1], dtype="float16")

    def step(x):
        w.grad = None
        loss = sum(w * x for _ in range(300)).sum()
        loss.backward()
        return loss

    compiled, x, found = tg.compile(step), np.array([0.37], "float16"), []
    for _ in range(3):
        compiled(x)
        found.append(w.grad.item())
    assert "replayed 1 times" in compiled.explain() and found == [np.float16(300 * float(np.float16(0.37)))] * 3


MATRICES = RNG.normal(size=(3, 5, 4))
BY_MATRIX = {
    "msign": tg.msign,
    "msign of wide ones": lambda M: tg.msign(M.mT),
    "msign, fixed steps": lambda M: tg.msign(M, steps=8),
    "smooth msign": lambda M: tg.msign(M, eps=0.1),
    "msign by the SVD": lambda M: tg.msign(M, method="svd"),
    "msign with a rule": lambda M: tg.msign(M, steps=8, vjp="unrolled"),
    "msign_unrolled": tg.msign_unrolled,
    "polar": lambda M: tg.polar(M)[1],
    "nuclear_norm": tg.nuclear_norm,
}


@pytest.mark.parametrize("name", list(SPACING))
@pytest.mark.parametrize("case", BY_MATRIX)
def test_matrix_signs_are_computed_in_float32_and_rounded_once(case, name):
    """Values, first and second derivatives: those of float32 at the same numbers, in half precision."""
    dtype, f, found = dtype_named(name), BY_MATRIX[case], []
    M, seed = MATRICES.astype(dtype), RNG.normal(size=f(MATRICES).shape).astype(dtype)
    for given in (dtype, np.dtype("float32")):
        x = tg.tensor(M.astype(given), requires_grad=True)
        y = f(x)
        (first,) = tg.gradients([y], [x], [tg.tensor(seed.astype(given))], create_graph=True)
        rounded = first.astype(dtype).astype(given)  # as the first derivative is rounded in between
        (second,) = tg.gradients([(rounded * rounded).sum()], [x])
        found.append([y, first, second])
    for half, exact in zip(*found, strict=True):
        assert half.dtype == dtype
        right = exact.numpy().astype("float64")
        near = np.abs(half.numpy().astype("float64") - right) <= SPACING[name][0] * np.maximum(np.abs(right), 2.0**-14)
        assert near.all()


@pytest.mark.parametrize("name", list(SPACING))
@pytest.mark.parametrize("options", [{}, {"msign": "pure", "gate": True}, {"msign": "ns5", "prenorm": True}], ids=str)
def test_ttt_muon_in_half_precision_is_that_of_float32_rounded(name, options):
    """x and the parameters in half precision: outputs and gradients are those of float32 at the same numbers."""
    dtype, found = dtype_named(name), []
    x = RNG.normal(size=(2, 7, 8)).astype(dtype)
    for given in (dtype, np.dtype("float32")):
        layer = tg.nn.TTTMuon(8, heads=2, chunk=3, rng=0, **options).astype(dtype).astype(given)
        leaf = tg.tensor(x.astype(given), requires_grad=True)
        y = layer(leaf)
        again, _ = layer.read(leaf)
        (y.astype("float32") * np.float32(0.5)).sum().backward()
        found.append([y, again, leaf.grad, *(p.grad for p in layer.parameters())])
    eps, tiny = SPACING[name]
    for half, exact in zip(*found, strict=True):
        assert half.dtype == dtype and exact.dtype == np.float32
        right = exact.numpy().astype("float64")
        assert np.abs(half.numpy().astype("float64") - right).max() <= 1.01 * eps * max(np.abs(right).max(), tiny)
