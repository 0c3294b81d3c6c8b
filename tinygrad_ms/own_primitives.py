"""Checks of the primitives that users write. Tests cover the primitives of the library; these are checked at each call.

A forward and a rule get arrays that they cannot write. Their results are checked before they are used.
``rules`` gives ``CHECKS`` to the engine, with each primitive that its decorators make.
"""

from functools import wraps
from types import SimpleNamespace

from tinygrad_ms.arrays.dtypes import is_float, is_host_value, is_number_dtype
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.around.rules import PerArgument, Rule, no_gradient
from tinygrad_ms.engine.around.sentences import describe
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.parameters import names_of

READ_ONLY = "{} gets its arrays read-only, because others share them: write into a copy"


def read_only(x):
    """x, but an array or a Tensor off the tape as a read-only view. Only NumPy has such views."""
    if isinstance(x, Tensor):
        return Tensor(read_only(x.data)) if x.node is None else x
    if getattr(getattr(x, "flags", None), "writeable", False):
        x = x.view()
        x.flags.writeable = False
    return x


def accept(primitive) -> None:
    """Refuse a wrong number of rules, and rules that read an unknown name. Guard the forward and the JVP rule."""
    for rules in (primitive.vjp, getattr(primitive.jvp, "rules", None)):
        if type(rules) is tuple and len(rules) != len(primitive.arguments):
            names = ", ".join(primitive.arguments) or f"*{primitive.variadic}"
            raise TypeError(
                f"{primitive.name}: {len(rules)} {'rule' if len(rules) == 1 else 'rules'} for the arguments ({names});"
                " give one for each, None where there is no gradient, or one for all: (needed, g, ...) -> gradients"
            )
    arguments = [primitive.variadic] if primitive.variadic else primitive.arguments
    outputs = ["y"] if primitive.outputs is None else [] if primitive.outputs == "*" else primitive.outputs
    known = [*arguments, *outputs, *primitive.constants, *primitive.cache, *(f"{a}_shape" for a in arguments)]
    rules = list(getattr(primitive.jvp, "rules", ()))
    for made in (primitive.vjp, getattr(primitive.jvp, "rule", None)):
        rules += [made] if isinstance(made, Rule) else made or ()
    if any(not names_of(rule.function) for rule in rules):
        raise TypeError(
            f"{primitive.name}: a rule has no parameter; its first one is the cotangent (lambda g, ...: ...)"
        )
    for name in [name for rule in rules for name in rule.saves]:
        if name not in known:
            raise TypeError(
                f"rule of {primitive.name}: {name!r} is no argument, output, constant or shape;"
                f" a rule may read {', '.join(known)}"
            )
    if primitive.outputs and isinstance(primitive.jvp, PerArgument) and len(primitive.jvp.rules) > 1:
        raise TypeError(f"{primitive.name}: with outputs= the JVP rule is one for all: (tangents, ...) -> tuple")
    primitive.forward = guarded(primitive)
    if primitive.jvp is not None:
        primitive.jvp = CheckedJvp(primitive)


def guarded(primitive):
    """The forward of ``primitive`` with checks. It may not write its arguments, and it returns new arrays."""
    forward, name, view = primitive.forward, primitive.name, primitive.view

    @wraps(forward)
    def checked(xp, *arrays, **constants):
        try:
            result = forward(xp, *(arrays if view else map(read_only, arrays)), **constants)
        except Exception as error:
            error.add_note(f"the forward of {name} was called with {describe(primitive, arrays)}")
            if "read-only" in str(error):
                error.add_note(READ_ONLY.format(f"the forward of {name}"))
            raise
        if primitive.cache and not (isinstance(result, tuple) and len(result) == 2):
            raise TypeError(f"{name}: with cache= the forward returns (result, tuple of cached arrays)")
        outputs = result[0] if primitive.cache else result
        if primitive.outputs and not isinstance(outputs, (tuple, list)):
            raise TypeError(f"{name}: the forward returned {type(outputs).__name__}; expected a tuple of its outputs")
        if primitive.outputs not in (None, "*") and len(outputs) != len(primitive.outputs):
            raise ValueError(f"{name}: the forward returned {len(outputs)} outputs, not {primitive.outputs}")
        for y in outputs if primitive.outputs else (outputs,):
            if not (type(y) in BACKENDS or type(y) in NUMBERS or is_host_value(y)):
                raise TypeError(f"{name}: the forward returned {type(y).__name__}; expected an array of {xp.__name__}")
            there = {BACKENDS[type(a)].name for a in (y, *arrays) if type(a) in BACKENDS}
            if len(there) > 1:
                raise TypeError(f"{name}: the forward returned an array of another device ({', '.join(sorted(there))})")
            if hasattr(y, "dtype") and not is_number_dtype(y.dtype):
                raise TypeError(f"{name}: the forward returned an array of {y.dtype}; expected floats, ints or bools")
            for i, x in enumerate(arrays):
                if type(x) in BACKENDS and owner(y) is owner(x) and not (view and i == 0):
                    raise ValueError(
                        f"{name}: the forward returned its argument {primitive.argument_name(i)}, or a view of it;"
                        " return a copy, or declare view=True where the result is a view of the first argument"
                    )
        return result

    return checked


