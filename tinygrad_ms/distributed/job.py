"""The job: functions to join it, and the number of this process in it."""

import os
import socket
import sys

from tinygrad_ms.arrays.devices import default_device, parse_device, set_default_device
from tinygrad_ms.options import is_real
from tinygrad_ms.world import start, world


def init(timeout: float = 600.0, direct: bool | None = None) -> None:
    """Join the job that ``mpiexec`` or ``srun`` started. A program that was started alone is a job of one rank.

    timeout: seconds that a collective waits for the other ranks before it raises TimeoutError.
    direct: whether MPI itself reads and writes GPU memory (a CUDA-aware build). If not, arrays of a GPU go through host
    memory. The default comes from the environment (MPICH_GPU_SUPPORT_ENABLED=1 and similar variables).
    From now on an error that nobody catches ends all ranks, with a sentence that names this rank. Rank 0 prints the
    machine and the process of each rank. If CuPy is the default, each rank takes a GPU of its machine.
    Raises ImportError with the install line if a launcher started several processes and mpi4py is missing.
    """
    if not is_real(timeout) or not timeout > 0:
        raise ValueError(f"distributed.init: timeout is {timeout!r}, expected seconds above 0")
    job = start(timeout, direct)
    if job.size == 1:
        return
    device, _, number = default_device().partition(":")
    if device == "cuda" and not number and "TINYGRAD_MS_DEVICE" not in os.environ:
        backend, _ = parse_device(device)
        card = job.local_rank % backend.xp.cuda.runtime.getDeviceCount()
        set_default_device(f"cuda:{card}")
        backend.xp.cuda.Device(card).use()  # of this thread: nothing has to be switched from op to op
    places = job.comm.gather((socket.gethostname(), os.getpid(), default_device()), 0)
    if job.rank == 0:
        hosts = dict.fromkeys(host for host, _, _ in places)
        for host in hosts:
            ranks = ", ".join(f"{r} (process {pid})" for r, (where, pid, _) in enumerate(places) if where == host)
            print(f"distributed: on {host} ranks {ranks}", file=sys.stderr, flush=True)
        if device != "cpu" and not job.direct:
            print(f"distributed: arrays on {device} go through host memory (see init)", file=sys.stderr, flush=True)


def rank() -> int:
    """The number of this process, from 0."""
    return world().rank


def size() -> int:
    """The number of processes."""
    return world().size


def local_rank() -> int:
    """The number of this process among the processes of its machine."""
    return world().local_rank


def barrier() -> None:
    """Wait until every rank has called this."""
    if world().size > 1:
        world().agree("barrier", "barrier")
