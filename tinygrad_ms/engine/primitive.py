"""How ops are defined. A Primitive holds what is known of an op, a Plan what one pattern of its calls needs.

Three kinds cover almost all functions (each a decorator of the forward, which becomes the public op):

    @elementwise(derivative=lambda y: 1 - y * y, ...)       VJP g * d and JVP t * d follow from the derivative d
    @linear(transpose=lambda g, x_shape: ..., ...)          the JVP is the op itself on the tangent
    @primitive(vjp=..., jvp=..., ...)                       the general case

The forward takes the array library ``xp``, then raw arrays, then constants. Constants are the parameters behind ``/``
where there is one (``def broadcast_to(xp, x, /, shape)``), else those with a default and the keyword-only ones. The
forward calls functions of ``xp``. Of another op it calls the forward (``erf.primitive.forward``), never the op itself.
A rule is ordinary mathematics in operators and ops. The names of its parameters say what the tape saves: an argument
by its name, an output (``y``, unless ``outputs`` names several), a constant, or a fact of argument ``x``: ``x_shape``,
and ``x_turned``, whether its matrices lie column by column. A rule computes on raw arrays. Under ``create_graph`` it
gets tensors, and what it computes is recorded.
"""

from typing import Any

from tinygrad_ms.engine.around.rules import Joint, Linear, Multilinear, PerArgument, Rule, each, starts_with
from tinygrad_ms.engine.around.sentences import FACTS
from tinygrad_ms.engine.around.signatures import Kind, Signature
from tinygrad_ms.engine.call import make_op


class Primitive(Signature):
    """What is known of an op: forward, rules, formula, source, facts. ``op.primitive`` of every public op.

    formula: LaTeX. source: paper and equation. notes: hazards (domain, ties, conventions).
    outputs: names of several outputs, "*" for a varying number, or None for one called y.
    cache: names of values that the forward leaves for its rules. The forward then returns (result, tuple of raw
        arrays). Rules read the values by these names. Under ``create_graph`` the values are None, and the rule
        computes from inputs and outputs.
    view: the output may share memory with the first argument.
    floats: integer arguments are converted to the default float first.
    moves: the op only moves data; it makes no floating-point operation.
    flops: (arrays, outputs, constants) -> the number of floating-point operations; None: one for each element.
    symmetric: the arguments may be exchanged.
    checks: what a user's primitive must satisfy (``own_primitives``); None for the library's own, which are tested.
    notation: how mathematics writes the op: LaTeX with {0}, {1} for the arguments. None: name(arguments).
    batched: the backward rules also take a stack of cotangents along a new first axis, and return stacks.
    """

    def __init__(
        self, forward, *, formula="", source="", notes="", vjp=None, jvp=None, outputs=None, cache=(), view=False,
        floats=False, moves=False, flops=None, symmetric=False, notation=None, checks=None, batched=False,
    ):  # fmt: skip
        self.formula, self.source, self.notes = formula, source, notes
        self.outputs, self.cache, self.view, self.floats = outputs, cache, view, floats
        self.moves, self.flops, self.symmetric, self.notation = moves, flops, symmetric, notation
        super().__init__(forward)
        self.vjp, self.jvp = vjp, jvp  # vjp: a joint Rule, or a tuple with a Rule for each argument
        self.differentiable, self.checks, self.batched = vjp is not None, checks, batched and checks is None
        if checks is not None:
            checks.accept(self)
        self.plans: dict[int, Plan] = {}  # by the pattern of the call, for reverse mode
        self.forward_plans: dict[int, Plan] = {}  # for both modes
        self.direct: dict[type, Any] = {}  # by array type: the forward of a row, bound to its library
        self.op, self.each = None, False  # each: a row of ``ops/rows.py``, which treats each element alone

    def run(self, xp, arrays, constants) -> tuple[tuple, tuple]:
        """The forward on raw arrays: (outputs, cached values)."""
        y = self.forward(xp, *arrays, **constants)
        y, cached = y if self.cache else (y, ())
        return tuple(y) if self.outputs else (y,), cached

    def plan(self, pattern: int, forward_mode: bool) -> "Plan":
        """Make and keep the Plan of one pattern of calls. ``Plan.key`` makes the pattern."""
        plan = Plan(self, pattern, forward_mode)
        (self.forward_plans if forward_mode else self.plans)[pattern] = plan
        return plan

    def __repr__(self):
        return f"<primitive {self.name}{self.signature}>"


