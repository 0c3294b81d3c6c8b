"""What is known of an op: Primitive; what of it one pattern of calls saves and runs: Plan; the kinds of JVP rules."""

import inspect
from collections.abc import Callable
from typing import Any

from tinygrad_ms.engine.backend import BACKENDS
from tinygrad_ms.engine.tensor import Tensor


class Primitive:
    """What is known of an op: forward, rules, formula, source. ``op.primitive`` of every public op."""

    def __init__(
        self, forward, *, formula, source, vjp=None, jvp=None, outputs=None, view=False, floats=False, notes=""
    ):
        self.name = forward.__name__.strip("_")  # _concat is the primitive of the public function concat
        self.forward = forward
        self.formula = formula  # LaTeX
        self.source = source  # paper and equation
        self.notes = notes  # hazards: domain, ties, conventions
        self.outputs = outputs  # names of several outputs, "*" for a varying number, or None for one called y
        self.view = view  # the output may share memory with the first argument
        self.floats = floats  # integer arguments become the default float first
        self.doc = inspect.getdoc(forward) or ""
        self._read_signature(forward)
        if outputs not in (None, "*") and isinstance(vjp, tuple):
            vjp = tuple(of_several(rule, len(outputs)) for rule in vjp)
        self.vjp, self.jvp = vjp, jvp
        self.differentiable = vjp is not None
        self.plans, self.forward_plans = {}, {}  # by call pattern, for reverse mode and for both modes
        self.op: Any = None

    def _read_signature(self, forward):
        parameters = list(inspect.signature(forward).parameters.values())[1:]
        plain, before_slash = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
        self.signature = inspect.Signature(parameters)
        slash = any(p.kind is before_slash for p in parameters)
        arrays = [p for p in parameters if p.kind is before_slash or (p.kind is plain and not slash)]
        self.arguments = [p.name for p in arrays if p.default is p.empty]
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        constants = [p for p in parameters if p.name not in self.arguments and p.name != self.variadic]
        self.constants = [p.name for p in constants]
        self.positional = [p.name for p in constants if p.kind is plain]
        self.defaults = {p.name: p.default for p in constants if p.default is not p.empty}

    def bind(self, args, kwargs):
        """Sort a call into arrays and constants: constants may be positional, arrays may be named."""
        count = len(self.arguments)
        after = dict(zip(self.positional, args[count:]))
        if 0 < len(args) - count == len(after) and after.keys().isdisjoint(kwargs):  # x.sum(0): the quick way
            return args[:count], after | kwargs
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}") from None
        arrays = bound.get(self.variadic, ()) if self.variadic else [bound[name] for name in self.arguments]
        return arrays, {name: bound[name] for name in self.constants if name in bound}

    def plan(self, pattern: int, forward_mode: bool) -> "Plan":
        """``pattern``: one bit per argument, set where it wants a gradient, and a 1 above the highest."""
        count = pattern.bit_length() - 1
        needed = tuple(bool(pattern >> i & 1) for i in range(count))
        plan = Plan(self, needed, forward_mode)
        (self.forward_plans if forward_mode else self.plans)[pattern] = plan
        return plan

    def argument_name(self, i: int) -> str:
        return f"{self.variadic}[{i}]" if self.variadic else self.arguments[i]

    def __repr__(self):
        return f"<primitive {self.name}{self.signature}>"


class Plan:
    """What one call pattern of a primitive needs: which arguments want a gradient, what to save, which rules to run."""

    __slots__ = (
        "primitive", "needed", "joint", "pullbacks", "inputs", "outputs", "extras", "names", "forward_mode",
        "positions",
    )  # fmt: skip

    def __init__(self, primitive: Primitive, needed: tuple[bool, ...], forward_mode: bool):
        count = len(needed)
        self.primitive, self.needed, self.forward_mode = primitive, needed, forward_mode
        self.joint = callable(primitive.vjp)
        rules = [primitive.vjp] if self.joint else [r for r, wanted in zip(primitive.vjp, self.needed) if wanted]
        wanted = {name for rule in rules for name in saved_names(rule)}
        if forward_mode and primitive.jvp is not None:
            wanted |= primitive.jvp.names(primitive, self.needed)
        arguments = [primitive.variadic] if primitive.variadic else primitive.arguments
        results = primitive.outputs or ["y"]
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.extras: list[tuple] = []  # (constant, None), or (None, the argument whose shape is wanted)
        self.names: list[str] = []
        for i, name in enumerate(arguments):
            if name in wanted:
                self.names.append(name)
                self.inputs += range(count) if primitive.variadic else [i]
        for i, name in enumerate(results):
            if name in wanted:
                self.names.append(name)
                self.outputs.append(i)
        for name in sorted(wanted - set(self.names)):
            base = name.removesuffix("_shape")
            if name in primitive.constants:
                self.extras.append((name, None))
            elif base != name and base in arguments:
                self.extras.append((None, None if primitive.variadic else arguments.index(base)))
            else:
                raise TypeError(f"rule of {primitive.name}: {name!r} is no argument, output, constant or shape")
            self.names.append(name)
        self.positions: dict[Callable, list[int] | None] = {}
        self.pullbacks = []  # (argument, rule, positions in the saved values; None: all of them in order)
        if not self.joint:
            for i, rule in enumerate(primitive.vjp):
                if i < count and self.needed[i]:
                    self.pullbacks.append((i, rule, self.positions_of(rule)))

    def positions_of(self, rule):
        if rule not in self.positions:
            where = [self.names.index(name) for name in saved_names(rule)]
            self.positions[rule] = None if where == list(range(len(self.names))) else where
        return self.positions[rule]

    def read_extras(self, arrays, constants):
        """The constants and shapes that the rules name."""
        for constant, argument in self.extras:
            if constant is not None:
                yield constants[constant] if constant in constants else self.primitive.defaults[constant]
            else:
                yield tuple(map(shape_of, arrays)) if argument is None else shape_of(arrays[argument])

    def pick(self, rule, saved):
        """The saved values that ``rule`` names, in its order. Saved variadic arguments count as one tuple."""
        if self.primitive.variadic and self.inputs:
            n = len(self.inputs)
            saved = (tuple(saved[:n]), *saved[n:])
        positions = self.positions_of(rule)
        return saved if positions is None else [saved[p] for p in positions]


