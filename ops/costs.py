"""What ops cost: estimates of their floating-point operations, for ``flops=`` of a primitive."""

from collections.abc import Callable
from math import prod

__all__: list[str] = []


def dense(factor: float) -> Callable[..., int]:
    """``factor`` m n^2 for the (m, n) matrices of the first argument, m >= n.

    Factors of direct methods: Golub and Van Loan, Matrix Computations, 4th ed. Of iterations on matrices: their usual
    number of steps times the products of a step.
    """

    def flops(arrays, outputs, constants) -> int:
        *batch, m, n = arrays[0].shape
        return int(prod(batch) * factor * max(m, n) * min(m, n) ** 2)

    return flops


def product(arrays, outputs, constants) -> int:
    """2 k for each element of the result of a product, where the last axis of the first argument has size k."""
    return 2 * prod(outputs[0].shape) * arrays[0].shape[-1]