class Plan:
    """What one pattern of calls needs: which arguments want a gradient, what the tape saves, which rules run.

    ``names`` gives the order of the saved values: inputs, outputs, then constants, shapes and cached values.
    """

    __slots__ = (
        "primitive", "needed", "off_tape", "several", "slots", "joint", "pullbacks", "inputs", "outputs",
        "extras", "cached", "names", "forward_mode", "own", "_positions",
    )  # fmt: skip

    def __init__(self, primitive: Primitive, pattern: int, forward_mode: bool):
        count = pattern.bit_length() - 1
        self.primitive, self.forward_mode = primitive, forward_mode
        self.needed = tuple(bool(pattern >> i & 1) for i in range(count))
        self.off_tape = [i for i, wanted in enumerate(self.needed) if not wanted]
        self.several = bool(primitive.outputs)
        named = self.several and primitive.outputs != "*"
        self.slots = range(len(primitive.outputs)) if named else None  # the outputs whose cotangents are a tuple
        joint = isinstance(primitive.vjp, Rule)
        rules = [primitive.vjp] if joint else [r for r, needed in zip(primitive.vjp, self.needed) if needed]
        wanted = {name for rule in rules for name in rule.saves}
        if forward_mode and primitive.jvp is not None:
            wanted |= primitive.jvp.names(primitive, self.needed)
        self._lay_out(wanted, count)
        self._positions: dict[int, list[int]] = {}
        self.joint = primitive.vjp if joint else None
        # (argument, function, positions of what it reads in the saved values)
        which = [i for i, needed in enumerate(self.needed) if needed]
        self.own = () if joint else tuple((i, r.function, self.positions(r)) for i, r in zip(which, rules))
        self.pullbacks = () if primitive.checks else self.own  # what the walk runs itself

    @staticmethod
    def key(needed) -> int:
        """The pattern of a call: bit i is set if argument i wants a gradient, and one more bit marks the end."""
        return sum(1 << i for i, wanted in enumerate(needed) if wanted) + (1 << len(needed))

    def _lay_out(self, wanted, count):
        """Decide which values are saved, and in which order."""
        primitive = self.primitive
        arguments = [primitive.variadic] if primitive.variadic else primitive.arguments
        self.inputs: list[int] = []
        self.outputs: list[int] = []
        self.extras: list[tuple] = []  # (kind of extra, which)
        self.cached: list[int] = []  # positions of cached values
        self.names: list[str] = []
        for i, name in enumerate(arguments):
            if name in wanted:
                self.names.append(name)
                self.inputs += range(count) if primitive.variadic else [i]
        for i, name in enumerate(primitive.outputs or ["y"]):
            if name in wanted:
                self.names.append(name)
                self.outputs.append(i)
        for name in sorted(wanted - set(self.names)):
            base, _, kind = name.rpartition("_")
            if name in primitive.constants:
                self.extras.append(("constant", name))
            elif name in primitive.cache:
                self.cached.append(len(self.inputs) + len(self.outputs) + len(self.extras))
                self.extras.append(("cached", primitive.cache.index(name)))
            elif kind in FACTS and base in arguments:
                self.extras.append((kind, None if primitive.variadic else arguments.index(base)))
            else:
                raise TypeError(f"rule of {primitive.name}: {name!r} is no argument, output, constant or shape")
            self.names.append(name)

    def positions(self, rule: Rule) -> list[int]:
        """The places, among ``names``, of what ``rule`` reads."""
        if id(rule) not in self._positions:
            self._positions[id(rule)] = [self.names.index(name) for name in rule.saves]
        return self._positions[id(rule)]

    def read_extras(self, arrays, constants, cached):
        """The constants, shapes and cached values that the rules name."""
        defaults = self.primitive.defaults
        return [
            cached[which] if kind == "cached"
            else constants.get(which, defaults.get(which)) if kind == "constant"
            else FACTS[kind](arrays[which]) if which is not None else tuple(map(FACTS[kind], arrays))
            for kind, which in self.extras
        ]  # fmt: skip

    def shapes_in(self, saved):
        """The saved shapes by argument."""
        extras = saved[len(self.inputs) + len(self.outputs) :]
        shapes = {which: value for value, (kind, which) in zip(extras, self.extras) if kind == "shape"}
        return shapes.get(None, shapes)

    def pick(self, rule: Rule, saved):
        """The saved values that ``rule`` reads, in its order. The arguments of a variadic op are one tuple."""
        if self.primitive.variadic and self.inputs:
            n = len(self.inputs)
            saved = (tuple(saved[:n]), *saved[n:])
        return [saved[p] for p in self.positions(rule)]


