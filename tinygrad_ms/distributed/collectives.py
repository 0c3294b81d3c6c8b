"""Collectives on nested dicts, lists and tuples: the ops of ``ops/collectives``, leaf by leaf."""

from tinygrad_ms.ops import collectives as ops
from tinygrad_ms.tree import tree_map


def all_reduce(x, op: str = "sum"):
    r"""The sum, or with op="mean" the mean, over the ranks, on every rank: $y_r = \sum_s x_s$.

    x: an array, a Tensor, a number, or nested dicts, lists and tuples of these, with the same structure on all ranks.
    The gradient is the same sum or mean, of the gradients. Half precision is summed in float32. All ranks get the same
    bits. Raises RuntimeError on all ranks if they do not make the same call, TimeoutError if a rank does not come.
    """
    return tree_map(lambda leaf: ops.all_reduce(leaf, op=op), x)


def broadcast(x, root: int = 0):
    """The value of rank ``root``, on every rank. x: as in ``all_reduce``. ``root`` gets the sum of the gradients."""
    return tree_map(lambda leaf: ops.broadcast(leaf, root=root), x)


def all_gather(x):
    """The arrays of all ranks, joined along axis 0, on every rank. The gradient is a ``reduce_scatter``."""
    return tree_map(ops.all_gather, x)


def reduce_scatter(x):
    """The sum over the ranks. Each rank gets an equal part along axis 0. The gradient is an ``all_gather``."""
    return tree_map(ops.reduce_scatter, x)
