"""Records one run of a step. Its tensors show recording arrays. Effects without a library call are noted here."""

import copy
import zlib
from inspect import unwrap
from typing import Any

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.around.rules import Rule
from tinygrad_ms.engine.tape import Output
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.optim.clipping import clip_grad_norm, clip_grad_value
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.random import _replay, generator
from tinygrad_ms.replay.refusal import hooked, refusal
from tinygrad_ms.replay.trace import Entry, Input, Trace, constant_of
from tinygrad_ms.replay.traced import KINDS, active

CHECKPOINTS = "tinygrad_ms.transforms"  # observers of this module only look for changes in place
SIMPLE = (int, float, bool, str, type(None))
CALLS = {unwrap(f) for f in (clip_grad_norm, clip_grad_value)}  # live calls that are recorded call by call
STEP = unwrap(Optimizer.step)


class Recorder:
    """Records one call of a step. inputs: the tensors that stand for its arguments. tensors: others that it may use."""

    def __init__(self, inputs, tensors, optimizers):
        self.trace = trace = Trace()
        trace.before_write = self.before_write
        self.inputs, self.tensors = inputs, list(tensors)
        self.start = {t: t.grad for t in self.tensors if t.node is not None and t.is_leaf}
        self.grads: dict[Tensor, Any] = dict(self.start)  # tensor -> its ``.grad`` after the entries of the list
        self.swapped: list[tuple] = []  # (tensor, its recording array)
        self.options = [(o, options_of(o)) for o in optimizers]
        self.seed = generator()
        self.generators: list[Any] = []
        self.states: dict[int, tuple] = {}  # id of a state -> (optimizer, parameter, state)
        self.fresh = False  # whether an optimizer has made its state in this run
        self.late: list[Tensor] = []  # tensors that were not found before the run
        self.live: list[tuple] = []
        self.args: tuple = ()
        self.sums: dict[int, int] = {}  # id of a storage from outside -> the check sum of its content
        self.masks: dict[tuple, Any] = {}  # check sum of random numbers -> their Value
        self.plans: list[Any] = []
        trace.inputs, trace.swapped = len(inputs), self.swapped

    # --- in and out ---------------------------------------------------------------------------------------------------

    def __enter__(self):
        for optimizer, _ in self.options:
            lay_flats(optimizer)
        for i, t in enumerate(self.inputs):
            array = t.data
            self.swap(t, self.trace.known(array, "input", Input(i)))
        for t in self.tensors:
            self.swap(t, self.trace.outside(t.data))
            if t.grad is not None and type(t.grad.data) not in KINDS:
                self.swap(t.grad, self.trace.known(t.grad.data, "gradient", t))
        self.sums = {id(s): check_sum(s.owner) for s in self.trace.storages.values()}
        self.token = active.set(self.trace)
        return self

    def swap(self, tensor, array) -> None:
        tensor.data = array
        if tensor.node is not None and tensor.is_leaf:
            tensor.node.backend = BACKENDS[type(array)]
        self.swapped.append((tensor, array))

    def __exit__(self, *error):
        active.reset(self.token)
        self.trace.recording, self.trace.before_write = False, None
        for t, array in self.swapped:
            if t.data is array:
                t.data = array.inner
            for place in (t._constant, t.node):
                if place is not None and place.backend is not None and place.backend.recorder is not None:
                    place.backend = BACKENDS[type(array.inner)]
        for t in self.start:
            if t.grad is not None and type(t.grad.data) in KINDS:
                t.grad.data = t.grad.data.inner
        for _, _, state in self.states.values():
            put_back(state)

    def forget(self) -> None:
        """Release all arrays at once. Otherwise they would live until the next garbage collection."""
        trace = self.trace
        for kept in (self.swapped, trace.known_outside, trace.storages, trace.made, trace.entries, self.masks):
            kept.clear()  # type: ignore[attr-defined]

    def before_write(self, storage) -> None:
        """Called before the first change of a storage from outside. Raises if something else has changed it."""
        if (known := self.sums.pop(id(storage), None)) is not None and known != check_sum(storage.owner):
            raise refusal("an array was changed by a write that no op made; use an optimizer")

    # --- what happens in between --------------------------------------------------------------------------------------

    def walked(self, tensor, gradient, seed, leaves) -> None:
        self.trace.counts = False  # the new ``.grad`` depends on the old one; see ``Family.pattern``

    def called(self, primitive, args, constants) -> None:
        if not self.live:
            self.trace.counts = True
        if not self.trace.hidden:
            if any(o is not self and type(o).__module__ != CHECKPOINTS for o in current_state().hooks):
                raise refusal("hooks, detect_nan, profile and their like watch each op, which a replay does not call")
            self.args = args

    def before_op(self, primitive, arrays) -> None:
        if not self.trace.hidden:
            for i, (given, array) in enumerate(zip(self.args, arrays)):
                if isinstance(given, Tensor) and type(array) in BACKENDS and type(array) not in KINDS:
                    self.late.append(given)
                    self.swap(given, self.trace.outside(given.data))
                    if given.node is not None and given.is_leaf and given not in self.start:
                        self.start[given] = self.grads[given] = given.grad
                    arrays[i] = given.data if array is given.data.inner else array

    def before_rule(self, node, gradient) -> None:
        if self.trace.hidden:
            return
        if not self.live:
            self.trace.counts = True
        if any(getattr(place, "hooks", None) and hooked(place) for place in (node, *node.parents)):
            raise refusal("a hook on a gradient cannot be recorded")
        self.plans.append((node, node.plan))
        if node.plan is not None and not isinstance(gradient, Tensor):
            node.plan = self.recording_plan(node.plan)

    def after_rule(self, node, gradient, gradients) -> None:
        if not self.trace.hidden:
            node, node.plan = self.plans.pop()

    def recording_plan(self, plan):
        """The plan of a node, with rules that the trace tries to record call by call."""
        attempt, name = self.trace.attempt, f"d_{plan.primitive.name}"

        def recorded(rule):
            def run(*args):
                kept, self.trace.label = self.trace.label, name
                try:
                    return attempt(name, lambda: rule(*args), rule, args, {})
                finally:
                    self.trace.label = kept

            return run

        plan = copy.copy(plan)
        plan._positions = {}
        plan.pullbacks = tuple([(i, recorded(rule), positions) for i, rule, positions in plan.pullbacks])
        if plan.joint is not None:
            plan.joint = Rule(recorded(plan.joint.function), plan.joint.saves)
        return plan

    # --- live calls ---------------------------------------------------------------------------------------------------

    def before_live(self, function, args, kwargs, effect) -> None:
        if self.trace.hidden:
            self.trace.hidden += 1
            self.live.append(("inner", function, args, kwargs))
            return
        if effect != "writes":
            how = "draws" if effect == "draws" else "makes"
            if how == "draws":
                items = [*args, *kwargs.values()]
                self.generators.append(next((g for g in items if isinstance(g, numpy.random.Generator)), None))
        else:
            self.look_at_options()
            own = function is STEP and type(args[0]).scalars is not Optimizer.scalars
            own = own and type(args[0]).update.__module__.startswith("tinygrad_ms.")
            if isinstance(args[0], Optimizer) and not any(args[0] is o for o, _ in self.options):
                raise refusal("an optimizer is made in the step, or where nobody looks for it; make it outside")
            how = "calls" if own or function in CALLS else "whole"
        self.live.append((how, function, args, kwargs))
        if how == "calls":
            self.trace.counts, self.trace.label = False, function.__qualname__
            if function is STEP:
                self.open_states(args[0])
        else:
            for item in flat([*args, *kwargs.values()]):
                if isinstance(item, Tensor) and not any(item is t for t in self.tensors):
                    raise refusal(f"{function.__name__} gets a tensor of the step, which cannot be recorded")
                if hasattr(item, "__next__"):
                    raise refusal(f"{function.__name__} gets an iterator; give it a list")
            if how == "whole":
                self.note_gradients()
                for storage in self.trace.storages.values():
                    self.before_write(storage)
                for t, array in self.swapped:
                    if t.data is array:
                        t.data = array.inner
                for t in self.start:
                    if t.grad is not None and type(t.grad.data) in KINDS:
                        self.swap(t.grad, t.grad.data)
                        t.grad.data = t.grad.data.inner
            self.trace.hidden += 1

    def after_live(self, result) -> None:
        how, function, args, kwargs = self.live.pop()
        if how != "calls":
            self.trace.hidden -= 1
        if how in ("draws", "makes"):
            self.note_made(how, function, args, kwargs, result)
        elif how == "calls":
            self.trace.counts, self.trace.label = True, ""
            if function is STEP:
                self.close_states(args[0])
            if isinstance(result, Tensor) and type(result.data) not in KINDS:  # the norm 0 of no gradients
                result.data = self.trace.wrap(result.data, constant_of(result.data))
        elif how == "whole":
            if result is not None:
                raise refusal(f"{function.__name__} returns {type(result).__name__}, which cannot be recorded")
            for t, array in self.swapped:
                if t.data is array.inner:
                    t.data = array
            everything = [s for s in self.trace.storages.values() if s.kind in ("outside", "gradient")]
            self.trace.add(Entry("live", function, tuple(args), kwargs, writes=everything))
        self.options = [(o, options_of(o)) for o, _ in self.options]

    def note_made(self, how, function, args, kwargs, result) -> None:
        if not isinstance(result, Tensor) or result.node is not None:
            raise refusal(f"{function.__name__} makes a tensor that requires a gradient; make it outside the step")
        array = result.data
        key = (function, array.shape, check_sum(array)) if how == "draws" else ()
        if how == "draws" and _replay.get() is not None:  # ``checkpoint`` draws the same numbers again
            if key not in self.masks:
                raise refusal("random numbers are drawn again that were not recorded the first time")
            result.data = self.trace.wrap(array, self.masks[key])
            return
        entry = Entry(how, function, tuple(args), kwargs)
        result.data = self.trace.add(entry, self.trace.results(array, [], entry))
        self.masks[key] = result.data.value

    def open_states(self, optimizer) -> None:
        """Put recording arrays into the state of the optimizer."""
        self.kept_scratch, optimizer._scratch = optimizer._scratch, {}
        for p, state in optimizer.state.items():
            self.states.setdefault(id(state), (optimizer, p, state))
            self.trace.first_steps.setdefault(id(state), state["step"])
            state_now = {k: self.trace.outside(v) if type(v) in BACKENDS else v for k, v in state.items()}
            state.update(state_now)
        self.steps_before = {id(state): state["step"] for state in optimizer.state.values()}
        self.known_states = list(optimizer.state.values())
        self.flats = [(flat, dict(vars(flat))) for group in optimizer.param_groups for flat in optimizer.flats(group)]
        for flat, _ in self.flats:
            self.open_flat(flat)
        for group in optimizer.param_groups:  # the step will make new states
            for p in group["params"]:
                if p.grad is not None and p not in optimizer.state:
                    self.fresh = True

    def open_flat(self, flat) -> None:
        """Put recording arrays into a flat, like those of its parameters and their state."""
        arrays = [p.data for p in flat.parameters]
        if not flat.rows or any(a.inner is not view for a, view in zip(arrays, flat.views)):
            return
        flat.data, flat.views = self.trace.outside(flat.data), arrays
        flat.kind = type(flat.data)
        flat.buffers = {name: self.trace.outside(buffer) for name, buffer in flat.buffers.items()}
        flat.rows = [
            (p, array, entry, [(name, entry[name]) for name, _ in kept])
            for array, (p, _, entry, kept) in zip(arrays, flat.rows)
        ]
        flat.grad = BACKENDS[flat.kind].xp.empty(flat.starts[-1], flat.dtype)
        bounds = zip(flat.starts, flat.starts[1:], flat.shapes)
        flat.grads = [flat.grad[i:j].reshape(shape) for i, j, shape in bounds]

    def close_states(self, optimizer) -> None:
        for flat, kept in self.flats:
            vars(flat).update(kept)
        for layout in optimizer._layouts.values():
            layout.missed, layout.stale = 0, False
        optimizer._scratch = self.kept_scratch
        for key in [key for key in optimizer._numbers if key[1] in KINDS]:
            del optimizer._numbers[key]
        for p, state in optimizer.state.items():
            if id(state) not in self.steps_before:
                self.fresh = True
            elif state["step"] != self.steps_before[id(state)]:
                self.trace.add(
                    Entry("tick", state, (optimizer, p, state["step"] - self.trace.first_steps.get(id(state), 0)))
                )
                self.trace.entries[-1].counts = False
            self.states[id(state)] = optimizer, p, state
            put_back(state)

    def look_at_options(self) -> None:
        """Refuse options of optimizers that the step itself has set, because a replay would not set them."""
        for optimizer, options in self.options:
            if options_of(optimizer) != options:
                raise refusal("the step sets options of an optimizer (lr, ...); use a schedule, or set them outside")

    # --- what a run leaves --------------------------------------------------------------------------------------------

    def note_gradients(self) -> None:
        """Record each gradient that differs from the one in the list."""
        for t, known in self.grads.items():
            if (now := t.grad) is known:
                continue
            if now is not None and type(now.data) not in KINDS:
                raise refusal(f".grad of {t.name or 'a parameter'} was set by hand, which cannot be recorded")
            self.trace.add(Entry("gradient", t, (None if now is None else now.data.value,)))
            self.grads[t] = now

    def finish(self, leaves) -> list:
        """The results as pairs: a kind ("tensor", "array", "constant"), and a Value or the constant."""
        self.trace.counts = True
        self.look_at_options()
        self.note_gradients()
        for t in self.start:
            if t.node is not None and hooked(t.node):
                raise refusal("a hook on a gradient cannot be recorded")
        for storage in self.trace.storages.values():
            self.before_write(storage)
        for t, array in self.swapped:
            if t.data is not array and t.data is not array.inner:
                raise refusal(f"{t.name or 'a tensor'} got another array in the step")
        if generator() is not self.seed:
            raise refusal("manual_seed is called in the step; call it outside", "the result")
        return [self.result(x) for x in leaves]

    def result(self, x):
        if not isinstance(x, Tensor) and type(x) not in BACKENDS:
            if isinstance(x, (*SIMPLE, numpy.generic)) and type(x) not in KINDS:
                return "constant", x
            if type(x) not in KINDS:
                why = f"the step returns {type(x).__name__}; expected tensors, numbers, strings"
                raise refusal(why, "the result")
        if any(x is t for t in self.tensors):
            return "constant", x
        array = raw(x)
        if type(array) not in KINDS or array.trace is not self.trace:
            raise refusal("the step returns an array that no op has made", "the result")
        if isinstance(x, Tensor) and x.node is not None and not is_freed(x.node):
            raise refusal("a result still has a history; return .detach(), or call it under no_grad()", "the result")
        if array.value.storage.kind == "constant":
            array = array.copy()
        if array.value.storage.kind != "buffer":
            raise refusal("a result shows the memory of an argument or a parameter; return .clone()", "the result")
        return "tensor" if isinstance(x, Tensor) else "array", array.value

    def given_back(self, leaves) -> list:
        """The results for the caller, without recording arrays."""
        found = []
        for x in leaves:
            if isinstance(x, Tensor) and type(x.data) in KINDS:
                x.data = x.data.inner
            found.append(x.inner if type(x) in KINDS else x)
        return found


def lay_flats(optimizer) -> None:
    """Lay parameters and their states end to end, before recording arrays replace them."""
    for group in optimizer.param_groups:
        layout, names = optimizer._layout(group), optimizer.buffers(group)
        if layout.flats and optimizer.elementwise(group):
            if layout.stale:
                layout.lay(group, optimizer)
            for flat in layout.flats:
                if flat.names != names or flat.steps_made(optimizer.state) is None:
                    flat.intact() and flat.take(optimizer.state, names)


def put_back(state) -> None:
    for name, value in state.items():
        if type(value) in KINDS:
            state[name] = value.inner


def options_of(optimizer) -> list[dict]:
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def is_freed(node) -> bool:
    return (node.parents[0] if isinstance(node, Output) else node).saved is None


def check_sum(array) -> int:
    host = BACKENDS[type(array)].to_host(array)
    return zlib.crc32(host.tobytes() if not host.flags.c_contiguous else memoryview(host.reshape(-1).view("u1")))


def flat(value):
    """The items of nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)
    else:
        yield value
