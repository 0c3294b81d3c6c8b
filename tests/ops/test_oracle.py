"""Values and gradients of every op against PyTorch: 1e-10 (float64), 1e-5 (float32) of the largest element.

Every primitive and every public function of ops/ is either in CASES or, with the reason, in NO_COUNTERPART:
a new op fails here until it is entered in one of them. PyTorch computes in float64, also where our inputs are
float32, so the second bound is on our error alone. Where the result is determined only up to signs (qr, eigh,
svd), functions that do not see the signs are compared.
"""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.ops.matrix_sign.step import _newton_schulz_step

torch = pytest.importorskip("torch", reason="the oracle is PyTorch: pip install torch")
F, linalg = torch.nn.functional, torch.linalg
pytestmark = pytest.mark.oracle
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}

# --- random, well-conditioned inputs: functions of a generator ----------------------------------------------


def normal(*shape):
    return lambda random: random.standard_normal(shape)


def between(low, high, shape=(3, 4)):
    return lambda random: random.uniform(low, high, shape)


def integers(low, high, *shape):
    return lambda random: random.integers(low, high, shape)


def booleans(*shape):
    return lambda random: random.random(shape) < 0.5


def regular(n, m, *batch):
    """Matrices with singular values from 0.5 to 2, all gaps at least 0.1."""

    def draw(random):
        k = min(n, m)
        u = np.linalg.qr(random.standard_normal((*batch, n, k)))[0]
        v = np.linalg.qr(random.standard_normal((*batch, m, k)))[0]
        return (u * spectrum(random, k)) @ np.swapaxes(v, -1, -2)

    return draw


def definite(n, *batch):
    """Symmetric positive definite matrices with eigenvalues from 0.5 to 2, all gaps at least 0.1."""

    def draw(random):
        v = np.linalg.qr(random.standard_normal((*batch, n, n)))[0]
        return (v * spectrum(random, n)) @ np.swapaxes(v, -1, -2)

    return draw


def spectrum(random, k):
    return np.linspace(0.5, 2, k) + random.uniform(-0.1, 0.1, k)


def right_half_plane(n):
    """A general matrix with eigenvalues of positive real part."""
    return lambda random: 2 * np.eye(n) + random.standard_normal((n, n)) / n


# --- the cases ----------------------------------------------------------------------------------------------


class Case(NamedTuple):
    ours: Callable
    theirs: Callable
    inputs: tuple


CASES: dict[str, list[Case]] = {}


def case(names, theirs, *inputs, ours=None):
    """Enter a case under one or several names of primitives and public functions."""
    for name in names.split():
        op = REGISTRY[name].op if name in REGISTRY else getattr(tg, name)
        CASES.setdefault(name, []).append(Case(ours or op, theirs, inputs))


def same(names, *inputs, module=torch):
    """Ops of the same name and signature."""
    for name in names.split():
        case(name, getattr(module, name), *inputs)


X, V, AB = normal(3, 4), normal(4), (normal(3, 4), normal(2, 1, 4))

