"""The call of an op: unwrap the arguments, run the forward, wrap the results, record a node where a gradient is wanted.

This code runs once per op: its time is what tiny ops cost (``benchmarks/bench_ops.py`` guards it).
"""

from collections.abc import Callable
from functools import update_wrapper
from sys import _getframe
from typing import Any

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.arguments import NUMBERS, convert_arguments
from tinygrad_ms.engine.around.crossings import raw
from tinygrad_ms.engine.around.modes import current_state, notify
from tinygrad_ms.engine.around.sentences import complaint, shape_of
from tinygrad_ms.engine.tape import Constant, Node, Output
from tinygrad_ms.engine.tensor import Tensor

NOTHING: tuple = ()  # these two are shared, so that a node without saved values or constants costs no memory
NO_CONSTANTS: dict = {}


def make_op(primitive) -> Callable:
    """The public function of a primitive."""
    forward, several, view = primitive.forward, bool(primitive.outputs), primitive.view
    count = None if primitive.variadic else len(primitive.arguments)
    expected = "f" if primitive.floats else "fiub"  # kinds of dtypes that need no conversion

    def op(*args, **constants):
        if len(args) != count and count is not None:
            args, constants = primitive.bind(args, constants)
        state = current_state()

        # Unwrap. ``pattern`` gets a bit for each argument that wants a gradient, and at last one above the highest.
        arrays: list[Any] = []
        kind = None  # the type of the arrays
        tensors = floats = weak = odd = (
            False  # seen: a Tensor; an array of floats; a Python float; what needs converting
        )
        pattern, bit = 0, 1
        for value in args:
            if isinstance(value, Tensor):
                tensors = True
                if value.node is not None:
                    pattern += bit
                    floats = True
                elif not floats:
                    floats = value.data.dtype.kind == "f"
                    odd = odd or not (floats or value.data.dtype.kind in expected)
                value = value.data
                if type(value) is not kind:
                    odd, kind = odd or kind is not None, type(value)
            elif type(value) is float:
                weak = True
            elif type(value) in BACKENDS:
                if value.dtype.kind == "f":
                    floats = True
                elif value.dtype.kind not in expected:
                    odd = True
                if type(value) is not kind:
                    odd, kind = odd or kind is not None, type(value)
            elif type(value) is not int:
                odd = True
            arrays.append(value)
            bit += bit
        backend = BACKENDS.get(kind)
        if odd or backend is None or backend.multi_device or (weak and not floats):
            arrays, backend, tensors = convert_arguments(primitive, args, arrays, tensors)
            kind = backend.array_type

        # Run.
        if state.hooks:
            notify(state.hooks, "before_op", primitive, arrays)
        try:
            y = forward(backend.xp, *arrays, **constants)
        except Exception as error:
            raise complaint(primitive, arrays, constants, error) from error

        # Wrap, and record.
        node, cached = None, NOTHING
        if primitive.cache:
            y, cached = y
        if not tensors:
            results = tuple(y) if several else (y,)
        elif several:
            results = tuple([Tensor(as_array(value, backend)) for value in y])
        else:
            results = (Tensor(y if type(y) is kind else as_array(y, backend)),)
        if tensors and view and isinstance(args[0], Tensor):  # views count in-place changes with what they show
            for result in results:
                result._version = args[0].version_counter()
        if pattern and state.recording and primitive.differentiable:
            plan = primitive.plan(pattern + bit, state.forward_mode)
            node = record(plan, args, arrays, results, cached, constants, state, _getframe(1))
        if state.hooks:
            notify(state.hooks, "after_op", primitive, arrays, tuple(map(raw, results)), node)
        return results if several else results[0]

    update_wrapper(op, primitive.forward)
    vars(op).update(__signature__=primitive.signature, primitive=primitive)
    return op


def record(plan, args, arrays, results, cached, constants, state, frame) -> Node:
    """Put a node on the tape, with what the rules of ``plan`` will need, and give the results their places on it."""
    saved = versions = NOTHING
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
            values += plan.read_extras(arrays, constants, cached)
        saved, versions = tuple(values), tuple(counts)
    first = results[0].data
    backend = BACKENDS[type(first)]
    several = plan.primitive.outputs
    shape, dtype = (None, None) if several else (first.shape, first.dtype)
    parents = []
    for value in args:
        if not isinstance(value, Tensor):
            parents.append(value if type(value) in NUMBERS else constant(value))
        elif value.node is None:
            parents.append(value._constant or value.as_constant())
        else:
            parents.append(value.node)
            if value.node.shape == shape:
                shape = value.node.shape  # one tuple for a chain of equal shapes: less for the collector to visit
    code = frame.f_code
    while ours(frame, code) and frame.f_back:
        frame = frame.f_back
        code = frame.f_code
    node = Node(
        plan,
        parents,
        saved,
        versions,
        constants or NO_CONSTANTS,
        shape,
        dtype,
        backend,
        state.scope,
        code,
        frame.f_lasti,
    )
    if several:
        for k, result in enumerate(results):
            if is_float(result.dtype):
                result.node = Output(node, k, result.data)
    else:
        results[0].node = node
    return node


_ours: dict[str, bool] = {}  # by file: whether its code belongs to this package


def ours(frame, code) -> bool:
    """Whether a frame is not where the user called from."""
    known = _ours.get(code.co_filename)
    if known is None:
        name = frame.f_globals.get("__name__", "")
        known = _ours[code.co_filename] = name == "tinygrad_ms" or name.startswith("tinygrad_ms.")
    return known


def as_array(value, backend):
    """The scalars that NumPy's reductions return as 0-d arrays."""
    return value if type(value) in BACKENDS else backend.xp.asarray(value)


def constant(value) -> Constant:
    """How the tape shows an argument that is no tensor; it must not keep the data alive."""
    return Constant(shape_of(value), getattr(value, "dtype", type(value).__name__), BACKENDS.get(type(value)))
