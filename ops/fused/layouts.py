"""Kernels that lay out arrays anew."""

from tinygrad_ms.ops.fused.row_kernels import NUMBER, ROWS, rows

__all__: list[str] = []


@rows(ROWS, ROWS, NUMBER, NUMBER, NUMBER, NUMBER, dtypes="fd")
def overlap_add(g, y, high, wide, columns, width):
    """A row of g has a matrix for each place in a window. Each is added to the matrix y, shifted by its place."""
    kh, kw, q, w = int(high), int(wide), int(columns), int(width)
    p = g.shape[1] // (kh * kw * q)
    for r in range(g.shape[0]):
        y[r, :] = 0.0
        for i in range(kh):
            for j in range(kw):
                for a in range(p):
                    start, to = ((i * kw + j) * p + a) * q, (a + i) * w + j
                    part, sums = g[r, start : start + q], y[r, to : to + q]
                    for b in range(q):
                        sums[b] += part[b]
