"""Rules as a replay runs them: the ops they call go straight to their forwards where these get raw arrays of floats."""

import dis
from functools import cache
from types import CellType, FunctionType
from typing import Any

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.call import plain_constants
from tinygrad_ms.replay.guards import names_of

_made: dict[FunctionType, Any] = {}  # by function of the ops: the one that calls bare ops


def bare(function):
    """A function of the ops with every op it calls, itself or through others, replaced by a bare one."""
    if not isinstance(function, FunctionType) or not function.__module__.startswith("tinygrad_ms.ops."):
        return function
    if hasattr(function, "primitive"):
        return bare_op(function)
    if writes_globals(function.__code__):
        return function
    if function not in _made:
        names: dict[str, Any] = {"__builtins__": function.__globals__["__builtins__"]}
        cells = tuple(CellType() for _ in function.__closure__ or ())
        made = FunctionType(function.__code__, names, function.__name__, function.__defaults__, cells)
        made.__kwdefaults__ = function.__kwdefaults__
        _made[function] = made  # before what it calls, which may call it
        names |= {n: bare(function.__globals__[n]) for n in names_of(function.__code__) if n in function.__globals__}
        for new, old in zip(cells, function.__closure__ or ()):
            new.cell_contents = bare(old.cell_contents)
    return _made[function]


@cache
def writes_globals(code) -> bool:
    return any(i.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for i in dis.get_instructions(code))


@cache
def bare_op(op):
    """The op, without what its call checks and converts where all arguments are arrays of floats, or numbers."""
    primitive = op.primitive
    forward, count, direct = primitive.forward, len(primitive.arguments), primitive.direct.get

    def run(*args, **constants):
        if len(args) != count or (count == 1 and not constants):
            return op(*args, **constants)
        kind = type(args[0])
        for x in args:
            if type(x) is kind:
                if kind not in BACKENDS or x.dtype.kind != "f":
                    return op(*args, **constants)
            elif type(x) is not float and type(x) is not int:
                return op(*args, **constants)
        if not constants and (function := direct(kind)) is not None:
            return function(*args)
        return forward(BACKENDS[kind].xp, *args, **(constants and plain_constants(primitive, constants)))

    vars(run).update(primitive=primitive)  # rules may ask for the forward
    special = primitive.outputs or primitive.cache or primitive.variadic or primitive.checks
    return op if special or any(b.multi_device for b in BACKENDS.values()) else run
