"""Parts of matrices: diagonal, diag, trace, tril, triu, vec, of the last two axes of a batch."""

from numpy import broadcast_shapes

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import HALF
from tinygrad_ms.engine.primitive import linear
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.options import as_int

__all__ = ["diag", "diagonal", "trace", "tril", "triu", "vec"]


def check_matrices(op, x, square=False, name="x", lapack=True):
    """x. Raises unless it holds (square) matrices, of a dtype of LAPACK, or without ``lapack`` of a float dtype."""
    if x.ndim < 2 or (square and x.shape[-1] != x.shape[-2]):
        kind = "square matrices (..., n, n)" if square else "matrices (..., n, m)"
        raise ValueError(f"{op}: {name} has shape {x.shape}; expected {kind}")
    if x.dtype.name in ("float16", "bfloat16") or not (lapack or x.dtype.name in ("float32", "float64")):
        who = "LAPACK" if lapack else op
        raise TypeError(f"{op}: {name} is {x.dtype}; {who} needs float32 or float64, use .astype('float32')")
    return x


def are_half(*arrays):
    """Whether all have the same half precision on the CPU. BLAS multiplies neither float16 nor bfloat16 there.

    NumPy multiplies float16 without BLAS, 40 times as slowly, and makes float32 of bfloat16.
    """
    dtype = arrays[0].dtype
    same = dtype.char in HALF and all(a.dtype == dtype for a in arrays[1:])
    return same and all(type(a) not in BACKENDS or BACKENDS[type(a)].name == "cpu" for a in arrays)  # or a scalar


def symmetric(x):
    """The symmetric part (X + X^T) / 2 of (..., n, n)."""
    return (x + x.mT) * 0.5


def per_matrix(x):
    """Numbers (...), one for each matrix, as (..., 1, 1), to multiply the matrices of a batch."""
    return x.reshape((*x.shape, 1, 1))


def common_batch(xp, *matrices):
    """The matrices with their leading dimensions broadcast."""
    lead = [m.shape[:-2] for m in matrices]
    if all(shape == lead[0] for shape in lead):
        return matrices
    batch = broadcast_shapes(*lead)
    return [xp.broadcast_to(m, (*batch, *m.shape[-2:])) for m in matrices]


def _axes(ndim, axis1, axis2):
    """The two axes counted from the left."""
    return axis1 % ndim, axis2 % ndim


@linear(
    transpose=lambda g, x_shape, offset, axis1, axis2: embed_diagonal(
        g, shape=x_shape, offset=offset, axis1=axis1, axis2=axis2
    ),
    formula=r"y_i = x_{ii}:\quad \bar x_{ij} = \delta_{ij}\,\bar y_i",
    source="linear map; its transpose",
    view=True,
    moves=True,
)
def diagonal(xp, x, offset=0, axis1=-2, axis2=-1):
    """The diagonal of the matrices in the axes ``axis1`` and ``axis2``, as a new last axis.

    offset: > 0 is above the main diagonal. As in the array API the matrices are the last two axes by default
    (NumPy's function takes the first two).
    """
    return xp.diagonal(_matrix(x, "diagonal"), offset, *_axes(x.ndim, axis1, axis2))


@linear(
    transpose=lambda g, offset, axis1, axis2: diagonal(g, offset=offset, axis1=axis1, axis2=axis2),
    formula=r"Y = \mathrm{diag}(x):\quad \bar x_i = \bar y_{ii}",
    source="linear map; its transpose",
    moves=True,
)
def embed_diagonal(xp, x, /, shape, offset=0, axis1=-2, axis2=-1):
    """Zeros of ``shape`` with x on the diagonal of two axes: the transpose of ``diagonal``."""
    y = xp.zeros(shape, dtype=x.dtype)
    ndim = len(shape)
    axis1, axis2 = _axes(ndim, axis1, axis2)
    matrices = xp.moveaxis(y, (axis1, axis2), (-2, -1))
    rows = xp.arange(x.shape[-1])
    matrices[..., rows + max(-offset, 0), rows + max(offset, 0)] = x
    return y


def diag(x, offset=0):
    """The diagonal of a matrix (..., n, m); of a vector (n,), the square matrix with it on the diagonal."""
    x = as_operand(x)
    if x.ndim != 1:
        return diagonal(x, offset=offset)
    n = x.shape[0] + abs(as_int(offset, "diag: offset"))
    return embed_diagonal(x, shape=(n, n), offset=offset)


def trace(x, offset=0):
    r"""The sum of the diagonal of the last two axes, tr X = sum_i x_ii; d tr(A X)/dX = A^T (AIDIY, 3)."""
    return diagonal(x, offset=offset).sum(axis=-1)


@linear(
    transpose=lambda g, k: tril(g, k=k),
    formula=r"\bar X = \mathrm{tril}(\bar Y)",
    source="a projection is its own transpose",
    moves=True,
)
def tril(xp, x, k=0):
    """The lower triangle of (..., n, m): zeros above the k-th diagonal."""
    return xp.tril(_matrix(x, "tril"), k)


@linear(
    transpose=lambda g, k: triu(g, k=k),
    formula=r"\bar X = \mathrm{triu}(\bar Y)",
    source="a projection is its own transpose",
    moves=True,
)
def triu(xp, x, k=0):
    """The upper triangle of (..., n, m): zeros below the k-th diagonal."""
    return xp.triu(_matrix(x, "triu"), k)


def _matrix(x, op):
    if x.ndim < 2:
        raise ValueError(f"{op}: x has shape {x.shape}; expected a matrix or a batch of matrices")
    return x


def vec(x):
    """The columns of (..., n, m) below each other, (..., n m). vec(A X B) = (B^T (x) A) vec(X)."""
    x = _matrix(as_operand(x), "vec")
    return x.mT.reshape((*x.shape[:-2], x.shape[-2] * x.shape[-1]))
