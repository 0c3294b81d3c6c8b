"""The affine map of a fully connected layer as one op. It copies no transposed weight and adds the bias in place."""

from collections.abc import Callable
from functools import wraps
from math import prod
from typing import Any, TypeVar, cast

from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import primitive
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.costs import product
from tinygrad_ms.ops.fused.product_calls import times
from tinygrad_ms.ops.linalg.parts import are_half
from tinygrad_ms.ops.linalg.products import matmul, of_two, over_rows
from tinygrad_ms.ops.shapes import before

__all__ = ["linear"]

F = TypeVar("F", bound=Callable[..., Any])


def _rows(x, stacked=()):
    """(..., n) as a matrix (rows, n), or as a stack of matrices."""
    return x.reshape((*stacked, prod(x.shape[len(stacked) : -1]), x.shape[-1]))


def _over_all_rows(g, x):
    """g^T x, summed over the rows of x. g may be a stack."""
    return over_rows(g, x) if g.ndim == 2 == x.ndim else over_rows(_rows(g, before(g, x.ndim)), _rows(x))


@primitive(
    vjp=(
        lambda g, weight: of_two(g, weight),
        lambda g, x: _over_all_rows(g, x),
        lambda g: g,  # the engine sums it over the rows of x
    ),
    jvp=(lambda t, weight: matmul(t, weight.T), lambda t, x: matmul(x, t.T), lambda t: t),
    formula=r"Y = X W^T + b:\quad \bar X = \bar Y W,\quad \bar W = \bar Y^T X,\quad \bar b = \sum_i \bar Y_i",
    source="AIDIY, section 5; Giles 2008, section 2.2.2",
    batched=True,
    floats=True,
    flops=product,  # 2 k operations for each element, the bias included
    notation=r"{0} \, {1}^T + {2}",
)
def affine(xp, x, weight, bias, /):
    """x weight^T + bias for x (..., n), weight (m, n) and bias (m,) or a number."""
    same = type(x) is type(weight) is type(bias) and x.dtype is weight.dtype is bias.dtype
    if same and x.ndim == 2 == weight.ndim and x.itemsize > 2:
        (rows, n), (m, k) = x.shape, weight.shape
        if n == k and bias.shape == (m,):
            y = times(xp, x, weight.T)
            row = y[0] if rows == 1 else y  # arrays of one shape are added in half the time
            if rows == m == 1:  # one number is not: in place it takes three times as long
                return (row + bias).reshape((1, 1))
            row += bias
            return y
    _check(x, weight, bias)
    if x.itemsize < 4 and are_half(x, weight, *([bias] if hasattr(bias, "dtype") else [])):
        bias = wide(bias) if hasattr(bias, "dtype") else bias
        return affine.primitive.forward(xp, wide(x), wide(weight), bias).astype(x.dtype)
    rows = x if x.ndim == 2 else _rows(x)  # one large product instead of a batch of small ones
    y = times(xp, rows, weight.T)
    if type(bias) is type(y) and bias.dtype == y.dtype:
        y += bias
    elif type(bias) is not float or bias != 0:
        y = y + bias
    return y if x.ndim == 2 else y.reshape((*x.shape[:-1], weight.shape[0]))


def _check(x, weight, bias):
    if getattr(weight, "ndim", 0) != 2 or not getattr(x, "ndim", 0) or x.shape[-1] != weight.shape[1]:
        shapes: list[tuple[int, ...]] = [getattr(a, "shape", ()) for a in (x, weight)]
        needed = f", which takes (..., {shapes[1][1]})" if len(shapes[1]) == 2 else "; expected (..., n) and (m, n)"
        raise ValueError(f"affine: x has shape {shapes[0]} and weight {shapes[1]}{needed}")
    if getattr(bias, "shape", ()) not in ((), (weight.shape[0],)):
        raise ValueError(
            f"affine: bias has shape {bias.shape} and weight {weight.shape}; expected ({weight.shape[0]},)"
        )


def told_apart(function: F) -> F:
    """``function``. If it is used like the decorator ``tg.rules.linear``, its error says so."""

    @wraps(function)
    def called(*args, **facts):
        if "transpose" in facts or callable(args[0] if args else None):
            raise TypeError(
                "linear: this is the affine map linear(x, weight, bias); the decorator that makes a linear primitive is"
                " tg.rules.linear: @tg.rules.linear(transpose=lambda g: ...)"
            )
        return function(*args, **facts)

    return cast(F, called)


@told_apart
def linear(x, weight, bias=None) -> Tensor:
    """x weight^T + bias: (..., n) -> (..., m), with weight (m, n) and bias (m,) or none.

    Raises ValueError where the shapes do not fit.
    """
    return affine(x, weight, 0.0 if bias is None else bias)
