"""The mean of gradients over the ranks. Gradients travel in buckets, while backward computes the next ones.

A bucket is one vector. It has the gradients of some parameters, times the rows of this rank's batch, and then a tail:
for each gradient whether this rank has it, the rows, the number k of the bucket, and k^2. After summing over p ranks,
p sum(k^2) = sum(k)^2 holds only if all ranks sent the same bucket.
"""

from functools import partial
from typing import Any

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.modes import current_state, notify
from tinygrad_ms.engine.backward import ORDERS, accumulate
from tinygrad_ms.engine.tape import Leaf, Node
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.collectives import all_reduce

NUMBERS = 61  # the numbers of buckets are taken modulo this, so that sums of their squares are exact in float32


class Part:
    """The place of one parameter in a bucket. It is the last hook on the leaf of the parameter."""

    recorded = True  # ``tg.compile`` can record it

    def __init__(self, averaging, bucket, parameter, flag, view):
        self.averaging, self.bucket, self.parameter, self.flag, self.view = averaging, bucket, parameter, flag, view
        same = view.dtype == parameter.dtype
        self.result = view if same else BACKENDS[type(view)].xp.empty(view.shape, parameter.dtype)
        self.arrived = False  # whether the gradient has come in this walk
        self.kept: set[int] = set()  # rows of the batches under no_sync(), whose gradients are only in this ``.grad``
        self.attach()

    def __call__(self, gradient):
        average = self.averaging
        if not average.on:
            if recording(gradient):
                raise RuntimeError("compile: no_sync() cannot be recorded; call step.eager inside it")
            self.kept = {average.rows} if self.parameter.grad is None else self.kept | {average.rows}
            return None
        if recording(gradient):
            return Tensor(average.record(self, gradient.data))
        if average.walking and gradient.node is None:
            return Tensor(average.arrive(self, gradient.data, average.rows))
        return average.mean(gradient)  # it is on a tape, or a transform computes it

    def attach(self) -> None:
        """Become the last hook of the leaf. The parameter may have a new leaf."""
        p, node = self.parameter, self.parameter.node
        if (
            not isinstance(p.data, type(self.view))
            or p.data.dtype != self.result.dtype
            or p.data.shape != self.view.shape
        ):
            raise RuntimeError(
                f"DataParallel: {p.name or 'a parameter'} is {p.dtype} {p.shape} on {p.device} now, which it was not"
                " when the model was wrapped; move or convert the model first: DataParallel(model.to(...))"
            )
        if node is not None and not (node.hooks and node.hooks[-1] is self):
            node.hooks = [*(hook for hook in node.hooks or () if hook is not self), self]


class Bucket:
    """Parameters of one dtype on one device. Their gradients are sent together."""

    def __init__(self, averaging, number, parameters):
        self.number, first = number, parameters[0]
        xp = BACKENDS[type(first.data)].xp
        self.length = sum(p.size for p in parameters)
        dtype = first.dtype if first.dtype.itemsize >= 4 else DEFAULT_FLOAT
        self.vector = xp.zeros(self.length + len(parameters) + 3, dtype)
        self.parts, start = [], 0
        for i, p in enumerate(parameters):
            view = self.vector[start : start + p.size].reshape(p.shape)
            self.parts.append(Part(averaging, self, p, i, view))
            start += p.size
        self.sent: Any = None  # the collective to wait for
        self.host: Any = None  # the array that MPI reads
        self.missing = len(parameters)


