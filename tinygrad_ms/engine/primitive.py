"""Primitives: a forward on raw arrays with its derivative rule, and the call that runs and records it.

Three kinds cover almost all functions (each a decorator of the forward, which becomes the public op):

    @elementwise(derivative=lambda y: 1 - y * y, ...)       VJP g * d and JVP t * d follow from the derivative d
    @linear(transpose=lambda g, x_shape: ..., ...)          the JVP is the op itself on the tangent
    @primitive(vjp=..., jvp=..., ...)                       the general case

The forward takes the array library ``xp``, then raw arrays, then constants: the parameters behind ``/`` where there is
one (``def broadcast_to(xp, x, /, shape)``), else those with a default and the keyword-only ones.
A rule is ordinary mathematics in operators and ops. Its parameter names say what the tape saves: the name of an
argument (its value), of an output (``y`` unless ``outputs`` names several), of a constant, or ``x_shape`` for the shape
of argument ``x``. A rule that is given raw arrays computes; given tensors, under ``create_graph``, it records itself.
"""

import inspect
from collections.abc import Callable
from functools import update_wrapper

from tinygrad_ms.engine.call import make_op
from tinygrad_ms.engine.rules import Joint, Linear, Multilinear, PerArgument, Primitive, is_joint, saved_names

REGISTRY: dict[str, Primitive] = {}  # every primitive by name


def _define(forward, **facts) -> Callable:
    made = Primitive(forward, **facts)
    known = REGISTRY.get(made.name)
    if known is not None and known.forward.__module__ != forward.__module__:  # a notebook cell may run again
        raise ValueError(f"a primitive named {made.name!r} exists already, in {known.forward.__module__}")
    made.op = make_op(made)
    if made.differentiable:
        everything = 0b111 if made.variadic else (2 << len(made.arguments)) - 1
        made.plan(everything, made.jvp is not None)  # a misspelt rule fails here
    REGISTRY[made.name] = made
    return made.op


def _rules(rule):
    return tuple(r or no_gradient for r in rule) if isinstance(rule, (tuple, list)) else (rule,)


def no_gradient(g):
    """The rule of an argument that gets no gradient, also written None."""


def elementwise(derivative=None, *, rule=None, formula: str, source: str = "", **facts):
    """A function of each element. ``derivative``: dy/dx from x, y and constants; a tuple for several arguments.

    Where g * dy/dx would be wrong or wasteful (a mask; a division) give ``rule``: ``(g, saved...)`` -> g dy/dx.
    """
    if rule is not None:
        return primitive(rule, rule, formula=formula, source=source, **facts)
    derivatives = _rules(derivative)

    def times(d):
        if d is no_gradient:
            return d

        def rule(g, *saved):
            return g * d(*saved)

        rule.saves = saved_names(d, skip=0)
        return rule

    return lambda forward: _define(
        forward, formula=formula, source=source, vjp=tuple(map(times, derivatives)),
        jvp=PerArgument(tuple(map(times, derivatives))), **facts,
    )  # fmt: skip


def linear(transpose, *, formula: str, source: str = "", **facts):
    """Linear in all arguments together. ``transpose``: g -> cotangent per argument, or jointly ``(needed, g, ...)``."""
    vjp = transpose if is_joint(transpose) else _rules(transpose)
    return lambda forward: _define(forward, formula=formula, source=source, vjp=vjp, jvp=Linear(), **facts)


def multilinear(transpose, *, formula: str, source: str = "", **facts):
    """Linear in each argument. ``transpose``: per argument ``(g, others...)``, or jointly ``(needed, g, ...)``."""
    vjp = transpose if is_joint(transpose) else _rules(transpose)
    return lambda forward: _define(forward, formula=formula, source=source, vjp=vjp, jvp=Multilinear(), **facts)


def primitive(vjp, jvp=None, *, formula: str = "", source: str = "", **facts):
    """The general kind.

    vjp: per argument ``(g, saved...)``, or jointly ``(needed, g, saved...)`` -> tuple.
    jvp: per argument ``(t, saved...)``, or jointly ``(tangents, saved...)``; without it the op has no forward mode.
    With ``outputs=("q", "r")`` the cotangent g, and the result of the JVP, is a tuple, with None for outputs nobody
    used. With ``outputs="*"`` their number varies, and g is a dict of the cotangents by output.
    """
    vjp_rule = vjp if is_joint(vjp) else _rules(vjp)
    if jvp is None:
        return lambda forward: _define(forward, formula=formula, source=source, vjp=vjp_rule, **facts)
    joint_jvp = callable(jvp) and next(iter(inspect.signature(jvp).parameters), "") == "tangents"
    jvp_rule = Joint(jvp) if joint_jvp else PerArgument(_rules(jvp))
    return lambda forward: _define(forward, formula=formula, source=source, vjp=vjp_rule, jvp=jvp_rule, **facts)


def custom_vjp(vjp, jvp=None, **facts):
    """Hide a black box behind a rule: ``@custom_vjp(lambda g, x, y: ...)`` above a function of raw arrays.

    The function may call anything (SciPy, a solver, another language); the rule is written as for ``primitive``. It is
    differentiated in turn where it is made of operators and ops, so the order of derivatives is its own.
    """

    def decorate(function):
        def forward(xp, *arrays, **constants):
            return function(*arrays, **constants)

        update_wrapper(forward, function)
        parameters = list(inspect.signature(function).parameters.values())
        kind = min((p.kind for p in parameters), default=inspect.Parameter.POSITIONAL_ONLY)
        forward.__signature__ = inspect.Signature([inspect.Parameter("xp", kind), *parameters])
        return primitive(vjp, jvp, **facts)(forward)

    return decorate


def no_derivative(*, formula: str = "", source: str = "definition", **facts):
    """A function whose results carry no gradient: comparisons, argmax, one_hot."""
    return lambda forward: _define(forward, formula=formula, source=source, **facts)
