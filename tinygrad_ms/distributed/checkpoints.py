"""Checkpoints of a job: one rank writes, and all know whether it did."""

from tinygrad_ms.serialization import save as write
from tinygrad_ms.world import world


def save(path, state) -> None:
    """Write nested ``state`` to ``path``, by rank 0, as ``tinygrad_ms.save`` does; every rank calls this and waits.

    state: made by ``state_dict()`` on every rank: that of ``ShardedMuon`` gathers what the ranks hold. Any number of
    ranks can load it. Raises on every rank where rank 0 could not write: OSError, or what ``tinygrad_ms.save`` raises.
    """
    job, problem = world(), None
    if job.rank == 0:
        try:
            write(path, state)
        except Exception as error:
            problem = error
    if job.size > 1:
        job.agree("save", "save")
        problem = job.comm.bcast(problem, 0)
    if problem is not None:
        raise problem
