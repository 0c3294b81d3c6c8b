"""A smooth function and its slope in float32 from a table, which is cut into cells of equal length.

On a CPU, NumPy computes an exponential in float64 in the time of four products in float32. A look-up and a polynomial
take less time than a function that needs several of them, and are more accurate.
"""

from functools import cache

import numpy

__all__: list[str] = []

CELLS = 512  # in the length 1


def finder(low, cells=CELLS):
    """find(xp, x, rows, t, work) for a table that starts at ``low``: its rows for the numbers x in float32.

    t becomes the middles of their cells. ``work``: like x. Raises FloatingPointError if an x is NaN or has no row.
    """
    to_cells = numpy.float32(1.5 * 2**23 / cells)  # x + this - this is the middle of the cell of x
    first = (to_cells + numpy.float32(low)).view("i4")

    def find(xp, x, rows, t, work):
        xp.add(x, to_cells, out=t)
        places = xp.subtract(t.view("i4"), first, out=work.view("i4"))
        if numpy.maximum.reduce(places.view("u4")) >= len(rows):
            raise FloatingPointError
        t -= to_cells
        return xp.take(rows, places, axis=0, mode="wrap")

    return find


def tabulated(kernel, low, high, *constants):
    """The quick kernel (``in_blocks``, with ``results=2, spare=2``) in float32 for ``kernel``, which has the same pair.

    Each cell has a cubic polynomial.

    low, high: integers or halves. The table is for x between them; other blocks are left for ``kernel``. A part of it
    that is not used takes no time. The slope is interpolated by a parabola, so its third derivative d makes an error of
    about d / (24 * 1024^3), which ``low`` must keep below an ulp.
    """
    find = finder(low)

    @cache
    def table():
        h = numpy.arange(low * CELLS, high * CELLS + 1) / CELLS
        d = 3**0.5 / 4 / CELLS  # Chebyshev points of the cell: h - d, h, h + d
        (y, slope), (_, left), (_, right) = (kernel(numpy, a, *constants) for a in (h, h - d, h + d))
        rows = y, slope, (right - left) / (4 * d), (left - 2 * slope + right) / (6 * d * d)
        return numpy.stack(rows, 1).astype("float32")

    def quick(xp, x, out, *_):
        x, y, slope, t, p = (a.reshape(-1, order="A") for a in (x, *out))
        c0, c1, c2, c3 = find(xp, x, table(), t, p).T
        c1, c2 = c1.copy(), c2.copy()  # what is read twice
        xp.subtract(x, t, out=t)
        with numpy.errstate(under="ignore"):
            c3 = xp.multiply(c3, t)
            xp.add(c3, c2, out=p)
            c3 += p
            c3 += p
            c3 *= t
            xp.add(c3, c1, out=slope)
            p *= t
            p += c1
            p *= t
            xp.add(p, c0, out=y)
        return out[:2]

    return quick
