"""Flat storage: many small parameters as views of one vector, so that one call reads or writes all of them.

    flat = Flat(model.parameters())     # of one dtype, on one device
    flat.data                           # the vector; each ``p.data`` is a view of it, in the order of the parameters
    flat.gather()                       # flat.grad: the gradients, end to end; None where one is missing
    flat.data -= 0.1 * flat.grad
    flat.touch()                        # the tape sees that all of the parameters have changed
    flat.grad *= 0.5
    flat.scatter()                      # ... and the gradients are what flat.grad says

The parameters stay the user's objects, and ``state_dict``, checkpoints and pickles do not change. If one of them gets
another array (``.to``, ``astype``, ``p.data = ...``), ``intact()`` is False from then on, and users of the vector go
back to the parameters. Nothing is lost, because each remaining array is a view with its values.

A parameter is moved only if nothing else shows its memory: no raw array that somebody keeps, no view, no ``detach()``,
no value that the tape has saved. Such an array would show the old values for good. The counts of references tell it; on
a Python other than CPython nothing is moved. Parameters that lie end to end in a living Flat are not moved either. A
Flat of them is a part of that vector, so optimizers, recordings and communication share one memory.

An optimizer puts the small parameters of a group into flats if its ``elementwise(group)`` is true; ``flats(group)``
gives them. A step updates a flat at once if all its parameters have a gradient and have made the same number of steps,
else one by one. The results are equal bit by bit.

Gradients are copied into the vector, 0.13 us each. Backward could write them there and save this and 0.3 us more. But
then a gradient that a user keeps from one step to the next would change.
"""

import sys
from collections import Counter
from contextlib import suppress
from itertools import accumulate
from operator import attrgetter, is_
from typing import Any
from weakref import WeakSet

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_card, there
from tinygrad_ms.engine.tape import last_change, tick
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.optim.on_device import TOGETHER, launches

# What gains in a vector, on the host and on a card. Measured on a CPU with 2 MB of cache: SGD, momentum, Adam.
FEW = 4  # parameters, one fewer for each array of the state, and two in any case
MOST = {
    True: 2**12,
    False: 2**40,
}  # elements of a parameter; for a larger one the copy of its gradient costs more than it gains
TOTAL = {True: 2**15, False: 2**40}  # elements of a vector; all arrays of an update then fit the cache

ARRAY = attrgetter("data")
LIVING: WeakSet = WeakSet()


