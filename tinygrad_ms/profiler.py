"""``profile`` measures time, memory and floating-point operations of every op and module. It is a hook around them."""

from dataclasses import dataclass
from math import prod
from threading import local
from time import perf_counter

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.modes import hooks
from tinygrad_ms.engine.tape import Output
from tinygrad_ms.lines import monospaced
from tinygrad_ms.scopes import scopes


@dataclass
class Record:
    """One op, or one rule of an op in the backward pass."""

    op: str
    scope: tuple[str, ...]
    backward: bool
    seconds: float
    bytes: int  # bytes of the results (forward), or of the gradients sent (backward)
    saved: int  # bytes that the tape keeps for the gradient
    flops: int  # estimated
    seq: int  # number of the tape node; 0 for an op that was not recorded


@dataclass
class Rule:
    """A rule that is running."""

    open: bool  # whether ops inside have records of their own: only in the rule of checkpoint, outside other rules
    started: float = 0.0
    inside: float = 0.0  # seconds of the records inside


class Running(local):
    """The rules and the op that are running in one thread."""

    def __init__(self):
        self.rules: list[Rule] = []  # the outermost first
        self.started = 0.0  # the time when the op began
        self.constants = {}

    @property
    def hidden(self) -> bool:
        """Whether the ops that run now are part of a rule and have no records of their own."""
        return bool(self.rules) and not self.rules[-1].open

    def enter(self, can_be_open):
        self.rules.append(Rule(can_be_open and not self.hidden))


class profile(hooks):
    """Measure the ops and rules that run inside:

        with tg.profile() as p:
            loss = model(x).mean()
            loss.backward()
        print(p)                                      # a table per op and one per module
        tg.graph.build(loss, profile=p).render("heat.svg")   # if backward has not freed the tape

    The time of an op is the time of its forward alone; on a GPU, the profile waits for the device before and after it.
    The time of a rule includes the ops and rules that it calls, except those that ``checkpoint`` runs again: they have
    records of their own.
    FLOPs are estimates: 2 m n k for a matrix product, one per element for most other ops, ten steps for iterations on
    matrices, and none for ops that only move data. A rule counts as its forward, once for each gradient that it sends.

    >>> x = tg.tensor(np.ones((2, 2)), requires_grad=True)
    >>> with tg.profile() as p:
    ...     tg.tanh(x @ x).sum().backward()
    >>> [record.op for record in p.records if not record.backward]
    ['matmul', 'tanh', 'sum']
    """

    def __init__(self):
        self.records: list[Record] = []
        self._running = Running()
        self._flops, self._times = {}, {}  # number of the node -> FLOPs, seconds

    def __exit__(self, *exception):
        self._running.rules.clear()  # a rule that raised is still in the list
        super().__exit__(*exception)

    # --- the observer ---------------------------------------------------------------------------------------

    def called(self, primitive, args, constants):
        self._running.constants = constants

    def before_op(self, primitive, arrays):
        if not self._running.hidden:
            wait_for(arrays)
            self._running.started = perf_counter()

    def after_op(self, primitive, arrays, outputs, node):
        if self._running.hidden:
            return
        wait_for(outputs)
        seconds = perf_counter() - self._running.started
        made = 0 if primitive.view else sum(y.nbytes for y in outputs if hasattr(y, "nbytes"))
        scope = scopes()
        work = flops(primitive, arrays, outputs, self._running.constants)
        saved, seq = (saved_bytes(node), node.seq) if node is not None else (0, 0)
        self._add(Record(primitive.name, scope, False, seconds, made, saved, work, seq))

    def before_rule(self, node, gradient):
        self._running.enter(node.op == "checkpoint")
        wait_for([gradient])
        self._running.rules[-1].started = perf_counter()

    def after_rule(self, node, gradient, gradients):
        wait_for([g for _, g in gradients])
        rule = self._running.rules.pop()
        seconds = perf_counter() - rule.started - rule.inside
        if isinstance(node, Output) or self._running.hidden:
            return
        sent = sum(getattr(g, "nbytes", 0) for _, g in gradients)
        work = self._flops.get(node.seq, 0) * len(gradients)
        self._add(Record(node.op, node.scope, True, seconds, sent, 0, work, node.seq))

    def _add(self, record):
        self.records.append(record)
        if self._running.rules:
            self._running.rules[-1].inside += record.seconds
        if record.seq:
            self._times[record.seq] = self._times.get(record.seq, 0.0) + record.seconds
            if not record.backward:
                self._flops[record.seq] = record.flops

    # --- results --------------------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The time of all ops and rules together."""
        return sum(record.seconds for record in self.records)

    def seconds_of(self, seq: int) -> float | None:
        """Forward and backward time of the tape node with the number ``seq``; None if it was not measured."""
        return self._times.get(seq)

    def by_op(self) -> dict[str, list[Record]]:
        """The records of every op. The slowest op comes first."""
        return self._grouped(lambda record: [record.op])

    def by_module(self) -> dict[str, list[Record]]:
        """The records inside every scope, those of inner scopes included. The slowest scope comes first."""
        return self._grouped(lambda r: ["/".join(r.scope[: k + 1]) for k in range(len(r.scope))] or ["(no scope)"])

    def _grouped(self, keys):
        groups: dict[str, list[Record]] = {}
        for record in self.records:
            for key in keys(record):
                groups.setdefault(key, []).append(record)
        return dict(sorted(groups.items(), key=lambda item: -sum(r.seconds for r in item[1])))

    def table(self, by: str = "op") -> str:
        """A table by op or by module. by: "op" or "module".

        Its columns: calls, forward and backward time, share of the time, kB of the results, kB kept for the gradient,
        MFLOP.
        """
        if by not in ("op", "module"):
            raise ValueError(f"profile: by={by!r} is unknown; it is 'op' or 'module'")
        groups = self.by_op() if by == "op" else self.by_module()
        head = (by, "calls", "forward ms", "backward ms", "share", "results kB", "saved kB", "MFLOP")
        rows = [head, *(row(name, records, self.seconds) for name, records in groups.items())]
        rows.append(row("total", self.records, self.seconds))
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = [
            "  ".join(cell.rjust(w) if i else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths)))
            for line in rows
        ]
        rule = "-" * len(lines[0])
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def __str__(self):
        return f"{self.table('op')}\n\n{self.table('module')}"

    def _repr_html_(self):
        return monospaced(str(self))


