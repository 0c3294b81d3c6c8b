"""A smooth function and its slope in float32 from a table, which is cut into cells of equal length.

On a CPU, NumPy computes an exponential in float64 in the time of four products in float32. A look-up and a polynomial
take less time than a function that needs several of them, and are more accurate.
"""

from functools import cache

import numpy

__all__: list[str] = []

CELLS = 512  # in the length 1


def finder(low, cells=CELLS):
    """find(xp, x, size, t, work) for tables of ``size`` numbers that start at ``low``: a look-up for x in float32.

    look_up(table, out) gives the numbers of a table for x. t becomes the middles of the cells. ``work``: like x. Raises
    FloatingPointError if an x is NaN or has no cell.
    """
    to_cells = numpy.array(1.5 * 2**23 / cells, "float32")  # x + this - this is the middle of the cell of x
    first = numpy.array(to_cells + low, "float32").view("i4")

    def find(xp, x, size, t, work):
        xp.add(x, to_cells, out=t)
        places = xp.subtract(t.view("i4"), first, out=work.view("i4"))
        if numpy.maximum.reduce(places.view("u4"), axis=None) >= size:
            raise FloatingPointError
        places = places.astype("intp")  # once, because each look-up of NumPy needs them so
        t -= to_cells
        if type(places) is numpy.ndarray:  # the method takes a quarter of the time to start
            return lambda table, out: table.take(places, None, out, "wrap")
        return lambda table, out: xp.take(table, places, mode="wrap", out=out)

    return find


def tabulated(kernel, low, high, *constants):
    """The quick kernel in float32 for ``kernel``, which has the same pair. Each cell has a cubic polynomial.

    ``in_blocks`` runs it with ``results=2, spare=2, under="ignore"``.

    low, high: integers or halves. The table is for x between them; other blocks are left for ``kernel``. A part of it
    that is not used takes no time. The slope is interpolated by a parabola, so its third derivative d makes an error of
    about d / (24 * 1024^3), which ``low`` must keep below an ulp.
    """
    find = finder(low)

    @cache
    def tables():
        h = numpy.arange(low * CELLS, high * CELLS + 1) / CELLS
        d = 3**0.5 / 4 / CELLS  # Chebyshev points of the cell: h - d, h, h + d
        (y, slope), (_, left), (_, right) = (kernel(numpy, a, *constants) for a in (h, h - d, h + d))
        rows = y, slope, (right - left) / (4 * d), (left - 2 * slope + right) / (6 * d * d)
        return [row.astype("float32") for row in rows]

    def quick(xp, x, out, *_):
        y, slope, t, p = out
        c0, c1, c2, c3 = tables()
        look_up = find(xp, x, len(c0), t, p)
        xp.subtract(x, t, out=t)
        slope = look_up(c3, slope)
        slope *= t
        p = look_up(c2, p)
        p += slope
        slope += p
        slope += p
        slope *= t
        p *= t
        y = look_up(c1, y)
        slope += y
        p += y
        p *= t
        y = look_up(c0, y)
        y += p
        return y, slope

    return quick
