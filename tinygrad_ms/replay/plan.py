"""Makes a plan of a trace: which calls run, which are computed once, and which arrays share memory.

A call whose results nobody needs is dropped. A call of constants alone is made once, and so are views of arrays that
stay. The remaining calls write into buffers in one block of memory. Two buffers may share a place if one is no longer
needed when the other is first written.
"""

from itertools import accumulate
from math import prod
from typing import Any

import numpy
from numpy.lib.stride_tricks import as_strided

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.replay import small
from tinygrad_ms.replay.fusion import fuse
from tinygrad_ms.replay.gathered import gather
from tinygrad_ms.replay.layout import dense, name_of, values_in
from tinygrad_ms.replay.trace import Entry, Storage, Value, compute

REDUCTIONS = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
WITH_OUT = {"concatenate", "stack", "mean", "std", "var", "clip", "cumsum", "cumprod", "argmax", "argmin", "any", "all"}
FILLS = {"zeros": 0, "zeros_like": 0, "ones": 1, "ones_like": 1}
FREE = {"empty", "empty_like"}
MAKERS = FREE | set(FILLS) | {"full", "full_like", "arange", "eye", "asarray", "array"}
WEAK = {  # ufuncs that take a Python number beside floats as one of their dtype
    "add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "greater", "greater_equal", "less",
    "less_equal", "equal", "not_equal",
}  # fmt: skip
SAME = {"reshape", "broadcast_to", "ascontiguousarray", "squeeze"}  # these show an array from its start
SMALL = 2**14  # the most bytes of a result that is kept in case the same call comes again
EFFECTS = {"gradient", "tick", "live"}  # kinds of entries that change objects of the user
STAYING = {"outside", "number", "constant"}