# elementwise
same("sin cos tanh sinh cosh exp expm1 exp2 square abs sign floor ceil trunc round sigmoid relu erf sinc", X)
same("clone asinh atan negative isnan isinf isfinite", X)
same("log log1p log2 log10 sqrt reciprocal", between(0.5, 3))
same("tan", between(-1.2, 1.2))
same("asin acos atanh", between(-0.8, 0.8))
same("acosh", between(1.2, 3))
same("add subtract multiply atan2 hypot maximum minimum logaddexp", *AB)
same("divide remainder", normal(3, 4), between(0.5, 2, (2, 1, 4)))
same("greater greater_equal less less_equal", *AB)
same("logical_and logical_or logical_xor bitwise_and bitwise_or bitwise_xor", booleans(3, 4), booleans(4))
same("bitwise_and bitwise_or bitwise_xor", integers(-9, 9, 3, 4), integers(-9, 9, 4))
same("bitwise_left_shift bitwise_right_shift", integers(-9, 9, 3, 4), integers(0, 5, 4))
same("logical_not", booleans(3, 4))
case("equal", torch.eq, integers(0, 3, 3, 4), integers(0, 3, 4))
case("not_equal", torch.ne, integers(0, 3, 3, 4), integers(0, 3, 4))
case("bitwise_invert", torch.bitwise_not, integers(-9, 9, 3, 4))
case("round", lambda x: torch.round(x, decimals=2), X, ours=lambda x: tg.round(x, 2))
case("floor_divide", lambda a, b: (a / b).floor(), normal(3, 4), between(0.5, 2, (4,)))
case("power", torch.pow, between(0.5, 2), normal(2, 1, 4))
case("power", lambda x: x**3, X, ours=lambda x: x**3)
case("cbrt", lambda x: x.sign() * x.abs() ** (1 / 3), X)
case("log_base", lambda x, a: x.log() / a.log(), between(0.5, 3), between(2, 9))
case("cot", lambda x: 1 / x.tan(), between(0.3, 2.8))
case("sec", lambda x: 1 / x.cos(), between(-1.2, 1.2))
case("csc", lambda x: 1 / x.sin(), between(0.3, 2.8))
case("acot", lambda x: torch.pi / 2 - x.atan(), X)
case("coth", lambda x: 1 / x.tanh(), between(0.3, 2))
case("sech", lambda x: 1 / x.cosh(), X)
case("csch", lambda x: 1 / x.sinh(), between(0.3, 2))
case("clip", lambda x: x.clamp(-0.5, 0.7), X, ours=lambda x: tg.clip(x, -0.5, 0.7))
same("where", booleans(3, 4), X, V)
case("astype cast", lambda x: x.to(torch.float32).to(x.dtype), X, ours=lambda x: x.astype("float32").astype(x.dtype))
case("astype cast_discrete", lambda x: (3 * x).to(torch.int64), X, ours=lambda x: (3 * x).astype("int64"))
case("to", lambda x: x.to(torch.float64), X, ours=lambda x: tg.to(x, "cpu", "float64"))


def derivative_of_sinc(x):
    with torch.enable_grad():
        return torch.autograd.grad(torch.sinc(x).sum(), x, create_graph=True)[0]


case("sinc_derivative", derivative_of_sinc, between(0.3, 2), ours=lambda x: tg.ops.special.sinc_derivative(x, order=1))

# activations
same("leaky_relu elu selu silu softplus gelu hardtanh relu6 mish", X, module=F)
case("log_sigmoid", F.logsigmoid, X)
case("softplus", lambda x: F.softplus(x, 2.5), X, ours=lambda x: tg.softplus(x, 2.5))
case("gelu", lambda x: F.gelu(x, approximate="tanh"), X, ours=lambda x: tg.gelu(x, "tanh"))
case("elu", lambda x: F.elu(x, 0.3), X, ours=lambda x: tg.elu(x, 0.3))
for axis in (0, -1):
    case("softmax", lambda x, axis=axis: x.softmax(axis), X, ours=lambda x, axis=axis: tg.softmax(x, axis))
    case("log_softmax", lambda x, axis=axis: x.log_softmax(axis), X, ours=lambda x, axis=axis: tg.log_softmax(x, axis))

