"""Kernels that lay out arrays anew."""

from tinygrad_ms.ops.fused.kernels import NUMBER, ROWS, rows

__all__: list[str] = []


@rows(ROWS, ROWS, NUMBER, dtypes="fd")
def transposed(x, y, width):
    """Each row of x is a matrix with ``width`` columns; y gets it transposed."""
    n = int(width)
    m = x.shape[1] // n
    for i in range(x.shape[0]):
        for j in range(n):
            for k in range(m):
                y[i, j * m + k] = x[i, k * n + j]