class Plan:
    """The entries of a trace that run, and the places of their arrays."""

    def __init__(self, trace, results, base_errors):
        self.results, self.base = results, base_errors
        self.entries: list[Entry] = list(trace.entries)
        self.recorded = len(self.entries)
        self.inputs: dict[Entry, list[Value]] = {}  # entry -> the Values that it read in the recording
        self.instead: dict[Value, Value] = {}  # Value -> the Value that replaces it
        self.made: dict[Value, Any] = {}  # arrays that are made once
        self.copies_spared = self.twice = 0
        self.kept_by_user = {v.storage for kind, v in results if kind != "constant"}
        for e in self.entries:
            if e.kind == "gradient":
                self.kept_by_user |= {v.storage for v in values_in(e.args)}
        self.showing: dict[Storage, list[Value]] = {}  # the values that show a storage
        self.writers: dict[Storage, list[Entry]] = {}  # the calls that change it
        for e in self.entries:
            for v in values_in(e.outs):
                self.showing.setdefault(v.storage, []).append(v)
            for s in set(e.writes):
                self.writers.setdefault(s, []).append(e)
        self.most = most(self.spans())  # bytes that the step itself has at once, at least
        self.simplify()
        self.scalars_as_arrays()
        small.simplify(self)
        self.drop()
        self.fold()
        self.spare_copies()
        self.drop()
        gather(self)
        small.products(self)
        self.reuse_copies()
        self.loops = fuse(self)
        self.place()

    def resolve(self, x):
        """An argument, with each Value replaced as ``instead`` says."""
        if type(x) is Value:
            while x in self.instead:
                x = self.instead[x]
            return x
        if type(x) is tuple or type(x) is list:
            return type(x)([self.resolve(item) for item in x])
        if type(x) is dict:
            return {k: self.resolve(item) for k, item in x.items()}
        return x

    def reads(self, e):
        if e not in self.inputs:
            self.inputs[e] = list(values_in((e.args, e.kwargs)))
        return [v if v not in self.instead else self.resolve(v) for v in self.inputs[e]]

    def writes(self, e) -> set[Storage]:
        """The storages that an entry changes or makes."""
        made = {v.storage for v in values_in(e.outs) if v.entry is e}
        return made | set(e.writes)

    def last_uses(self) -> dict[Storage, int]:
        """Storage -> the number of the last entry that reads or changes it."""
        return {s: i for i, e in enumerate(self.entries) for s in {v.storage for v in self.reads(e)} | self.writes(e)}

    # --- simpler lists ------------------------------------------------------------------------------------------------

    def simplify(self):
        """Replace a view of the same shape by its base. Compute equal small results once."""
        changed = {s for e in self.entries for s in e.writes}
        known: dict[Any, tuple] = {}
        versions: dict[Storage, int] = {}
        kept = []
        for e in self.entries:
            out = e.outs
            if e.kind == "call" and not e.writes and type(out) is Value and out.entry is e:
                first = self.resolve(e.args[0]) if e.args and type(e.args[0]) is Value else None
                name = name_of(e.function)
                if name in SAME and first is not None and alike(first, out) and out.storage is first.storage:
                    self.instead[out] = first
                    continue
                if first is not None and {out.storage, first.storage}.isdisjoint(changed) and is_same(e, first, out):
                    self.alias(out, first)
                    continue
                if out.root and out.storage not in changed and size_of(out) <= SMALL and name not in FREE:
                    key = self.key(e, versions)
                    first, errors = known.get(key, (None, None))
                    if first is not None and out.storage not in self.kept_by_user and errors in (e.errors, self.base):
                        self.alias(out, first)
                        self.twice += 1
                        continue
                    known[key] = out, e.errors
            for storage in e.writes:
                versions[storage] = versions.get(storage, 0) + 1
            kept.append(e)
        self.entries = kept

    def key(self, e, versions):
        """A key that two calls share only if their results are equal. In doubt it is a new object."""
        function = e.function if isinstance(e.function, str) else id(e.function)
        return function, self.mark(e.args, versions), self.mark(tuple(sorted(e.kwargs.items())), versions)

    def mark(self, x, versions):
        """An argument in a form that can be compared. A Value stands with the number of changes of its memory."""
        kind = type(x)
        if kind is Value:
            x = self.resolve(x)
            return x, versions.get(x.storage, 0)
        if kind is tuple or kind is list:
            return kind, tuple([self.mark(item, versions) for item in x])
        if kind in (int, float, bool, str, type(None)):
            return kind, repr(x)
        return x if isinstance(x, numpy.dtype) else object()

    def scalars_as_arrays(self):
        """Turn NumPy scalars into 0-d arrays if only ufuncs, or calls that make arrays of them, read them."""
        users: dict[Value, list] = {}
        kept = []
        for e in self.entries:
            v = self.resolve(e.args[0]) if e.kind == "call" and e.function in ("all", "any") else None
            if v is not None and v.scalar and v.dtype.kind == "b" and len(e.args) == 1 and not e.kwargs:
                self.alias(e.outs, v)
            else:
                kept.append(e)
        self.entries = kept
        for e in self.entries:
            for v in self.reads(e):
                users.setdefault(v, []).append(e)
        changed = {s for e in self.entries for s in e.writes}
        chosen = {
            e.outs for e in self.entries if type(e.outs) is Value and e.outs.scalar and e.outs.entry is e and has_out(e)
        }

        def fine(v, e):
            if e.kind == "expect":
                return True
            if name_of(e.function) == "asarray":
                return len(e.args) == 1 and not e.kwargs and e.outs.storage not in changed
            return e.kind == "call" and hasattr(e.function, "nin")

        while bad := {v for v in chosen if not all(fine(v, e) for e in users.get(v, ()))}:
            chosen -= bad
        kept = []
        for e in self.entries:
            v = self.resolve(e.args[0]) if name_of(e.function) == "asarray" and e.args else None
            if type(v) is Value and v in chosen:
                self.alias(e.outs, v)
            else:
                kept.append(e)
        for v in chosen:
            v.scalar, v.lifted = False, True
        self.entries = kept

    def alias(self, value, other):
        """Replace ``value`` by ``other``. Values that show the memory of ``value`` then show that of ``other``."""
        self.instead[value] = other
        old, new = value.storage, other.storage
        if old in self.kept_by_user:
            self.kept_by_user.add(new)
        for v in self.showing.pop(old, ()):
            v.storage = new
            self.showing.setdefault(new, []).append(v)
        for e in self.writers.pop(old, ()):
            e.writes = [new if s is old else s for s in e.writes]
            self.writers.setdefault(new, []).append(e)

    def drop(self):
        """Drop the entries that nobody needs, from the end to the start."""
        needed = set(self.kept_by_user)
        shown = {self.resolve(v) for kind, v in self.results if kind != "constant"}  # values that somebody reads
        kept = []
        for e in reversed(self.entries):
            changed = self.writes(e)
            outside = any(s.kind not in ("buffer", "number") for s in changed)
            view = type(e.outs) is Value and not e.writes and not e.outs.root and e.outs.entry is e
            if type(e.outs) is Value and e.outs.entry is not e and not e.writes:
                continue  # gave back what it got
            wanted = outside or bool(changed & needed)
            if e.kind in ("expect", "shape", "draws", *EFFECTS) or (e.outs in shown if view else wanted):
                shown.update(self.reads(e))
                for v in values_in(e.outs):
                    if v.root and v.entry is e:
                        needed.discard(v.storage)  # nothing before it has made it
                needed |= {v.storage for v in self.reads(e)} | (set(e.writes) if e.kind != "numbers" else set())
                kept.append(e)
        self.entries = kept[::-1]

    def fold(self):
        """Compute now the results that depend only on constants."""
        changed = set()
        for e in self.entries:
            changed |= set(e.writes)
        kept = []
        for e in self.entries:
            out = e.outs
            pure = e.kind in ("call", "makes") and not e.writes and type(out) is Value and out.entry is e
            pure = pure and out.storage not in changed and out.storage not in self.kept_by_user
            reads = () if shape_alone(e) else self.reads(e)
            if pure and name_of(e.function) not in FREE and all(self.is_constant(v) for v in reads):
                self.made[out] = self.run_now(e)
                out.storage.kind = "constant"
            elif pure and (x := self.times_one(e, out)) is not None and x.storage not in changed:
                self.alias(out, x)
            else:
                kept.append(e)
        self.entries = kept

    def times_one(self, e, out):
        """The other factor of a product with ones that are constant."""
        if e.function is numpy.multiply and not e.kwargs:
            for one, x in (e.args, e.args[::-1]):
                if type(one) is Value and one in self.made and type(x) is Value and (self.made[one] == 1).all():
                    x = self.resolve(x)
                    plain = x.storage.kind == "buffer" and x.root and x.scalar == out.scalar and out.dtype.kind != "c"
                    if plain and alike(x, out):
                        return x
        return None

    def is_constant(self, v):
        return v.storage.kind == "constant"

    def run_now(self, e):
        if shape_alone(e):
            v = e.args[0]
            args = (as_strided(numpy.zeros(1, v.dtype), v.shape, v.strides), *e.args[1:])
        else:
            args = self.filled(e.args)
        with numpy.errstate(**e.errors):
            found = compute(e.function, args, self.filled(e.kwargs))
        return found.data if e.kind == "makes" else found

    def filled(self, x):
        """An argument with arrays that stay, instead of their Values."""
        if type(x) is Value:
            return self.array_of(x)
        if type(x) is tuple or type(x) is list:
            return type(x)([self.filled(item) for item in x])
        if type(x) is dict:
            return {k: self.filled(item) for k, item in x.items()}
        return x

    def array_of(self, v):
        v = self.resolve(v)
        if v not in self.made:
            if v.thing is not None:
                self.made[v] = v.thing
            else:
                self.made[v] = self.run_now(v.entry)  # a view of what stays
        return self.made[v]

    def spare_copies(self):
        """Replace a copy by the array itself if nobody reads the array afterwards."""
        last, kept = self.last_uses(), []
        for i, e in enumerate(self.entries):
            v: Any = self.resolve(e.args[0]) if e.args and type(e.args[0]) is Value else None
            spare = name_of(e.function) == "copy" and v is not None and not e.kwargs and len(e.args) == 1
            spare = spare and v.storage.kind == "buffer" and last[v.storage] == i and not v.scalar
            spare = spare and prod(v.shape) == v.storage.count and v.strides == e.outs.strides
            if spare and v.storage not in self.kept_by_user and v.storage.maker == "call":
                last[v.storage] = last[e.outs.storage]
                self.alias(e.outs, v)
                self.copies_spared += 1
            else:
                kept.append(e)
        self.entries = kept

    def reuse_copies(self):
        """A large copy is not made again, as long as the step itself needs no less memory than the list then does."""
        changed, kept = {s for e in self.entries for s in e.writes}, []
        first: dict[Any, Value] = {}
        spans = self.spans()
        for e in self.entries:
            x = self.resolve(e.args[0]) if e.args and type(e.args[0]) is Value else None
            out, key = e.outs, None
            copies = e.kind == "call" and name_of(e.function) in ("reshape", "copy") and not e.kwargs
            if copies and x is not None and out.root and out.entry is e and x.storage not in changed:
                key = self.origin(x), repr(e.args[1:]), out.shape, out.strides
            if key is None or not {out.storage}.isdisjoint(changed | self.kept_by_user):
                kept.append(e)
                continue
            if key in first:
                one, two = (spans[v.storage] for v in (first[key], out))
                now = {**spans, first[key].storage: (one[0], two[1], one[2]), out.storage: (0, 0, 0)}
                if self.fits(now, spans):
                    self.alias(out, first[key])
                    self.copies_spared += 1
                    spans = now
                    continue
            first[key] = out
            kept.append(e)
        self.entries = kept

    def origin(self, v):
        """What a value shows, as it can be compared: two views made in one way are the same."""
        v = self.resolve(v)
        if v.entry is None or v.root or v.entry.writes:
            return v
        return name_of(v.entry.function), tuple(
            self.origin(a) if type(a) is Value else repr(a) for a in (*v.entry.args, *v.entry.kwargs.items())
        )

    def spans(self) -> dict[Storage, tuple[int, int, int]]:
        """From which entry to which the memory that is made here is needed, and its bytes."""
        last, found = self.last_uses(), {}
        for i, e in enumerate(self.entries):
            for v in values_in(e.outs):
                if v.root and v.entry is e and v.storage.kind == "buffer":
                    end = len(self.entries) if v.storage in self.kept_by_user else last[v.storage]
                    found[v.storage] = i, end, size_of(v)
        return found

    def fits(self, changed, spans) -> bool:
        """Whether ``changed`` spans need no more memory at once than the step itself does, or than ``spans`` do."""
        return most(changed) <= max(self.most, most(spans))

    # --- memory -------------------------------------------------------------------------------------------------------

    def place(self):
        """Choose the storages that become buffers, and the place of each in the block."""
        self.static: dict[Storage, Value] = {}
        self.backend: Any = None
        for v in [v for e in self.entries if has_out(e) for v in values_in(e.outs) if v.entry is e]:
            made = v.root and not v.scalar and v.storage.kind == "buffer"
            if made and v.storage not in self.kept_by_user and dense(v):
                self.backend = self.backend or backend_of(v)  # of the block; what lies elsewhere is made anew each time
                if backend_of(v) is self.backend and not self.backend.multi_device:
                    self.static[v.storage] = v
        inside, joins = self.parts_in_place()
        ends: dict[int, list[Storage]] = {}
        last = self.last_uses()
        for s, (whole, _) in inside.items():
            last[whole] = max(last[whole], last.pop(s))
        for s, i in last.items():
            ends.setdefault(i, []).append(s)
        self.size, self.offsets = 0, {}
        free: list[tuple[int, int]] = []
        used: dict[Storage, tuple[int, int]] = {}
        for i, e in enumerate(self.entries):
            made = [inside.get(s, (s, 0))[0] for s in self.writes(e) if s in self.static]
            ended = [s for s in ends.get(i, ()) if s in self.static]
            for s in [s for s in dict.fromkeys(made) if s not in used]:
                v = self.static[s]
                size = -(-max(prod(v.shape) * v.dtype.itemsize, 1) // 64) * 64
                donor = self.overwritten(e, v, ended, used)
                if donor is not None:
                    used[s] = used.pop(donor)
                    ended.remove(donor)
                else:
                    used[s] = take(free, size, self)
                self.offsets[s] = used[s][0]
            for s in ended:
                if s in used:
                    give(free, used.pop(s))
        self.offsets |= {s: self.offsets[whole] + start for s, (whole, start) in inside.items()}
        self.entries = [e for e in self.entries if e not in joins]
        self.copies_spared += len(joins)

    def parts_in_place(self) -> tuple[dict[Storage, tuple[Storage, int]], set[Entry]]:
        """{part: (whole, first byte)} for arrays that are made where they are joined in memory; the joins."""
        inside: dict[Storage, tuple[Storage, int]] = {}
        spans, joins = self.spans(), set()
        written = {s: i for i, e in enumerate(self.entries) for s in e.writes}
        free = self.static.keys() & spans.keys()
        for i, e in enumerate(self.entries):
            if e.function is not numpy.concatenate or e.writes or e.outs.storage not in free:
                continue
            axis, whole = e.args[1] if len(e.args) > 1 else e.kwargs.get("axis", 0), e.outs.storage
            parts = [*values_in(self.resolve(e.args[0]))]
            if type(axis) is not int or axis < 0 or prod(e.outs.shape[:axis]) != 1 or whole in written:
                continue
            ends = [*accumulate(map(size_of, parts))]  # in bytes
            fine = [
                v.storage in free and prod(v.shape) == v.storage.count and small.in_c(v) and v.dtype == e.outs.dtype
                and end % 64 == 0 and written.get(v.storage, 0) < i
                for v, end in zip([*parts, e.outs], [*ends, 0])
            ]  # fmt: skip
            moved = {v.storage: (whole, end - size_of(v)) for v, end in zip(parts, ends)}
            if len(moved) == len(e.args[0]) and all(fine):
                start, end = min(spans[s][0] for s in moved), max(spans[s][1] for s in (whole, *moved))
                now = {**spans, **dict.fromkeys(moved, (0, 0, 0)), whole: (start, end, spans[whole][2])}
                if self.fits(now, spans):
                    joins.add(e)
                    spans, inside, free = now, {**inside, **moved}, free - {whole, *moved}
        return inside, joins

    def overwritten(self, e, v, ended, used):
        """A buffer that an elementwise call reads and may overwrite with its result, or None."""
        if not (e.kind == "call" and isinstance(e.function, numpy.ufunc) and e.function.signature is None):
            return None
        if prod(v.shape) == 1 and v.kind is numpy.ndarray:  # NumPy takes twice the time to write one number in place
            return None
        for x in self.reads(e):
            if x.storage in ended and x.storage in used and x.storage is not v.storage:
                root = self.static[x.storage]
                same = x.shape == v.shape and x.strides == v.strides and x.dtype == v.dtype and root.shape == x.shape
                same_place = (x.shape, x.strides)
                others = [y for y in self.reads(e) if y.storage is x.storage and (y.shape, y.strides) != same_place]
                if same and root.strides == x.strides and not others:
                    return x.storage
        return None


def most(spans) -> int:
    """The bytes that are needed at once."""
    changes: dict[int, int] = {}
    for start, end, size in spans.values():
        changes[start] = changes.get(start, 0) + size
        changes[end + 1] = changes.get(end + 1, 0) - size
    now = top = 0
    for i in sorted(changes):
        now += changes[i]
        top = max(top, now)
    return top


def alike(a, b) -> bool:
    return a.shape == b.shape and a.strides == b.strides and a.dtype == b.dtype


def is_same(e, first, out) -> bool:
    """Whether a call divides an array or a scalar of the step by one, which changes nothing."""
    one = e.args[1] if len(e.args) == 2 and not e.kwargs and name_of(e.function) == "divide" else None
    same = first.storage.kind == "buffer" and first.root and first.scalar == out.scalar and alike(first, out)
    return type(one) in (int, float) and one == 1 and same


def backend_of(v):
    return BACKENDS.get(v.kind, BACKENDS[numpy.ndarray])  # scalars are NumPy's


def size_of(v) -> int:
    return prod(v.shape) * v.dtype.itemsize


def shape_alone(e) -> bool:
    """Whether a call reads only the shape of its first argument, not its values."""
    name, first = name_of(e.function), e.args[0] if e.args else None
    return name.endswith("_like") and type(first) is Value and first.kind is numpy.ndarray


def has_out(e) -> bool:
    """Whether the call can write into an array that is given."""
    if e.kind == "fused":
        return True
    if e.kind != "call" or "out" in e.kwargs:
        return False
    function, name = e.function, name_of(e.function)
    if isinstance(function, str):
        return name in REDUCTIONS or name in WITH_OUT or name in ("astype", "copy")
    if name in MAKERS - {"arange", "eye", "asarray", "array"} or name in ("ascontiguousarray",):
        return True
    single = hasattr(function, "nin") and getattr(function, "nout", 1) == 1
    return single or function is numpy.dot or name in WITH_OUT


def take(free, size, plan):
    """The start and end of the smallest free range that is large enough, or of a new one at the end."""
    fitting = [r for r in free if r[1] - r[0] >= size]
    if fitting:
        best = min(fitting, key=lambda r: r[1] - r[0])
        free.remove(best)
        if best[1] - best[0] > size:
            free.append((best[0] + size, best[1]))
        return best[0], best[0] + size
    start = plan.size
    tail = next((r for r in free if r[1] == plan.size), None)
    if tail is not None:
        free.remove(tail)
        start = tail[0]
    plan.size = start + size
    return start, start + size


def give(free, used):
    """Free a range, and join it with free neighbours."""
    start, stop = used
    for r in [r for r in free if r[1] == start or r[0] == stop]:
        free.remove(r)
        start, stop = min(start, r[0]), max(stop, r[1])
    free.append((start, stop))