class Averaging:
    """Averages the gradients of ``parameters`` over the ranks of ``job``, in the order in which backward makes them."""

    def __init__(self, job, parameters, first: int, size: int):
        self.job, self.on, self.walking, self.walks = job, True, False, 0
        self.line = job.open_line()
        self.rows: int = 1
        self.made: dict = {}  # functions that replays call, by their arguments
        self.recorded: list[tuple] = []  # of a recorded walk: (part, token of its gradient, array for the mean)
        self.here: Any = None  # the ids of the parts whose gradients have come on this rank
        groups: list[list] = []
        kind = lambda p: (type(p.data), p.device, max(p.dtype.itemsize, 4))
        for p in reversed(parameters):
            limit = size if len(groups) > 1 else first
            if not groups or kind(groups[-1][-1]) != kind(p) or sum(q.nbytes for q in groups[-1]) + p.nbytes > limit:
                groups.append([])
            groups[-1].append(p)
        self.buckets = [Bucket(self, i, group) for i, group in enumerate(groups)]
        self.parts = [part for bucket in self.buckets for part in bucket.parts]
        if ORDERS[-1] is not as_completed:
            ORDERS.append(as_completed)

    def prepare(self, rows: int) -> None:
        """Called before each forward with the rows of this rank's batch. They are the weight of its gradient."""
        self.rows = rows
        for part in self.parts:
            part.attach()

    def mean(self, value):
        """The mean of ``value`` over all ranks, weighted with their rows. It is computed at once, without a bucket."""
        if any(hasattr(observer, "before_live") for observer in current_state().hooks):
            raise RuntimeError(
                "compile: a mean over ranks has weights of this batch alone, which a replay would keep; return the"
                " loss, and call model.average outside the step"
            )
        rows = self.weight(self.rows)
        return all_reduce(value * (rows / float(all_reduce(numpy.array(float(rows))))))

    # --- in a recording of ``tg.compile``: a gradient that comes, and the end of the walk, are calls of its list ------

    def record(self, part, g):
        """Record that a gradient has come. Returns the array that holds the mean when the walk has ended."""
        if part.kept:
            raise RuntimeError("compile: gradients that no_sync() has kept cannot be recorded; call step.eager")
        token = g.trace.as_a_whole(self.again(self.note, part, self.rows), (g,), {})
        self.recorded.append((part, token, g.copy()))
        return self.recorded[-1][2]

    def finish_recording(self) -> None:
        parts, tokens, results = zip(*self.recorded)
        self.recorded = []
        means = results[0].trace.as_a_whole(self.again(self.means, parts, self.rows), tokens, {})
        for result, mean in zip(results, means):
            result[...] = mean

    def again(self, function, *args):
        """``partial(function, *args)``, one object for equal arguments. So two recordings of a step are equal."""
        return self.made.setdefault((function, *args), partial(function, *args))

    def note(self, part, rows, g):
        """In a replay, a gradient has come. Returns a number, so that the end of the walk depends on this call."""
        self.arrive(part, g, rows)
        return numpy.zeros(())

    def means(self, parts, rows, *tokens):
        """In a replay, all gradients have come. Returns the means."""
        self.flush(rows)
        self.collect()
        return tuple([part.result.copy() for part in parts])

    # --- during a walk ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        if any(bucket.sent for bucket in self.buckets):
            raise RuntimeError(
                "DataParallel: an earlier backward ended with an error while the others waited for its gradients;"
                " the ranks are no longer at the same place: end the program, and resume from a checkpoint"
            )
        self.walking, self.next = True, 0
        for bucket in self.buckets:
            bucket.missing = len(bucket.parts)
        for part in self.parts:
            part.arrived = False

    def arrive(self, part, g, rows: int):
        """Put a finished gradient into its bucket. Returns the array that holds the mean when the walk has ended."""
        if not self.walking:  # in a replay
            self.begin()
            self.rows = rows
        self.fill(part, g, rows)
        bucket = part.bucket
        bucket.missing -= 1
        while self.next < len(self.buckets) and not self.buckets[self.next].missing:
            self.post(self.buckets[self.next], rows)
        for bucket in self.buckets[: self.next]:
            bucket.sent[-1].Test()  # MPI makes progress only when it is called
        return part.result

    def fill(self, part, g, rows) -> None:
        """Weight a gradient, and add the gradient that no_sync() left in ``.grad``. g: None if there is no gradient."""
        xp, view, p = BACKENDS[type(part.view)].xp, part.view, part.parameter
        if part.kept and p.grad is not None:
            if part.kept != {rows}:
                raise ValueError(
                    f"DataParallel: backward has a batch of {rows} rows here, those under no_sync() had"
                    f" {sorted(part.kept)}; their gradients have several weights: use drop_last=True"
                )
            g = p.grad.data.astype(view.dtype) if g is None else p.grad.data + g.astype(view.dtype, copy=False)
            p.grad = None
        part.kept, part.arrived = set(), part.arrived or g is not None
        if g is None or not self.weight(rows):
            view[...] = 0
        else:
            xp.multiply(g.astype(view.dtype, copy=False), rows, out=view)

    def weight(self, rows: int) -> int:
        """The weight of this rank: its rows, or 0 if its only row belongs to another rank."""
        return 0 if rows == 1 and self.job.idle else rows

    def post(self, bucket, rows) -> None:
        """Send a bucket. ``collect`` waits for it."""
        job, n = self.job, (self.walks + bucket.number) % NUMBERS
        tail = [*(part.arrived for part in bucket.parts), self.weight(rows), n, n * n]
        backend = BACKENDS[type(bucket.vector)]
        bucket.vector[bucket.length :] = backend.from_host(
            numpy.array(tail, bucket.vector.dtype), device(bucket.vector)
        )
        bucket.host = job.for_mpi(bucket.vector)
        what = f"DataParallel, bucket {bucket.number} of backward {self.walks}"
        bucket.sent = job.begin(what, self.line, lambda c: c.Iallreduce(job.mpi.IN_PLACE, bucket.host))
        self.next = bucket.number + 1
        notify(current_state().hooks, "posted", bucket.number)

    def flush(self, rows: int) -> None:
        """Send the buckets that are not sent yet."""
        self.walking = False
        if not any(bucket.missing < len(bucket.parts) for bucket in self.buckets):
            return  # this walk made no gradient of these parameters
        self.here = {id(part) for part in self.parts if part.arrived}
        for part in self.parts:
            if not part.arrived:
                self.fill(part, None, rows)
        for bucket in self.buckets[self.next :]:
            self.post(bucket, rows)

    def collect(self) -> None:
        """Wait for all buckets, and divide the sums. The arrays that ``arrive`` returned then hold the means."""
        for bucket in self.buckets:
            if bucket.sent is not None:
                self.job.wait(bucket.sent)
                bucket.sent = None
                self.take(bucket)
        self.walks += self.here is not None
        self.here = None

    def take(self, bucket) -> None:
        """Make the means of a bucket that has come. Parameters without a gradient on this rank get it, too."""
        vector, backend = bucket.vector, BACKENDS[type(bucket.vector)]
        if bucket.host is not vector:
            vector[...] = backend.from_host(bucket.host, device(vector))
        *flags, rows, n, squares = map(float, backend.to_host(vector[bucket.length :]))
        if self.job.size * squares != n * n:
            self.job.broken = "the ranks sent other buckets"
            raise RuntimeError(
                f"DataParallel: {self.job.who()} sent bucket {bucket.number} of its backward {self.walks}, and another"
                " rank one of another number: every rank must call backward equally often, under no_sync() or not"
            )
        vector[: bucket.length] /= rows
        for part in bucket.parts:
            if part.result is not part.view:
                part.result[...] = part.view.astype(part.result.dtype)
            if flags[part.flag] and id(part) not in self.here and part.parameter.node is not None:
                accumulate(part.parameter.node, part.result)


