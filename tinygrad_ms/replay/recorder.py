"""The recorder: an observer of ops, of ``backward`` and of live calls that writes down what a step does, as a list.

Forwards and rules run again as they are, on raw arrays, so that whatever they decide from values is decided anew.
What a recording drops is what surrounds them: modules, tensors, the tape, the walk.
"""

from typing import Any, NamedTuple

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.call import plain_constants
from tinygrad_ms.engine.tape import NUMBERS, Leaf, Output, last_change
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.random import generator
from tinygrad_ms.replay.listing import Listing
from tinygrad_ms.replay.refusal import refusal, user_line
from tinygrad_ms.replay.walk import write_walk

SUPPORTED = {  # the files of ops that decide nothing from values outside of a forward or a rule
    *("activations affine classification comparisons conversions elementwise gelu indexing joining losses").split(),
    *("label_loss normalization reductions shapes smooth_activations special targets trigonometric").split(),
    *("linalg.parts linalg.products linalg.einsum linalg.norms").split(),
}
NOT = {"nonzero", "copy_to"}  # the shape of the result depends on values; a crossing between devices


class Recorder:
    """Observes one run of a step. ``inputs``: the tensors that stand for its arguments."""

    def __init__(self, inputs, tracked, optimizers, snapshot):
        self.listing = Listing()
        self.slots: dict[int, str] = {}  # by id of an array or scalar: its variable
        self.alive: list[Any] = []  # what has an id there
        self.outside: list[Any] = []  # tensors and arrays from outside that the step reads, in the order of their names
        self.start = {tensor: tensor.grad for tensor in tracked}
        self.grads: dict[Tensor, Any] = dict(self.start)  # the ``.grad`` of each as the recording knows it
        self.options = {id(optimizer): (optimizer, options_of(optimizer)) for optimizer in optimizers}
        self.snapshot = snapshot
        self.seed = generator()
        self.saved: dict[Any, list[str]] = {}  # by node: the texts of what it has saved
        self.rules: list[tuple] = []  # of a walk that has not come to its end
        self.answers: list[Any] = []
        self.generators: list[Any] = []
        self.call: tuple = ()
        self.hidden = 0  # depth of rules and live calls
        self.written = False
        self.change = last_change[0]
        self.inputs = [tensor.data for tensor in inputs]
        for i, tensor in enumerate(inputs):
            self.name(tensor.data, f"x{i}")

    # --- names ------------------------------------------------------------------------------------------------------

    def name(self, value, name="") -> str:
        """The variable of a new value."""
        name = name or self.listing.new()
        self.alive.append(value)
        self.slots.setdefault(id(value), name)
        return name

    def read(self, tensor) -> None:
        if not self.hidden:
            raise refusal("the values of a tensor are read here as numbers, which a replay would not do again")

    def check(self) -> None:
        """Refuse what no event has told: a walk of another kind, an in-place change, an observer."""
        if self.rules:
            raise refusal(
                "a walk back that cannot be recorded: a transform, or a hook on a gradient; use loss.backward()"
            )
        if any(isinstance(known, Pending) for known in self.grads.values()):
            self.look_at_gradients()
        if last_change[0] != self.change:
            raise refusal("a tensor was changed in place; only steps of optimizers and clipping can be recorded")
        if current_state().hooks != (self,):
            raise refusal("hooks, detect_nan, profile and their like watch each op, which a replay does not call")

    def look_at_options(self) -> None:
        """Refuse options of optimizers that the step has set itself: a replay would not."""
        for optimizer, options in self.options.values():
            if options_of(optimizer) != options:
                raise refusal("the step sets options of an optimizer (lr, ...); use a schedule, or set them outside")

    def operand(self, given, array) -> str:
        """The text of one argument of an op."""
        if type(array) in NUMBERS or isinstance(array, numpy.generic):
            return self.listing.constant(array)
        source = raw(given)
        if type(source) in BACKENDS:
            name = self.slots.get(id(source)) or self.external(given)
            if source is array:
                return name
            if is_float(source.dtype) or array.dtype != DEFAULT_FLOAT:
                raise refusal(f"an argument was converted to {array.dtype} in a way that cannot be recorded")
            return self.listing.add(
                f"{name}.astype({self.listing.constant(array.dtype)})", self.name(array), user_line()
            )
        if isinstance(given, (list, tuple)) and all(type(item) in NUMBERS for item in flat(given)):
            return self.listing.constant(array)
        if type(given) in NUMBERS:
            return self.listing.constant(array)
        raise refusal(f"an argument of an op is {type(given).__name__}; expected tensors and numbers")

    def external(self, given) -> str:
        """A tensor or array from outside, read anew at each replay."""
        if isinstance(given, Tensor) and given.node is not None and not is_leaf_of(given):
            raise refusal("a tensor has a history from outside the step; pass .detach(), or compute it inside")
        name = self.name(raw(given), f"p{len(self.outside)}")
        self.outside.append(given)
        if isinstance(given, Tensor) and given.node is not None and given not in self.grads:
            self.start[given] = self.grads[given] = given.grad
        return name

    def value(self, value) -> str:
        """The text of a constant of an op, which may hold arrays."""
        if type(value) in BACKENDS or isinstance(value, Tensor):
            return self.operand(value, raw(value))
        if isinstance(value, (tuple, list)) and any(type(raw(item)) in BACKENDS for item in flat(value)):
            inside = "".join(f"{self.value(item)}, " for item in value)
            return f"({inside})" if isinstance(value, tuple) else f"[{inside}]"
        if not all(isinstance(item, SIMPLE) or item is Ellipsis for item in flat(value)):
            raise refusal(f"an op got the constant {value!r}; expected numbers, strings, slices, arrays")
        return self.listing.constant(value)

    # --- ops --------------------------------------------------------------------------------------------------------

    def called(self, primitive, args, constants) -> None:
        if not self.hidden:
            self.call = primitive, args, constants

    def before_op(self, primitive, arrays) -> None:
        if self.hidden:
            return
        self.check()
        module = primitive.forward.__module__.removeprefix("tinygrad_ms.ops.")
        if module not in SUPPORTED or primitive.name in NOT or primitive.checks:
            raise refusal(f"the op {primitive.name} cannot be recorded yet")

    def after_op(self, primitive, arrays, outputs, node) -> None:
        if self.hidden:
            return
        _, args, constants = self.call
        write, kind = self.listing, next(type(a) for a in arrays if type(a) in BACKENDS)
        operands = [self.operand(given, array) for given, array in zip(args, arrays, strict=True)]
        constants = plain_constants(primitive, constants)
        run = None if constants else primitive.direct.get(kind)
        if run is None:
            run, operands[:0] = primitive.forward, [write.constant(BACKENDS[kind].xp)]
        texts = [*operands, *(f"{key}={self.value(value)}" for key, value in constants.items())]
        if not all(type(y) in BACKENDS for y in outputs):
            raise refusal(f"{primitive.name} works on raw arrays here; give it tensors")
        what = f"{write.function(run, primitive.name)}({', '.join(texts)})"
        names = [self.name(y) for y in outputs]
        positions: dict[int, str] = {}
        if node is not None:
            positions = {p: self.cached(node, p) for p in node.plan.cached}
        extras = len(node.plan.inputs) + len(node.plan.outputs) if node is not None else 0
        caches = {node.plan.extras[p - extras][1]: text for p, text in positions.items() if text != "None"}
        several, cache = bool(primitive.outputs), bool(primitive.cache)
        write.add_op(what, names, outputs, several, cache, BACKENDS[kind], caches, user_line())
        if node is not None:
            self.saved[node] = self.saved_by(node, positions, operands[len(operands) - len(args) :], outputs)

    def cached(self, node, position) -> str:
        value = node.saved[position]
        return "None" if value is None else self.name(value)

    def saved_by(self, node, caches, operands, outputs) -> list[str]:
        """The texts of what a node has saved, in its order."""
        plan, texts = node.plan, []
        for i in plan.inputs:
            texts.append(operands[i])
        for k in plan.outputs:
            texts.append(self.slots[id(outputs[k])])
        for position in range(len(texts), len(node.saved)):
            texts.append(caches[position] if position in caches else self.value(node.saved[position]))
        return texts

    # --- backward ---------------------------------------------------------------------------------------------------

    def before_rule(self, node, gradient) -> None:
        if not self.hidden and isinstance(gradient, Tensor):
            raise refusal("backward(create_graph=True) cannot be recorded")
        self.hidden += 1

    def after_rule(self, node, gradient, gradients) -> None:
        self.hidden -= 1
        if not self.hidden:
            self.rules.append((node, gradients))

    def walked(self, tensor, gradient, seed, leaves) -> None:
        if self.hidden:
            return
        rules, self.rules = self.rules, []
        self.check()
        self.look_at_gradients()
        if gradient is None:
            name = self.listing.constant(seed)
        elif raw(gradient) is seed:
            name = self.operand(gradient, seed)
        else:
            raise refusal("backward(gradient): the gradient must be a tensor of the dtype of the result")
        write_walk(self, tensor, name, rules, leaves)
        for leaf, g in leaves:
            if leaf.tensor is None or (owner := leaf.tensor()) is None or owner.node is not leaf:
                raise refusal("backward reaches a leaf whose tensor is gone, or frozen since")
            old = self.grads.get(owner)  # ``accumulate`` is about to leave another Tensor: the next look sees which
            self.grads[owner] = Pending(g if old is None else old.data + g)
            self.written = True

    def look_at_gradients(self) -> None:
        """Write down which gradients were dropped since the last look; refuse those set by hand."""
        for tensor, known in self.grads.items():
            now = tensor.grad
            if isinstance(known, Pending) and now is not None and equal(now.data, known.array):
                self.grads[tensor] = now
                self.listing.note_gradient(tensor, self.name(now.data))
            elif now is None and known is not None:
                self.listing.drop_gradient(tensor)
                self.grads[tensor] = None
            elif now is not known:
                raise refusal(f".grad of {tensor.name or 'a parameter'} was set by hand, which cannot be recorded")

    # --- live calls and decisions -----------------------------------------------------------------------------------

    def before_live(self, function, args, kwargs, effect) -> None:
        if not self.hidden:
            self.check()
            self.look_at_gradients()
            self.look_at_options()
            for item in flat([*args, *kwargs.values()]):
                inside = type(raw(item)) in BACKENDS and (not isinstance(item, Tensor) or id(item.data) in self.slots)
                if inside and not any(item is known for known in self.outside):
                    raise refusal(f"{function.__name__} gets a tensor of the step, which cannot be recorded")
                if hasattr(item, "__next__"):
                    raise refusal(f"{function.__name__} gets an iterator; give it a list")
            if effect == "writes":
                self.snapshot.compare()
            if effect == "draws":
                items = flat([*args, *kwargs.values()])
                self.generators.append(next((g for g in items if isinstance(g, numpy.random.Generator)), None))
            self.call = function, args, kwargs, effect
        self.hidden += 1

    def after_live(self, result) -> None:
        self.hidden -= 1
        if self.hidden:
            return
        function, args, kwargs, effect = self.call
        texts = [self.listing.static(value) for value in args]
        texts += [f"{key}={self.listing.static(value)}" for key, value in kwargs.items()]
        what = f"{self.listing.function(function, function.__name__)}({', '.join(texts)})"
        if isinstance(result, Tensor):
            if result.node is not None:
                raise refusal(f"{function.__name__} makes a tensor that requires a gradient; make it outside the step")
            self.listing.add(f"{what}.data", self.name(result.data), user_line())
        elif result is None:
            self.listing.do(what, user_line())
        else:
            raise refusal(f"{function.__name__} returns {type(result).__name__}, which cannot be recorded")
        if effect == "writes":
            self.written = True
            for item in [*args, *(getattr(item, "optimizer", None) for item in args)]:
                if hasattr(item, "param_groups"):
                    self.options[id(item)] = item, options_of(item)
            self.snapshot.take_again()
        self.change = last_change[0]
        self.look_at_gradients()

    def asked(self, function, args, answer) -> None:
        if self.hidden:
            return
        self.check()
        if self.written:
            raise refusal("a decision is taken from values after backward or an update; take it before")
        texts = [self.value(value) for value in args]
        self.answers.append(answer)
        self.listing.ask(self.listing.function(function, function.__name__), texts, answer)

    def finish(self, results) -> list[str]:
        """The texts of the results."""
        self.check()
        self.look_at_gradients()
        self.look_at_options()
        self.snapshot.compare()
        if generator() is not self.seed:
            raise refusal("manual_seed is called in the step; call it outside", "the result")
        return [self.result(value) for value in results]

    def result(self, value) -> str:
        if not isinstance(value, Tensor) and type(value) not in BACKENDS:
            if isinstance(value, SIMPLE):
                return self.listing.constant(value)
            raise refusal(f"the step returns {type(value).__name__}; expected tensors, numbers, strings", "the result")
        if any(value is known for known in self.outside):
            return self.listing.static(value)
        name = self.slots.get(id(raw(value)))
        if name is None:
            raise refusal("the step returns an array that no op has made", "the result")
        if isinstance(value, Tensor) and value.node is not None and not is_freed(value.node):
            raise refusal("a result still has a history; return .detach(), or call it under no_grad()", "the result")
        if shows_memory(raw(value), [*self.inputs, *map(raw, self.outside)]) or name.startswith("x"):
            raise refusal("a result shows the memory of an argument or a parameter; return .clone()", "the result")
        return f"Tensor({name})" if isinstance(value, Tensor) else name


class Pending(NamedTuple):
    """A gradient that ``accumulate`` is about to leave: its values."""

    array: Any


SIMPLE = (int, float, bool, str, type(None), numpy.dtype, type, slice, numpy.generic)


def options_of(optimizer) -> list[dict]:
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def is_leaf_of(tensor) -> bool:
    return isinstance(tensor.node, Leaf) and tensor.node.tensor is not None and tensor.node.tensor() is tensor


def is_freed(node) -> bool:
    return (node.parents[0] if isinstance(node, Output) else node).saved is None


def shows_memory(array, others) -> bool:
    kind = type(array)
    if kind is not numpy.ndarray:
        return array.base is not None
    return any(type(other) is kind and numpy.may_share_memory(array, other) for other in others)


def equal(a, b) -> bool:
    """Whether two arrays are the same bit by bit; NaN equals NaN."""
    a, b = (BACKENDS[type(x)].to_host(x) if type(x) in BACKENDS else numpy.asarray(x) for x in (a, b))
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def flat(value):
    """The items of nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from flat(item)
    else:
        yield value