# shapes
case("reshape", lambda x: x.reshape(2, 6), X, ours=lambda x: tg.reshape(x, (2, 6)))
case("transpose", lambda x: x.T, normal(3, 4), ours=lambda x: tg.transpose(x))
case("permute_dims", lambda x: x.permute(2, 0, 1), normal(2, 3, 4), ours=lambda x: tg.transpose(x, (2, 0, 1)))
case("matrix_transpose", lambda x: x.mT, normal(2, 3, 4))
case("swapaxes", lambda x: x.swapaxes(0, 2), normal(2, 3, 4), ours=lambda x: tg.swapaxes(x, 0, 2))
case("moveaxis", lambda x: x.moveaxis(0, 2), normal(2, 3, 4), ours=lambda x: tg.moveaxis(x, 0, 2))
case("sliding_window_view", lambda x: x.unfold(1, 3, 1), normal(2, 6), ours=lambda x: tg.sliding_window_view(x, 3, 1))
case(
    "overlap_add",
    lambda g: sum(F.pad(g[..., i], (i, 2 - i)) for i in range(3)),
    normal(2, 4, 3),
    ours=lambda g: REGISTRY["overlap_add"].op(g, shape=(2, 6), window=(3,), axes=(1,)),
)
case("broadcast_to", lambda x: x.broadcast_to(2, 3, 4), V, ours=lambda x: tg.broadcast_to(x, (2, 3, 4)))
case("expand_dims", lambda x: x.unsqueeze(1), X, ours=lambda x: tg.expand_dims(x, 1))
same("squeeze", normal(3, 1, 4))
same("ravel flatten", normal(2, 3, 4))
case("flip", lambda x: x.flip(1), X, ours=lambda x: tg.flip(x, 1))
case("roll", lambda x: x.roll(2, 1), X, ours=lambda x: tg.roll(x, 2, 1))
case("tile", lambda x: x.tile(2, 3), X, ours=lambda x: tg.tile(x, (2, 3)))
case("repeat", lambda x: x.repeat_interleave(3, 1), X, ours=lambda x: tg.repeat(x, 3, 1))
case("pad", lambda x: F.pad(x, (2, 0, 1, 3), value=0.5), X, ours=lambda x: tg.pad(x, ((1, 3), (2, 0)), value=0.5))
case("gather", lambda x: F.pad(x, (2, 1), mode="reflect"), X, ours=lambda x: tg.pad(x, ((0, 0), (2, 1)), "reflect"))
case("concat", lambda *xs: torch.cat(xs, 1), X, normal(3, 2), ours=lambda *xs: tg.concat(xs, 1))
case("stack", lambda *xs: torch.stack(xs, 1), X, X, ours=lambda *xs: tg.stack(xs, 1))
case("split", lambda x: x.split([1, 3], 1), X, ours=lambda x: tg.split(x, [1], 1))
case("unstack", lambda x: x.unbind(1), X, ours=lambda x: tg.unstack(x, 1))

# parts of matrices
case("diagonal", lambda x: x.diagonal(1, -2, -1), normal(2, 3, 4), ours=lambda x: tg.diagonal(x, 1))
case("embed_diagonal", torch.diag_embed, normal(2, 3), ours=lambda x: REGISTRY["embed_diagonal"].op(x, shape=(2, 3, 3)))
case("tril", lambda x: x.tril(-1), normal(2, 3, 4), ours=lambda x: tg.tril(x, -1))
case("triu", lambda x: x.triu(1), normal(2, 3, 4), ours=lambda x: tg.triu(x, 1))
case("diag", torch.diag, V)
case("trace", lambda x: x.diagonal(dim1=-2, dim2=-1).sum(-1), normal(2, 3, 3))
case("vec", lambda x: x.mT.reshape(-1), X)

# indexing
ROWS = integers(0, 3, 2, 5)


def into_zeros(g):
    zeros = torch.zeros(3, 4, dtype=g.dtype)
    zeros[1:] = g
    return zeros


case(
    "getitem",
    lambda x: x[1:, ::2],
    X,
    ours=lambda x: tg.ops.indexing.getitem(x, (slice(1, None), slice(None, None, 2))),
)
case("place", into_zeros, normal(2, 4), ours=lambda g: REGISTRY["place"].op(g, index=slice(1, None), shape=(3, 4)))
case("gather", lambda x, i: x[i], X, ROWS, ours=lambda x, i: x[i])
case(
    "scatter_add",
    lambda g, i: torch.zeros(3, 4, dtype=g.dtype).index_put((i,), g, accumulate=True),
    normal(2, 5, 4),
    ROWS,
    ours=lambda g, i: REGISTRY["scatter_add"].op(g, index=(i.data,), shape=(3, 4)),
)
case("embedding", lambda w, i: F.embedding(i, w), X, ROWS)
case("take", lambda x, i: x[:, i], X, ROWS, ours=lambda x, i: tg.take(x, i, 1))
case(
    "take_along_axis",
    lambda x, i: x.take_along_dim(i, 1),
    X,
    integers(0, 4, 3, 6),
    ours=lambda x, i: tg.take_along_axis(x, i, 1),
)
case(
    "index_update",
    lambda x, v: x.index_put((torch.tensor([2, 0]),), v),
    X,
    normal(2, 4),
    ours=lambda x, v: tg.index_update(x, [2, 0], v),
)
case("index_add", lambda x, i, v: x.index_add(0, i, v), X, integers(0, 3, 5), normal(5, 4), ours=tg.index_add)
case("one_hot", lambda i: F.one_hot(i, 3), ROWS, ours=lambda i: tg.one_hot(i, 3))
case("nonzero", lambda x: x.nonzero(as_tuple=True), booleans(3, 4))
case("argsort", lambda x: x.argsort(0), X, ours=lambda x: tg.argsort(x, 0))
case("sort", lambda x: x.sort(0, descending=True)[0], X, ours=lambda x: tg.sort(x, 0, descending=True))

