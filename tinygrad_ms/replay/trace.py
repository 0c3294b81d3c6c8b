"""The trace: the calls of the array library in their order, with the arrays that they read, make and change."""

import operator
from sys import _getframe
from typing import Any

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.call import ours
from tinygrad_ms.replay.refusal import Untraceable, user_line
from tinygrad_ms.replay.traced import KINDS, Traced, TracedScalar, active, plain, read, recording_type

FACTS = {  # functions of NumPy that read only shapes and dtypes
    "shape", "ndim", "size", "result_type", "promote_types", "can_cast", "may_share_memory", "shares_memory",
    "issubdtype", "iscomplexobj", "isrealobj", "isscalar", "broadcast_shapes", "min_scalar_type",
}  # fmt: skip
FIRST = {operator.setitem} | {  # calls that change their first argument
    getattr(numpy, name) for name in ("copyto", "put", "place", "putmask", "put_along_axis", "fill_diagonal")
}
BY_VALUE = {  # functions whose results have shapes that depend on values
    "nonzero", "flatnonzero", "argwhere", "compress", "extract", "repeat", "unique", "unique_values", "trim_zeros",
}  # fmt: skip
FIRST_METHODS = {"fill", "sort", "put", "partition"}


class Storage:
    """Memory that arrays of a step share.

    kind: "buffer" is made in the step. "outside" is an array, and "gradient" a ``.grad``, that exists before the step.
    "number" is a number of an optimizer. The others are "input" and "constant".
    owner: the raw array that owns the memory, if it stays from step to step.
    """

    __slots__ = ("kind", "owner", "count", "maker")

    def __init__(self, kind, owner=None):
        self.kind, self.owner = kind, owner
        self.count, self.maker = 0, ""  # the number of elements, and the kind of the entry that makes it


class Input(int):
    """The number of an argument of the step."""


class Value:
    """One array or NumPy scalar of the list.

    root: whether it shows all of its storage. scalar: whether it is a NumPy scalar. entry: the entry that makes it.
    thing: the place where a replay finds a value that exists before the step: the raw array, the number of an input, or
    the tensor of a gradient.
    """

    __slots__ = ("storage", "shape", "dtype", "strides", "root", "scalar", "lifted", "entry", "thing", "kind")

    def __init__(self, storage, inner, root, entry=None, thing=None):
        self.storage, self.root, self.entry, self.thing = storage, root, entry, thing
        self.shape, self.dtype, self.kind = inner.shape, inner.dtype, type(inner)
        self.strides = getattr(inner, "strides", ())
        self.scalar, self.lifted = isinstance(inner, numpy.generic), False  # lifted: a scalar that became an array


class Entry:
    """One call. outs: the Value that it makes, or nested tuples of Values, or None. writes: the storages it changes."""

    __slots__ = ("function", "args", "kwargs", "outs", "writes", "kind", "errors", "label", "where", "counts")

    def __init__(self, kind, function, args=(), kwargs=None, outs=None, writes=()):
        self.kind, self.function, self.args, self.kwargs = kind, function, args, kwargs or {}
        self.outs, self.writes = outs, writes
        self.errors, self.label, self.where, self.counts = None, "", "", True


