"""Products of vectors and matrices: matmul, dot, inner, outer, vecdot, kron."""

from math import prod

import numpy

from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.sentences import shape_of
from tinygrad_ms.engine.primitive import multilinear
from tinygrad_ms.launches.products import product as stacked_product
from tinygrad_ms.ops.costs import product
from tinygrad_ms.ops.fused import product_calls
from tinygrad_ms.ops.linalg.einsum import einsum, tensordot
from tinygrad_ms.ops.linalg.parts import are_half
from tinygrad_ms.ops.operands import as_operand
from tinygrad_ms.ops.shapes import before, roll

__all__ = ["cross", "dot", "inner", "kron", "matmul", "outer", "vecdot"]


def _left_vjp(g, b, a_shape, a_turned):
    """The cotangent of a in a @ b: g b^T."""
    if len(b.shape) == 1:  # a matrix or vector times a vector
        return g.reshape((*g.shape, 1)) * b
    if len(a_shape) == 1 and len(b.shape) > 2:  # a vector times matrices
        return (b @ g.reshape((*g.shape, 1))).reshape((*g.shape[:-1], a_shape[0]))
    return matmul(b, g.mT).mT if a_turned and g.ndim == b.ndim else of_two(g, b.mT)


def _right_vjp(g, a, b_shape, b_turned):
    """The cotangent of b in a @ b: a^T g. A batch of a against one matrix b is summed inside one product.

    Where matrices of a stack lie column by column, so do their cotangents: transposed back, these have no gaps.
    """
    if len(a.shape) == 1:
        column = a.reshape((a.shape[0], 1))
        if len(b_shape) == 1:
            return a * g.reshape((*g.shape, 1))
        return column * g.reshape((*g.shape[:-1], 1, g.shape[-1]))
    if len(b_shape) > 2:
        return matmul(g.mT, a).mT if b_turned and a.ndim > 2 else matmul(a.mT, g)
    rows, inner = prod(a.shape[:-1]), a.shape[-1]
    stacked = before(g, len(a.shape) + len(b_shape) - 2)
    a = a.reshape((rows, inner))
    if len(b_shape) == 1:
        g = g.reshape((*stacked, rows))
        return matmul(g, a) if g.dtype.char in HALF else g @ a
    return over_rows(a, g.reshape((*stacked, rows, b_shape[1])))


def of_two(a, b):
    """a @ b, for a rule. Two matrices of NumPy do not go through the door of the op.

    ``dot`` calls the same function of BLAS as ``matmul`` at half the cost; arrays with gaps it would copy first.
    """
    if type(a) is numpy.ndarray is type(b) and a.ndim == 2 == b.ndim and a.dtype is b.dtype and a.itemsize > 2:
        if (y := product_calls.product(a, b)) is not None:
            return y
        return a.dot(b) if a.flags.forc and b.flags.forc else a @ b
    return matmul(a, b)


def over_rows(a, g):
    """a^T g of matrices: the sum over their rows. One of them may be a stack."""
    return of_two(a.mT, g)


@multilinear(
    transpose=(_left_vjp, _right_vjp),
    formula=r"Y = A B:\quad \bar A = \bar Y B^T,\quad \bar B = A^T \bar Y",
    source="Giles 2008, section 2.2.2; AIDIY, section 5",
    batched=True,
    notes="vectors are rows at the left and columns at the right; leading dimensions broadcast",
    notation=r"{0} \, {1}",
    flops=product,
)
def matmul(xp, a, b):
    """The matrix product a @ b of (..., n, k) and (..., k, m); either may be a vector (k,).

    Leading dimensions are a batch and broadcast. Half precision is multiplied in float32 and rounded once.
    Raises ValueError where the inner dimensions differ, where batches do not broadcast, and for numbers.

    >>> tg.matmul([[1.0, 2.0], [3.0, 4.0]], [1.0, 1.0])
    Tensor([3., 7.], dtype=float32)
    """
    try:
        if a.itemsize < 4 and are_half(a, b):
            return matmul.primitive.forward(xp, wide(a), wide(b)).astype(a.dtype)
        if a.ndim > 2 and b.ndim == 2:  # one large product instead of a batch of small ones
            rows = a.reshape((prod(a.shape[:-1]), a.shape[-1]))
            return product_calls.times(xp, rows, b).reshape((*a.shape[:-1], b.shape[-1]))
        return product_calls.times(xp, a, b) if isinstance(a, numpy.ndarray) else stacked_product(xp, a, b)
    except (ValueError, AttributeError):
        raise ValueError(_why_not(shape_of(a), shape_of(b))) from None


