"""Samples of ops/linalg/products.py and einsum.py."""

import numpy as np

from tests.samples import Sample, normal


def by_loops(a, b):
    """Matrix products written out, for one pair of shapes (..., n, k), (..., k, m) after broadcasting."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = np.broadcast_to(a, batch + a.shape[-2:]), np.broadcast_to(b, batch + b.shape[-2:])
    return (a[..., :, :, None] * b[..., None, :, :]).sum(-2)


def matmul_reference(a, b):
    if a.ndim == 1:
        return (a * b).sum() if b.ndim == 1 else (a[:, None] * b).sum(-2)
    return (a * b).sum(-1) if b.ndim == 1 else by_loops(a, b)


def matmul_sample(left, right, note=""):
    return Sample((normal(*left, seed=1), normal(*right, seed=2)), reference=matmul_reference, note=note)


def einsum_sample(subscripts, *shapes, note=""):
    arrays = tuple(normal(*shape, seed=i) for i, shape in enumerate(shapes))
    return Sample(
        arrays, {"subscripts": subscripts}, reference=lambda *x, subscripts: np.einsum(subscripts, *x), note=note
    )


SAMPLES = {
    "matmul": [
        matmul_sample((2, 3), (3, 4)),
        matmul_sample((3,), (3,), "vectors: their scalar product"),
        matmul_sample((2, 3), (3,)),
        matmul_sample((3,), (3, 4)),
        matmul_sample((3,), (2, 3, 4)),
        matmul_sample((5, 2, 3), (3,)),
        matmul_sample((5, 2, 3), (5, 3, 4)),
        matmul_sample((5, 2, 3), (3, 4), "a batch against one matrix"),
        matmul_sample((2, 3), (5, 3, 4)),
        matmul_sample((2, 1, 2, 3), (3, 3, 2), "batches broadcast"),
        matmul_sample((0, 3), (3, 2), "no rows"),
        matmul_sample((2, 0), (0, 3), "an empty sum"),
        matmul_sample((0, 2, 3), (3, 4), "an empty batch"),
        Sample((normal(3, 2).T, normal(3, 4)[:, ::-1]), reference=matmul_reference, note="strided operands"),
    ],
    "outer": [
        Sample((normal(3), normal(4, seed=1)), reference=np.multiply.outer),
        Sample(
            (normal(2, 3), normal(2, seed=1)), reference=lambda a, b: np.multiply.outer(a.ravel(), b), note="flattened"
        ),
        Sample((normal(0), normal(2)), reference=np.multiply.outer, note="empty"),
        Sample((normal(), normal(2)), reference=lambda a, b: a * b.reshape(1, 2), note="0-d"),
    ],
    "einsum": [
        einsum_sample("ij,jk->ik", (2, 3), (3, 4)),
        einsum_sample("bij,bjk->bik", (2, 2, 3), (2, 3, 4)),
        einsum_sample("bqhd,bkhd->bhqk", (2, 3, 2, 2), (2, 4, 2, 2), note="attention scores"),
        einsum_sample("i,j->ij", (2,), (3,), note="outer product"),
        einsum_sample("ij,i->ji", (2, 3), (2,), note="elementwise, result transposed"),
        einsum_sample("ij,ij->", (2, 3), (2, 3), note="scalar result"),
        einsum_sample("ij,jk,kl->il", (2, 3), (3, 2), (2, 4), note="three operands"),
        einsum_sample("a,a,a->a", (3,), (3,), (3,)),
        einsum_sample("ij,jk->ik", (0, 3), (3, 2), note="empty"),
        einsum_sample(",i->i", (), (3,), note="0-d"),
    ],
}