class Trace:
    """The entries of a recording. ``inside``: the depth in forwards and rules that are recorded call by call."""

    def __init__(self):
        self.entries: list[Entry] = []
        self.recording = True
        self.inside = self.hidden = 0
        self.label, self.where, self.counts, self.name = "", "", True, ""
        self.inputs, self.swapped = 0, []  # the number of arguments; (tensor, recording array)
        self.whole: dict[str, int] = {}  # forwards and rules that run as a whole -> how often
        self.never: set[str] = set()  # those that earlier recordings found
        self.storages: dict[int, Storage] = {}  # by id of the array that owns the memory
        self.known_outside: dict[int, Traced] = {}  # by id of the array
        self.first_steps: dict[int, int] = {}  # id of the state of a parameter -> its count of steps before this step
        self.before_write: Any = None  # called with a storage from outside before its first change
        self.made: dict[tuple, Any] = {}  # numbers of optimizers

    @property
    def open(self) -> bool:
        """Whether calls are recorded in this thread. Other threads may see the arrays, but are not recorded."""
        return self.recording and active.get() is self

    # --- arrays -------------------------------------------------------------------------------------------------------

    def wrap(self, inner, value) -> Traced:
        scalar = type(inner) not in BACKENDS
        return (TracedScalar if scalar else recording_type(BACKENDS[type(inner)]))(inner, value, self)

    def known(self, array, kind, thing) -> Traced:
        """A recording array for an array that exists before the step."""
        owner = owner_of(array)
        storage = self.storages.get(id(owner))
        if storage is None:
            storage = self.storages[id(owner)] = Storage(kind, owner)
        return self.wrap(array, Value(storage, array, True, thing=thing))

    def outside(self, array) -> Traced:
        if id(array) not in self.known_outside:
            self.known_outside[id(array)] = self.known(array, "outside", array)
        return self.known_outside[id(array)]

    def lift(self, array) -> Traced:
        """A recording array for a plain one. A replay reads the user's arrays again; the library's are constant."""
        frame = _getframe(2)
        while frame.f_code.co_name != "op" and frame.f_back is not None:
            frame = frame.f_back
        known = id(owner_of(array)) in self.storages
        if not known and (self.inside or (frame.f_back is not None and ours(frame.f_back))):
            return self.wrap(array, constant_of(array))
        return self.outside(array)

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, function, args, kwargs):
        """Compute the result, and record the call."""
        name = function if isinstance(function, str) else getattr(function, "__name__", "")
        if not self.open:
            return compute(function, [plain(a) for a in args], {k: plain(v) for k, v in kwargs.items()})
        if self.hidden:
            raise Untraceable(f"compile: {user_line()}: a call that runs as it is sees arrays of the recording")
        operands: list[Traced] = []
        raw = [self.open_up(a, operands) for a in args]
        named = {k: self.open_up(v, operands) for k, v in kwargs.items()}
        changed = self.changed_by(function, args, kwargs)
        result = compute(function, raw, named)
        if name in FACTS:
            return result
        entry = Entry("call", function, self.noted(args), self.noted(kwargs))
        entry.writes = changed
        made = self.results(result, operands, entry)
        self.add(entry)
        if name in BY_VALUE or (name in ("getitem", "take") and any(x.dtype.kind == "b" for x in operands[1:])):
            if self.inside:
                raise read()
            self.expect_shapes(entry)
        return made

    def kernel(self, kernel):
        """A compiled kernel whose calls are written down as one call each."""

        def run(*given):
            made = [self.call(numpy.empty_like, given[:1], {}) for _ in range(getattr(kernel, "makes", 0))]
            found = self.call(kernel, given, {"out": tuple(made)} if made else {})
            return made or found  # calls of a device's kernel return what they make

        return run

    def expect_shapes(self, entry):
        """Record the shapes of results that depend on values. A replay goes on only if they are the same."""
        for v in flat_values(entry.outs):
            self.add(Entry("shape", None, (v, v.shape)))

    def add(self, entry, made=None):
        entry.errors = numpy.geterr()
        entry.label, entry.where, entry.counts = self.label, self.where, self.counts
        self.entries.append(entry)
        return made

    def open_up(self, x, operands):
        """An argument with raw arrays. The recording arrays go into ``operands``."""
        kind = type(x)
        if kind in KINDS:
            if x.trace is not self:  # from another recording, such as a constant that was kept
                return x.inner
            operands.append(x)
            return x.inner
        if kind is tuple or kind is list:
            return kind([self.open_up(item, operands) for item in x])
        return x

    def noted(self, x):
        """An argument for the list, with a Value for each recording array."""
        kind = type(x)
        if kind in KINDS:
            return x.value if x.trace is self else x.inner
        if kind is tuple or kind is list:
            return kind([self.noted(item) for item in x])
        if kind is dict:
            return {k: self.noted(item) for k, item in x.items()}
        return x

    def changed_by(self, function, args, kwargs) -> list[Storage]:
        out = kwargs.get("out")
        targets = list(out) if isinstance(out, tuple) else [] if out is None else [out]
        method = function if isinstance(function, str) else ""
        if method in FIRST_METHODS or getattr(function, "__name__", "") == "at" or not method and function in FIRST:
            targets.append(args[0])
        targets += [args[k] for k in getattr(function, "written", ())]
        found = []
        for x in targets:
            if type(x) not in KINDS or x.trace is not self:
                raise Untraceable(f"compile: {user_line()}: writes into an array that the recording does not know")
            found.append(x.value.storage)
            if self.before_write is not None:
                self.before_write(x.value.storage)
        return found

    def results(self, result, operands, entry):
        """The results of a call as recording arrays. ``entry.outs`` gets their Values."""
        if isinstance(result, (tuple, list)):
            made = [self.results(item, operands, entry) for item in result]
            outs = [self.noted(item) if type(item) in (*KINDS, tuple, list) else None for item in made]
            entry.outs = tuple(outs)
            return type(result)(*made) if hasattr(result, "_fields") else type(result)(made)
        if type(result) in BACKENDS:
            for x in operands:
                if x.inner is result:
                    entry.outs = x.value
                    return x
            owner = owner_of(result)
            base = next((x for x in operands if owner_of(x.inner) is owner), None)
            storage = Storage("buffer") if base is None else base.value.storage
            if base is None:
                storage.count, storage.maker = result.size, entry.kind
            value = Value(storage, result, base is None, entry)
            entry.outs = value
            return self.wrap(result, value)
        if isinstance(result, numpy.generic):
            value = Value(Storage("buffer"), result, True, entry)
            entry.outs = value
            return self.wrap(result, value)
        if isinstance(result, (bool, int, float, complex)):
            raise read()
        entry.outs = None
        return result

    def truth(self, x) -> bool:
        """Record a decision that depends on a value. A replay goes on only if the decision is the same."""
        if not self.open:
            return bool(x.inner)
        if self.hidden:
            raise read()
        answer = bool(x.inner)
        self.add(Entry("expect", bool, (x.value, answer)))
        if not self.inside:
            self.entries[-1].label = ""
        return answer

    # --- forwards and rules -------------------------------------------------------------------------------------------

    def run_op(self, primitive, arrays, constants):
        """Record the forward of an op call by call. If it cannot be, because it reads values, record it as a whole."""
        backend = next(BACKENDS[type(a)] for a in arrays if type(a) in KINDS)
        real = BACKENDS[type(next(a.inner for a in arrays if type(a) in KINDS))]
        kept = self.label, self.where
        self.label, self.where = primitive.name, ""
        try:
            return self.attempt(
                primitive.name,
                lambda: primitive.forward(backend.xp, *arrays, **constants),
                primitive.forward, (real.xp, *arrays), constants,
            )  # fmt: skip
        finally:
            self.label, self.where = kept

    def attempt(self, name, traced, function, args, kwargs):
        """``traced()``; if that cannot be recorded call by call, one entry for ``function``."""
        if name not in self.whole and name not in self.never and not self.hidden:
            mark, made = len(self.entries), dict(self.made)
            self.inside += 1
            try:
                return traced()
            except Exception:
                del self.entries[mark:]
                self.made = made
            finally:
                self.inside -= 1
        self.whole[name] = self.whole.get(name, 0) + 1
        return self.as_a_whole(function, args, kwargs)

    def as_a_whole(self, function, args, kwargs):
        operands: list[Traced] = []
        raw = [self.open_up(a, operands) for a in args]
        named = {k: self.open_up(v, operands) for k, v in kwargs.items()}
        self.hidden += 1
        try:
            result = function(*raw, **named)
        finally:
            self.hidden -= 1
        entry = Entry("whole", function, self.noted(args), self.noted(kwargs))
        made = self.add(entry, self.results(result, operands, entry))
        self.expect_shapes(entry)
        return made

    # --- what else a step does ----------------------------------------------------------------------------------------

    def numbers(self, optimizer, p, options, state):
        """The numbers of an update as 0-d arrays. Each replay fills them again."""
        step = state["step"]
        values = optimizer.scalars(options, step)
        key = (id(optimizer), id(options), step, values, p.dtype.str, type(p))
        if key not in self.made:
            backend = BACKENDS[type(p.inner)]
            arrays = [backend.xp.asarray(value, dtype=p.dtype) for value in values]
            if rows := getattr(optimizer.updating, "rows", None):  # the state of a Flat exists for one step only
                state = rows[0][2]
            ahead = step - self.first_steps.get(id(state), 0)
            numbers = Numbers(optimizer, options, state, values, arrays, ahead)
            made = [self.known(a, "number", a) for a in arrays]
            self.add(Entry("numbers", numbers, writes=[x.value.storage for x in made]))
            self.made[key] = made
        return self.made[key]


