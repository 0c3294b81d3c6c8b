"""Runs of elementwise calls become one loop each, where compiled kernels are at hand (``ops/fused/chains.py``).

A call joins the open group of calls with which it shares an array of the same size. A group stays open until a call
outside of it needs what it makes, or changes what it reads; there its loop stands in the list. Only what others read is
written to memory.
"""

import warnings
from itertools import count
from math import prod
from typing import Any, NamedTuple

import numpy

from tinygrad_ms.ops.fused import LEAST, is_on, loaded
from tinygrad_ms.ops.fused.team import pays
from tinygrad_ms.replay.layout import dense, name_of, order_of, values_in
from tinygrad_ms.replay.trace import Entry, Value

PLAIN = (0.0, 0.5, 1.0, 2.0)  # numbers that stand in the text of a loop
WORTH = 60_000  # numbers that a loop spares to write and read, or to repeat: below, it is not worth being compiled
SHARED = 100_000  # numbers for which a loop of one call pays where several threads run it
MOST = 80  # lines of one loop
ARRAYS = 32  # arrays and numbers that one loop reads
SHORTEST = 16  # numbers of the innermost loop
COMPARED = {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "isnan"}


def fuse(plan) -> list:
    """Put loops into the entries of a plan; the loops."""
    made = [v for e in plan.entries if e.kind == "call" for v in values_in(e.outs)]
    if not is_on() or not any(prod(v.shape) >= LEAST for v in made) or not loaded():
        return []
    fusion = Fusion(plan)
    plan.entries = fusion.run()
    plan.drop()
    return fusion.made


class Call(NamedTuple):
    """An elementwise call as a line of a loop."""

    op: Any  # the name of a function of NumPy, or a kernel
    operands: list  # a number, or (value, its runs)
    targets: list[Value]
    real: str  # the dtype of the loop


class Group:
    """Calls that become one loop."""

    def __init__(self, size, real):
        self.size, self.real = size, real
        self.entries: list[Entry] = []  # calls, and what shows their results
        self.lines: list[tuple] = []
        self.names: dict[Any, str] = {}  # of the present content of a storage, or of a value that is no whole storage
        self.inputs: dict[str, tuple] = {}  # by name: the value, its runs, and the result that it goes with
        self.made: dict[Any, Value] = {}  # storages that are made here
        self.written: dict[Any, Value] = {}  # storages that are there before
        self.partial: set = set()  # storages of which a part is read, or each number several times
        self.edges: set[int] = set()  # how many numbers there are in the inner levels
        self.sums: dict[str, Value] = {}
        self.calls = 0

    def changes(self, storages) -> bool:
        return any(s in self.made or s in self.written for s in storages)

    def bars(self, reads, writes) -> bool:
        """Whether a call outside cannot go before this loop."""
        known = [v.storage for v, _, _ in self.inputs.values()]
        return self.changes(reads) or self.changes(writes) or any(s in writes for s in known)


class Fused:
    """A loop in a list. inputs, outputs: (value, how it is laid out for the loop); sums: values."""

    def __init__(self, chain, sizes, inputs, outputs, sums, names):
        self.chain, self.sizes, self.inputs, self.outputs, self.sums = chain, sizes, inputs, outputs, sums
        self.calls = names
        self.__name__ = "fused"

    @property
    def title(self) -> str:
        first = list(dict.fromkeys(self.calls))
        return f"{len(self.calls)} fused: {', '.join(first[:6])}{', ...' if len(first) > 6 else ''}"

    def text(self) -> str:
        """The lines, for people."""
        found = []
        for names, op, *operands in self.chain.lines:
            name = op if isinstance(op, str) else op.name
            names = names if isinstance(names, str) else ", ".join(names)
            found.append(f"{names} = {name}({', '.join(map(str, operands))})")
        return "; ".join(found)


def runs_of(v, result):
    """Along the memory of ``result``, from its slowest axis: (how many, how far apart in v)...; (all, 1) of equal ones.

    0 apart: v has one number for all of them. None where numbers of v are not whole numbers apart.
    """
    runs: list[tuple] = []
    shift = len(result.shape) - len(v.shape)
    for axis in order_of(result):
        if (n := result.shape[axis]) == 1:
            continue
        k = axis - shift
        apart, rest = divmod(v.strides[k] if k >= 0 and v.shape[k] != 1 else 0, v.dtype.itemsize)
        if rest:
            return None
        if runs and apart == runs[-1][0] * runs[-1][1]:
            runs[-1] = runs[-1][0] * n, runs[-1][1]
        else:
            runs.append((n, apart))
    return tuple(runs[::-1])


