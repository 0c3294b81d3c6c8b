"""Muon with matrices distributed over the ranks. A rank keeps the momentum of its matrices and updates only these."""

from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.ops.live import live
from tinygrad_ms.optim.muon import Muon
from tinygrad_ms.world import OPS, world


class ShardedMuon(Muon):
    """``optim.Muon`` in a job of several ranks: the same steps, with 1/size of the orthogonalisation on each rank.

    Every rank has the same parameters and, after ``backward`` under ``DataParallel``, the same gradients. The matrices
    are given to the ranks by their cost, the most expensive first. A rank updates its matrices as ``Muon`` does. Then
    all ranks gather the new values, so that all have the same bits. Every rank updates all parameters under AdamW.
    An (n, m) matrix with n <= m costs steps (2 n^2 m + n^3) multiplications. A rank keeps the momentum of its matrices
    only. Every rank must call ``step`` and ``state_dict``. A saved state is that of ``Muon``, for any number of ranks.
    The options are those of ``Muon``.
    Source: Liu et al. 2025, arXiv:2502.16982, section 2.3 (ZeRO-1 with whole matrices).
    """

    @live("writes")
    def step(self) -> None:
        dealt = self.dealt()
        others = [p for rank, part in enumerate(dealt) if rank != world().rank for p in part]
        gradients = [p.grad for p in others]
        if self.nonfinite != "ignore" and not self.all_finite():  # of all matrices, so every rank decides the same
            self.skipped += 1
            return
        try:
            for p in others:
                p.grad = None
            super().step()
        finally:
            for p, g in zip(others, gradients):
                p.grad = g
        share("ShardedMuon.step", [[p.data for p in part if p.grad is not None] for part in dealt])
        for p in others:
            p.touch()

    def dealt(self) -> list[list]:
        """The matrices of each rank. The most expensive matrix of a group goes first, to the rank with the least work.

        A group that is added later does not change the ranks of the groups before it.
        """
        ranks: list[list] = [[] for _ in range(world().size)]
        work = [0] * len(ranks)
        for group in self.param_groups:
            for p in sorted(group["params"], key=cost, reverse=True) if group["muon"] else ():
                rank = work.index(min(work))
                ranks[rank].append(p)
                work[rank] += cost(p)
        return ranks

    def state_dict(self):
        """As in ``Muon``, with the momentum of all matrices. The ranks gather it."""
        state, job = super().state_dict(), world()
        if job.size == 1:
            return state
        job.agree("ShardedMuon.state_dict", "the state of an optimizer")
        numbered = dict(enumerate(p for group in self.param_groups for p in group["params"]))
        owner = {id(p): rank for rank, part in enumerate(self.dealt()) for p in part}
        for rank, held in enumerate(job.comm.allgather({i: entry["step"] for i, entry in state["state"].items()})):
            for i, step in held.items():
                if owner.get(id(numbered[i]), job.rank) == rank != job.rank:
                    like = self.new_buffer(numbered[i].data)
                    state["state"][i] = {"step": step, "momentum_buffer": numpy.empty(like.shape, like.dtype)}
        entries = state["state"] = dict(sorted(state["state"].items()))
        parts = [[i for i in entries if owner.get(id(numbered[i])) == rank] for rank in range(job.size)]
        share("ShardedMuon.state_dict", [[entries[i]["momentum_buffer"] for i in part] for part in parts])
        return state

    def load_state_dict(self, state) -> None:
        """As in ``Muon``. Each rank keeps only the state of its own matrices."""
        super().load_state_dict(state)
        for rank, part in enumerate(self.dealt()):
            for p in part if rank != world().rank else ():
                self.state.pop(p, None)


def cost(p) -> int:
    """The cost of orthogonalising a parameter, in multiplications for each step of the iteration."""
    n, m = sorted(p.shape[-2:])
    return prod(p.shape[:-2]) * (2 * n * n * m + n**3)


def share(what: str, parts: list[list]) -> None:
    """Give every rank the values of all arrays, in place. parts: for each rank, the arrays that it has computed."""
    job, arrays = world(), [array for part in parts for array in part]
    if job.size == 1 or not arrays:
        return
    sizes = [sum(array.nbytes for array in part) for part in parts]
    job.agree(what, f"arrays of {sizes} bytes")
    backend = BACKENDS[type(arrays[0])]
    xp = backend.xp if job.near(backend) else numpy
    whole = xp.empty(sum(sizes), "uint8")
    mine = [job.for_mpi(array).reshape(-1).view("uint8") for array in parts[job.rank]]
    source = xp.concatenate(mine) if mine else whole[:0]
    job.wait(job.begin(what, OPS, lambda c: c.Iallgatherv(source, [whole, sizes])))
    start = 0
    for rank, part in enumerate(parts):
        for array in part:
            piece = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
            start += array.nbytes
            if rank != job.rank:
                array[...] = piece if job.near(backend) else backend.from_host(piece, backend.index_of(array))