# reductions
same("sum mean prod logsumexp", X, module=type("over all", (), {
    "sum": torch.sum, "mean": torch.mean, "prod": torch.prod, "logsumexp": lambda x: x.logsumexp((0, 1)),
}))  # fmt: skip
for axis in (0, 2):
    for name in "sum mean prod cumsum cumprod argmax argmin logsumexp".split():
        case(
            name,
            lambda x, name=name, axis=axis: getattr(torch, name)(x, axis),
            normal(2, 3, 4),
            ours=lambda x, name=name, axis=axis: getattr(tg, name)(x, axis),
        )
case("max", lambda x: x.amax((0, 2)), normal(2, 3, 4), ours=lambda x: tg.max(x, (0, 2)))
case("min", lambda x: x.amin((0, 2)), normal(2, 3, 4), ours=lambda x: tg.min(x, (0, 2)))
case("var", lambda x: x.var((0, 2), correction=1), normal(2, 3, 4), ours=lambda x: tg.var(x, (0, 2), 1))
case("std", lambda x: x.std((0, 2), correction=0), normal(2, 3, 4), ours=lambda x: tg.std(x, (0, 2)))
case("any", lambda x: x.any(1), booleans(3, 4), ours=lambda x: tg.any(x, 1))
case("all", lambda x: x.all(1), booleans(3, 4), ours=lambda x: tg.all(x, 1))
case("count_nonzero", lambda x: x.count_nonzero(1), booleans(3, 4), ours=lambda x: tg.count_nonzero(x, 1))
case("norm euclidean_norm", lambda x: linalg.vector_norm(x, 2, 1), X, ours=lambda x: tg.norm(x, axis=1))
for order in (1, float("inf")):
    case(
        "norm",
        lambda x, order=order: linalg.vector_norm(x, order, 1),
        X,
        ours=lambda x, order=order: tg.norm(x, order, 1),
    )

for order in ("fro", 1, float("inf"), 2, -2, "nuc"):
    case(
        "norm",
        lambda x, order=order: linalg.matrix_norm(x, order),
        regular(4, 3),
        ours=lambda x, order=order: tg.norm(x, order),
    )

# products
same("matmul", normal(2, 3, 4), normal(4, 5))
same("matmul", normal(3, 4), normal(4))
same("outer", normal(3), V)
same("dot inner", V, V)
same("kron", normal(2, 3), normal(4, 2))
same("vecdot", X, X, module=linalg)
case("tensordot", lambda a, b: torch.tensordot(a, b, 2), normal(2, 3, 4), normal(3, 4, 5))
for subscripts in ("ij,jk->ik", "bij,bjk->bk", "ij,kj->k", "i,i,ij->j"):
    sizes = {"b": 2, "i": 3, "j": 4, "k": 5}
    operands = [normal(*(sizes[c] for c in word)) for word in subscripts.split("->")[0].split(",")]
    case(
        "einsum",
        lambda *xs, s=subscripts: torch.einsum(s, *xs),
        *operands,
        ours=lambda *xs, s=subscripts: tg.einsum(s, *xs),
    )
case("linear affine", F.linear, normal(2, 3, 4), normal(5, 4), normal(5), ours=tg.linear)

