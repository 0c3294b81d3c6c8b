"""Small Jacobians, and the names that a textbook gives them."""

import math

import numpy

from tinygrad_ms.arrays.registry import host
from tinygrad_ms.engine.backward import unbroadcast
from tinygrad_ms.engine.tape import Node
from tinygrad_ms.graph.values import local_products, number

SIDE = 6  # the most rows and columns of a Jacobian that is written down


def small(shape) -> int:
    """The number of elements of an array of that shape. It is 0 if there are more than a Jacobian may have rows."""
    size = 0 if shape is None else math.prod(shape)
    return size if size <= SIDE else 0


def stacked(parts):
    """One gradient is returned as it is. Several become the rows of a matrix; one that did not arrive is a zero row."""
    first = next((part for part in parts if part is not None), None)
    if len(parts) == 1 or first is None or isinstance(first, dict):
        return first
    return numpy.stack([numpy.zeros(first.size) if part is None else host(part).ravel() for part in parts]) + 0.0


def local_jacobians(node):
    """((node, argument), matrix) for each argument with a gradient, if the argument and the result are small."""
    rows: dict[int, list] = {}
    wanted = small(node.shape) and any(isinstance(p, Node) and small(p.shape) for p in node.parents)
    for row in node.backend.xp.eye(small(node.shape), dtype=node.dtype) if wanted else ():
        for i, d in local_products(node, row.reshape(node.shape)):
            if isinstance(node.parents[i], Node) and small(node.parents[i].shape) and not isinstance(d, dict):
                rows.setdefault(i, []).append(host(unbroadcast(d, node.parents[i], node)).ravel())
    for i, found in rows.items():
        yield (node, i), numpy.stack(found) + 0.0  # no minus zeros


def name_of(matrix, known) -> str:
    """LaTeX for a matrix that is I, diag(x), x^T, W, W^T, or a multiple of I or of a vector of ones; else "".

    known: (symbol, array) for the arguments and the result of the op. Only their symbols are used.
    """
    rows, columns = matrix.shape
    for symbol, array in known:
        for kept, mark in ((array, ""), (array.T, "^T")):
            if array.ndim == 2 and kept.shape == matrix.shape and (kept == matrix).all():
                return symbol + mark
    if rows == columns and not matrix[~numpy.eye(rows, dtype=bool)].any():
        if (matrix.diagonal() == matrix[0, 0]).all():
            return factor(matrix[0, 0]) + "I"
        sign, inside = called(matrix.diagonal(), known) or ("", ", ".join(map(scientific, matrix.diagonal())))
        return rf"{sign}\operatorname{{diag}}({inside})"
    if min(rows, columns) == 1:
        turned = "^T" if rows == 1 else ""
        if found := called(matrix.ravel(), known):
            return "".join(found) + turned
        if (matrix == matrix[0, 0]).all():
            return rf"{factor(matrix[0, 0])}\vec 1{turned}"
    return ""


def called(vector, known) -> tuple[str, str] | None:
    """(sign, symbol) of the array that has the elements of ``vector``, or None."""
    for symbol, array in known:
        for sign, mark in ((1, ""), (-1, "-")):
            if array.size == vector.size and (sign * array.ravel() == vector).all():
                return mark, symbol
    return None


def factor(value) -> str:
    """The number before a matrix; "" for 1."""
    return "" if value == 1 else "-" if value == -1 else rf"{scientific(value)} \, "


def scientific(value) -> str:
    """A number, or the text of a number, in LaTeX."""
    mantissa, e, exponent = (value if isinstance(value, str) else number(value)).partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e and exponent else mantissa + e
