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
from functools import update_wrapper
from sys import _getframe
from typing import Callable

from tinygrad_ms.engine.backend import (
    BACKENDS, DEFAULT_FLOAT, default_device, host_array, is_float, is_host_value, parse_device, to_device,
)  # fmt: skip
from tinygrad_ms.engine.tape import OURS, Constant, Node, current_state, notify
from tinygrad_ms.engine.tensor import Tensor

NOTHING, NO_CONSTANTS = (), {}  # shared, so that a node without them costs no memory
NUMBERS = frozenset((float, int, bool))  # Python numbers are weak scalars: they take the dtype of the arrays
REGISTRY: dict[str, "Primitive"] = {}  # every primitive and composition by name


class Primitive:
    """What is known of an op: forward, rules, formula, source. ``op.primitive`` of every public op."""

    def __init__(self, forward, *, formula, source, vjp=None, jvp=None, outputs=None, view=False, floats=False, notes=""):
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
        self.op: Callable = None

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
        self.defaults = {p.name: p.default for p in constants if p.default is not p.empty}

    def bind(self, args, kwargs):
        """Sort a call into arrays and constants: constants may be positional, arrays may be named."""
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
        self.inputs, self.outputs, self.extras, self.names = [], [], [], []
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
        self.positions = {}
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


# --- the call ------------------------------------------------------------------------------------------------------


def make_op(primitive: Primitive) -> Callable:
    """The public function of a primitive."""
    if primitive.variadic is None and len(primitive.arguments) == 2 and not primitive.outputs:
        op = _binary_op(primitive)
    else:

        def op(*args, **constants):
            return call(primitive, args, constants, current_state())

    update_wrapper(op, primitive.forward)
    op.__signature__ = primitive.signature
    op.primitive = primitive
    return op


def _binary_op(primitive: Primitive) -> Callable:
    """Two operands on one device with nobody watching: the short way for the ops whose overhead counts.

    Everything else about them (arrays alone, lists, hooks, forward mode, errors) is left to ``call``.
    """
    forward, differentiable, plans = primitive.forward, primitive.differentiable, primitive.plans
    floats = primitive.floats

    def op(*args, **constants):
        state = current_state()
        if len(args) != 2 or not state.simple:
            return call(primitive, args, constants, state)
        left, right = args
        x, y, pattern = left, right, 4
        if isinstance(left, Tensor):
            x, left = left.data, left.node
            if left is None:
                left = constant(args[0])
            else:
                pattern = 5
        if isinstance(right, Tensor):
            y, right = right.data, right.node
            if right is None:
                right = constant(args[1])
            else:
                pattern += 2
        kind, other = type(x), type(y)
        if kind is float or kind is int:  # a Python number beside a float array
            kind, other = other, kind
        backend = BACKENDS.get(kind)
        if backend is None or backend.several or (x is left and y is right):
            return call(primitive, args, constants, state)
        if other is not kind:
            if not (other is float or other is int) or (x if type(x) is kind else y).dtype.kind != "f":
                return call(primitive, args, constants, state)
        elif x is left or y is right or (floats and x.dtype.kind != "f"):  # an array that is no tensor; integers
            return call(primitive, args, constants, state)
        try:
            z = forward(backend.xp, x, y, **constants) if constants else forward(backend.xp, x, y)
        except Exception as error:
            raise explain(primitive, (x, y), constants, error) from error
        result = Tensor(z if type(z) is kind else backend.xp.asarray(z))
        if pattern > 4 and differentiable and state.recording:
            plan = plans.get(pattern) or primitive.plan(pattern, False)
            result.node = record(plan, (left, right), args, (x, y), (result,), constants, backend, state, _getframe(1))
        return result

    return op


