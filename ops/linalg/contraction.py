"""Two arrays multiplied and summed over letters they share, as einsum names them: one product of stacks of matrices."""

import math
from functools import lru_cache
from math import prod
from os.path import commonprefix

from tinygrad_ms.launches.products import times

__all__: list[str] = []


def contract(xp, a, b, left, right, output):
    """einsum of two raw arrays, as one product of stacks of matrices."""
    batch, added, summed, lead, rows, columns, turned, swapped = _pair_axes(left, right, output)
    if turned:
        a, b, left, right = b, a, right, left
    sizes = dict(zip(left, a.shape)) | dict(zip(right, b.shape))
    if not summed:  # an elementwise or outer product
        letters = batch + rows + columns
        y = _arrange(xp, a, left, letters) * _arrange(xp, b, right, letters)
    else:
        a = _as_matrices(xp, a, left, sizes, batch + added + lead, rows, summed)
        b = _as_matrices(xp, b, right, sizes, batch + added + lead, summed, columns)
        y = times(b.mT, a.mT) if swapped else times(a, b)
        if added:
            y = y.sum(axis=tuple(range(len(batch), len(batch + added))))
        letters = batch + lead + (columns + rows if swapped else rows + columns)
        y = y.reshape([sizes[c] for c in letters])
    return y if letters == output else xp.transpose(y, [letters.index(c) for c in output])


@lru_cache(maxsize=1024)
def _pair_axes(left, right, output):
    """Letters of both operands and of the result are the batch, those of both and not of the result are summed over,
    the others are rows (of a) and columns (of b). Also whether a and b change places, so that the result begins with
    rows, and whether it goes on with columns.

    Where memory has the letters in another order, matrices of all rows or of all summed letters would need a copy.
    ``lead``, the rows that the result begins with, are then a batch of a alone; ``added``, summed letters that both
    operands begin with, are a batch that is added up.
    """
    batch = "".join(c for c in left if c in right and c in output)
    rest = "".join(c for c in output if c not in batch)
    turned = rest[:1] in right and rest != ""
    left, right = (right, left) if turned else (left, right)
    summed = "".join(c for c in left if c in right and c not in output)
    rows, columns = ("".join(c for c in x if c not in y) for x, y in ((left, right), (right, left)))
    lead = added = ""
    if summed and rest != rows + columns:
        lead = commonprefix([rest, rows])
        lead = "" if lead == rows else lead
    if not (summed in left or summed in right):
        added = commonprefix([left, right, summed])
    rows, summed = rows[len(lead) :], summed[len(added) :]
    return batch, added, summed, lead, rows, columns, turned, rest[len(lead) :][:1] in columns and lead != ""


def _as_matrices(xp, x, names, sizes, batch, rows, columns):
    """x as a stack of matrices, with size one for letters of the batch that it has not. Where it must be copied, the
    letter whose elements are neighbours stays the last one: short runs, as in windows, would take ten times as long."""
    if len(rows) == len(columns) == 1 and names in (batch + rows + columns, batch + columns + rows):
        return x if names[-1] == columns else x.mT
    near = min(names, key=lambda c: (abs(x.strides[names.index(c)]) or math.inf, -sizes[c]))
    turned = near in rows
    first, last = (columns, rows) if turned else (rows, columns)
    x = xp.transpose(x, [names.index(c) for c in batch + first + last if c in names])
    stacked = [sizes[c] if c in names else 1 for c in batch]
    x = x.reshape([*stacked, *(prod(sizes[c] for c in group) for group in (first, last))])
    return x.mT if turned else x


def _arrange(xp, x, names, letters):
    """The axes of x in the order of ``letters``, with size one where it has none."""
    order = [c for c in letters if c in names]
    shape = iter([x.shape[names.index(c)] for c in order])
    x = xp.transpose(x, [names.index(c) for c in order])
    return x.reshape([next(shape) if c in names else 1 for c in letters])
