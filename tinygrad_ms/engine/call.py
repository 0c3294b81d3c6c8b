"""The call of an op: sort out the arguments, run the forward, put a node on the tape where a gradient is wanted.

The straight-line code of this file runs once per op: its time is what tiny ops cost.
"""

from collections.abc import Callable
from functools import update_wrapper
from sys import _getframe
from typing import Any

from tinygrad_ms.engine.backend import (
    BACKENDS,
    DEFAULT_FLOAT,
    default_device,
    host_array,
    is_float,
    is_host_value,
    parse_device,
    to_device,
)
from tinygrad_ms.engine.rules import PerArgument, Primitive, Slots, shape_of
from tinygrad_ms.engine.tape import OURS, Constant, Node, current_state, notify
from tinygrad_ms.engine.tensor import Tensor

NOTHING: tuple = ()  # these two are shared, so that a node without saved values or constants costs no memory
NO_CONSTANTS: dict = {}
NUMBERS = frozenset((float, int, bool))  # Python numbers are weak scalars: they take the dtype of the arrays


def make_op(primitive: Primitive) -> Callable:
    """The public function of a primitive."""
    if primitive.variadic is None and len(primitive.arguments) == 2 and not primitive.outputs:
        op = _binary_op(primitive)
    else:

        def op(*args, **constants):
            return call(primitive, args, constants, current_state())

    update_wrapper(op, primitive.forward)
    vars(op).update(__signature__=primitive.signature, primitive=primitive)
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


def call(primitive: Primitive, args, constants, state):  # noqa: C901
    """Run an op on any arguments: sort them out, run the forward, record a node where a gradient is wanted."""
    outputs, count = primitive.outputs, len(primitive.arguments)
    if len(args) != count and primitive.variadic is None:
        args, constants = primitive.bind(args, constants)
    lead: Any = None  # the first array, its backend and type; the type of a Python number
    backend: Any = None
    kind = weak = None
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
            if getattr(value, "dtype", DEFAULT_FLOAT).kind == "c":
                raise TypeError(f"{primitive.name}: complex numbers are not supported ({describe(primitive, args)})")
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
        values, counts = [], []
        for i in plan.inputs:
            values.append(arrays[i])
            if isinstance(args[i], Tensor):
                counter = args[i]._version or args[i].version_counter()
                counts.append((counter, counter[0], i))
        for k in plan.outputs:
            counter = results[k]._version or results[k].version_counter()
            values.append(results[k].data)
            counts.append((counter, counter[0], -1 - k))
        if plan.extras:
            values += plan.read_extras(arrays, constants)
        saved = tuple(values)
        guards = tuple(counts)
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


def _item(xp, x, *, index):
    """Output ``index`` of an op with several outputs."""


ITEM = Primitive(
    _item,
    formula="",
    source="",
    vjp=(lambda g, index: Slots({index: g}),),
    jvp=PerArgument((lambda t, index: t[index],)),
)


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
