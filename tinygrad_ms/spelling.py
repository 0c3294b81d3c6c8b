"""One table of PyTorch's names. Hints in errors, and the table of docs/from_pytorch.md, are made from it.

PyTorch's names of arguments (``dim=``) are accepted. Its names of functions, methods and classes are not. The error for
a name that is missing says what to write.
"""

import sys
from collections.abc import Callable, Collection, Iterable
from functools import update_wrapper
from inspect import CO_VARKEYWORDS, signature
from typing import Any

NAMES: dict[str, dict[str, str]] = {  # room -> {PyTorch's name: what to write here}
    "torch": {
        "allclose": "tg.isclose(x, y).all()", "amax": "tg.max(x, axis=0)", "amin": "tg.min(x, axis=0)",
        "as_tensor": "tg.asarray(x)", "autograd": "tg.grad, tg.vjp, tg.custom_vjp", "bmm": "tg.matmul(x, y)",
        "cat": "tg.concat([x, y], axis=0)", "chunk": "tg.split(x, 2)", "clamp": "tg.clip(x, 0, 1)",
        "cuda": 'x.to("cuda"), tg.device_info()', "device": 'the text "cpu" or "cuda:0"', "div": "x / y",
        "empty": "tg.zeros(shape)", "empty_like": "tg.zeros_like(x)", "eq": "x == y", "float32": 'the text "float32"',
        "float64": 'the text "float64"', "from_numpy": "tg.asarray(array)", "func": "tg.grad, tg.jacobian, tg.hessian",
        "gather": "tg.take_along_axis(x, indices, axis=0)", "ge": "x >= y", "ger": "tg.outer(x, y)", "gt": "x > y",
        "index_select": "tg.take(x, indices, axis=0)", "int64": 'the text "int64"', "inverse": "tg.inv(x)",
        "is_tensor": "isinstance(x, tg.Tensor)", "le": "x <= y", "linalg": "tg.solve, tg.svd, tg.qr, tg.inv",
        "logspace": "10 ** tg.linspace(0, 1, 5)", "long": 'the text "int64"', "lt": "x < y",
        "masked_fill": "tg.where(mask, value, x)", "masked_select": "x[mask]", "mm": "x @ y",
        "movedim": "tg.moveaxis(x, 0, 1)", "mul": "x * y", "mv": "x @ y", "ne": "x != y", "neg": "-x",
        "numel": "x.size", "permute": "tg.permute_dims(x, (1, 0))", "pinverse": "tg.pinv(x)", "pow": "x ** y",
        "rand_like": "tg.rand(x.shape)", "randint": "numpy.random.default_rng(0).integers(0, 10, shape)",
        "randn_like": "tg.randn(x.shape)", "randperm": "numpy.random.default_rng(0).permutation(n)",
        "repeat_interleave": "tg.repeat(x, 2, axis=0)", "rsqrt": "1 / tg.sqrt(x)", "scatter": "tg.put_along_axis",
        "scatter_add": "tg.index_add", "set_grad_enabled": "tg.enable_grad(), tg.no_grad()", "sub": "x - y",
        "t": "x.T", "unbind": "tg.unstack(x, axis=0)", "unsqueeze": "tg.expand_dims(x, 0)",
        "vmap": "an op on a batch: leading axes broadcast",
    },
    "Tensor": {
        "add": "x + y", "amax": "x.max(axis=0)", "amin": "x.min(axis=0)", "bmm": "x @ y", "bool": 'x.astype("bool")',
        "chunk": "x.split(2)", "clamp": "x.clip(0, 1)", "contiguous": "x.clone()", "detach_": "x.detach()",
        "dim": "x.ndim", "div": "x / y", "eq": "x == y", "expand": "x.broadcast_to(shape)",
        "expand_as": "x.broadcast_to(y.shape)", "fill_": "x.copy_(value)", "gather": "tg.take_along_axis(x, i, axis=0)",
        "ge": "x >= y", "gt": "x > y", "index_select": "x.take(i, axis=0)", "int": 'x.astype("int32")',
        "inverse": "x.inv()", "is_cuda": 'x.device != "cpu"', "le": "x <= y", "long": 'x.astype("int64")',
        "lt": "x < y", "masked_fill": "tg.where(mask, value, x)", "masked_select": "x[mask]", "mm": "x @ y",
        "movedim": "x.moveaxis(0, 1)", "mul": "x * y", "narrow": "x[start:stop]", "ne": "x != y", "neg": "-x",
        "new_ones": "tg.ones_like(x, shape=shape)", "new_zeros": "tg.zeros_like(x, shape=shape)", "numel": "x.size",
        "reshape_as": "x.reshape(y.shape)", "rsqrt": "1 / x.sqrt()", "sub": "x - y", "t": "x.T",
        "topk": "tg.topk(x, k)",
        "type": "x.astype(dtype)", "type_as": "x.astype(y.dtype)", "unbind": "x.unstack(0)", "view": "x.reshape(shape)",
        "view_as": "x.reshape(y.shape)", "zero_": "x.copy_(0)",
        **{f"{name}_": f"x {sign}= y" for name, sign in zip(("add", "sub", "mul", "div"), "+-*/")},
    },
    "torch.nn": {
        "BCELoss": "nn.BCEWithLogitsLoss(), which takes logits", "DataParallel": "tg.distributed.DataParallel",
        "functional": "tg.relu, tg.softmax, tg.cross_entropy", "utils": "tg.optim.clip_grad_norm",
        "Hardtanh": "tg.hardtanh", "LogSigmoid": "tg.log_sigmoid", "Mish": "tg.mish", "ReLU6": "tg.relu6",
        "ParameterList": "a list of nn.Parameter", "ParameterDict": "a dict of nn.Parameter",
        "LSTM": "not here; nn.GRU is the nearest", "LSTMCell": "not here; nn.GRUCell is the nearest",
        "MultiheadAttention": "not here; it is made of nn.Linear, @ and tg.softmax",
        **dict.fromkeys(["BatchNorm1d", "BatchNorm2d", "GroupNorm"], "not here; nn.LayerNorm and nn.RMSNorm are near"),
        **dict.fromkeys(["Conv1d", "Conv2d", "MaxPool2d", "AvgPool2d"], "not here; tg.sliding_window_view makes one"),
    },
    "torch.optim": {
        "lr_scheduler": "optim.StepLR, optim.CosineLR, optim.LambdaLR, optim.WarmupLR",
        **dict.fromkeys(["Adadelta", "Adagrad", "Adamax", "LBFGS", "NAdam", "RAdam"], "not here; optim.Adam is near"),
    },
}  # fmt: skip
ARGUMENTS = {  # PyTorch's names of arguments: ours, of which a function has one
    "dim": ("axis", "axes"), "dims": ("axis", "axes"), "keepdim": ("keepdims",), "start_dim": ("start_axis",),
    "end_dim": ("end_axis",),
}  # fmt: skip


