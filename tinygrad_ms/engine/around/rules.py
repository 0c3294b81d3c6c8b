"""A Rule is a function with the names of what it reads. Below are the kinds of JVP rules, for forward mode."""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import NamedTuple

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.parameters import names_of


class Rule(NamedTuple):
    """A derivative rule: ``function(g, *saved)``, or ``function(needed, g, *saved)`` of a joint one."""

    function: Callable
    saves: list[str]  # names of what the tape saves for it: arguments, outputs, constants, shapes, cached values

    @classmethod
    def of(cls, function, skip=1) -> "Rule":
        """The rule of a function. Its parameters after the cotangent say what it reads."""
        names = names_of(function)
        return cls(function, names[2 if names[:1] == ["needed"] else skip :])


def no_gradient(g):
    """The rule of an argument that gets no gradient, also written None."""


def each(rule) -> tuple[Rule, ...]:
    """One rule, or one per argument."""
    return tuple(Rule.of(r or no_gradient) for r in (rule if isinstance(rule, (tuple, list)) else (rule,)))


def starts_with(rule, name: str) -> bool:
    """Whether the first parameter is called ``name``. Joint rules begin with ``needed`` or ``tangents``."""
    return callable(rule) and names_of(rule)[:1] == [name]


def total(terms):
    """The sum of the terms that are not None; None if all are."""
    terms = [term for term in terms if term is not None]
    return reduce(add, terms) if terms else None


class PerArgument:
    """JVP rules ``(t, *saved)`` per argument, summed."""

    def __init__(self, rules: tuple[Rule, ...]):
        self.rules = rules

    def names(self, primitive, needed):
        return {name for rule, wanted in zip(self.rules, needed) if wanted for name in rule.saves}

    def __call__(self, plan, tangents, saved, constants):
        pairs = [(rule, t) for rule, t in zip(self.rules, tangents) if t is not None]
        return total(rule.function(t, *plan.pick(rule, saved)) for rule, t in pairs)


class Joint:
    """One JVP rule ``(tangents, *saved)`` for all arguments; absent tangents are None."""

    def __init__(self, function):
        self.rule = Rule.of(function)

    def names(self, primitive, needed):
        return set(self.rule.saves)

    def __call__(self, plan, tangents, saved, constants):
        return self.rule.function(tangents, *plan.pick(self.rule, saved))


class Linear:
    """The op itself on the tangents (zeros where an argument has none)."""

    def names(self, primitive, needed):
        return {f"{primitive.variadic or name}_shape" for name in primitive.arguments or [primitive.variadic]}

    def __call__(self, plan, tangents, saved, constants):
        present = [t for t in tangents if t is not None]
        if len(present) < len(tangents):
            xp = BACKENDS[type(raw(present[0]))].xp
            shapes = plan.shapes_in(saved)
            tangents = [xp.zeros(shapes[i], present[0].dtype) if t is None else t for i, t in enumerate(tangents)]
        return plan.primitive.op(*tangents, **constants)


class Multilinear:
    """The sum, over the arguments, of the op with that argument replaced by its tangent."""

    def names(self, primitive, needed):
        if primitive.variadic:
            return {primitive.variadic}
        return {name for i, name in enumerate(primitive.arguments) if any(needed[:i] + needed[i + 1 :])}

    def __call__(self, plan, tangents, saved, constants):
        known, op = dict(zip(plan.inputs, saved)), plan.primitive.op
        x = [known.get(i) for i in range(len(tangents))]
        return total(op(*x[:i], t, *x[i + 1 :], **constants) for i, t in enumerate(tangents) if t is not None)