def call(primitive: Primitive, args, constants, state):
    """Run an op on any arguments: sort them out, run the forward, record a node where a gradient is wanted."""
    outputs, count = primitive.outputs, len(primitive.arguments)
    if len(args) != count and primitive.variadic is None:
        args, constants = primitive.bind(args, constants)
    lead = kind = backend = weak = None  # the first array, its type and backend; the type of a Python number
    tensors = odd = False
    pattern, bit = 0, 1
    arrays, parents = [], []
    for value in args:
        if isinstance(value, Tensor):
            tensors = True
            node = value.node
            if node is not None:
                pattern += bit
            parents.append(node or constant(value))
            value = value.data
        elif type(value) is float or type(value) is int:
            weak = type(value)
            parents.append(value)
        else:
            parents.append(constant(value))
        bit += bit
        arrays.append(value)
        this = type(value)
        if this is not kind and this is not weak:
            found = BACKENDS.get(this)
            if found is None:
                odd = True
            elif kind is None:
                lead, kind, backend = value, this, found
            else:
                raise mixed_devices(primitive, args)
    if odd or kind is None or backend.several or ((weak is float or primitive.floats) and lead.dtype.kind != "f"):
        arrays, backend, tensors = prepare(primitive, args, arrays, backend, tensors)
        kind = backend.array_type
    if state.hooks:
        notify(state.hooks, "before_op", primitive, arrays)
    try:
        y = primitive.forward(backend.xp, *arrays, **constants)
    except Exception as error:
        raise explain(primitive, arrays, constants, error) from error
    node = None
    values = tuple(y) if outputs else (y,)
    if tensors:
        results = tuple([Tensor(value if type(value) in BACKENDS else backend.xp.asarray(value)) for value in values])
        if type(results[0].data) is not kind:  # a copy on another device
            backend = BACKENDS[type(results[0].data)]
        if primitive.view and isinstance(args[0], Tensor):  # views count in-place changes with what they show
            for result in results:
                result._version = args[0].version_counter()
        if pattern and primitive.differentiable and state.recording:
            pattern += bit
            plans = primitive.forward_plans if state.forward_mode else primitive.plans
            plan = plans.get(pattern) or primitive.plan(pattern, state.forward_mode)
            node = record(plan, tuple(parents), args, arrays, results, constants, backend, state, _getframe(2))
            if outputs:
                for k, result in enumerate(results):
                    if is_float(result.dtype):
                        result.node = item_node(node, k, result.data)
            else:
                results[0].node = node
        values = results
    if state.hooks:
        raw = tuple(value.data if isinstance(value, Tensor) else value for value in values)
        notify(state.hooks, "after_op", primitive, arrays, raw, node)
    return values if outputs else values[0]


def record(plan, parents, args, arrays, results, constants, backend, state, frame) -> Node:
    """A node on the tape with what the rules of ``plan`` will need."""
    saved = guards = NOTHING
    if plan.names:
        saved, guards = [], []
        for i in plan.inputs:
            saved.append(arrays[i])
            if isinstance(args[i], Tensor):
                counter = args[i]._version or args[i].version_counter()
                guards.append((counter, counter[0], i))
        for k in plan.outputs:
            counter = results[k]._version or results[k].version_counter()
            saved.append(results[k].data)
            guards.append((counter, counter[0], -1 - k))
        if plan.extras:
            saved += plan.read_extras(arrays, constants)
        saved = tuple(saved)
        guards = tuple(guards)
    y = results[0].data
    shape, dtype = (None, None) if plan.primitive.outputs else (y.shape, y.dtype)
    for parent in parents:
        if type(parent) is Node and parent.shape == shape:
            shape = parent.shape  # one tuple for a chain of equal shapes: less for the garbage collector to visit
            break
    code = frame.f_code
    while code.co_filename in OURS and frame.f_back:
        frame = frame.f_back
        code = frame.f_code
    return Node(
        plan, parents, saved, guards, constants or NO_CONSTANTS, shape, dtype, backend, state.scope, code, frame.f_lasti
    )


def constant(value):
    """How the tape shows an argument that wants no gradient; it must not keep the data alive."""
    if isinstance(value, Tensor):
        return value._constant or value.as_constant()
    if type(value) is bool:
        return value
    return Constant(shape_of(value), getattr(value, "dtype", type(value).__name__), BACKENDS.get(type(value)))


def item_node(node: Node, index: int, array) -> Node:
    """Output ``index`` of the op ``node`` as a node of its own; its rule hands the cotangent on to that slot."""
    plan = ITEM.forward_plans.get(0b11) or ITEM.plan(0b11, True)
    return Node(
        plan, [node], [index], (), {"index": index}, array.shape, array.dtype, node.backend, node.scope,
        node.code, node.offset,
    )  # fmt: skip


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


def shape_of(value) -> tuple:
    return value.shape if hasattr(value, "shape") else ()


