"""Collectives on nested dicts, lists and tuples: the ops of ``ops/collectives``, leaf by leaf."""

from tinygrad_ms.ops import collectives as ops
from tinygrad_ms.tree import tree_map


def all_reduce(x, op: str = "sum"):
    r"""The sum, or with op="mean" the mean, over the ranks, on every rank: $y_r = \sum_s x_s$.

    x: an array, a Tensor, a number, or nested dicts, lists and tuples of these, alike on all ranks. Gradient: the same
    sum of the gradients. Half precision is added up in float32. Ranks get the same bits.
    Raises RuntimeError on all ranks where they do not make the same call, TimeoutError where one does not come.
    """
    return tree_map(lambda leaf: ops.all_reduce(leaf, op=op), x)


def broadcast(x, root: int = 0):
    """What rank ``root`` has, on every rank. x: as for ``all_reduce``. Gradient: the sum, to rank ``root`` alone."""
    return tree_map(lambda leaf: ops.broadcast(leaf, root=root), x)


def all_gather(x):
    """The arrays of all ranks, one behind the other along axis 0, on every rank. Gradient: ``reduce_scatter``."""
    return tree_map(ops.all_gather, x)


def reduce_scatter(x):
    """The sum over the ranks; each gets its part of axis 0, which all divide evenly. Gradient: ``all_gather``."""
    return tree_map(ops.reduce_scatter, x)
