"""The ranks of one job: the number of this process, and the exchange of raw arrays between processes.

The exchange is MPI, through ``mpi4py``; only ``start`` imports it. ``distributed`` has the functions for users.
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
)  # mpiexec and srun set these
DIRECT = ("MPICH_GPU_SUPPORT_ENABLED", "MPIR_CVAR_ENABLE_GPU", "OMPI_MCA_opal_cuda_support", "MV2_USE_CUDA")
INSTALL = (
    "the ranks of a job talk by MPI, and mpi4py, or its library, is not installed: `pip install tinygrad-ms[mpi]`,"
    " from a checkout `pip install -e .[mpi]`"
)
# A line is a sequence of collectives, in the same order on all ranks. Each DataParallel opens one for itself.
OPS = 0  # the number of the line that ops use
WAITS, LEAVES = 0, 1  # a rank tells the others that it has waited long, or that it ends


class World:
    """All ranks of a job. Without a communicator it is this process alone.

    timeout: seconds after which a collective that another rank does not join raises TimeoutError.
    direct: whether MPI reads the memory of a device. If not, arrays go through host memory.
    """

    def __init__(self, comm=None, timeout: float = 600.0, direct: bool = False):
        self.timeout, self.direct, self.comm = timeout, direct, comm
        self.rank, self.size, self.local_rank = 0, 1, 0
        self.idle = False  # whether this rank got a row of another: the last batch had fewer rows than ranks
        self.broken = ""  # the reason why no collective can follow
        self.lines: list = []  # the communicator of each line
        self.started: list[int] = []  # for each line: how many collectives this rank has begun
        self.heard: dict[int, tuple] = {}  # rank -> its last message (WAITS or LEAVES, collectives begun of each line)
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
        """Open a new line of collectives and return its number. Every rank must open it."""
        self.lines.append(self.comm.Dup())
        self.started.append(0)
        return len(self.lines) - 1

    def part(self, rows: int) -> slice:
        """The rows of a batch that this rank gets. If there are too few for all, it may get a row without weight."""
        start, end = (rows * rank // self.size for rank in (self.rank, self.rank + 1))
        self.idle = start == end
        return slice(0, 1) if self.idle else slice(start, end)

    # --- waiting ----------------------------------------------------------------------------------------------------

    def begin(self, what: str, line: int, post):
        """Start a collective. ``post(communicator)`` returns its request. The result is the argument of ``wait``."""
        if self.broken:
            raise RuntimeError(f"{what}: {self.who()} cannot go on: {self.broken}")
        self.started[line] += 1
        return what, line, self.started[line], post(self.lines[line])

    def wait(self, started) -> None:
        """Wait until a collective is done. Raises TimeoutError, or RuntimeError that names a rank that has ended."""
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
        """A sentence about the ranks that have not come, as far as the messages of the others tell."""
        late = [r for r in range(self.size) if r != self.rank and self.begun(r, line) < number]
        names = ", ".join(map(str, late[:8])) or "another"
        return f"rank {names} did not come: it hangs, works longer than timeout=, or is in another collective"

    def begun(self, rank, line) -> int:
        """How many collectives of a line another rank has begun, by its last message."""
        counts = self.heard.get(rank, ())[1:]
        return counts[line] if line < len(counts) else 0

    def tell(self, word: int) -> None:
        """Send every other rank a message: ``word``, and how many collectives this rank has begun."""
        record = numpy.array([word, *self.started], numpy.int64)
        self.sent += [self.words.Isend(record, rank) for rank in range(self.size) if rank != self.rank]
        self.sent.append(record)  # it must live until the messages are sent

    def listen(self) -> None:
        status = self.mpi.Status()
        while self.words.Iprobe(self.mpi.ANY_SOURCE, 0, status):
            record = numpy.empty(status.Get_count(self.mpi.INT64_T), numpy.int64)
            self.words.Recv(record, status.Get_source())
            self.heard[status.Get_source()] = tuple(record.tolist())

    # --- the ends ---------------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """At exit, tell the others, and wait for them without work. A rank that waits for this one then ends."""
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
        if self.broken:  # MPI cannot be closed while a collective is half done
            self.comm.Abort(1)

    def fail(self, kind, error) -> None:
        """End the whole job after an error that nobody caught. Otherwise the others would wait for this rank."""
        sys.stdout.flush()
        print(f"distributed: {self.who()} raised {kind.__name__}: {error}; the job ends", file=sys.stderr, flush=True)
        time.sleep(0.5)  # the launcher needs time to read the sentence; it may drop the rest
        self.comm.Abort(130 if kind is KeyboardInterrupt else 1)

    # --- what collectives do to raw arrays --------------------------------------------------------------------------

    def agree(self, what: str, fact: str) -> None:
        """Raise RuntimeError on every rank unless all call this with the same ``fact``. It is also a barrier."""
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
        """Run a collective on the raw array ``x``. ``post(communicator, x, y)`` fills y, a new array of ``shape``."""
        backend, source = BACKENDS[type(x)], self.for_mpi(x)
        if backend.name == "cpu" and type(source) is not numpy.ndarray:  # before another rank waits
            raise TypeError(f"{what}: x is {type(x).__name__}, whose memory MPI cannot read")
        self.agree(what, f"{what} of {x.dtype} {x.shape}{fact}")
        y = backend.xp.empty(shape, x.dtype) if self.near(backend) else self.make_host(backend, shape, x.dtype)
        self.wait(self.begin(what, OPS, lambda c: post(c, source, y)))
        return y if self.near(backend) else backend.from_host(y, backend.index_of(x))

    def near(self, backend) -> bool:
        """Whether MPI can read the arrays of this backend directly."""
        return backend.name == "cpu" or self.direct

    def make_host(self, backend, shape, dtype):
        """A new host array. For CuPy it is in pinned memory, which is copied at the full speed of the bus."""
        if not hasattr(backend.xp, "cuda"):
            return numpy.empty(shape, dtype)
        count = prod(shape)
        memory = backend.xp.cuda.alloc_pinned_memory(max(count, 1) * numpy.dtype(dtype).itemsize)
        return numpy.frombuffer(memory, dtype, count).reshape(shape)

    def for_mpi(self, x):
        """The values of the raw array ``x`` in a contiguous array that MPI can read."""
        backend = BACKENDS[type(x)]
        if not self.near(backend):
            host = self.make_host(backend, x.shape, x.dtype)
            if hasattr(backend.xp, "cuda"):
                backend.xp.ascontiguousarray(x).get(out=host)
            else:
                host[...] = backend.to_host(x)
            return host
        if backend.name != "cpu":
            backend.xp.cuda.get_current_stream().synchronize()  # MPI does not know streams
        return backend.xp.ascontiguousarray(x)


give_way = getattr(os, "sched_yield", lambda: time.sleep(0))  # to another rank on this core
_world = [World()]


def joined() -> World:
    """The ranks of the job. Before ``start`` it is this process alone."""
    return _world[0]


def world() -> World:
    """The ranks of the job. Raises RuntimeError before ``start`` if a launcher started more than one process."""
    if _world[0].comm is None and not _started and launched() > 1:
        raise RuntimeError(
            f"distributed: this is one of {launched()} processes that mpiexec or srun started; call"
            " tinygrad_ms.distributed.init() first"
        )
    return _world[0]


_started: list = []


def launched() -> int:
    """The number of processes that the launcher started; 1 without a launcher."""
    return max([int(os.environ[name]) for name in LAUNCHERS if os.environ.get(name, "").isdigit()], default=1)


def start(timeout: float, direct: bool | None) -> World:
    """Join the job that a launcher started. A second call only sets the timeout."""
    if _started:
        _world[0].timeout = timeout
        return _world[0]
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # RuntimeError: there is no library of MPI
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