def missing(owner: str, room: str, name: str, known: Iterable[str], numpy: dict[str, str] | None = None):
    """The AttributeError for a name that ``owner`` does not have.

    For a name of PyTorch or NumPy it says what to write here. For other names it lists similar ones.
    """
    text = f"{owner} has no attribute {name!r}"
    if name in NAMES[room]:
        text += f"; PyTorch's {room}.{name} is {NAMES[room][name]}" + " here" * (NAMES[room][name][:8] != "not here")
    elif numpy and name in numpy:
        text += f"; NumPy's np.{name} is tg.{numpy[name]} here"
    elif not name.startswith("_"):
        from difflib import get_close_matches

        if close := get_close_matches(name, known, 3, 0.75):
            text += f"; did you mean {' or '.join(close)}?"
    return AttributeError(text)


class Missing:
    """Stands for a method that only PyTorch has. Reading it raises the AttributeError with the hint.

    A ``__getattr__`` would do the same. It would make every read of every attribute three times slower.
    """

    def __init__(self, name: str):
        self.name = name

    def __get__(self, x, owner):
        raise missing(f"{owner.__name__!r} object", "Tensor", self.name, ())

    def __repr__(self):
        return f"missing; write {NAMES['Tensor'][self.name]}"


def respelled(op: str, given: dict, known: Collection[str], error: Exception | None = None) -> dict:
    """``given`` with our names of the arguments instead of PyTorch's. Empty if all names are ours.

    Raises TypeError for a name that is neither, and for an argument that is given under two names.
    error: the error of the call. If it is not about names, the result is empty, too.
    """
    if given.keys() <= set(known) or (error is not None and "unexpected keyword" not in str(error)):
        return {}
    result = {next((ours for ours in ARGUMENTS.get(name, ()) if ours in known), name): given[name] for name in given}
    if unknown := [name for name in result if name not in known]:
        raise TypeError(
            f"{op}: there is no argument {', '.join(unknown)}; its arguments are {', '.join(known)}"
        ) from None
    if len(result) < len(given):
        raise TypeError(f"{op}: {', '.join(given)}: one argument is there under two names") from None
    return result


