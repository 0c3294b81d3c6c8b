"""Data-parallel training on several processes or machines. It uses MPI; ``mpiexec`` or Slurm starts it.

    from tinygrad_ms import distributed as dist

    dist.init()
    model = dist.DataParallel(model)  # mpiexec -n 2 python train.py

``docs/distributed.md`` explains how it works, how much it costs, and its limits.
"""

from tinygrad_ms.distributed.checkpoints import save
from tinygrad_ms.distributed.collectives import all_gather, all_reduce, broadcast, reduce_scatter
from tinygrad_ms.distributed.data_parallel import DataParallel, shard
from tinygrad_ms.distributed.job import barrier, init, local_rank, rank, size
from tinygrad_ms.distributed.sharded_muon import ShardedMuon

__all__ = [
    "DataParallel", "ShardedMuon", "all_gather", "all_reduce", "barrier", "broadcast", "init", "local_rank", "rank",
    "reduce_scatter", "save", "shard", "size",
]  # fmt: skip
