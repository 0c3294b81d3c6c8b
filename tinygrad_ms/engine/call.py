"""The call of an op: unwrap the arguments, run the forward, wrap the results, record a node where a gradient is wanted.

This code runs once per op, so its time is most of the time of a tiny op. ``benchmarks/bench_ops.py`` guards it.
"""

from collections.abc import Callable
from functools import update_wrapper
from sys import _getframe
from typing import Any

from tinygrad_ms.arrays.dtypes import NumpyScalar, is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import there
from tinygrad_ms.engine.around.arguments import NUMBERS, convert_arguments, refuse_tracked
from tinygrad_ms.engine.around.modes import current_state, notify
from tinygrad_ms.engine.around.sentences import complaint, shape_of
from tinygrad_ms.engine.tape import Constant, Node, Output
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.scopes import scopes
from tinygrad_ms.spelling import respelled

# Two calls do what Tensor(y) and Node(...) do, in half the time: an empty object, then its contents.
blank, fill_tensor, fill_node = object.__new__, Tensor._fill, Node.__init__
NOTHING: tuple = ()  # nodes without saved values or constants share these two
NO_CONSTANTS: dict = {}
MISSING: Any = object()  # stands for the first argument of a call without arguments
PLAIN = NUMBERS | {tuple, type(None), str, slice}  # the types of nearly all constants


def make_op(primitive) -> Callable:
    """The public function of a primitive."""
    forward, several, cache, view = primitive.forward, bool(primitive.outputs), bool(primitive.cache), primitive.view
    plans, forward_plans, differentiable = primitive.plans, primitive.forward_plans, primitive.differentiable
    count = None if primitive.variadic else len(primitive.arguments)
    floats, direct, door = primitive.floats, primitive.direct.get, count == 1 and not (several or cache)
    expected = "f" if floats else "fiub"  # kinds of dtypes that need no conversion

    def op(first=MISSING, /, *rest, **constants):
        # The door for a raw array, as in rules: run the forward and nothing else.
        if (door and not rest and ((run := None if constants else direct(type(first))) or type(first) in BACKENDS)
            and first.dtype.kind == "f" and not current_state().hooks):  # fmt: skip
            try:
                return run(first) if run else through_the_door(primitive, first, constants)
            except Exception as error:  # a name of PyTorch goes on, as below; else the forward runs once
                if "unexpected keyword" not in str(error):
                    raise complaint(primitive, (first,), constants, error) from error.__cause__
        args = (first,) + rest if rest else (first,) * (first is not MISSING)
        if len(args) != count and count is not None:
            args, constants = primitive.bind(args, constants)
        state = current_state()

        # Unwrap: raw arrays, their one type, their places on the tape. ``pattern``: see Plan.key.
        arrays, parents = [], []
        kind, pattern, bit = None, 0, 1
        tensors, odd, asks = False, False, floats  # seen: a Tensor, what must be converted, what may ask for floats
        for value in args:
            if isinstance(value, Tensor):
                tensors = True
                parents.append(place := value.node)
                if place is not None:
                    pattern += bit
                value = value.data
                odd, kind = odd or kind not in (None, type(value)), type(value)
            elif type(value) is float or type(value) is int:
                asks = True
                parents.append(value)  # type: ignore[arg-type]
            else:
                parents.append(None)
                odd = odd or kind not in (None, type(value)) or kind_of(value) not in expected
                kind = type(value)
            arrays.append(value)
            bit += bit
        backend = BACKENDS.get(kind)  # type: ignore[arg-type]
        if odd or backend is None or backend.multi_device or (asks and not pattern and no_floats(arrays, floats)):
            arrays, backend, tensors = convert_arguments(primitive, arrays, tensors)

        # Run.
        if state.hooks:
            notify(state.hooks, "called", primitive, args, constants)
            notify(state.hooks, "before_op", primitive, arrays)
        try:
            if not constants and (run := direct(kind)) is not None:
                y = run(arrays[0]) if bit == 2 else run(arrays[0], arrays[1])
            else:
                constants = constants and plain_constants(primitive, constants)
                watch = backend.recorder  # the recorder of tg.compile, if it records
                y = watch.run(primitive, arrays, constants) if watch else forward(backend.xp, *arrays, **constants)
        except Exception as error:
            if renamed := respelled(primitive.name, constants, primitive.constants, error):
                return op(*args, **renamed)
            raise complaint(primitive, arrays, constants, error) from error.__cause__

        # Wrap and record.
        node, cached = None, y[1] if cache else NOTHING
        y = y[0] if cache else y
        if not tensors:
            result = tuple(y) if several else y
        elif several:
            result = tuple(map(Tensor, map(as_array, y, [backend] * len(y))))
        else:
            result = blank(Tensor)
            fill_tensor(result, y if type(y) is backend.array_type else as_array(y, backend))
        if pattern and differentiable and state.recording:
            chosen = forward_plans if state.forward_mode else plans
            plan = chosen.get(pattern + bit) or primitive.plan(pattern + bit, state.forward_mode)
            node = record(plan, parents, args, arrays, result, cached, constants, _getframe(1))
        for one in (result if several else (result,)) if view and isinstance(args[0], Tensor) else NOTHING:
            one.count_with(args[0].version_counter())  # a view shares the change counter of its memory
        if state.hooks:
            notify(state.hooks, "after_op", primitive, arrays, tuple(map(raw, result if several else (result,))), node)
        return result

    update_wrapper(op, primitive.forward)
    vars(op).update(__signature__=primitive.signature, primitive=primitive)
    return op


