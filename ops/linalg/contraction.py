"""einsum of two arrays. They are multiplied and summed over common letters, as one product of stacks of matrices."""

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
    """The role of each letter: (batch, added, summed, lead, rows, columns), and then ``turned`` and ``swapped``.

    A letter of both operands and of the result is in ``batch``. A letter of only the operands is summed over. The other
    letters are rows (of a) or columns (of b). ``turned``: a and b change places, so that the result begins with rows.
    ``swapped``: columns follow after ``lead``.
    If memory has the letters in another order, matrices with all rows or all summed letters would need a copy. Then
    ``lead``, the rows with which the result begins, is a batch of a alone. ``added`` is a batch that is summed
    afterwards: the summed letters with which both operands begin.
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
    """x as a stack of matrices. A letter of the batch that x does not have gets size one.

    If x must be copied, the letter whose elements are neighbours in memory stays the last one. With another letter last
    the copy would have short runs, as in windows, and would take ten times as long.
    """
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
    """x with its axes in the order of ``letters``. A letter that x does not have gets size one."""
    order = [c for c in letters if c in names]
    shape = iter([x.shape[names.index(c)] for c in order])
    x = xp.transpose(x, [names.index(c) for c in order])
    return x.reshape([next(shape) if c in names else 1 for c in letters])