def prepare(primitive, args, arrays, backend, wants_tensor):
    """The less usual arguments: Python numbers stay weak scalars, lists become arrays, integers floats where asked."""
    if any(value is None or isinstance(value, (str, dict, set)) for value in arrays):
        i = next(i for i, value in enumerate(arrays) if value is None or isinstance(value, (str, dict, set)))
        raise TypeError(
            f"{primitive.name}: {primitive.argument_name(i)} is {type(arrays[i]).__name__};"
            " expected a Tensor, an array or a number"
        )
    if backend is None:  # no array at all: numbers and lists make tensors, NumPy scalars (with numbers) stay NumPy
        host = [is_host_value(value) for value in arrays]
        if any(host) and all(own or type(value) in NUMBERS for own, value in zip(host, arrays)):
            backend, index = parse_device("cpu")
            arrays = [host_array(value) if own else value for own, value in zip(host, arrays)]
        else:
            backend, index = parse_device(default_device())
            wants_tensor = True
            arrays = [backend.from_host(default_floats(value), index) for value in arrays]
    elif backend.several and len({backend.index_of(a) for a in arrays if type(a) is backend.array_type}) > 1:
        raise mixed_devices(primitive, args)
    lead = next(a for a in arrays if type(a) is backend.array_type)
    floating = next((a.dtype for a in arrays if type(a) is backend.array_type and is_float(a.dtype)), None)
    for i, value in enumerate(arrays):
        if isinstance(value, (list, tuple)):
            host = default_floats(value) if floating is None else host_array(value, floating)
            arrays[i] = to_device(host, backend.device_of(lead))
        elif type(value) not in (float, int, bool, backend.array_type) and not is_host_value(value):
            raise TypeError(
                f"{primitive.name}: {primitive.argument_name(i)} is {type(value).__name__};"
                " expected a Tensor, an array or a number"
            )
    if floating is None and (primitive.floats or any(type(value) is float for value in arrays)):
        arrays = [a.astype(DEFAULT_FLOAT) if type(a) is backend.array_type else a for a in arrays]
    return arrays, backend, wants_tensor


def default_floats(value):
    host = host_array(value)
    return host if is_host_value(value) or host.dtype.kind != "f" else host.astype(DEFAULT_FLOAT)


# --- errors --------------------------------------------------------------------------------------------------------


def describe(primitive, values) -> str:
    """``a: float32 (2, 3) on cpu, b: 2.0``."""
    parts = []
    for i, value in enumerate(values):
        value = value.data if isinstance(value, Tensor) else value
        backend = BACKENDS.get(type(value))
        what = f"{value.dtype} {value.shape} on {backend.device_of(value)}" if backend else repr(value)[:40]
        parts.append(f"{primitive.argument_name(i)}: {what}")
    return ", ".join(parts)


def mixed_devices(primitive, args) -> ValueError:
    return ValueError(
        f"{primitive.name}: arguments on different devices ({describe(primitive, args)}); move one with .to(device)"
    )


def explain(primitive, arrays, constants, error) -> Exception:
    """The array library's complaint as a sentence that names the op, the arguments and the fix."""
    text = str(error)
    if text.startswith(primitive.name + ":"):
        return error
    kind = type(error) if type(error) in (TypeError, ValueError, IndexError, MemoryError) else ValueError
    if "broadcast" in text:
        shapes = [f"{primitive.argument_name(i)} has shape {shape_of(a)}" for i, a in enumerate(arrays)]
        text = f"{' and '.join(shapes)}: these do not broadcast (sizes must be equal or 1, aligned at the right)"
        return kind(f"{primitive.name}: {text}")
    keywords = "".join(f", {key}={value!r}" for key, value in constants.items())
    return kind(f"{primitive.name}: {text} ({describe(primitive, arrays)}{keywords})")


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
            tangents = [
                xp.zeros(shapes[i], some.dtype) if t is None else t for i, t in enumerate(tangents)
            ]
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


# --- the decorators ------------------------------------------------------------------------------------------------


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
    """The general kind; without ``jvp`` the op has no forward mode. ``vjp``: per argument ``(g, saved...)`` or jointly ``(needed, g, saved...)`` -> tuple;
    ``jvp``: per argument ``(t, saved...)`` or jointly ``(tangents, saved...)``. With ``outputs=("q", "r")`` the
    cotangent g (and the result of the JVP) is a tuple, with None for outputs nobody used. With ``outputs="*"`` their
    number varies, and g is a dict of the cotangents by output, without those nobody used."""
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
        xp = inspect.Parameter("xp", inspect.Parameter.POSITIONAL_ONLY if any(
            p.kind is p.POSITIONAL_ONLY for p in parameters) else inspect.Parameter.POSITIONAL_OR_KEYWORD)
        forward.__signature__ = inspect.Signature([xp, *parameters])
        return primitive(vjp, jvp, **facts)(forward)

    return decorate


def no_derivative(*, formula: str = "", source: str = "", **facts):
    """A function whose results carry no gradient: comparisons, argmax, one_hot."""
    return lambda forward: _define(forward, formula=formula, source=source, **facts)


def _item(xp, x, *, index):
    """Output ``index`` of an op with several outputs."""


ITEM = Primitive(
    _item, formula="", source="", vjp=(lambda g, index: Slots({index: g}),), jvp=PerArgument((lambda t, index: t[index],))
)


def is_joint(rule) -> bool:
    return callable(rule) and next(iter(inspect.signature(rule).parameters), "") == "needed"