def is_contiguous(runs) -> bool:
    expected = 1
    for n, apart in reversed(runs):
        if apart not in (0, expected):
            return False
        expected *= n if apart else 1
    return True


def in_pieces(runs) -> bool:
    """Whether numbers lie one behind the other, but only in pieces: numba would not know it, NumPy does."""
    return not is_contiguous(runs) and [apart for _, apart in runs if apart][-1] == 1


class Fusion:
    """Finds the groups of a plan and puts loops in their place."""

    def __init__(self, plan):
        from tinygrad_ms.ops.fused.chains import FAR, KNOWN, TRUTH, chain
        from tinygrad_ms.ops.fused.kernels import Each

        self.plan, self.known, self.truth, self.far, self.chain, self.kernel = plan, KNOWN, TRUTH, FAR, chain, Each
        self.names = map("t{}".format, count())
        self.readers: dict[Any, set] = {}
        for e in plan.entries:
            if not self.shows(e) and not self.is_free(e):
                for v in plan.reads(e):
                    self.readers.setdefault(v.storage, set()).add(e)
        self.kept: list[Entry] = []
        self.open: list[Group] = []
        self.seen: set = set()  # storages that a call has read or written so far
        self.gone: set = set()  # entries that made memory for results of a loop
        self.made: list[Fused] = []

    def run(self) -> list[Entry]:
        for e in self.plan.entries:
            self.take(e)
        for group in self.open[:]:
            self.close(group)
        return [e for e in self.kept if e not in self.gone]

    def take(self, e):
        if self.is_free(e):
            shown = {v.storage for v in self.plan.reads(e)} & self.plan.kept_by_user
            for group in [g for g in self.open if g.changes(shown)]:  # of an array that must be there by then
                self.close(group)
            self.kept.append(e)
            return
        if self.shows(e):
            place = next((g for g in self.open if g.changes([e.outs.storage])), None)
            (place.entries if place else self.kept).append(e)
            return
        reads, writes = {v.storage for v in self.plan.reads(e)}, self.plan.writes(e)
        call = self.call(e)
        home = self.home(call) if call else None
        for group in self.open[:]:
            if group is not home and group.bars(reads, writes):
                self.close(group)
        if home is not None:
            self.join(home, call, e)
        else:
            self.kept.append(e)
        self.seen |= reads | writes

    def shows(self, e) -> bool:
        """Whether an entry only makes a view."""
        return e.kind == "call" and type(e.outs) is Value and not e.outs.root and not e.writes and e.outs.entry is e

    def is_free(self, e) -> bool:
        return e.kind == "call" and name_of(e.function) in ("empty", "empty_like")

    # --- what can be a line -------------------------------------------------------------------------------------------

    def call(self, e) -> Call | None:
        """The call as a line, if it can be one."""
        if e.kind != "call" or "raise" in e.errors.values():
            return None
        name = name_of(e.function)
        op: Any = name
        kwargs = {k: v for k, v in e.kwargs.items() if k != "out"}
        if isinstance(e.function, self.kernel):
            if e.function.into or "out" not in e.kwargs:
                return None
            op, operands = e.function, e.args[: e.function.takes + len(e.function.constants)]
            targets = list(e.kwargs["out"])
        elif name == "sum" and e.args and set(kwargs) <= {"axis", "keepdims", "dtype"}:
            axis = e.args[1] if len(e.args) == 2 else kwargs.get("axis")
            x = self.plan.resolve(e.args[0])
            if axis is not None or kwargs.get("keepdims") or kwargs.get("dtype") or e.writes or type(x) is not Value:
                return None
            if type(e.outs) is not Value or e.outs.dtype != x.dtype or not self.large(x) or x.dtype.char not in "fd":
                return None
            return Call("sum", [(x, runs_of(x, x))], [e.outs], x.dtype.name)
        elif isinstance(e.function, numpy.ufunc) or name in ("where", "clip", "copy", "astype"):
            operands = e.args
            if name in ("copy", "astype"):
                op, operands, kwargs = "positive", e.args[:1], {}
            if kwargs or (name == "clip" and len(e.args) != 3) or (name == "where" and len(e.args) != 3):
                return None
            targets = [e.kwargs.get("out", e.outs)]
        else:
            return None
        return self.checked(e, op, operands, [self.plan.resolve(t) for t in targets])

    def large(self, v) -> bool:
        return (
            v.kind is numpy.ndarray and prod(v.shape) >= LEAST and dense(v)
            and (v.root or prod(v.shape) == v.storage.count)
        )  # fmt: skip

    def checked(self, e, op, operands, targets):
        if not all(type(t) is Value and t.storage.kind == "buffer" and self.large(t) for t in targets):
            return None
        first = targets[0]
        if not e.writes and first.entry is not e:  # it gives back what it got
            return None
        given: list[Any] = []
        for x in operands:
            if type(x) is Value:
                x = self.plan.resolve(x)
                if (runs := runs_of(x, first)) is None or len(x.shape) > len(first.shape) or in_pieces(runs):
                    return None
                given.append((x, runs))
            elif type(x) in (int, float, bool):
                given.append(float(x))
            else:
                return None
        kinds = [x.dtype for x, _ in (item for item in given if type(item) is tuple)]
        truths = [dtype.kind == "b" for dtype in kinds]
        floats = {d for d in (*kinds, *(t.dtype for t in targets)) if d.kind != "b"}
        if len(floats) > 1 or not all(d.char in "fd" and d.isnative for d in floats):
            return None
        real = floats.pop().name if floats else "float32"
        if not isinstance(op, self.kernel):
            if op not in self.known[real] or (op in self.truth and not (all(truths) and len(truths) == len(given))):
                return None
            choice = op in COMPARED or op in self.truth or (op == "positive" and all(truths))
            if (first.dtype.kind == "b") > choice or (op in COMPARED) > (first.dtype.kind == "b"):
                return None
            if op == "where" and not (type(given[0]) is tuple and truths[0]):
                return None
        if any(t.shape != first.shape or t.strides != first.strides for t in targets[1:]):
            return None
        return Call(op, given, targets, real)

    # --- where it belongs ---------------------------------------------------------------------------------------------

    def home(self, call) -> Group | None:
        """The open group for a call, made of all with which it shares an array; a new one where there is none."""
        found = None
        whole = {x.storage for x, runs in self.arrays(call) if self.is_whole(x, runs, call)} | {
            t.storage for t in call.targets
        }
        for group in self.open[:]:
            known = {v.storage for v, _, _ in group.inputs.values()}
            if not (whole & known or group.changes(whole)) or not self.fits(group, call):
                continue
            if found is None:
                found = group
            elif self.can_merge(found, group):
                self.merge(found, group)
        if found is None and call.op != "sum":
            found = Group(self.size_of(call), call.real)
            if not self.fits(found, call):
                return None
            self.open.append(found)
        return found

    def arrays(self, call):
        return [item for item in call.operands if type(item) is tuple]

    def size_of(self, call) -> int:
        return prod(call.operands[0][0].shape if call.op == "sum" else call.targets[0].shape)

    def is_whole(self, x, runs, call) -> bool:
        return runs == ((self.size_of(call), 1),) and self.large(x)

    def fits(self, group, call) -> bool:
        if (group.size, group.real) != (self.size_of(call), call.real) or len(group.lines) >= MOST:
            return False
        if len(group.inputs) + len(call.operands) > ARRAYS:
            return False
        edges = set(group.edges)
        for x, runs in self.arrays(call):
            if not self.is_whole(x, runs, call):
                if group.changes([x.storage]) or any(t.storage is x.storage for t in call.targets):
                    return False
                edges |= edges_of(runs)
        if not nested(edges, group.size):
            return False
        targets = {t.storage for t in call.targets}
        return not (targets & group.partial)

    def can_merge(self, one, other) -> bool:
        edges = one.edges | other.edges
        small = len(one.lines) + len(other.lines) <= MOST and len(one.inputs) + len(other.inputs) <= ARRAYS
        return small and nested(edges, one.size)

    def merge(self, one, other):
        same = {}
        for name, (v, runs, like) in other.inputs.items():
            key = next(k for k, n in other.names.items() if n == name) if name in other.names.values() else None
            if key is not None and key in one.names:
                same[name] = one.names[key]
            else:
                one.inputs[name] = v, runs, like
        one.lines += [
            (t, op, *[same.get(a, a) if isinstance(a, str) else a for a in rest]) for t, op, *rest in other.lines
        ]
        for key, name in other.names.items():
            one.names.setdefault(key, same.get(name, name))
        one.entries += other.entries
        one.made |= other.made
        one.written |= other.written
        one.partial |= other.partial
        one.edges |= other.edges
        one.sums |= {same.get(name, name): v for name, v in other.sums.items()}
        one.calls += other.calls
        self.open.remove(other)

    def join(self, group, call, e):
        """Write a call down as a line of the group."""
        operands = []
        for item in call.operands:
            if type(item) is float:
                operands.append(item)
                continue
            x, runs = item
            whole = self.is_whole(x, runs, call)
            key = x.storage if whole else x
            if x.storage.kind == "constant" and not any(flag for _, flag in runs):
                operands.append(float(self.plan.array_of(x).item(0)))
                continue
            if key not in group.names:
                group.names[key] = name = next(self.names)
                like = call.targets[0] if call.op != "sum" else x
                group.inputs[name] = x, runs, like
                if not whole:
                    group.partial.add(x.storage)
                    group.edges |= edges_of(runs)
            operands.append(group.names[key])
        group.entries.append(e)
        group.calls += 1
        if call.op == "sum":
            group.sums[operands[0]] = call.targets[0]
            group.made[call.targets[0].storage] = call.targets[0]
            return
        names = []
        for t in call.targets:
            s = t.storage
            names.append(name := next(self.names))
            group.names[s] = name
            if s in group.made:
                continue
            maker = t.entry
            if t.root and maker is e and not e.writes:
                group.made[s] = t
            elif t.root and s not in self.seen and maker is not None and self.is_free(maker):
                group.made[s] = t
                self.seen.add(s)
            else:
                group.written.setdefault(s, t)
        group.lines.append((tuple(names), call.op, *operands))

    # --- the loop -----------------------------------------------------------------------------------------------------

    def close(self, group):
        """Put the loop of a group into the list; its calls where it is not worth one."""
        self.open.remove(group)
        members = set(group.entries)
        outside = {
            s: v
            for s, v in {**group.made, **group.written}.items()
            if v not in group.sums.values() and (s in self.plan.kept_by_user or self.readers.get(s, set()) - members)
        }
        far = any(op in self.far for _, op, *_ in group.lines if isinstance(op, str))
        fine = all(dense_in_c(v) for s, v in outside.items() if s in self.plan.kept_by_user)
        inner = any(runs == ((group.size, 1),) for _, runs, _ in group.inputs.values())
        shared = group.size >= SHARED and pays(group.size)  # NumPy would do all on one thread
        little = (group.calls - 1 + bool(group.edges) + shared) * group.size < WORTH
        if little or not fine or not inner or (far and group.written):
            self.kept += group.entries
            return
        new, numbers, lines = renamed(group)
        sizes = sizes_of(group.edges, group.size)
        inputs = {new[name]: levels_of(runs, sizes) for name, (_, runs, _) in group.inputs.items()}
        inputs = {name: pattern if "1" in pattern else "0" * len(sizes) for name, pattern in inputs.items()}
        inputs |= dict.fromkeys(numbers, "0" * len(sizes))
        outputs, arrays = {}, []
        for s, v in outside.items():
            name = new[group.names[s]]
            into = next((new[n] for n, (x, _, _) in group.inputs.items() if x.storage is s), "")
            outputs[name] = into
            if not into:
                arrays.append((v, laid_out(v, v, sizes, "1" * len(sizes))))
        truths = [new[group.names[s]] for s, v in outside.items() if v.dtype.kind == "b"]
        run = self.chain(lines, inputs, outputs, [new[n] for n in group.sums], group.real, truths)
        given = [(v, laid_out(v, like, sizes, inputs[new[name]])) for name, (v, _, like) in group.inputs.items()]
        given += [(number, None) for number in numbers.values()]
        try:
            samples = [
                sample_of(v.dtype, pattern, is_contiguous(runs))
                for pattern, (v, runs, _) in zip(inputs.values(), group.inputs.values())
            ]
            samples += [0.0] * len(numbers) + [sample_of(v.dtype, "1" * len(sizes)) for v, _ in arrays]
            run.prepare(samples)
        except Exception as error:  # of numba; the calls do as well
            text = f"tinygrad_ms: a loop cannot be compiled, NumPy does its work: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)
            self.kept += group.entries
            return
        calls = [op if isinstance(op, str) else op.name for _, op, *_ in group.lines] + ["sum"] * len(group.sums)
        loop = Fused(run, sizes, given, arrays, list(group.sums.values()), calls)
        fresh = [v for s, v in outside.items() if s in group.made]
        outs = (*fresh, *group.sums.values())
        args = tuple(v for v, _ in given if type(v) is Value)
        entry = Entry("fused", loop, args, None, outs, [s for s in outside if s in group.written])
        entry.args = (*args, *(v for v, _ in arrays if v.storage in group.written))
        entry.errors, entry.label = self.plan.base, ""
        for v in group.made.values():
            if v.entry is not None and v.entry not in members:
                self.gone.add(v.entry)
        for v in outs:
            v.entry = entry
        self.made.append(loop)
        self.kept += [entry, *(e for e in group.entries if self.shows(e))]


