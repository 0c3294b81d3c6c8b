"""A list that runs, and the recordings that belong together."""

import signal
import threading
from contextlib import contextmanager, nullcontext
from math import inf
from typing import Any
from weakref import proxy

import numpy

from tinygrad_ms.arrays.devices import default_device
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.tape import last_change
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.fused import is_on
from tinygrad_ms.optim.schedules import Schedule
from tinygrad_ms.optim.whole_steps import arithmetic_raises
from tinygrad_ms.random import generator
from tinygrad_ms.replay.layout import name_of
from tinygrad_ms.replay.plan import Plan
from tinygrad_ms.replay.refusal import Diverged, hooked, refusal
from tinygrad_ms.replay.source import Source
from tinygrad_ms.replay.trace import Input, Numbers, Value


class Program:
    """A list as a function. It takes the arguments that are arrays or tensors, and returns the results."""

    def __init__(self, recorder, results, structure, base_errors):
        trace = recorder.trace
        self.plan = plan = Plan(trace, results, base_errors)
        self.made = source = Source(plan, trace, structure, base_errors)
        self.source, self.names, self.count = source.text, source.names, [0]
        self.short: Any = None  # the function of ``shortcut``, made at its first use
        self.lock = threading.Lock()
        exec(compile(self.source, f"<tg.compile: {trace.name}>", "exec"), self.names)  # lines that ``Source`` wrote
        self.function = self.names.pop("replay")
        self.atomic = source.atomic
        self.generators, self.whole = recorder.generators, sorted(trace.whole)
        outside = {id(t) for t in (*recorder.tensors, *recorder.late)}
        self.tensors = [t for t, _ in recorder.swapped if id(t) in outside]
        used = {e.function for e in plan.entries if e.kind == "numbers"}
        self.numbers: list[Numbers] = list(used)
        self.optimizers = {id(o): o for o in [n.optimizer for n in used]}
        self.optimizers |= {id(o): o for o, _, _ in recorder.states.values()}
        self.states = [
            (o, o.state, p, state, [(k, v) for k, v in state.items() if type(v) in BACKENDS])
            for o, p, state in recorder.states.values()
        ]
        self.options = [
            (g, {k: v for k, v in g.items() if k not in ("params", "lr")}, len(g["params"]))
            for o in self.optimizers.values()
            for g in o.param_groups
        ]
        self.leaves = list(recorder.start)
        kinds = [e.kind for e in plan.entries]
        effects = [i for i, line in enumerate(source.lines) if line.effect]
        late = source.lines[effects[0] :] if effects else []
        self.risky = any(not line.pieces and line.raises for line in late)  # something may raise after the first change
        self.simple = self.atomic and not self.risky and not self.generators
        if "live" in kinds and {"expect", "shape"}.intersection(kinds[kinds.index("live") :]):
            raise refusal("a decision is taken from values after backward or an update; take it before", "the step")
        changed = {s for e in plan.entries for s in e.writes if s.kind in ("outside", "gradient")}
        self.written = [s.owner for s in changed]
        self.schedules = [e.args[0] for e in plan.entries if e.kind == "live" and isinstance(e.args[0], Schedule)]

    def ready(self) -> bool:
        """Whether the list can run now. If an optimizer has a new state, such as that of a checkpoint, it is taken."""
        for i, (o, states, p, state, arrays) in enumerate(self.states):
            if o.state is states and states.get(p) is state:
                for name, array in arrays:
                    if state.get(name) is not array:
                        break
                else:
                    continue
            if not self.rebind(i, o, p, state, arrays):
                return False
        for group, options, count in self.options:
            lr = group["lr"]
            if type(lr) is not float or not 0 <= lr < inf or len(group["params"]) != count:
                return False
            for name, value in options.items():
                if group[name] != value:
                    return False
        return True

    def rebind(self, i, o, p, state, arrays) -> bool:
        """Copy the present state of ``p`` into the arrays that the list uses. False if it does not fit them."""
        now = o.state.get(p)
        if now is None or now.keys() != state.keys():
            return False
        if any(type(now[n]) is not type(a) or now[n].dtype != a.dtype or now[n].shape != a.shape for n, a in arrays):
            return False
        for name, array in arrays:
            if now[name] is not array:
                array[...] = now[name]
                now[name] = array
        if (name := self.made.known.pop(id(state), None)) is not None:
            self.names[name] = now
            self.made.known[id(now)] = name
        for numbers in self.numbers:
            if numbers.state is state:
                numbers.state = now
        self.states[i], self.short = (o, o.state, p, now, arrays), None
        return True

    def __call__(self, inputs):
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        self.count[0] += 1
        with self.lock:  # all threads share one set of buffers
            if self.simple and not arithmetic_raises():
                try:
                    return self.function(*arrays)
                except Exception as error:  # before the first effect
                    raise Diverged(str(error)) from error
            with nullcontext() if self.atomic else whole_step():
                return self.carefully(arrays)

    @property
    def runs(self) -> int:
        """How often the list has run."""
        return self.count[0]

    def shortcut(self, guards, places, args):
        """A function of the tuple of arguments, all of them arrays or tensors. It returns the results or MISSED.

        It runs the list if all guarded objects are the same objects as when the list was made.
        """
        names: dict[str, Any] = {
            "MISSED": MISSED,
            "program": proxy(self),
            "replay": self.function,
            "count": self.count,
            "lock": self.lock,
        }
        names |= {
            "raises": arithmetic_raises,
            "is_on": is_on,
            "state": current_state,
            "alike": alike,
            "device": default_device,
        }

        def bound(x):
            names[name := f"k{id(x)}"] = x
            return name

        given, tests = self.tests(bound, guards, places, args)
        run = f"program(({''.join(f'{x}, ' for x in given)}))"
        text = f"def call(args):\n    try:\n        ({''.join(f'x{i}, ' for i in range(len(args)))}) = args\n"
        text += "        if not (\n            "
        text += "\n            and ".join(dict.fromkeys(tests))
        text += "\n        ):\n            return MISSED\n    except Exception:\n        return MISSED\n"
        if self.simple:
            text += f"    if raises():\n        return {run}\n    count[0] += 1\n"
            text += f"    with lock:\n        return replay({', '.join(given)})\n"
        else:
            text += f"    return {run}\n"
        exec(text, names)  # the text that is written above
        return names.pop("call")

    def tests(self, bound, guards, places, args):
        """The names of the arrays in the arguments, and conditions: the guarded objects are the same as now."""
        state = current_state()
        tests = [f"(state() is {bound(state)} or alike(state(), {bound(state)}))", f"device() == {default_device()!r}"]
        given = [f"x{i}" for i in range(len(args))]
        for i, x in enumerate(args):
            name, array = given[i], x
            if isinstance(x, Tensor):
                tests += [
                    f"type({name}) is {bound(type(x))}",
                    f"{name}.node is None",
                    f"(a{i} := {name}.data) is not None",
                ]
                given[i] = name = f"a{i}"
                array = x.data
            tests += [f"type({name}) is {bound(type(array))}", f"{name}.dtype is {bound(array.dtype)}"]
            tests += [f"{name}.shape == {array.shape}", f"{name}.strides == {array.strides}"]
        for t, array, node in places:
            tests += [f"{bound(t)}.data is {bound(array)}", f"{bound(t)}.node is {bound(node)}"]
            tests += [f"not ({bound(node)}.hooks and {bound(hooked)}({bound(node)}))"] if node is not None else []
        tests += [
            f"{bound(leaf)}.grad is {'' if there else 'not '}None"
            for leaf, there in zip(self.leaves, pattern_of({t: t.grad for t in self.leaves}))
        ]
        for o, states, p, s, arrays in self.states:
            tests += [f"{bound(o)}.state is {bound(states)}", f"{bound(states)}[{bound(p)}] is {bound(s)}"]
            tests += [f"{bound(s)}[{name!r}] is {bound(array)}" for name, array in arrays]
        for group, options, n in self.options:
            g = bound(group)
            lr, valid = f"{g}['lr']", f"type({g}['lr']) is float and 0 <= {g}['lr'] < 1e300"
            tests += [f"({lr} is {bound(group['lr'])} or {valid})", f"len({g}['params']) == {n}"]
            tests += [f"{g}[{name!r}] is {bound(value)}" for name, value in options.items()]
        tests += [*guards.conditions(bound), f"is_on() is {is_on()}"]
        return given, tests

    def carefully(self, arrays):
        """Run the list. If it does not come to its end, everything is restored."""
        before = [(g, g.bit_generator.state) for g in map(generator, self.generators)]
        copies = [(a, a.copy()) for a in self.written] if self.risky or arithmetic_raises() else []
        grads = [(t, t.grad) for t in self.leaves]
        steps = [(state, state["step"]) for _, _, _, state, _ in self.states]
        change, rates = last_change[0], [(g, g["lr"]) for g, _, _ in self.options]
        counts = [(s, s.steps, s.optimizer._factor) for s in self.schedules]
        try:
            return self.function(*arrays)
        except BaseException as error:
            for g, state in before:
                g.bit_generator.state = state
            for array, copy in copies:
                array[...] = copy
            for t, grad in grads:
                t.grad = grad
            for state, step in steps:
                state["step"] = step
            for group, lr in rates:
                group["lr"] = lr
            for schedule, n, factor in counts:
                schedule.steps, schedule.optimizer._factor = n, factor
            last_change[0] = max(change, last_change[0])
            if isinstance(error, Exception) and not isinstance(error, Diverged):
                raise Diverged(str(error)) from error
            raise