def row(name, records, whole) -> tuple[str, ...]:
    forward = sum(r.seconds for r in records if not r.backward)
    backward = sum(r.seconds for r in records if r.backward)
    share = (forward + backward) / whole if whole else 0.0
    return (
        name, f"{sum(not r.backward for r in records):,}", f"{forward * 1e3:.3f}", f"{backward * 1e3:.3f}",
        f"{share:.1%}", f"{sum(r.bytes for r in records) / 1e3:,.1f}",
        f"{sum(r.saved for r in records) / 1e3:,.1f}", f"{sum(r.flops for r in records) / 1e6:,.3f}",
    )  # fmt: skip


def wait_for(arrays) -> None:
    """Wait until the device has finished. Its kernels still run after the call that started them."""
    for array in arrays:
        backend = BACKENDS.get(type(array))
        if backend is not None and hasattr(backend.xp, "cuda"):
            backend.xp.cuda.get_current_stream().synchronize()
            return


def saved_bytes(node) -> int:
    """Bytes of the arrays that a node keeps. Each array counts once."""
    return sum({id(value): getattr(value, "nbytes", 0) for value in node.saved or ()}.values())


def flops(primitive, arrays, outputs, constants) -> int:
    """An estimate from the shapes: the operations of the textbook algorithm of the op."""
    sizes = [prod(a.shape) for a in arrays if hasattr(a, "shape")]
    results = [prod(y.shape) for y in outputs if hasattr(y, "shape")]
    if primitive.moves or not sizes or not results:
        return 0
    return primitive.flops(arrays, outputs, constants) if primitive.flops else max(*sizes, *results)