# losses
PAIR = (X, normal(3, 4))
LABELS, LOGITS = integers(0, 4, 6), normal(6, 4)
case("mse squared_error", F.mse_loss, *PAIR, ours=tg.mse)
case("l1 absolute_error", F.l1_loss, *PAIR, ours=tg.l1)
case("huber huber_error", F.huber_loss, *PAIR, ours=tg.huber)
bce = F.binary_cross_entropy_with_logits
case("binary_cross_entropy_with_logits logistic_error", bce, X, between(0, 1), ours=tg.binary_cross_entropy_with_logits)
case("softmax_cross_entropy", F.cross_entropy, LOGITS, LABELS, ours=tg.cross_entropy)
case("cross_entropy", F.cross_entropy, LOGITS, lambda random: random.dirichlet(np.ones(4), 6), ours=tg.cross_entropy)
case(
    "cross_entropy",
    lambda x, t: F.cross_entropy(x, t, label_smoothing=0.2, ignore_index=1),
    LOGITS,
    LABELS,
    ours=lambda x, t: tg.cross_entropy(x, t, label_smoothing=0.2, ignore_index=1),
)
case(
    "softmax_minus_one_hot",  # in the gradient
    lambda x, t: F.cross_entropy(x, t, ignore_index=1),
    LOGITS,
    LABELS,
    ours=lambda x, t: tg.cross_entropy(x, t, ignore_index=1),
)
case("nll pick_label", lambda a, t: F.nll_loss(a, t), LOGITS, LABELS, ours=tg.nll)
case(
    "place_label",
    lambda x, t: F.one_hot(t, 4) * x[:, None],
    normal(6),
    LABELS,
    ours=lambda x, t: REGISTRY["place_label"].op(x, labels=t.data, classes=4),
)
WEIGHTS = (between(0.5, 2, (4,)), V)
case("layer_norm normalize", lambda x, w, b: F.layer_norm(x, (4,), w, b), X, *WEIGHTS, ours=tg.layer_norm)
case("rms_norm", lambda x, w: F.rms_norm(x, (4,), w, eps=1e-6), X, WEIGHTS[0])

# linear algebra
A = regular(4, 4, 2)
same("inv det", A, module=linalg)
same("pinv", regular(5, 3, 2), module=linalg)
same("pinv", regular(3, 5), module=linalg)
same("solve", A, normal(2, 4, 3), module=linalg)
same("slogdet", A, module=linalg)
case("expm", linalg.matrix_exp, A)
case("matrix_power", lambda x: linalg.matrix_power(x, 5), A, ours=lambda x: tg.matrix_power(x, 5))
case("matrix_power", lambda x: linalg.matrix_power(x, -2), A, ours=lambda x: tg.matrix_power(x, -2))
case("cofactors", lambda x: linalg.det(x)[..., None, None] * linalg.inv(x).mT, A)
case(
    "solve_triangular",
    lambda a, b: linalg.solve_triangular(a, b, upper=False),
    lambda random: np.tril(definite(4)(random)),
    normal(4, 3),
    ours=lambda a, b: tg.solve_triangular(a, b, lower=True),
)
case("matrix_norm", lambda x: linalg.matrix_norm(x), regular(4, 3, 2))
case("matrix_norm svdvals", lambda x: linalg.matrix_norm(x, 2), regular(4, 3, 2), ours=lambda x: tg.matrix_norm(x, 2))
case("svdvals", linalg.svdvals, regular(4, 3, 2))


def sym(x):
    return (x + x.mT) / 2


case("cholesky", lambda x: linalg.cholesky(sym(x)), definite(4, 2))
case("eigvalsh", lambda x: linalg.eigvalsh(sym(x)), definite(4, 2))


def positive_diagonal(q, r):
    """The one factorisation with a positive diagonal of R."""
    d = r.diagonal(0, -2, -1)
    signs = d / abs(d)
    return q * signs[..., None, :], r * signs[..., :, None]


def seen_without_signs(v, w):
    """The squares of the entries of vectors, and a function of the matrix they come from."""
    return w, v * v, (v * w[..., None, :] ** 3) @ v.mT


def svd_without_signs(u, s, vh):
    return s, u * u, vh * vh, (u * s[..., None, :] ** 3) @ vh