def saved_names(rule, skip=1) -> list[str]:
    """The parameters of a rule after its cotangent (or after ``needed, g`` of a joint rule)."""
    if hasattr(rule, "saves"):
        return rule.saves
    names = list(inspect.signature(rule).parameters)
    return names[2 if names[:1] == ["needed"] else skip :]


def is_joint(rule) -> bool:
    return callable(rule) and next(iter(inspect.signature(rule).parameters), "") == "needed"


def shape_of(value) -> tuple:
    return value.shape if hasattr(value, "shape") else ()


class Slots(dict):
    """The cotangents of an op with several outputs, by output; adding two merges them."""

    shape = dtype = None

    def __add__(self, other):
        merged = Slots(self)
        for index, g in other.items():
            merged[index] = merged[index] + g if index in merged else g
        return merged


def of_several(rule, count: int):
    """A rule that takes the cotangents of ``count`` outputs as a tuple, for the slots that the walk collects."""

    def whole(g, *saved):
        return rule(tuple(map(g.get, range(count))), *saved)

    whole.saves = saved_names(rule)
    return whole


# --- rules for forward mode ----------------------------------------------------------------------------------------


class PerArgument:
    """JVP rules ``(t, *saved)`` per argument, summed."""

    def __init__(self, rules):
        self.rules = rules

    def names(self, primitive, needed):
        return {name for rule, wanted in zip(self.rules, needed) if wanted for name in saved_names(rule)}

    def __call__(self, plan, tangents, saved, constants):
        total = None
        for rule, t in zip(self.rules, tangents):
            term = None if t is None else rule(t, *plan.pick(rule, saved))
            if term is not None:
                total = term if total is None else total + term
        return total


class Joint:
    """One JVP rule ``(tangents, *saved)`` for all arguments; absent tangents are None."""

    def __init__(self, rule):
        self.rule = rule

    def names(self, primitive, needed):
        return set(saved_names(self.rule))

    def __call__(self, plan, tangents, saved, constants):
        return self.rule(tangents, *plan.pick(self.rule, saved))


class Linear:
    """The op itself on the tangents (zeros where an argument has none)."""

    def names(self, primitive, needed):
        return {f"{primitive.variadic or name}_shape" for name in primitive.arguments or [primitive.variadic]}

    def __call__(self, plan, tangents, saved, constants):
        primitive = plan.primitive
        if None in [None if t is None else 0 for t in tangents]:
            some = next(t for t in tangents if t is not None)
            raw = some.data if isinstance(some, Tensor) else some
            xp = BACKENDS[type(raw)].xp
            tail = saved[len(plan.inputs) + len(plan.outputs) :]
            if primitive.variadic:
                shapes = next(v for v, (c, a) in zip(tail, plan.extras) if c is None)
            else:
                shapes = {a: v for v, (c, a) in zip(tail, plan.extras) if c is None}
            tangents = [xp.zeros(shapes[i], some.dtype) if t is None else t for i, t in enumerate(tangents)]
        return primitive.op(*tangents, **constants)


class Multilinear:
    """The sum, over the arguments, of the op with that argument replaced by its tangent."""

    def names(self, primitive, needed):
        if primitive.variadic:
            return {primitive.variadic}
        return {name for i, name in enumerate(primitive.arguments) if any(needed[:i] + needed[i + 1 :])}

    def __call__(self, plan, tangents, saved, constants):
        values = [None] * len(tangents)
        for value, i in zip(saved, plan.inputs):
            values[i] = value
        total = None
        for i, t in enumerate(tangents):
            if t is not None:
                term = plan.primitive.op(*values[:i], t, *values[i + 1 :], **constants)
                total = term if total is None else total + term
        return total
