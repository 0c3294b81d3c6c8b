"""Collectives: ops that read the arrays of all ranks of a job. ``tinygrad_ms.distributed`` has them for nested dicts.

Derivatives are those of the sum of all ranks' results. The transpose of a collective is a collective, too, and every
rank must run it. In a job of one rank each collective returns a copy.
"""

import numpy

from tinygrad_ms.engine.primitive import linear
from tinygrad_ms.world import world

__all__: list[str] = []


@linear(
    transpose=lambda g, op: all_reduce(g, op=op),
    formula=r"\bar x_r = \sum_s \bar y_s, \quad y_r = \sum_s x_s",
    source="transpose of a matrix of identities; a mean is that sum divided by the number of ranks",
)
def all_reduce(xp, x, *, op="sum"):
    """The sum, or with op="mean" the mean, of the arrays of all ranks, on every rank.

    x: of one shape and dtype on all ranks. Half precision is added up in float32.
    Raises ValueError for another ``op``, RuntimeError where the ranks do not agree, TimeoutError.
    """
    if op not in ("sum", "mean"):
        raise ValueError(f"all_reduce: op is {op!r}, expected 'sum' or 'mean'")
    if op == "mean" and x.dtype.kind != "f":
        raise TypeError(f"all_reduce: x is {x.dtype}, but a mean needs floats; use op='sum', or x.astype('float32')")
    y = summed("all_reduce", x, x.shape, lambda c, a, b: c.Iallreduce(a, b))
    return y / y.dtype.type(world().size) if op == "mean" else y


@linear(
    transpose=lambda g, root: reduce_to(g, root=root),
    formula=r"\bar x_q = \sum_s \bar y_s, \quad \bar x_r = 0 \; (r \neq q), \quad y_r = x_q",
    source="transpose of a column of identities",
)
def broadcast(xp, x, *, root=0):
    """The array of rank ``root``, on every rank. x: of one shape and dtype on all ranks."""
    job = world()
    check_root("broadcast", root, job)
    y = x.copy()
    return y if job.size == 1 else moved("broadcast", y, x.shape, lambda c, a, b: c.Ibcast(copied(a, b), root), root)


@linear(
    transpose=lambda g, root: broadcast(g, root=root),
    formula=r"\bar x_r = \bar y_q, \quad y_q = \sum_s x_s, \quad y_r = 0 \; (r \neq q)",
    source="transpose of broadcast",
)
def reduce_to(xp, x, *, root=0):
    """The sum of the arrays of all ranks on rank ``root``, zeros on the others."""
    job = world()
    check_root("reduce_to", root, job)
    y = all_reduce.primitive.forward(xp, x)
    return y if job.rank == root else xp.zeros_like(y)


@linear(
    transpose=lambda g: reduce_scatter(g),
    formula=r"\bar x_r = \sum_s \bar y_s[r], \quad y_r = (x_0, x_1, \ldots)",
    source="transpose of reduce_scatter",
)
def all_gather(xp, x):
    """The arrays of all ranks, one behind the other along axis 0, on every rank. x: of one shape on all ranks."""
    job = world()
    if not x.ndim:
        raise ValueError("all_gather: x is a number; it needs an axis to be joined along: x.reshape(1)")
    shape = (x.shape[0] * job.size, *x.shape[1:])
    return x.copy() if job.size == 1 else moved("all_gather", x, shape, lambda c, a, b: c.Iallgather(a, b))


@linear(
    transpose=lambda g: all_gather(g),
    formula=r"\bar x_r = (\bar y_0, \bar y_1, \ldots), \quad y_r = \sum_s x_s[r]",
    source="transpose of all_gather",
)
def reduce_scatter(xp, x):
    """The sum of the arrays of all ranks; rank r gets its r-th part of axis 0, which all ranks divide evenly."""
    job = world()
    if not x.ndim or x.shape[0] % job.size:
        raise ValueError(f"reduce_scatter: x has shape {x.shape}; {job.size} ranks do not divide its first axis")
    shape = (x.shape[0] // job.size, *x.shape[1:])
    return summed("reduce_scatter", x, shape, lambda c, a, b: c.Ireduce_scatter_block(a, b))


def summed(what, x, shape, post):
    """A collective that adds up, half precision in float32."""
    if x.dtype.kind not in "fiu":
        raise TypeError(f"{what}: x is {x.dtype}, which has no sum; use x.astype('int64')")
    if world().size == 1:
        return x.copy()
    half = x.dtype.kind == "f" and x.dtype.itemsize < 4
    return world().run(what, x.astype("float32") if half else x, shape, post).astype(x.dtype, copy=False)


def moved(what, x, shape, post, fact=""):
    """A collective that only moves data: bytes, whatever the dtype."""

    def as_bytes(c, a, b):
        return post(c, a.reshape(-1).view(numpy.uint8), b.reshape(-1).view(numpy.uint8))

    return world().run(what, x, shape, as_bytes, f" {fact}")


def copied(a, b):
    b[...] = a
    return b


def check_root(what, root, job):
    if not 0 <= root < job.size:
        raise ValueError(f"{what}: root is {root}, expected a rank from 0 to {job.size - 1}")