case("qr", lambda x: positive_diagonal(*linalg.qr(x)), regular(5, 3, 2), ours=lambda x: positive_diagonal(*tg.qr(x)))
case(
    "eigh",
    lambda x: seen_without_signs(*linalg.eigh(sym(x))[::-1]),
    definite(4, 2),
    ours=lambda x: seen_without_signs(*tg.eigh(x)[::-1]),
)
for n, m in ((4, 4), (5, 3), (3, 5)):
    case(
        "svd",
        lambda x: svd_without_signs(*linalg.svd(x, full_matrices=False)),
        regular(n, m, 2),
        ours=lambda x: svd_without_signs(*tg.svd(x)),
    )


def gaps(w):
    eye = torch.eye(w.shape[-1])
    return 1 / (w[..., None, :] - w[..., :, None] + eye) - eye


case("inverse_gaps", gaps, lambda random: np.arange(4) + random.uniform(-0.3, 0.3, (2, 4)))
case("inverse_singular_values", torch.reciprocal, between(0.5, 2))

# functions of matrices and matrix equations


def of_svd(f):
    """U f(S) V^T."""

    def function(x):
        u, s, vh = linalg.svd(x, full_matrices=False)
        return (u * f(s)[..., None, :]) @ vh

    return function


def of_eigh(f):
    """V f(w) V^T of the symmetric part."""

    def function(x):
        w, v = linalg.eigh(sym(x))
        return (v * f(w)[..., None, :]) @ v.mT

    return function


def by_kronecker(a, b, c):
    """The X of A X + X B = C from the linear system of its n m unknowns, row by row."""
    n, m = c.shape
    system = torch.kron(a, torch.eye(m, dtype=a.dtype)) + torch.kron(torch.eye(n, dtype=a.dtype), b.mT.contiguous())
    return linalg.solve(system, c.reshape(-1)).reshape(n, m)


def sign_by_eig(x):
    w, v = linalg.eig(x)
    return (v @ torch.diag(torch.sign(w.real)).to(v.dtype) @ linalg.inv(v)).real


def smoothed(s):
    return s / (s**2 + 0.01 * (s**2).sum(-1, keepdim=True)).sqrt()


MUON = dict(a=3.4445, b=-4.7750, c=2.0315)


def newton_schulz_step(X):
    S = X.mT @ X
    return MUON["a"] * X + X @ (MUON["b"] * S + MUON["c"] * S @ S)


def msign_unrolled(X):
    X = X / torch.linalg.matrix_norm(X, keepdim=True)
    for _ in range(3):
        X = newton_schulz_step(X)
    return X


case("newton_schulz_step", newton_schulz_step, regular(4, 3, 2), ours=lambda X: _newton_schulz_step(X, **MUON))
for shape in (4, 4), (5, 3), (3, 5):
    ours = lambda X: tg.msign_unrolled(X, steps=3, coefficients="muon")
    case("msign_unrolled", msign_unrolled, regular(*shape, 2), ours=ours)
msign_of, smooth_of = of_svd(torch.ones_like), of_svd(smoothed)
case("msign", msign_of, regular(4, 4, 2))
case("msign", msign_of, regular(4, 4, 2), ours=lambda x: tg.msign(x, vjp="eigh"))
case("msign_square", msign_of, regular(4, 4, 2), ours=tg.msign)
for shape in ((5, 3), (3, 5)):
    case("msign_tall", msign_of, regular(*shape, 2), ours=tg.msign)  # the primitive of matrices that are not square
for name, options in (
    ("msign_smooth", {}),
    ("msign_smooth_recomputing", {"recompute": True}),
    ("msign_closed_form", {"method": "svd"}),
    ("msign_closed_form", {"method": "eigh"}),
):
    for shape in ((4, 4), (5, 3)):
        ours = lambda x, options=options: tg.msign(x, eps=0.1, **options)
        case(name, smooth_of, regular(*shape), ours=ours)
for name in ("svd", "eigh"):
    case("msign_closed_form", msign_of, regular(4, 4), ours=lambda x, name=name: tg.msign(x, method=name))
