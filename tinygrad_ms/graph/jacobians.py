"""Small Jacobians: which are small, and what they are called in a text book."""

import math

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.backward import unbroadcast
from tinygrad_ms.engine.tape import Node
from tinygrad_ms.graph.values import local_products, number

SIDE = 6  # rows and columns of a Jacobian that is written down


def host(raw) -> numpy.ndarray:
    return BACKENDS[type(raw)].to_host(raw) if type(raw) in BACKENDS else numpy.asarray(raw)


def small(shape) -> int:
    """The number of elements of an array of that shape if it may be a side of a Jacobian, else 0."""
    size = 0 if shape is None else math.prod(shape)
    return size if size <= SIDE else 0


def stacked(parts):
    """One gradient as it is; several as the rows of a matrix, those that did not arrive as zeros."""
    first = next((part for part in parts if part is not None), None)
    if len(parts) == 1 or first is None or isinstance(first, dict):
        return first
    return numpy.stack([numpy.zeros(first.size) if part is None else host(part).ravel() for part in parts]) + 0.0


def local_jacobians(node):
    """((node, argument), matrix) for each argument of a small op that wants a gradient, if it is small, too."""
    rows: dict[int, list] = {}
    wanted = small(node.shape) and any(isinstance(p, Node) and small(p.shape) for p in node.parents)
    for row in node.backend.xp.eye(small(node.shape), dtype=node.dtype) if wanted else ():
        for i, d in local_products(node, row.reshape(node.shape)):
            if isinstance(node.parents[i], Node) and small(node.parents[i].shape) and not isinstance(d, dict):
                rows.setdefault(i, []).append(host(unbroadcast(d, node.parents[i], node)).ravel())
    for i, found in rows.items():
        yield (node, i), numpy.stack(found) + 0.0  # no minus zeros


def name_of(matrix, known) -> str:
    """LaTeX for a matrix that is I, diag(x), 1^T, x^T, W or W^T, or a multiple of ones; else nothing.

    known: (symbol, array) for what the op has read and made, whose names may be used.
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
    """(sign, symbol) of what has the elements of a vector."""
    for symbol, array in known:
        for sign, mark in ((1, ""), (-1, "-")):
            if array.size == vector.size and (sign * array.ravel() == vector).all():
                return mark, symbol
    return None


def factor(value) -> str:
    """The number before a matrix; nothing for 1."""
    return "" if value == 1 else "-" if value == -1 else rf"{scientific(value)} \, "


def scientific(value) -> str:
    """A number in LaTeX; text stays text."""
    mantissa, e, exponent = (value if isinstance(value, str) else number(value)).partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e and exponent else mantissa + e