def renamed(group):
    """New names of arrays and numbers, the numbers, and the lines with new names: alike groups have one text."""
    new: dict[Any, str] = {name: f"x{k}" for k, name in enumerate(group.inputs)}
    numbers: dict[str, float] = {}  # that are no part of the text, which would be compiled for each of them
    lines = []
    for names, op, *operands in group.lines:
        for a in operands:
            if type(a) is float and a not in PLAIN:
                numbers[new.setdefault(repr(a), f"k{len(numbers)}")] = a
        operands = [new.get(a if isinstance(a, str) else repr(a), a) for a in operands]
        for name in names:
            new[name] = f"v{sum(n[0] == 'v' for n in new.values())}"
        names = tuple(new[name] for name in names)
        lines.append((names if len(names) > 1 else names[0], op, *operands))
    return new, numbers, lines


def edges_of(runs) -> set[int]:
    """How many numbers lie within each level that the runs ask for."""
    found, inner = set(), 1
    for n, _ in runs[:0:-1]:
        inner *= n
        found.add(inner)
    return found


def nested(edges, size) -> bool:
    """Whether loops can be made with these inner levels: at most four, the innermost of some length."""
    sizes = sorted(edges)
    return (
        len(sizes) <= 3
        and all(b % a == 0 for a, b in zip(sizes, [*sizes[1:], size]))
        and (not sizes or sizes[0] >= SHORTEST)
    )


