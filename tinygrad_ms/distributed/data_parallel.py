"""DataParallel: a model of which every rank has a copy, and whose gradients are means over all ranks."""

import zlib
from contextlib import contextmanager

import numpy

from tinygrad_ms import random
from tinygrad_ms._version import __version__
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.distributed.averaging import Averaging
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.nn.module import Module
from tinygrad_ms.ops.collectives import broadcast as broadcast_op
from tinygrad_ms.options import as_int
from tinygrad_ms.tree import flatten
from tinygrad_ms.world import world

MEGA = 1 << 20


class DataParallel(Module):
    r"""Runs ``module`` on every rank of a job, on the rank's part of a batch. Gradients are means over the whole batch.

        dist.init()
        model = dist.DataParallel(model)

    Parameters and buffers start with the values of rank 0. Raises RuntimeError if names, shapes, dtypes or the version
    of this package differ between ranks. State, parameters and attributes are those of ``module``, so a checkpoint does
    not depend on the number of ranks. Random generators of the module and the default generator give each rank other
    numbers; rank 0 gets those of a single process. Call ``tg.manual_seed`` before.
    The gradient g_r of rank r is weighted with its rows n_r, the first axis of the first array that the model gets:
    $g = \sum_r n_r g_r / \sum_r n_r$. If the loss is a mean over rows, this is the gradient of one process on the whole
    batch. ``backward`` leaves g in ``.grad`` on all ranks, with the same bits. A parameter that has no gradient on some
    rank counts as zero there; if no rank has one, it gets none. Every rank must call ``backward`` equally often.
    Gradients travel in buckets while backward runs. bucket_mb, first_bucket_mb: megabytes of a bucket. Buckets are
    filled from the last parameter on. The first one is small, so that it is sent early.
    Source: Li et al. 2020, arXiv:2006.15704, section 3.2.
    """

    def __init__(self, module: Module, *, bucket_mb: float = 25, first_bucket_mb: float = 1):
        if not isinstance(module, Module):
            raise TypeError(f"DataParallel: module is {type(module).__name__}, expected an nn.Module")
        self.module, self.averaging = module, None
        job = world()
        if job.size == 1:
            return
        parameters = [p for p in module.parameters() if p.requires_grad]
        named = [*module.named_parameters(), *module.named_buffers()]
        facts = [f"{name} {p.dtype}{p.shape}{' trained' if p.requires_grad else ''}" for name, p in named]
        compare(job, [f"tinygrad_ms {__version__}", f"bucket_mb {bucket_mb}, {first_bucket_mb}", *facts])
        for _, p in named:
            p.data[...] = broadcast_op.primitive.forward(None, p.data)
            p.touch()
        self.check()
        self._jump([random.generator()])
        sizes = (as_int(round(mb * MEGA), "DataParallel: bucket_mb in bytes", 1) for mb in (first_bucket_mb, bucket_mb))
        self.averaging = Averaging(job, parameters, *sizes)

    def forward(self, *args, **kwargs):
        if self.averaging is not None and current_state().recording:
            first = next((raw(x) for x in flatten([args, kwargs])[0] if hasattr(x, "shape")), None)
            self.averaging.prepare(first.shape[0] if first is not None and first.shape else 1)
        return self.module.forward(*args, **kwargs)

    @contextmanager
    def no_sync(self):
        """Inside, ``backward`` adds only to ``.grad`` of this rank. The next ``backward`` outside averages the sums.

            with model.no_sync():
                loss_of(model, first_half).backward()
            loss_of(model, second_half).backward()

        That ``backward`` raises ValueError if the batches had different sizes, because their weights would differ.
        """
        before = self.averaging is not None and self.averaging.on
        try:
            if self.averaging is not None:
                self.averaging.on = False
            yield
        finally:
            if self.averaging is not None:
                self.averaging.on = before

    def average(self, value):
        """The mean over the ranks of ``value``, a loss or a measure of the last batch, weighted with their rows."""
        return value if self.averaging is None else self.averaging.mean(value)

    def check(self) -> None:
        """Raise RuntimeError on all ranks unless their parameters and buffers have the same bits."""
        job = world()
        if job.size > 1:
            state = [*self.module.named_parameters(), *self.module.named_buffers()]
            compare(job, [f"{name} with checksum {zlib.crc32(bytes_of(p)):08x}" for name, p in state])

    def _jump(self, others=()):
        """Advance the random generators of the module by about 2^128 numbers for each rank before this one."""
        found = [part for part in self.module._state().values() if isinstance(part, numpy.random.Generator)]
        for rng in {id(rng): rng for rng in [*found, *others]}.values():
            if world().rank and hasattr(rng.bit_generator, "jumped"):
                rng.bit_generator.state = rng.bit_generator.jumped(world().rank).state

    # --- what a module is asked: the one inside answers -------------------------------------------------------------

    def _fields(self):
        return self.module._fields()

    def train(self, mode: bool = True):
        self.module.training = bool(mode)
        return super().train(mode)

    def load_state_dict(self, state, strict: bool = True):
        """As in the module. Then each rank draws other random numbers again."""
        keys = self.module.load_state_dict(state, strict)
        self._jump()
        return keys

    def __getattr__(self, name):
        if name == "module" or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.module, name)


def bytes_of(p: Tensor) -> bytes:
    return BACKENDS[type(p.data)].to_host(p.data).tobytes()


def compare(job, facts: list[str]) -> None:
    """If ``facts`` differ between ranks, raise RuntimeError on all ranks. It names the first that differs."""
    job.agree("DataParallel", f"a model with {len(facts)} names and settings to compare")
    for fact in facts if not agree_at_once(job, facts) else ():
        job.agree("DataParallel", fact)


def agree_at_once(job, facts) -> bool:
    """Whether all ranks have the same facts. One small message tells."""
    mine = zlib.crc32("\n".join(facts).encode())
    both = numpy.array([mine, -mine], numpy.int64)
    job.comm.Allreduce(job.mpi.IN_PLACE, both, job.mpi.MAX)
    return both[0] == -both[1]


def shard(*arrays):
    """This rank's rows of the arrays of one batch. Every rank must pass the whole batch.

    Returns a tuple, or for one array its part. The parts of the ranks differ by at most one row. If there are fewer
    rows than ranks, some ranks get a row of another rank; it has weight 0 under ``DataParallel``. A DataLoader that
    shuffles does this by itself.
    """
    rows = world().part(arrays[0].shape[0])
    parts = tuple(array[rows] for array in arrays)
    return parts if len(parts) > 1 else parts[0]
