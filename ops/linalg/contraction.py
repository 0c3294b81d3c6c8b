"""einsum of two arrays. They are multiplied and summed over common letters, as one product of stacks of matrices.

On a CPU the windows of a convolution are copied with the batch as the neighbours in memory, because the runs of a
single image are short. Results keep that order of memory, and what follows works in long runs, too.
"""

import math
from functools import lru_cache
from math import prod
from os.path import commonprefix

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches.products import times
from tinygrad_ms.ops.fused import LEAST

__all__: list[str] = []

SHORT, MANY = 64, 2048  # elements: a run that copies slowly, and columns that OpenBLAS multiplies without loss


def contract(xp, a, b, left, right, output):
    """einsum of two raw arrays, as one product of stacks of matrices."""
    order: tuple = ()
    if max(a.size, b.size) >= LEAST and BACKENDS[type(a)].name == "cpu" and any(_pair_axes(left, right, output)[1:4:2]):
        a, b = (batch_last(xp, x) if x.size >= LEAST else x for x in (a, b))
        order = in_memory(a, left) if a.size >= b.size else in_memory(b, right)
    batch, added, summed, lead, rows, columns, turned, swapped = _pair_axes(left, right, output, order)
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


def batch_last(xp, x):
    """The windows x of short runs, in a copy of what they show that has the outermost axis as neighbours; others as x.

    The copy has no element twice, so it is small beside the windows.
    """
    far = max(range(x.ndim), key=x.strides.__getitem__)
    n, item, near = x.shape[far], x.itemsize, min(x.strides)
    others = [(size - 1) * step for k, (size, step) in enumerate(zip(x.shape, x.strides)) if k != far]
    reach = 1 + sum(others) // item
    run = max(size for size, step in zip(x.shape, x.strides) if step == near)
    if near != item or run >= SHORT or n < SHORT // 4 or not reach * item <= x.strides[far] or x.size < 2 * n * reach:
        return x
    strided = xp.lib.stride_tricks.as_strided
    copy = xp.ascontiguousarray(strided(x, (n, reach), (x.strides[far], item)).T)
    return strided(copy, x.shape, [item if k == far else n * step for k, step in enumerate(x.strides)])


def in_memory(x, names):
    """(letter, size) of each axis of x as its memory has them, outermost first. Empty for the order of C."""
    if x.flags.c_contiguous:
        return ()
    return tuple(sorted(zip(names, x.shape), key=lambda pair: -abs(x.strides[names.index(pair[0])])))


@lru_cache(maxsize=1024)
def _pair_axes(left, right, output, order=()):
    """The role of each letter: (batch, added, summed, lead, rows, columns), and then ``turned`` and ``swapped``.

    A letter of both operands and of the result is in ``batch``. A letter of only the operands is summed over. The other
    letters are rows (of a) or columns (of b). ``turned``: a and b change places, so that the result begins with rows.
    ``swapped``: columns follow after ``lead``.
    If memory has the letters in another order, matrices with all rows or all summed letters would need a copy. Then
    ``lead``, the rows with which the result begins, is a batch of a alone. ``added`` is a batch that is summed
    afterwards: the summed letters with which both operands begin.
    order: what ``in_memory`` says of the larger operand. ``lead`` and ``added`` are letters that are outermost there.
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
    sizes, place = dict(order), [c for c, _ in order].index
    if order and (lead or added)[:1] != order[0][0] and sizes.keys() >= {*(rows if lead else summed)}:
        rows, summed = ("".join(sorted(x, key=place)) if sizes.keys() >= {*x} else x for x in (rows, summed))
        lead, added = (_outer(rows, sizes), "") if lead else ("", _outer(summed, sizes))
        swapped = True
    else:
        swapped = rest[len(lead) :][:1] in columns and lead != ""
    rows, summed = rows[len(lead) :], summed[len(added) :]
    return batch, added, summed, lead, rows, columns, turned, swapped


def _outer(letters, sizes):
    """The first letters, as many as leave no more than MANY elements for the others, but not too few."""
    count, taken = prod(sizes[c] for c in letters), ""
    for c in letters:
        if count <= MANY or count // sizes[c] < MANY // 8:
            break
        taken, count = taken + c, count // sizes[c]
    return taken


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