case("polar", lambda x: (msign_of(x), of_eigh(torch.sqrt)(x.mT @ x)), regular(5, 3), ours=tg.polar)
case("nuclear_norm", lambda x: linalg.matrix_norm(x, "nuc"), regular(5, 3), ours=tg.nuclear_norm)
case("sqrtm", of_eigh(torch.sqrt), definite(4, 2))
case("inv_sqrtm", of_eigh(torch.rsqrt), definite(4, 2))
case("solve_lyapunov", lambda a, c: by_kronecker(sym(a), sym(a), c), definite(4), normal(4, 4))
case(
    "solve_skew_with_inverse",
    lambda a, c: (by_kronecker(sym(a), sym(a), (c - c.mT) / 2), linalg.inv(sym(a))),
    definite(4),
    normal(4, 4),
)
case("solve_sylvester", by_kronecker, right_half_plane(4), right_half_plane(3), normal(4, 3))
case("mcsgn", sign_by_eig, lambda random: np.diag([1.0, -1, 2, -2]) + random.standard_normal((4, 4)) / 8)

# what came with the edges: functions of PyTorch or NumPy, and the ops that their rules are made of
same("erfc logit", between(0.1, 0.9))
case("logit", lambda x: torch.logit(x, 0.2), between(0.05, 0.95), ours=lambda x: tg.logit(x, 0.2))
case("normal_cdf", torch.special.ndtr, X)
case("gaussian", lambda x: torch.exp(-0.5 * x * x), X, ours=lambda x: REGISTRY["gaussian"].op(x, c=0.5))
case("sigmoid_slope", lambda x: torch.sigmoid(x) * torch.sigmoid(-x), X)
case("tanh_slope", lambda x: 1 / x.cosh() ** 2, X)
case("sech_slope", lambda x: -x.tanh() / x.cosh(), X)
case("csch_slope", lambda x: -1 / (x.sinh() * x.tanh()), between(0.3, 2))
case("sigmoid_minus", lambda x, t: torch.sigmoid(x) - t, X, between(0, 1))
case("coth_slope", lambda x: -1 / x.sinh() ** 2, between(0.3, 2))
same("cross", normal(2, 3), normal(2, 3), module=linalg)
same("diff", X)
same("isclose", X, X)
same("nan_to_num", X)
case("median", lambda x: x.quantile(0.5, 1), X, ours=lambda x: tg.median(x, 1))
case("topk", lambda x: x.topk(2, 0), X, ours=lambda x: tg.topk(x, 2, 0))
for name in ("cummax", "cummin"):
    case(name + " running_index", lambda x, name=name: getattr(x, name)(1), X, ours=getattr(tg, name))
case("hstack", lambda a, b: torch.hstack((a, b)), X, normal(3, 2), ours=lambda a, b: tg.hstack((a, b)))
case("vstack", lambda a, b: torch.vstack((a, b)), X, V, ours=lambda a, b: tg.vstack((a, b)))
case("meshgrid", lambda a, b: torch.meshgrid(a, b, indexing="xy"), V, normal(3))
case(
    "put_along_axis", lambda x, i, v: x.scatter(1, i, v), X, lambda random: np.array([[2], [0], [3]]), normal(3, 1),
    ours=lambda x, i, v: tg.put_along_axis(x, i, v, 1),
)  # fmt: skip
for p in (0.5, 1, 2, 3, -1, float("inf"), float("-inf")):
    case(
        "vector_norm p_norm" if p in (0.5, 3, -1) else "vector_norm",
        lambda x, p=p: linalg.vector_norm(x, p, 1),
        X,
        ours=lambda x, p=p: tg.vector_norm(x, p, 1),
    )
case(
    "signed_power", lambda x: x.sign() * x.abs() ** 1.5, X,
    ours=lambda x: REGISTRY["signed_power"].op(x, exponent=1.5, odd=True),
)  # fmt: skip
case("lstsq", lambda a, b: linalg.lstsq(a, b)[0], regular(5, 3), normal(5, 2), ours=lambda a, b: tg.lstsq(a, b)[0])
case("lstsq", lambda a, b: linalg.pinv(a) @ b, regular(3, 5), normal(3), ours=lambda a, b: tg.lstsq(a, b)[0])
case(
    "cofactors_change",
    lambda x, e: linalg.det(x) * ((y := linalg.inv(x).mT) * (y * e).sum() - y @ e.mT @ y),
    regular(3, 3), normal(3, 3),
)  # fmt: skip
case("solve_by_eigenvalues", lambda a, c: by_kronecker(sym(a), sym(a), c), definite(4), normal(4, 4))