REGISTRY: dict[str, Primitive] = {}  # every primitive by its name; a user's by module.name


def _define(forward, **facts) -> Any:
    made = Primitive(forward, **facts)
    key = f"{forward.__module__}.{made.name}" if made.checks else made.name
    known = REGISTRY.get(key)
    if known is not None and known.forward.__module__ != forward.__module__:
        raise ValueError(f"a primitive named {made.name!r} exists already, in {known.forward.__module__}")
    made.op = make_op(made)
    if made.differentiable and not forward.__module__.startswith("tinygrad_ms."):  # ours: tested, and planned when used
        whole = [True] * (2 if made.variadic else len(made.arguments))
        made.plan(Plan.key(whole), made.jvp is not None)  # a rule with a misspelt name raises here
    REGISTRY[key] = made
    return made.op


def _vjp(rule):
    return Rule.of(rule) if starts_with(rule, "needed") else each(rule)


def elementwise(derivative=None, *, rule=None, **facts) -> Kind:
    """A function of each element. ``derivative``: dy/dx from x, y and constants; a tuple for several arguments.

    Give ``rule``, ``(g, saved...)`` -> g dy/dx, where the product g * dy/dx would be wrong or slow: for a mask, say.
    """
    facts.setdefault("batched", True)
    if rule is not None:
        return primitive(rule, rule, **facts)
    derivatives = derivative if isinstance(derivative, (tuple, list)) else (derivative,)

    def times(d):
        if d is None:
            return each(d)[0]
        saves = Rule.of(d, skip=0).saves
        return Rule((lambda g, saved: g * d(saved)) if len(saves) == 1 else (lambda g, *saved: g * d(*saved)), saves)

    rules = tuple(map(times, derivatives))
    return lambda forward: _define(forward, vjp=rules, jvp=PerArgument(rules), **facts)


def linear(transpose, **facts) -> Kind:
    """Linear in all arguments together. ``transpose``: g -> cotangent per argument, or jointly ``(needed, g, ...)``."""
    return lambda forward: _define(forward, vjp=_vjp(transpose), jvp=Linear(), **facts)


def multilinear(transpose, **facts) -> Kind:
    """Linear in each argument. ``transpose``: per argument ``(g, others...)``, or jointly ``(needed, g, ...)``."""
    return lambda forward: _define(forward, vjp=_vjp(transpose), jvp=Multilinear(), **facts)


def primitive(vjp, jvp=None, **facts) -> Kind:
    """The general kind.

    vjp: per argument ``(g, saved...)``, or jointly ``(needed, g, saved...)`` -> tuple.
    jvp: per argument ``(t, saved...)``, or jointly ``(tangents, saved...)``; without it the op has no forward mode.
    With ``outputs=("q", "r")`` the cotangent g, and the result of the JVP, is a tuple, with None for outputs nobody
    used. With ``outputs="*"`` their number varies, and g is a dict of the cotangents by output.
    """
    kind = None if jvp is None else Joint(jvp) if starts_with(jvp, "tangents") else PerArgument(each(jvp))
    return lambda forward: _define(forward, vjp=_vjp(vjp), jvp=kind, **facts)


def no_derivative(*, source: str = "definition", **facts) -> Kind:
    """A function whose results carry no gradient: comparisons, argmax, one_hot."""
    return lambda forward: _define(forward, source=source, **facts)