def recording(tensor) -> bool:
    """Whether ``tensor`` is part of a recording of ``tg.compile``."""
    return BACKENDS[type(tensor.data)].recorder is not None


def device(array) -> int:
    return BACKENDS[type(array)].index_of(array)


def part_of(node) -> Part | None:
    """The Part of a leaf in a bucket, or None."""
    return next((hook for hook in node.hooks or () if type(hook) is Part), None) if type(node) is Leaf else None


def as_completed(tape, grads=None):
    """The tape in reverse order. A leaf that is averaged comes right after the last rule that sends to it."""
    parts = {node: part for node in tape if node.hooks and (part := part_of(node)) is not None}
    if not parts:
        yield from reversed(tape)
        return
    for part in parts.values():  # hooks that were added since run first
        part.attach()
    averages = {id(part.averaging): part.averaging for part in parts.values() if part.averaging.on}
    waiting = set(parts)
    behind: dict[Node, list] = {}
    for node in tape:  # the first node that reads a leaf is the last that sends to it
        for parent in node.parents:
            if isinstance(parent, Leaf) and parent in waiting:
                waiting.remove(parent)
                behind.setdefault(node, []).append(parent)
    for average in averages.values():
        average.begin()
    try:
        for node in reversed(tape):
            if node not in parts:
                yield node
                yield from behind.get(node, ())
        yield from waiting
    finally:  # also if a rule raises
        for average in averages.values():
            average.walking = False
    for average in averages.values():
        if average.recorded:
            average.finish_recording()
        else:
            average.flush(average.rows)
    for average in averages.values():
        average.collect()
