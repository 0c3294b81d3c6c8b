"""The ranks of one job: which of them this process is, and how raw arrays get from one to the others.

The engine is MPI, through ``mpi4py``, imported by ``start`` alone. ``distributed`` has what users call.
"""

import atexit
import os
import sys
import time
import zlib
from math import prod

import numpy

from tinygrad_ms.arrays.registry import BACKENDS

LAUNCHERS = (
    "PMI_SIZE",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_SIZE",
    "SLURM_STEP_NUM_TASKS",
)  # what mpiexec, srun set
DIRECT = ("MPICH_GPU_SUPPORT_ENABLED", "MPIR_CVAR_ENABLE_GPU", "OMPI_MCA_opal_cuda_support", "MV2_USE_CUDA")
INSTALL = (
    "the ranks of a job talk by MPI, and mpi4py, or its library, is not installed: `pip install tinygrad-ms[mpi]`,"
    " from a checkout `pip install -e .[mpi]`"
)
OPS = 0  # the line of collectives that ops use; each DataParallel opens another. One order on all ranks in each
WAITS, LEAVES = 0, 1  # what a rank tells the others: that it has waited long, that it ends


class World:
    """All ranks of a job. Without a communicator: this process alone.

    timeout: seconds after which a collective that another rank does not join raises TimeoutError.
    direct: whether MPI reads the memory of a device; else arrays go through host memory.
    """

    def __init__(self, comm=None, timeout: float = 600.0, direct: bool = False):
        self.timeout, self.direct, self.comm = timeout, direct, comm
        self.rank, self.size, self.local_rank = 0, 1, 0
        self.idle = False  # whether the last batch of a DataLoader was a stand-in: fewer rows than ranks
        self.broken = ""  # why no collective can follow
        self.lines: list = []  # communicators
        self.started: list[int] = []  # how many collectives of each line this rank has begun
        self.heard: dict[int, tuple] = {}  # by rank: the last (WAITS or LEAVES, collectives begun of each line)
        if comm is not None:
            from mpi4py import MPI

            self.mpi, self.rank, self.size = MPI, comm.Get_rank(), comm.Get_size()
            self.local_rank = comm.Split_type(MPI.COMM_TYPE_SHARED).Get_rank()
            self.words = comm.Dup()
            self.sent: list = []
            self.open_line()

    def who(self) -> str:
        return f"rank {self.rank} of {self.size}"

    def open_line(self) -> int:
        """The number of a new line of collectives. Every rank opens it."""
        self.lines.append(self.comm.Dup())
        self.started.append(0)
        return len(self.lines) - 1

    def part(self, rows: int) -> slice:
        """Which of the rows of a batch are this rank's; one without weight where there are too few for all ranks."""
        start, end = (rows * rank // self.size for rank in (self.rank, self.rank + 1))
        self.idle = start == end
        return slice(0, 1) if self.idle else slice(start, end)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def begin(self, what: str, line: int, post):
        """Start a collective: ``post(communicator)`` gives its request. Returns what ``wait`` wants."""
        if self.broken:
            raise RuntimeError(f"{what}: {self.who()} cannot go on: {self.broken}")
        self.started[line] += 1
        return what, line, self.started[line], post(self.lines[line])

    def wait(self, started) -> None:
        """Until a collective is done. Raises TimeoutError, or RuntimeError that names a rank that has ended."""
        what, line, number, request = started
        start, told = time.monotonic(), False
        try:
            while not request.Test():
                waited = time.monotonic() - start
                if waited > 0.05:
                    self.listen()
                    for rank, (word, *_) in self.heard.items():
                        if word == LEAVES and self.begun(rank, line) < number:
                            raise RuntimeError(f"{what}: rank {rank} has ended, and {self.who()} waits for it")
                    if waited > self.timeout / 2 and not told:
                        told = True
                        self.tell(WAITS)
                    if waited > self.timeout:
                        raise TimeoutError(
                            f"{what}: {self.who()} has waited {waited:.0f} s; {self.missing(line, number)}"
                        )
                    time.sleep(0.001)
                else:
                    give_way()
        except BaseException as error:
            self.broken = str(error) or "it was interrupted in a collective"
            raise

    def missing(self, line: int, number: int) -> str:
        """Who has not come, as far as the others have said that they wait, too."""
        late = [r for r in range(self.size) if r != self.rank and self.begun(r, line) < number]
        names = ", ".join(map(str, late[:8])) or "another"
        return f"rank {names} did not come: it hangs, works longer than timeout=, or is in another collective"

    def begun(self, rank, line) -> int:
        """How many collectives of a line another rank has begun, as far as it has said so."""
        counts = self.heard.get(rank, ())[1:]
        return counts[line] if line < len(counts) else 0

    def tell(self, word: int) -> None:
        """Let every other rank know where this one is."""
        record = numpy.array([word, *self.started], numpy.int64)
        self.sent += [self.words.Isend(record, rank) for rank in range(self.size) if rank != self.rank]
        self.sent.append(record)  # which must live as long

    def listen(self) -> None:
        status = self.mpi.Status()
        while self.words.Iprobe(self.mpi.ANY_SOURCE, 0, status):
            record = numpy.empty(status.Get_count(self.mpi.INT64_T), numpy.int64)
            self.words.Recv(record, status.Get_source())
            self.heard[status.Get_source()] = tuple(record.tolist())

    # --- the ends ---------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """At exit: say so, and wait for the others without using the processor; who waits for this one then ends."""
        if self.mpi.Is_finalized():
            return
        try:
            self.tell(LEAVES)
            start = time.monotonic()
            while sum(word[0] == LEAVES for word in self.heard.values()) < self.size - 1:
                self.listen()
                if self.broken and time.monotonic() - start > 5:
                    break
                time.sleep(0.005)
        except BaseException as error:  # Ctrl-C
            self.broken = str(error) or type(error).__name__
        if self.broken:  # MPI cannot be closed with a collective that is half done
            self.comm.Abort(1)

    def fail(self, kind, error) -> None:
        """An error that nobody caught ends the whole job: the others would wait for this rank."""
        sys.stdout.flush()
        print(f"distributed: {self.who()} raised {kind.__name__}: {error}; the job ends", file=sys.stderr, flush=True)
        time.sleep(0.5)  # until the launcher has read that: it may drop what it has not
        self.comm.Abort(130 if kind is KeyboardInterrupt else 1)

    # --- what collectives do to raw arrays --------------------------------------------------------------------------

    def agree(self, what: str, fact: str) -> None:
        """Raise RuntimeError on every rank unless all call this with the same ``fact``. It is a barrier, too."""
        mine = zlib.crc32(f"{self.started[OPS]} {fact}".encode())
        both = numpy.array([mine, -mine], numpy.int64)
        self.wait(self.begin(what, OPS, lambda c: c.Iallreduce(self.mpi.IN_PLACE, both, self.mpi.MAX)))
        if both[0] != -both[1]:
            facts = self.lines[OPS].allgather(fact)
            other = next((rank for rank, text in enumerate(facts) if text != facts[0]), 0)
            self.broken = "the ranks do not agree"
            raise RuntimeError(
                f"{what}: the ranks do not agree: rank 0 has {facts[0]}, rank {other} has {facts[other]}; every rank"
                " must make the same calls in the same order"
            )

    def run(self, what: str, x, shape, post, fact=""):
        """One collective of the raw array ``x``: ``post(communicator, x, y)`` into a new array of ``shape``."""
        backend, source = BACKENDS[type(x)], self.for_mpi(x)
        if backend.name == "cpu" and type(source) is not numpy.ndarray:  # before another rank waits
            raise TypeError(f"{what}: x is {type(x).__name__}, whose memory MPI cannot read")
        self.agree(what, f"{what} of {x.dtype} {x.shape}{fact}")
        y = backend.xp.empty(shape, x.dtype) if self.near(backend) else self.make_host(backend, shape, x.dtype)
        self.wait(self.begin(what, OPS, lambda c: post(c, source, y)))
        return y if self.near(backend) else backend.from_host(y, backend.index_of(x))

    def near(self, backend) -> bool:
        """Whether MPI reads the arrays of this library as they are."""
        return backend.name == "cpu" or self.direct

    def make_host(self, backend, shape, dtype):
        """A new host array; of CuPy's in pinned memory, which is copied at the full speed of the bus."""
        if not hasattr(backend.xp, "cuda"):
            return numpy.empty(shape, dtype)
        count = prod(shape)
        memory = backend.xp.cuda.alloc_pinned_memory(max(count, 1) * numpy.dtype(dtype).itemsize)
        return numpy.frombuffer(memory, dtype, count).reshape(shape)

    def for_mpi(self, x):
        """The raw array ``x``, contiguous, where MPI can read it."""
        backend = BACKENDS[type(x)]
        if not self.near(backend):
            host = self.make_host(backend, x.shape, x.dtype)
            if hasattr(backend.xp, "cuda"):
                backend.xp.ascontiguousarray(x).get(out=host)
            else:
                host[...] = backend.to_host(x)
            return host
        if backend.name != "cpu":
            backend.xp.cuda.get_current_stream().synchronize()  # MPI knows nothing of streams
        return backend.xp.ascontiguousarray(x)


give_way = getattr(os, "sched_yield", lambda: time.sleep(0))  # to another rank, where there are more than cores
_world = [World()]


def joined() -> World:
    """The ranks, once ``start`` was called; before that this process alone."""
    return _world[0]


def world() -> World:
    """The same. RuntimeError before ``start`` if a launcher started more processes."""
    if _world[0].comm is None and not _started and launched() > 1:
        raise RuntimeError(
            f"distributed: this is one of {launched()} processes that mpiexec or srun started; call"
            " tinygrad_ms.distributed.init() first"
        )
    return _world[0]


_started: list = []


def launched() -> int:
    """How many processes the launcher says that it started; 1 where there is none."""
    return max([int(os.environ[name]) for name in LAUNCHERS if os.environ.get(name, "").isdigit()], default=1)


def start(timeout: float, direct: bool | None) -> World:
    """Join the job that a launcher started. Once: what is asked for later only sets the timeout."""
    if _started:
        _world[0].timeout = timeout
        return _world[0]
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter where it finds no library of MPI
        if launched() > 1:
            raise ImportError(f"distributed: {INSTALL} ({error})") from error
        _started.append(True)
        return _world[0]
    _started.append(True)
    if MPI.COMM_WORLD.Get_size() == 1:
        if launched() > 1:
            raise RuntimeError(
                f"distributed: the launcher started {launched()} processes, and the MPI of mpi4py sees one: it is"
                " another MPI; use the mpiexec of the one that mpi4py was built with, `pip install mpich` brings both"
            )
        return _world[0]
    if direct is None:
        direct = any(os.environ.get(name, "").lower() in ("1", "true") for name in DIRECT)
    job = _world[0] = World(MPI.COMM_WORLD, timeout, direct)
    before = sys.excepthook

    def hook(kind, error, trace):
        before(kind, error, trace)
        job.fail(kind, error)

    sys.excepthook = hook
    atexit.register(job.leave)
    return job