def sizes_of(edges, size) -> tuple[int, ...]:
    sizes, rest = [], size
    for edge in sorted(edges, reverse=True):
        sizes.append(rest // edge)
        rest = edge
    return (*sizes, rest)


def levels_of(runs, sizes) -> str:
    """For each level whether there is a number for each of its steps."""
    flags, level = "", len(sizes) - 1
    for n, flag in reversed(runs):
        while n > 1:
            n //= sizes[level]
            flags = ("1" if flag else "0") + flags
            level -= 1
    return flags.rjust(len(sizes), "0")


def laid_out(v, like, sizes, pattern):
    """(axes, index, shape) with which ``laid`` makes of an array what the loop gets; None for a number."""
    if "1" not in pattern:
        return None
    shift = len(like.shape) - len(v.shape)
    axes = [axis - shift for axis in order_of(like)[::-1] if axis >= shift]
    index = tuple(0 if v.shape[k] > 1 and v.strides[k] == 0 else slice(None) for k in axes)
    shape = tuple(n for n, flag in zip(sizes, pattern) if flag == "1")
    return axes if axes != sorted(axes) else None, index if 0 in index else None, shape


def sample_of(dtype, pattern, contiguous=True):
    """An array of the kind that a loop gets there, or a number."""
    array = numpy.zeros((2,) * pattern.count("1"), dtype)
    return 0.0 if "1" not in pattern else array if contiguous else array[::-1]


def laid(array, axes, index, shape):
    if axes is not None:
        array = array.transpose(axes)
    if index is not None:
        array = array[index]
    return array.reshape(shape)


def dense_in_c(v) -> bool:
    return list(v.strides) == sorted(v.strides, reverse=True)