class Numbers:
    """The factors of an optimizer in one step, as 0-d arrays. Its options and its count of steps give the values."""

    def __init__(self, optimizer, options, state, values, arrays, ahead):
        self.optimizer, self.options, self.state, self.p = optimizer, options, state, optimizer.updating
        self.values, self.arrays, self.ahead = values, arrays, ahead
        self.lr = options["lr"]  # the one that is in the arrays
        self.of_lr_alone = getattr(type(optimizer).scalars, "of_lr_alone", False)  # guards know the other options

    def refresh(self, step_before):
        self.lr = self.options["lr"]
        self.optimizer.updating = self.p
        values = self.optimizer.scalars(self.options, step_before + self.ahead)
        if values != self.values:
            for array, value, old in zip(self.arrays, values, self.values):
                if value != old:
                    array[...] = value
            self.values = values


def constant_of(array) -> Value:
    return Value(Storage("constant", array), array, True, thing=array)


def flat_values(outs):
    if isinstance(outs, tuple):
        for item in outs:
            yield from flat_values(item)
    elif outs is not None:
        yield outs


def compute(function, args, kwargs):
    if isinstance(function, str):
        found = getattr(args[0], function)
        return found(*args[1:], **kwargs) if callable(found) and function not in VIEWS else found
    return function(*args, **kwargs)


VIEWS = {"T", "mT", "real", "imag"}  # attributes, not methods


def owner_of(array):
    """The array that owns the memory."""
    owner = array
    while (array := getattr(array, "base", None)) is not None:  # as_strided puts another object between
        owner = array if type(array) is type(owner) else owner
    return owner