def check_arguments(cls, given: dict) -> None:
    """Raise TypeError for a name in ``given`` that ``cls(...)`` does not take. The error lists those that it takes."""
    code: Any = getattr(cls.__init__, "__code__", None)
    if given and code and not code.co_flags & CO_VARKEYWORDS:
        respelled(cls.__name__, given, code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount])


def spelled(functions: dict[str, Callable]) -> dict[str, Any]:
    """Wrap the functions with an argument that has another name in PyTorch. Returns the wrappers by name.

    Ops need no wrapper: ``engine/call.py`` looks at the names only if an op fails, so a good call takes no more time.
    The code of a wrapper is written out for its parameters. It costs 0.06 us per call; ``*args`` would cost 0.2 us.
    A wrapper replaces its function in the module of that function, because pickles look for it there.
    """
    text, found = "", [f for f in dict.fromkeys(functions.values()) if not hasattr(f, "primitive") and parameters(f)]
    facts: dict[str, Any] = {"__name__": "tinygrad_ms.ops", "late": late, "ABSENT": ABSENT}
    for f in found:
        plain, named = parameters(f)
        take = ", ".join([*plain, *(["*"] if named else []), *named, "**others"])
        give = ", ".join([*plain, *(f"{name}={name}" for name in named)])
        last = plain[-1 - len(inner(f).__defaults__ or ())]
        text += (
            f"def {f.__name__}({take}):\n if others or {last} is ABSENT: return late(_{f.__name__}, others, locals())\n"
        )
        text += f" return _{f.__name__}({give})\n"
        facts["_" + f.__name__] = f
    exec(compile(text, "tinygrad_ms, arguments by PyTorch's names", "exec"), facts)
    for f in found:
        made: Any = update_wrapper(facts[f.__name__], f)
        defaults = inner(f).__defaults__ or ()
        made.__defaults__ = (ABSENT,) * (len(parameters(f)[0]) - len(defaults)) + defaults
        made.__kwdefaults__ = inner(f).__kwdefaults__
        vars(sys.modules[f.__module__])[f.__name__] = made
    return {name: facts[f.__name__] for name, f in functions.items() if f in found}


ABSENT = object()  # the value of an argument without a default that is not given
OURS = {name for names in ARGUMENTS.values() for name in names}


def inner(f) -> Any:
    """The function inside a decorated one, whose parameters are those of both."""
    return getattr(f, "__wrapped__", f)


def parameters(f) -> tuple:
    """(names of the parameters, those that must be named in a call); () if PyTorch has the same name for each."""
    code: Any = getattr(inner(f), "__code__", None)
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount] if code else ()
    return () if OURS.isdisjoint(names) else (names[: code.co_argcount], names[code.co_argcount :])


def late(f, others, given):
    """Call ``f`` with the arguments ``given`` and ``others``. The names in ``others`` may be those of PyTorch."""
    given = {name: value for name, value in given.items() if name != "others" and value is not ABSENT}
    again = respelled(f.__name__, others, parameters(f)[0] + parameters(f)[1])
    for name in again.keys() & given.keys():
        if given[name] is not signature(f).parameters[name].default:
            raise TypeError(f"{f.__name__}: {name} is there twice, as {', '.join(others)}, too")
    return f(**{**given, **again})
