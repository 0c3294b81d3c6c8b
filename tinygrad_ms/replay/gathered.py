"""Small gradients that an optimizer copies into a vector are made there, and the user gets the copies."""

import operator
from math import prod

import numpy

from tinygrad_ms.replay.layout import values_in
from tinygrad_ms.replay.small import in_c, new
from tinygrad_ms.replay.trace import Entry, Value


def gather(plan) -> None:
    copies = [e for e in plan.entries if e.function is operator.setitem and e.args[1] is Ellipsis]
    spans = plan.spans()
    targets = dict.fromkeys(plan.resolve(e.args[0]).storage for e in copies)
    fitting = [s for s in targets if s in spans and plan.fits({**spans, s: (0, *spans[s][1:])}, spans)]  # from entry 0
    vectors: dict = {s: ([], []) for s in fitting}  # what shows a vector; the parts in use
    shown: dict = {}  # storage -> the entries that give it to the user
    for e in plan.entries:
        for v in values_in(e.args) if e.kind == "gradient" else ():
            shown.setdefault(plan.resolve(v).storage, []).append(e)
    for v in [v for kind, v in plan.results if kind != "constant"]:
        shown.setdefault(plan.resolve(v).storage, []).append(None)
    moved: list[Entry] = []
    for e in list(plan.entries):
        if type(e.outs) is Value and e.outs.storage in vectors and e.outs.entry is e and not e.writes:
            vectors[e.outs.storage][0].append(e)
            continue
        if copies and e is copies[0] and (view := make_there(plan, copies.pop(0), vectors, shown)):
            moved += [k for k in [*vectors[view.storage][0], view.entry] if k not in moved]
        for v in plan.reads(e):
            if v.storage in vectors:
                vectors[v.storage][1].append(part_of(plan, v))
    plan.entries = moved + [e for e in plan.entries if e not in moved]


def make_there(plan, e, vectors, shown) -> Value | None:
    """Let the call that makes a gradient write where ``e`` copies it to. What it then makes, or None if it cannot."""
    target, g = plan.resolve(e.args[0]), plan.resolve(e.args[2])
    vector, place, given = target.storage, part_of(plan, target), shown.get(g.storage) if type(g) is Value else None
    if vector not in vectors or place is None or given is None or len(given) > 1 or given[0] is None:
        return None
    roots = [v for v in plan.showing.get(g.storage, ()) if v.root and v not in plan.instead]
    if len(roots) != 1 or roots[0].entry is None or vector.kind != "buffer" or vector in plan.kept_by_user:
        return None
    if not all(apart(place, other) for other in vectors[vector][1]):
        return None
    gradient, size = given[0], place[1] - place[0]
    root, maker = roots[0], roots[0].entry
    ufunc = isinstance(maker.function, numpy.ufunc) and maker.function.nout == 1
    if not (ufunc or maker.function == "astype") or maker.outs is not root or maker.writes:
        return None
    if any(v.kind is not numpy.ndarray or not in_c(v) or prod(v.shape) != size for v in (root, g, target)):
        return None
    if root.dtype != target.dtype or plan.resolve(gradient.args[0]) is not g or plan.writers.get(g.storage):
        return None
    entry = Entry("call", "reshape", (target, root.shape))
    entry.errors, entry.outs = plan.base, new(root.shape, root.dtype, entry)
    view = entry.outs
    view.storage, view.root = vector, False
    plan.kept_by_user.discard(g.storage)
    plan.alias(root, view)
    plan.writers.setdefault(vector, []).append(maker)
    maker.writes, maker.outs = [vector], view
    if ufunc:
        maker.kwargs = {**maker.kwargs, "out": view}
    else:
        maker.function, maker.args, maker.kwargs, maker.outs = e.function, (view, ..., maker.args[0]), {}, None
    e.function, e.args, e.writes, e.outs, e.label = "copy", (target,), [], new(g.shape, g.dtype, e), "gradient"
    gradient.args = (e.outs,)
    plan.kept_by_user.add(e.outs.storage)
    for k in (maker, e, gradient):
        plan.inputs.pop(k, None)
    return view


def part_of(plan, v):
    """The start and stop of the part of a vector in which a value lies; None for the whole vector, or if unknown."""
    while v.entry is not None and not v.root:
        base = plan.resolve(v.entry.args[0])
        if base.root:
            part = v.entry.args[1] if v.entry.function is operator.getitem and len(base.shape) == 1 else None
            return part.indices(base.shape[0])[:2] if type(part) is slice and part.step in (None, 1) else None
        v = base
    return None


def apart(one, other) -> bool:
    return other is not None and (one[1] <= other[0] or other[1] <= one[0])