def explained(function, who, *args, **constants):
    """Call a user's function. An error about a read-only array gets a note that says why it is read-only."""
    try:
        return function(*args, **constants)
    except ValueError as error:
        if "read-only" in str(error):
            error.add_note(READ_ONLY.format(who))
        raise


def owner(x):
    """The array that owns the memory of a view."""
    while getattr(x, "base", None) is not None:
        x = x.base
    return x


def checked_gradients(node, g, saved, needed) -> list:
    """The gradient that the rules of a user's primitive send to each argument; None if it needs or gets none."""
    plan, who, several = node.plan, f"the rule of {node.op}", isinstance(g, (tuple, dict))
    keys = (g if isinstance(g, dict) else range(len(g))) if several else [None]
    whole = [g[k] for k in keys] if several else [g]
    views = list(map(read_only, whole))
    given = views[0] if not several else dict(zip(keys, views)) if isinstance(g, dict) else tuple(views)
    saved = list(map(read_only, saved))
    if plan.joint is not None:
        gradients = explained(plan.joint.function, who, needed, given, *plan.pick(plan.joint, saved))
        count = len(gradients) if isinstance(gradients, (tuple, list)) else type(gradients).__name__
        if count != len(needed):
            raise RuntimeError(f"{who} returned {count}; expected a tuple of {len(needed)} gradients, one per argument")
        wanted = [n and d is not None for n, d in zip(needed, gradients)]  # a joint rule may send nothing
    else:
        rules = {i: (rule, positions) for i, rule, positions in plan.own if needed[i] and rule is not no_gradient}
        wanted = [i in rules for i in range(len(needed))]
        gradients = [
            explained(rules[i][0], who, given, *[saved[p] for p in rules[i][1]]) if w else None
            for i, w in enumerate(wanted)
        ]
    originals = {id(view): x for view, x in zip(views, whole)}
    recording = any(isinstance(x, Tensor) for x in whole)
    return [
        checked(originals.get(id(d), d), node, i, recording) if w else None
        for i, (d, w) in enumerate(zip(gradients, wanted))
    ]


def checked(d, node, i, recording):
    """The gradient ``d`` for argument ``i``. Raises RuntimeError unless it is a float array of the same library."""
    array, parent = raw(d), node.parents[i]
    own = type(array) is parent.backend.array_type or (is_host_value(array) and parent.backend.name == "cpu")
    if not (own and is_float(array.dtype)):
        backend = BACKENDS.get(type(array))
        what = f"a {array.dtype} array on {backend.device_of(array)}" if backend else type(array).__name__
        raise RuntimeError(
            f"the rule of {node.op} returned {what} for {node.plan.primitive.argument_name(i)}; expected an array of"
            f" {parent.dtype} {parent.shape} on {parent.backend.name}, like the argument (recorded at {node.line})"
        )
    array = as_array(array, parent.backend)
    return (d if isinstance(d, Tensor) else Tensor(array)) if recording else array


class CheckedJvp:
    """The JVP rule of a user's primitive with checks. Its tangents are read-only; its results must fit them."""

    def __init__(self, primitive):
        self.jvp, self.names, self.several = primitive.jvp, primitive.jvp.names, primitive.outputs

    def __call__(self, plan, tangents, saved, constants):
        who, shown = f"the JVP rule of {plan.primitive.name}", [read_only(t) for t in tangents]
        result = explained(self.jvp, who, plan, shown, list(map(read_only, saved)), constants)
        outputs = result if self.several else (result,)
        named = self.several not in (None, "*")
        if not isinstance(outputs, (tuple, list)) or (named and len(outputs) != len(self.several)):
            raise RuntimeError(f"{who} returned {type(outputs).__name__}; expected a tuple with a tangent per output")
        expected = {type(raw(t)) for t in tangents if t is not None}
        for t in outputs:
            if type(raw(t)) in BACKENDS and type(raw(t)) not in expected:
                there = [BACKENDS[kind].name for kind in (type(raw(t)), *expected)]
                raise RuntimeError(f"{who} returned an array on {there[0]} for tangents on {there[1]}")
        originals = {id(view): t for view, t in zip(shown, tangents)}
        outputs = [originals.get(id(t), t) for t in outputs]
        return tuple(outputs) if self.several else outputs[0]


CHECKS = SimpleNamespace(accept=accept, gradients=checked_gradients)