MISSED: Any = object()  # the result of a shortcut whose tests fail


def alike(state, known) -> bool:
    names = ("recording", "inference", "forward_mode", "hooks")
    return all(getattr(state, name) == getattr(known, name) for name in names)


@contextmanager
def whole_step():
    """Delay Ctrl-C until the end of the block. It has an effect only in the main thread, which gets the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple] = []
    before = signal.signal(signal.SIGINT, lambda *args: heard.append(args))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if heard and callable(before):
            before(*heard[0])


class Family:
    """The recordings of one signature with the same guards. There is one list for each pattern of present gradients."""

    def __init__(self, key, guards, recorder):
        self.keys, self.guards = {pattern_of(recorder.start): key}, guards
        outside = {id(t) for t in (*recorder.tensors, *recorder.late)}
        self.places = [(t, array.inner, t.node) for t, array in recorder.swapped if id(t) in outside]
        self.decisions = decisions_of(recorder.trace)
        self.leaves = list(recorder.start)
        self.programs: dict[tuple, Program] = {}

    def changed(self) -> str:
        """A sentence about a value that has changed since the recording; "" if none has."""
        for t, array, node in self.places:
            if t.data is not array or t.node is not node or (node is not None and hooked(node)):
                return "a tensor from outside has another array, or hooks"
        return self.guards.changed()

    def pattern(self) -> tuple:
        return pattern_of({leaf: leaf.grad for leaf in self.leaves})

    def program(self) -> Program | None:
        return self.programs.get(self.pattern())

    def confirm(self, key, recorder, results, structure, base_errors) -> None:
        """A second run with the same guards has made ``key``. Keep its list if the keys agree, else refuse it."""
        pattern = pattern_of(recorder.start)
        if not any(key[:3] == known[:3] for known in self.keys.values()):
            if pattern in self.keys:
                raise refusal(
                    "two calls did not do the same, and nothing that is guarded has changed:"
                    f" {difference(self.keys[pattern], key)}",
                    "the whole step has run",
                )
            self.keys[pattern] = key
        elif not recorder.fresh:
            self.programs[pattern] = Program(recorder, results, structure, base_errors)

    def describe(self) -> str:
        lists = len(self.programs)
        runs = sum(program.runs for program in self.programs.values())
        if not lists:
            return f"{len(next(iter(self.keys.values()))[0])} calls: not confirmed by a second call yet"
        program = next(iter(self.programs.values()))
        plan = program.plan
        return (
            f"{plan.recorded} calls of the array library, of which {len(program.made.lines)} are replayed,"
            + (f" {sum(len(p.calls) for p in plan.loops)} calls in {len(plan.loops)} loops," if plan.loops else "")
            + f" {plan.copies_spared} copies spared; buffers of {plan.size} bytes; {len(self.guards.entries)} guards:"
            f" {lists} lists, replayed {runs} times"
            + (f"; run as a whole: {', '.join(program.whole)}" if program.whole else "")
        )


def pattern_of(grads) -> tuple:
    return tuple([grad is None for grad in grads.values()])


# --- whether two runs have made the same list -------------------------------------------------------------------------


def decisions_of(trace) -> list:
    return [e.args[1] for e in trace.entries if e.kind in ("expect", "shape")]


def key_of(trace, results, structure) -> tuple:
    """A key of a recording. Two runs of a step made the same list if their keys are equal, except for the last item."""
    numbers: dict[Value, Any] = {}
    kept: list[Any] = []  # objects whose ids are in the key
    lines = []
    for e in trace.entries:
        dropped = e.kind == "gradient" and e.args[0] is None  # it depends on ``Family.pattern``
        if e.counts and not dropped and e.kind not in ("numbers", "tick"):
            what = id(e.function) if e.kind in ("gradient", "live") else name_of(e.function)
            lines.append((e.kind, what, mark((e.args, e.kwargs, e.outs), numbers, kept), e.label))
            kept.append(e.function)
    return lines, mark(list(results), numbers, kept), repr(structure), kept


def mark(x, numbers, kept):
    """A mark of an argument that can be compared between two runs. numbers: the marks of the values so far."""
    kind = type(x)
    if kind is Value:
        if x not in numbers:
            if x.storage.kind == "constant" and x.root:
                numbers[x] = mark(x.thing, numbers, kept)
            elif x.storage.kind == "number":
                numbers[x] = "number"
            elif x.thing is not None:
                numbers[x] = ("input", int(x.thing)) if isinstance(x.thing, Input) else ("outside", id(x.thing))
                kept.append(x.thing)
            else:
                numbers[x] = "value", len(numbers)
        return numbers[x]
    if kind is tuple or kind is list:
        return (kind.__name__, *[mark(item, numbers, kept) for item in x])
    if kind is dict:
        return tuple((k, mark(x[k], numbers, kept)) for k in sorted(x, key=str))
    if kind in BACKENDS:
        host = BACKENDS[kind].to_host(x)
        return "array", str(host.dtype), host.shape, host.tobytes()
    if isinstance(x, (int, float, str, slice, numpy.dtype, numpy.generic, type(None), type)) or x is Ellipsis:
        return kind.__name__, repr(x)
    kept.append(x)
    return "object", id(x)


def difference(first, second) -> str:
    """A sentence about the first difference of two lists."""
    for a, b in zip(first[0], second[0]):
        if a != b:
            if a[:2] == b[:2]:
                return (
                    f"{a[1]} in {a[3] or 'the step'} got another number, tensor or array: made in the step, or read"
                    " from something that is not guarded"
                )
            return f"{a[1]} in {a[3] or 'the step'} became {b[1]} in {b[3] or 'the step'}"
    if len(first[0]) != len(second[0]):
        return f"{len(first[0])} calls became {len(second[0])}"
    return "the results differ"
