"""Estimates of the floating-point operations of ops, for ``flops=`` of a primitive."""

from collections.abc import Callable
from math import prod

__all__: list[str] = []


def dense(factor: float) -> Callable[..., int]:
    """``factor`` m n^2 for the (m, n) matrices of the first argument, m >= n.

    Direct methods have the factors of Golub and Van Loan, Matrix Computations, 4th ed. The factor of an iteration is
    its usual number of steps times the products of a step.
    """

    def flops(arrays, outputs, constants) -> int:
        *batch, m, n = arrays[0].shape
        return int(prod(batch) * factor * max(m, n) * min(m, n) ** 2)

    return flops


def product(arrays, outputs, constants) -> int:
    """2 k for each element of a product, where k is the size of the last axis of the first argument."""
    return 2 * prod(outputs[0].shape) * arrays[0].shape[-1]


def contraction(arrays, outputs, constants) -> int:
    """Two for each combination of all letters of einsum, whose subscripts name every axis."""
    inputs = constants["subscripts"].partition("->")[0].split(",")
    lengths = {letter: n for letters, a in zip(inputs, arrays) for letter, n in zip(letters, a.shape)}
    return 2 * prod(lengths.values())