class Flat:
    """Parameters of one dtype and device as views of the vector ``data``, in their order.

    Raises ValueError for parameters that do not go together, and where one cannot be moved.
    """

    def __init__(self, parameters):
        self.parameters: list[Tensor] = list(parameters)
        arrays = list(map(ARRAY, self.parameters))
        if len({(type(a), a.dtype, p.device) for a, p in zip(arrays, self.parameters)}) != 1:
            kinds = ", ".join(sorted({f"{p.dtype} on {p.device}" for p in self.parameters}))
            raise ValueError(f"Flat: the parameters are {kinds or 'none'}; expected one dtype on one device")
        if len(set(map(id, self.parameters))) < len(arrays):
            raise ValueError("Flat: a parameter is there twice")
        self.kind, self.dtype, self.shapes = type(arrays[0]), arrays[0].dtype, [a.shape for a in arrays]
        self.host = on_host(self.parameters[0])
        self.starts = [0, *accumulate(p.size for p in self.parameters)]
        self.data: Any
        self.views: list
        if not self.within():
            for p, free in zip(self.parameters, alone(arrays)):
                if not free or not p.data.flags.c_contiguous:
                    raise ValueError(
                        f"Flat: {p.name or 'a parameter'} of shape {p.shape} cannot be moved: somebody else shows its"
                        " memory (a raw array, a view, detach(), the tape), or it is not in the order of C"
                    )
            self.data, self.views = self.end_to_end(arrays)
            for p, view in zip(self.parameters, self.views):
                p.data = view
        self.grad: Any = None  # the vector of the gradients, once gathered
        self.grads: list = []
        self.given: Any = None  # what the step reads: ``grad``, or on devices a list of gradients
        self.kernels = launches(self.data)
        self.names: tuple = ()  # of the arrays that an optimizer keeps for each parameter ...
        self.buffers: dict[str, Any] = {}  # ... and their vectors
        self.rows: list[tuple] = []  # by parameter: it, its view, its entry in the state, the views there
        LIVING.add(self)

    def within(self) -> bool:
        """Become a part of a living Flat, if the parameters lie end to end in one."""
        first, count = self.parameters[0], len(self.parameters)
        for flat in list(LIVING):
            i = next((i for i, p in enumerate(flat.parameters) if p is first), None)
            if i is not None and flat.intact() and same(flat.parameters[i : i + count], self.parameters):
                self.data = flat.data[flat.starts[i] : flat.starts[i] + self.starts[-1]]
                self.views = flat.views[i : i + count]
                return True
        return False

    def end_to_end(self, arrays):
        """A new vector of the arrays, and the views of it that have their shapes."""
        with on_card(arrays[0]):
            vector = BACKENDS[self.kind].xp.concatenate([a.reshape(-1) for a in arrays])
        bounds = zip(self.starts, self.starts[1:], self.shapes)
        return vector, [vector[i:j].reshape(shape) for i, j, shape in bounds]

    def intact(self) -> bool:
        """Whether the array of each parameter is the view that it was given."""
        return same(map(ARRAY, self.parameters), self.views)

    def dissolve(self) -> None:
        """Give up the vector for good. The parameters keep their views."""
        self.data, self.views, self.grad, self.buffers, self.rows = None, [None] * len(self.views), None, {}, []
        LIVING.discard(self)

    def touch(self) -> None:
        """Note that the vector was changed: the change counters of all parameters move."""
        now = last_change[0] = tick()
        for p in self.parameters:
            p.version_counter()[0] = now

    # --- gradients --------------------------------------------------------------------------------------------------

    def gather(self):
        """Copy the gradients end to end into ``grad``. None if one is missing or of another kind."""
        kind, dtype, host, arrays = self.kind, self.dtype, self.host, []
        if self.grad is None:
            self.grad, self.grads = self.end_to_end(list(map(ARRAY, self.parameters)))
        for p, shape, view in zip(self.parameters, self.shapes, self.grads):
            if (g := p.grad) is None:
                return None
            array = g.data
            if type(array) is not kind or array.dtype is not dtype or array.shape != shape:
                return None
            if host:  # faster than joining them
                view[...] = array
            else:
                arrays.append(array.reshape(-1))
        if arrays:
            there(BACKENDS[kind].xp.concatenate, self.grad)(arrays, out=self.grad)
        return self.grad

    def pieces(self):
        """The gradients as vectors where they lie, for a kernel that reads them there. None as of ``gather``."""
        found = []
        for p, shape in zip(self.parameters, self.shapes):
            array: Any = getattr(p.grad, "data", None)
            if type(array) is not self.kind or array.dtype is not self.dtype or array.shape != shape:
                return None
            found.append(array.reshape(-1))
        return found

    def scatter(self) -> None:
        """Write ``grad`` back into the gradients that it was gathered from.

        Raises RuntimeError where one of them is gone.
        """
        if self.grad is None or any(p.grad is None for p in self.parameters):
            raise RuntimeError("scatter: a gradient is gone, or was never there; gather() comes before")
        for g, view in zip([p.grad for p in self.parameters], self.grads):
            with on_card(view):
                g.data[...] = view  # type: ignore[union-attr]
            g.touch()  # type: ignore[union-attr]

    # --- the state of an optimizer ----------------------------------------------------------------------------------

    def ready(self, states, names):
        """The state for an update of the whole vector. None if the parameters have to go one by one this time.

        states: those of the optimizer, by parameter. names: of the arrays in a state.
        """
        step = self.steps_made(states) if self.names == names else None
        if step is None and self.intact() and self.take(states, names):
            step = self.steps_made(states)
        self.given = None if step is None else self.pieces() if self.kernels and launches(self.data) else self.gather()
        return None if self.given is None else {"step": step, **self.buffers}

    def steps_made(self, states) -> int | None:
        """How many steps all parameters have made, if they and their state are still what was laid end to end."""
        step, host = None, self.host
        for p, view, entry, buffers in self.rows:
            if p.data is not view or states.get(p) is not entry or (host and not view.flags.writeable):
                return None
            for name, buffer in buffers:
                if entry.get(name) is not buffer:
                    return None
            if entry["step"] != step:
                if step is not None:
                    return None
                step = entry["step"]
        return None if host and not self.data.flags.writeable else step

    def take(self, states, names) -> bool:
        """Put the arrays of the state end to end, if nothing else shows their memory."""
        self.names, self.buffers, self.rows = names, {}, []
        dtype = DEFAULT_FLOAT if self.dtype.itemsize < 4 else self.dtype
        entries = [states.get(p) for p in self.parameters]
        if not all(entry and entry.keys() >= {"step", *names} for entry in entries):
            return False
        for name in names:
            arrays = [entry[name] for entry in entries]
            for a, shape, free in zip(arrays, self.shapes, alone(arrays)):
                if type(a) is not self.kind or a.dtype != dtype or a.shape != shape or not free:
                    return False
        for name in names:
            self.buffers[name], views = self.end_to_end([entry[name] for entry in entries])
            for entry, view in zip(entries, views):
                entry[name] = view
        kept = [[(name, entry[name]) for name in names] for entry in entries]
        self.rows = list(zip(self.parameters, self.views, entries, kept))
        return True

    def made(self, step: int, now: int) -> None:
        """Note that step number ``step`` was made at number ``now`` of the tape."""
        try:
            for p, _, entry, _ in self.rows:
                entry["step"] = step
                p.node.counter[0] = now
        except (AttributeError, TypeError):  # one is frozen, or nobody has asked for its counter before
            for p, _, entry, _ in self.rows:
                entry["step"] = step
                p.version_counter()[0] = now


