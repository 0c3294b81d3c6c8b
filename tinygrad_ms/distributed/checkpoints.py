"""Checkpoints of a job. One rank writes, and all ranks know whether it succeeded."""

from tinygrad_ms.serialization import save as write
from tinygrad_ms.world import world


def save(path, state) -> None:
    """Write nested ``state`` to ``path`` as ``tinygrad_ms.save`` does. Rank 0 writes; every rank calls this and waits.

    state: call ``state_dict()`` on every rank, because that of ``ShardedMuon`` gathers the parts of all ranks. Any
    number of ranks can load the file. If rank 0 cannot write, every rank raises its error: OSError, or another error of
    ``tinygrad_ms.save``.
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