def kind_of(value) -> str:
    """The kind of the dtype of a raw array; "?" for anything else."""
    return value.dtype.kind if type(value) in BACKENDS else "?"


def through_the_door(primitive, x, constants):
    """The op on one raw array, for an op that is more than one function of the array library."""
    backend = BACKENDS[type(x)]
    return as_array(there(primitive.forward, x)(backend.xp, x, **plain_constants(primitive, constants)), backend)


def no_floats(arrays, wanted) -> bool:
    """Whether no array holds floats where the op wants them, or where a Python float asks for them."""
    return "f" not in map(kind_of, arrays) and (wanted or float in map(type, arrays))


def plain_constants(primitive, constants) -> dict:
    """The keyword arguments of a call. Single numbers become Python's. Raises TypeError for a tensor on the tape."""
    for name, value in constants.items():
        if type(value) not in PLAIN and isinstance(value, (Tensor, NumpyScalar)):
            refuse_tracked(f"{primitive.name}: {name}", value, "it has no derivative here; pass a number or .detach()")
            if not value.shape:
                constants = {**constants, name: value.item()}
    return constants


def record(plan, parents, args, arrays, result, cached, constants, frame) -> Node:
    """Put a node on the tape, with what the rules of ``plan`` will read. Its results get their places."""
    for i in plan.off_tape:
        if parents[i] is None:
            parents[i] = constant(args[i])
    saved, several = NOTHING, plan.several
    for i in plan.inputs:
        saved += (arrays[i],)
    for k in plan.outputs:
        saved += ((result[k] if several else result).data,)
    if plan.extras:
        saved = (*saved, *plan.read_extras(arrays, constants, cached))
    y, code = (result[0] if several else result).data, frame.f_code
    while (known := is_ours.get(code.co_filename)) is not False and frame.f_back and (known or ours(frame)):
        frame = frame.f_back
        code = frame.f_code
    node = blank(Node)
    fill_node(
        node, plan, parents, saved, constants or NO_CONSTANTS, None if several else y.shape,
        None if several else y.dtype, BACKENDS[type(y)], scopes(), code, frame.f_lasti,
    )  # fmt: skip
    if several:
        node.counter = {k: [0] for k in plan.outputs}
        for k, one in enumerate(result):
            if is_float(one.dtype):
                one.node = Output(node, k, one.data)
            elif k in node.counter:
                one.count_with(node.counter[k])
    else:
        result.node = node
    return node


is_ours: dict[str, bool] = {}  # by file name: whether the code belongs to this package


def ours(frame) -> bool:
    """Whether a frame belongs to this package, and so is not where the user made the call."""
    module = f"{frame.f_globals.get('__name__', '')}."
    return is_ours.setdefault(frame.f_code.co_filename, module.startswith("tinygrad_ms."))


def as_array(value, backend):
    """A 0-d array in the place of the scalar that a reduction of NumPy returns; an array as it is."""
    return value if type(value) in BACKENDS else backend.xp.asarray(value)


def constant(value):
    """What the tape keeps of an argument without a gradient: a number itself; of an array its facts, not its data."""
    if isinstance(value, Tensor):
        return value._constant or value.as_constant()
    if type(value) in NUMBERS:
        return value
    return Constant(shape_of(value), getattr(value, "dtype", type(value).__name__), BACKENDS.get(type(value)))