class Layout:
    """The flats of a group, and the parameters that go one by one.

    The parameters of a flat go one by one if a gradient is missing, if an array was replaced, or if they have made
    different numbers of steps. After 1, 2, 4, 8, ... such steps all flats are made anew.
    """

    def __init__(self):
        self.params, self.flats, self.left = [], [], []
        self.missed, self.stale = 0, False

    def lay(self, group, optimizer) -> None:
        """Make the flats. Parameters that have made the same number of steps go together."""
        self.params, self.flats, self.stale, states = list(group["params"]), [], False, optimizer.state
        small = [p for p in self.params if 0 < p.size <= MOST[on_host(p)] and p.data.flags.c_contiguous]
        unshare([p for other in optimizer.param_groups for p in other["params"]], states)
        found: dict[tuple, list[list]] = {}
        few = max(2, FEW - len(optimizer.buffers(group)))
        for p, free in zip(small, alone(list(map(ARRAY, small)))):
            key = type(p.data), p.dtype, p.device, free, states[p]["step"] if p in states else 0
            lists = found.setdefault(key, [[]])
            if sum(q.size for q in lists[-1]) + p.size > TOTAL[on_host(p)] or full(lists[-1]):
                lists.append([])
            lists[-1].append(p)
        for part in [part for lists in found.values() for part in lists if len(part) >= few]:
            with suppress(ValueError):  # something else shows their memory
                self.flats.append(Flat(part))
        inside = {id(p) for flat in self.flats for p in flat.parameters}
        self.left = [p for p in self.params if id(p) not in inside]

    def sort(self, group, names, optimizer, work) -> list:
        """Put the flats that can be updated at once into ``work`` of ``step``; return the parameters left."""
        params, states = group["params"], optimizer.state
        if self.stale or len(params) != len(self.params) or not same(params, self.params):
            self.lay(group, optimizer)
        left = self.left
        for flat in self.flats:
            if (state := flat.ready(states, names)) is not None:
                work.append((flat.data, flat.given, state, group, flat, False))
            else:
                left = left + flat.parameters
                if any(p in states for p in flat.parameters):  # there is none in the first step
                    self.missed += 1
                    self.stale = self.missed & (self.missed - 1) == 0
        return left


def full(parameters) -> bool:
    return len(parameters) >= TOGETHER and launches(parameters[0].data)


def on_host(p) -> bool:
    return BACKENDS[type(p.data)].name == "cpu"


def same(items, others) -> bool:
    """Whether two sequences of one length hold the same objects."""
    return all(map(is_, items, others))


def references(arrays) -> list[tuple]:
    """The number of references to each array, and to the array that owns its memory."""
    return [(getrefcount(a), getrefcount(a.base)) for a in arrays]


def alone(arrays) -> list[bool]:
    """Whether only one holder, this list, and other arrays in it show the memory of each array."""
    shown = Counter(id(a.base) for a in arrays)
    return [
        count == ALONE[0] + 1
        and (a.base is None or (type(a.base) is type(a) and owner == ALONE[1] + shown[id(a.base)] - 1))
        for a, (count, owner) in zip(arrays, references(arrays))
    ]


def unshare(parameters, states) -> None:
    """Copy arrays that are views of an older vector, or of another array that nothing else shows."""
    views = [p for p in parameters if p.size <= MOST[on_host(p)] and p.data.base is not None]
    for p, free in zip(views, alone(list(map(ARRAY, views)))):
        if free:
            p.data = there(p.data.copy, p.data)()
    places = [(states[p], name) for p in parameters for name in states.get(p, ()) if name != "step"]
    places = [(entry, name) for entry, name in places if getattr(entry[name], "base", None) is not None]
    for (entry, name), free in zip(places, alone([entry[name] for entry, name in places])):
        if free:
            entry[name] = there(entry[name].copy, entry[name])()


getrefcount: Any = getattr(sys, "getrefcount", lambda value: 0)
ALONE = references([numpy.empty(2)[:1]])[0] if hasattr(sys, "getrefcount") else (1, 1)  # no count equals (1, 1)