# --- and what has none --------------------------------------------------------------------------------------

NO_COUNTERPART = {
    "identity": "a place on our tape; the identity in value and gradient",
    "copy_to": "a copy to another device: PyTorch would need one, too",
    "minimax_coefficients": "a table of numbers, no function of tensors",
    **dict.fromkeys(
        "arange eye full full_like linspace ones ones_like rand randn zeros zeros_like".split(),
        "makes constants: nothing to differentiate",
    ),
    **dict.fromkeys(
        "all_gather all_reduce broadcast reduce_scatter reduce_to".split(),
        "of several processes: held to the results of one in test_distributed",
    ),
}


def test_every_op_is_compared_or_has_a_reason_why_not():
    ours = {name for name, p in REGISTRY.items() if p.forward.__module__.startswith("tinygrad_ms.")}
    public = {name for name in tg.ops.__all__ if callable(getattr(tg, name))}
    assert not CASES.keys() & NO_COUNTERPART.keys()
    assert ours | public == CASES.keys() | NO_COUNTERPART.keys()


# --- the comparison -----------------------------------------------------------------------------------------


class Watcher:
    """Which primitives ran."""

    def __init__(self):
        self.names = set()

    def before_op(self, primitive, arrays):
        self.names.add(primitive.name)


def as_tuple(y):
    return tuple(y) if isinstance(y, (tuple, list)) else (y,)


def run_ours(f, arrays, cotangents):
    tensors = [tg.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    watcher = Watcher()
    with tg.hooks(watcher):
        outputs = as_tuple(f(*tensors))
        values = [np.asarray(y.numpy()) for y in outputs]
        pairs = [(y, tg.tensor(v.astype(y.dtype))) for y, v in zip(outputs, cotangents) if v is not None]
        if pairs:
            sum((y * v).sum() for y, v in pairs).backward()
    return values, [x.grad.numpy() if x.grad is not None else None for x in tensors], watcher.names


def run_theirs(f, arrays, random):
    """Values, gradients, and the random cotangents of the outputs (None of one without a gradient)."""
    tensors = [torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a) for a in arrays]
    for x in tensors:
        x.requires_grad = x.dtype.is_floating_point
    outputs = as_tuple(f(*tensors))
    cotangents = [random.standard_normal(y.shape).astype(np.float32) if y.requires_grad else None for y in outputs]
    pairs = [(y, torch.tensor(v)) for y, v in zip(outputs, cotangents) if v is not None]
    if pairs:
        sum((y * v).sum() for y, v in pairs).backward()
    values = [y.detach().numpy() for y in outputs]
    return values, [x.grad.numpy() if x.grad is not None else None for x in tensors], cotangents


def assert_close(ours, theirs, tolerance):
    assert ours.shape == theirs.shape
    scale = np.abs(theirs.astype(np.float64)).max(initial=0)
    assert np.abs(ours.astype(np.float64) - theirs).max(initial=0) <= tolerance * scale


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name, number", [(name, i) for name, cases in CASES.items() for i in range(len(cases))])
def test_values_and_gradients_are_those_of_pytorch(name, number, dtype):
    ours, theirs, inputs = CASES[name][number]
    random = np.random.default_rng(zlib.crc32(name.encode()) + number)
    for _ in range(3):
        arrays = [np.asarray(draw(random)) for draw in inputs]
        arrays = [a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays]
        values, gradients, cotangents = run_theirs(theirs, arrays, random)
        our_values, our_gradients, ran = run_ours(ours, arrays, cotangents)
        assert name in ran or name not in REGISTRY
        assert len(our_values) == len(values)
        for mine, expected in zip(our_values, values):
            assert_close(mine, expected, TOLERANCE[dtype])
        for mine, expected in zip(our_gradients, gradients):
            if expected is not None:
                assert mine.dtype == dtype
                assert_close(mine, expected, TOLERANCE[dtype])