def _why_not(a, b) -> str:
    """The error message for shapes that cannot be multiplied."""
    if not a or not b:
        return f"matmul: a has shape {a} and b has shape {b}: a number is no matrix; multiply by it with *"
    inner = b[-2] if len(b) > 1 else b[0]
    shapes = f"matmul: a has shape {a} and b has shape {b}"
    if a[-1] == inner:
        return f"{shapes}: the batch dimensions {a[:-2]} and {b[:-2]} do not broadcast"
    text = f"{shapes}: the inner dimensions {a[-1]} and {inner} differ"
    if len(b) > 1 and a[-1] == b[-1]:
        return f"{text}; did you mean a @ b.{'T' if len(b) == 2 else 'mT'}?"
    if len(a) > 1 and a[-2] == inner:
        return f"{text}; did you mean a.{'T' if len(a) == 2 else 'mT'} @ b?"
    return text


def dot(a, b):
    """NumPy's dot: a * b for numbers, else the sum over the last axis of a and the last but one of b."""
    a, b = as_operand(a), as_operand(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim == 1 or a.ndim <= 2 >= b.ndim:
        return matmul(a, b)
    return tensordot(a, b, axes=((-1,), (-2,)))


def inner(a, b):
    """The sum over the last axes, y_ij = sum_k a_ik b_jk; of two vectors, their scalar product."""
    a, b = as_operand(a), as_operand(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, axes=((-1,), (-1,)))


@multilinear(
    transpose=(
        lambda g, b, a_shape: (g @ b.reshape((b.size,))).reshape(a_shape),
        lambda g, a, b_shape: (a.reshape((a.size,)) @ g).reshape(b_shape),
    ),
    formula=r"Y = a b^T:\quad \bar a = \bar Y b,\quad \bar b = \bar Y^T a",
    source="Parr and Howard, section 4.5",
)
def outer(xp, a, b):
    """y_ij = a_i b_j of two vectors; other shapes are flattened first. Result (a.size, b.size)."""
    return a.reshape((a.size, 1)) * b.reshape((1, b.size))


def vecdot(a, b, axis=-1):
    """The scalar products along ``axis``, where a and b have one size; the other axes broadcast."""
    a, b = as_operand(a), as_operand(b)
    ndim = max(a.ndim, b.ndim)
    along = [x.shape[axis - (axis >= 0) * ndim :][:1] for x in (a, b)]
    if () in along or along[0] != along[1]:
        raise ValueError(f"vecdot: a has shape {a.shape} and b has shape {b.shape}: they differ along axis {axis}")
    y = (wide(a, a.shape[axis] if a.ndim else 1) * wide(b)).sum(axis=axis)
    return y.astype(a.dtype) if a.dtype == b.dtype != y.dtype and a.dtype.char in HALF else y


def cross(a, b, axis: int = -1):
    """The vector product along ``axis``, of size 3 in both; other axes broadcast. Raises ValueError for other sizes."""
    a, b = as_operand(a), as_operand(b)
    if not a.ndim or not b.ndim or a.shape[axis] != 3 or b.shape[axis] != 3:
        raise ValueError(f"cross: a has shape {a.shape} and b has shape {b.shape}; expected size 3 along axis {axis}")
    return roll(a, -1, axis) * roll(b, -2, axis) - roll(a, -2, axis) * roll(b, -1, axis)


def kron(a, b):
    r"""The Kronecker product of matrices, A (x) B = [a_ij B], (..., n, m) and (..., p, q) -> (..., n p, m q).

    vec(A X B) = (B^T (x) A) vec(X). Leading dimensions broadcast; vectors are taken as in NumPy.
    """
    a, b = as_operand(a), as_operand(b)
    if a.ndim == b.ndim == 0:
        return a * b
    if a.ndim < 2 and b.ndim < 2:
        return outer(a, b).reshape((a.size * b.size,))
    a, b = _as_matrix(a), _as_matrix(b)
    y = einsum("...ij,...kl->...ikjl", a, b)
    return y.reshape((*y.shape[:-4], y.shape[-4] * y.shape[-3], y.shape[-2] * y.shape[-1]))


def _as_matrix(x):
    return x.reshape((*(1,) * (2 - x.ndim), *x.shape)) if x.ndim < 2 else x
