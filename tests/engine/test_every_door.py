"""Every argument of every public function: a tensor on the tape is differentiated through it, or refused.

The functions are those of ``tg.__all__``, the methods of Tensor that are no ops, the layers of ``tg.nn``. Calls come
from the samples of the primitives and from ``CALLS``. For each argument of each call (arrays, and numbers such as
slopes, bounds, counts, fill values) the test passes

- a tracked tensor of its value,
- the list of its rows, as tracked tensors (of a number: the list of it),

and asks for the derivative along a direction, which must be that of central differences of the call with plain values
in float64; or for an error with the name of the function in it. A function, or a parameter, without a call fails.
"""

import inspect

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.samples import all_samples, normal, positive
from tinygrad_ms.ops.methods import OPERATORS

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # samples at poles
SAMPLES = all_samples()
N, P = normal, positive
SPD = N(3, 3) @ N(3, 3).T + 3 * np.eye(3)

NO_ARRAYS = {  # functions without an argument that could be an array with a derivative
    **dict.fromkeys(["grad", "value_and_grad", "vjp", "jvp", "linearize", "jacobian", "hessian", "hvp", "gradients",
                     "checkpoint"], "they take functions, and trees of inputs: see TestCotangents, test_transforms.py"),
    **dict.fromkeys(["custom_vjp", "elementwise", "multilinear", "primitive", "no_derivative"],
                    "they define ops: test_own_primitives.py"),
    **dict.fromkeys(["no_grad", "enable_grad", "inference_mode", "scope", "hooks", "detect_nan", "guard_saved",
                     "profile", "is_grad_enabled"], "modes and observers"),
    **dict.fromkeys(["default_device", "set_default_device", "device_info", "keep_freed_memory", "manual_seed",
                     "matmul_precision",
                     "set_fused", "set_num_threads", "get_num_threads"], "settings of the process"),
    **dict.fromkeys(["save", "load", "explain"], "files and pictures show values"),
    "compile": "it takes a step and refuses inputs that require a gradient: test_replay.py",
    **dict.fromkeys(["zeros", "ones", "eye", "rand", "randn"], "sizes alone"),
    **dict.fromkeys(["Tensor", "CheckpointError"], "classes"),
    **dict.fromkeys(["minimax_coefficients"], "makes a table of Python numbers for options"),
}  # fmt: skip
OPTIONS = {  # parameters that are choices, axes, shapes, places: no numbers with a derivative
    "approximate", "axes", "axis", "axis1", "axis2", "check", "coefficients", "descending", "destination", "device",
    "dtype", "end_axis", "endpoint", "equal_nan", "ignore_index", "indexing", "keepdims", "largest", "lower", "method",
    "mode", "name", "num", "ord", "pad_width", "parity", "recompute", "reduction", "repeats", "reps", "requires_grad",
    "shape", "shift", "side", "source", "spectrum", "start_axis", "steps", "subscripts", "targets", "unit_diagonal",
    "window_shape", "full_matrices", "indices_or_sections", "num_classes", "padding_idx", "normalise", "pseudo", "vjp",
}  # fmt: skip
LABELS = np.array([1, 0, 2])
CALLS = {  # of functions that are no primitives, and of parameters that the samples leave out
    "arange": [dict(start=1.0, stop=3.0, step=0.5)],
    "asarray": [dict(data=N(3, 2))],
    "from_dlpack": [dict(x=N(3, 2))],
    "astype": [dict(x=N(3, 2), dtype="float64")],
    "binary_cross_entropy_with_logits": [dict(input=N(3, 2), target=P(3, 2) / 3, weight=P(3, 2), pos_weight=P(2))],
    "clip": [dict(x=N(3, 2), min=-0.5, max=0.5), dict(x=N(4, 2), min=N(4, 2, seed=5), max=N(2, seed=3) + 1)],
    "concat": [dict(xs=N(3, 2))],
    "cross": [dict(a=N(2, 3), b=N(2, 3, seed=1))],
    "cross_entropy": [dict(logits=N(3, 4), target=LABELS, weight=P(4), label_smoothing=0.1),
                      dict(logits=N(3, 4), target=P(3, 4))],
    "cummax": [dict(x=N(3, 2))],
    "cummin": [dict(x=N(3, 2))],
    "diag": [dict(x=N(3), offset=0), dict(x=N(3, 3))],
    "diff": [dict(x=N(3, 2), n=1)],
    "dot": [dict(a=N(2, 3), b=N(3)), dict(a=N(2, 3, 2), b=N(2, 2, 3, seed=1))],
    "einsum": [("ij,jk->ik", N(2, 3), N(3, 2, seed=1))],
    "embedding": [dict(weight=N(4, 2), indices=LABELS)],
    "expand_dims": [dict(x=N(3, 2), axis=0)],
    "flatten": [dict(x=N(3, 2))],
    "full": [dict(shape=(2,), value=1.5)],
    "full_like": [dict(x=N(3, 2), value=1.5)],
    "hstack": [dict(xs=N(3, 2, 2))],
    "huber": [dict(input=N(3, 2), target=N(3, 2, seed=1), weight=P(3, 2), delta=0.5)],
    "index_add": [dict(x=N(3, 2), index=LABELS[:2], value=N(2, 2, seed=1)), dict(x=N(3, 2), index=0, value=1.5)],
    "index_update": [dict(x=N(3, 2), index=LABELS[:2], value=N(2, 2, seed=1)), dict(x=N(3, 2), index=0, value=1.5)],
    "inv_sqrtm": [(SPD,)],
    "inner": [dict(a=N(2, 3), b=N(3))],
    "isclose": [dict(a=N(3, 2), b=N(3, 2, seed=1))],
    "kron": [dict(a=N(2, 3), b=N(3, 2)), dict(a=N(2), b=N(3))],
    "l1": [dict(input=N(3, 2), target=N(3, 2, seed=1), weight=P(3, 2))],
    "layer_norm": [dict(x=N(3, 4), weight=P(4), bias=N(4), eps=0.01)],
    "linear": [dict(x=N(3, 4), weight=N(2, 4), bias=N(2)), dict(x=N(3, 4), weight=N(2, 4), bias=0.5)],
    "linspace": [dict(start=0.5, stop=2.0)],
    "logit": [dict(x=P(3, 2) / 3, eps=0.1)],
    "lstsq": [dict(a=N(4, 3), b=N(4, 2, seed=1), rtol=1e-9)],
    "log_base": [dict(x=P(3, 2), base=3.0), dict(x=P(3, 2), base=P(2) + 2)],
    "log_sigmoid": [dict(x=N(3, 2))],
    "log_softmax": [dict(x=N(3, 2))],
    "matrix_norm": [dict(x=N(3, 2)), dict(x=N(3, 2), ord="nuc")],
    "matrix_power": [dict(x=N(3, 3), n=3)],
    "matrix_transpose": [dict(x=N(3, 2))],
    "mcsgn": [(SPD + N(3, 3),)],
    "median": [dict(x=N(3, 2))],
    "meshgrid": [(N(3), N(2, seed=1))],
    "moveaxis": [dict(x=N(3, 2), source=0, destination=1)],
    "mse": [dict(input=N(3, 2), target=N(3, 2, seed=1), weight=P(3, 2))],
    "msign": [dict(M=N(3, 3), eps=0.1), dict(M=N(3, 2)), dict(M=N(3, 2), method="svd"),
              dict(M=N(3, 2), method="eigh"), dict(M=N(3, 2), vjp="svd")],
    "msign_unrolled": [dict(M=N(3, 3))],
    "nan_to_num": [dict(x=N(3, 2), nan=0.5, posinf=2.0, neginf=-2.0)],
    "nll": [dict(log_probabilities=N(3, 4), target=LABELS, weight=P(4))],
    "norm": [dict(x=N(3, 2)), dict(x=N(3, 2), ord=1, axis=1), dict(x=N(3, 2), ord="nuc")],
    "nuclear_norm": [dict(M=N(3, 2))],
    "one_hot": [(LABELS, 4)],
    "pad": [dict(x=N(3, 2), pad_width=1, value=1.5), dict(x=N(3, 2), pad_width=1, mode="edge")],
    "pinv": [dict(x=N(3, 2), rtol=1e-9)],
    "polar": [dict(M=N(3, 3)), dict(M=N(3, 2), side="left")],
    "put_along_axis": [dict(x=N(3, 2), indices=LABELS[:2, None], values=N(2, 1), axis=0)],
    "qr": [dict(x=N(3, 2))],
    "ravel": [dict(x=N(3, 2))],
    "relu6": [dict(x=N(3, 2))],
    "repeat": [dict(x=N(3, 2), repeats=2)],
    "rms_norm": [dict(x=N(3, 4), weight=P(4), eps=0.01)],
    "sliding_window_view": [dict(x=N(3, 4), window_shape=2, axis=1)],
    "softmax": [dict(x=N(3, 2))],
    "softmax_cross_entropy": [dict(logits=N(3, 4), target=LABELS, weight=P(4), label_smoothing=0.1),
                              dict(logits=N(3, 4), target=P(3, 4))],
    "signm": [(SPD + N(3, 3),)],
    "solve_lyapunov": [(SPD, SPD + 1)],
    "solve_sylvester": [(SPD, SPD + N(3, 3), N(3, 3, seed=1))],
    "sqrtm": [(SPD,)],
    "solve": [dict(a=SPD, b=N(3)), dict(a=SPD, b=N(3, 2))],
    "solve_triangular": [dict(a=SPD, b=N(3, 2))],
    "sort": [dict(x=N(3, 2))],
    "split": [dict(x=N(4, 2), indices_or_sections=2)],
    "squeeze": [dict(x=N(3, 1))],
    "stack": [dict(xs=N(3, 2))],
    "swapaxes": [dict(x=N(3, 2), axis1=0, axis2=1)],
    "take": [dict(x=N(3, 2), indices=LABELS, axis=0)],
    "take_along_axis": [dict(x=N(3, 2), indices=LABELS[:, None], axis=0)],
    "tensor": [dict(data=N(3, 2)), dict(data=1.5)],
    "tensordot": [dict(a=N(2, 3), b=N(3, 2), axes=1)],
    "tile": [dict(x=N(3, 2), reps=2)],
    "to": [dict(x=N(3, 2), dtype="float64")],
    "topk": [dict(x=N(3, 2), k=1)],
    "trace": [dict(x=N(3, 3))],
    "transpose": [dict(x=N(3, 2))],
    "unstack": [dict(x=N(3, 2))],
    "vec": [dict(x=N(3, 2))],
    "vector_norm": [dict(x=N(3, 2)), dict(x=N(3, 2), ord=3, axis=1)],
    "vecdot": [dict(a=N(3, 2), b=N(3, 2, seed=1))],
    "vstack": [dict(xs=N(3, 2))],
    "where": [dict(condition=N(3, 2), a=N(3, 2), b=1.5)],
    "zeros_like": [dict(x=N(3, 2))],
    "ones_like": [dict(x=N(3, 2))],
}  # fmt: skip
CALLED = {  # what else the errors of a function may name: the ops that it is made of
    "cross_entropy": ["softmax_cross_entropy"], "signm": ["mcsgn"], "full_like": ["tensor"], "ones_like": ["tensor"],
    "zeros_like": ["tensor"], "asarray": ["tensor"],
    "layer_norm": ["normalize"], "rms_norm": ["normalize"], "linear": ["affine"],
    "astype": ["cast"], "put_along_axis": ["index_update"], "relu6": ["hardtanh"], "trace": ["diagonal"],
}  # fmt: skip


def bound_call(call):
    """A call as (positional arguments, keyword arguments)."""
    return (list(call), {}) if isinstance(call, tuple) else ([], dict(call))


def calls_of(name):
    """The calls of a public function: those of its primitive's samples, and those of the table."""
    function = getattr(tg, name)
    found = [bound_call(call) for call in CALLS.get(name, ())]
    primitive = getattr(function, "primitive", None)
    if primitive is not None:
        fitting = [s for s in SAMPLES[primitive.name] if s.smooth and all(np.size(a) for a in s.args)]
        fitting = sorted(fitting, key=lambda s: max([np.size(a) for a in s.args], default=0) > 64)  # small ones first
        found += [(list(s.args), dict(s.kwargs)) for s in fitting[:2]]
    for parameter in inspect.signature(function).parameters.values():
        default = parameter.default
        if type(default) in (int, float) and parameter.name not in OPTIONS and found:
            args, kwargs = found[0]
            if len(args) <= list(inspect.signature(function).parameters).index(parameter.name):
                kwargs.setdefault(parameter.name, default)
    return function, found


def slots_of(args, kwargs, signature):
    """Each argument that may be an array or a number: its place, and the name of its parameter."""
    names = [p.name for p in signature.parameters.values()]
    last = signature.parameters[names[-1]].kind if names else None
    places = [(i, names[min(i, len(names) - 1)]) for i in range(len(args))]
    assert len(args) <= len(names) or last == last.VAR_POSITIONAL or "operands" in names, names
    return [(place, name) for place, name in [*places, *((key, key) for key in kwargs)] if name not in OPTIONS]


def put(args, kwargs, place, value):
    args, kwargs = list(args), dict(kwargs)
    (kwargs if isinstance(place, str) else args)[place] = value
    return args, kwargs


def is_numeric(value):
    return isinstance(value, np.ndarray) or type(value) in (int, float)


DOORS = []
for public in sorted(tg.__all__):
    if callable(getattr(tg, public)) and public not in NO_ARRAYS:
        function, calls = calls_of(public)
        for number, (args, kwargs) in enumerate(calls):
            for place, parameter in slots_of(args, kwargs, inspect.signature(function)):
                value = kwargs[place] if isinstance(place, str) else args[place]
                if is_numeric(value):
                    DOORS += [(public, number, place, parameter, form) for form in ("a tensor", "a list")]


def floats_of(result):
    """The outputs that can carry a gradient."""
    if isinstance(result, (tuple, list)):
        return [y for item in result for y in floats_of(item)]
    return [result] if np.dtype(getattr(result, "dtype", type(result))).kind == "f" else []


def weighted(result):
    """One number that depends on every element, with weights that no symmetry cancels."""
    ys = floats_of(result)
    parts = [(y * np.cos(1.0 + np.arange(y.size).reshape(y.shape) + 0.5 * k)).sum() for k, y in enumerate(ys)]
    return sum(parts[1:], parts[0]) if parts else None


def slope(call, value, direction):
    """d/dh of the weighted result of the call with value + h direction, by central differences of plain values."""
    h = 1e-6
    high, low = (weighted(call(tg.tensor(value + s * h * direction, dtype="float64"))) for s in (1, -1))
    return 0.0 if high is None else (float(high) - float(low)) / (2 * h)


def passed(value, form):
    """The leaf, and the argument made of it."""
    leaf = tg.tensor(np.asarray(value, dtype="float64"), requires_grad=True)
    if form == "a tensor":
        return leaf, leaf
    return leaf, list(leaf) if leaf.ndim else [leaf]


def check(call, value, form, names):
    """The derivative along a direction is right, or the call is refused. Returns "right", "zero" or "refused"."""
    leaf, argument = passed(value, form)
    try:
        result = call(argument)
    except (TypeError, ValueError, IndexError, RuntimeError, BufferError) as error:
        text = str(error)
        assert any(name in text for name in names), f"the refusal does not name the function: {text}"
        assert len(text.split()) > 4, text
        return "refused"
    total = weighted(result)
    direction = 0.5 + P(*np.shape(value), seed=9)
    like = (lambda t: t) if form == "a tensor" else (lambda t: t if t.ndim else t.reshape(1))
    expected = slope(lambda t: call(like(t)), np.asarray(value, dtype="float64"), direction)
    if getattr(total, "requires_grad", False):
        (g,) = tg.gradients(total, [leaf], allow_unused=True)
        got = 0.0 if g is None else float((g.numpy() * direction).sum())
    else:
        got = 0.0
    np.testing.assert_allclose(
        got, expected, rtol=2e-5, atol=2e-6 * max(1, abs(float(total))) if total is not None else 0
    )
    return "right" if got else "zero"


REFUSED = {  # parameters that take no tensor on the tape: integers, and numbers without a derivative
    "arange": "start stop step", "cross_entropy": "weight label_smoothing", "diag": "offset", "diagonal": "offset",
    "diff": "n", "elu": "alpha", "embedding": "indices", "from_dlpack": "x", "full": "value", "full_like": "value",
    "hardtanh": "min max", "huber": "delta", "index_add": "index", "index_update": "index", "isclose": "rtol atol",
    "layer_norm": "eps",
    "leaky_relu": "negative_slope", "linspace": "start stop", "logit": "eps", "lstsq": "rtol", "matrix_power": "n",
    "msign": "eps", "msign_unrolled": "guard",
    "nan_to_num": "nan posinf neginf", "nll": "weight", "one_hot": "indices", "pad": "value",
    "pinv": "rtol", "put_along_axis": "indices", "rms_norm": "eps", "round": "decimals",
    "softmax_cross_entropy": "weight label_smoothing", "softplus": "beta", "std": "correction", "take": "indices",
    "take_along_axis": "indices", "tensor": "data", "topk": "k", "trace": "offset", "tril": "k", "triu": "k",
    "var": "correction",
}  # fmt: skip


def names_of(name):
    """How a refusal may call a function."""
    return [name, *CALLED.get(name, ())]


@pytest.mark.parametrize("name, number, place, parameter, form", DOORS)
def test_an_argument_on_the_tape(name, number, place, parameter, form):
    function, calls = calls_of(name)
    args, kwargs = calls[number]

    def call(value):
        given, keywords = put(args, kwargs, place, value)
        return function(*given, **keywords)

    function(*args, **kwargs)
    value = kwargs[place] if isinstance(place, str) else args[place]
    outcome = check(call, value, form, names_of(name))
    if form == "a tensor":
        labels = parameter == "target" and value.dtype.kind == "i"
        refused = labels or parameter in REFUSED.get(name, "").split() or name[:7] == "bitwise"
        assert (outcome == "refused") == refused, outcome


def test_every_public_function_and_each_of_its_arguments_has_a_call():
    tried = {(name, parameter) for name, _, _, parameter, _ in DOORS}
    missing = []
    for name in sorted(tg.__all__):
        if callable(getattr(tg, name)) and name not in NO_ARRAYS:
            parameters = set(inspect.signature(getattr(tg, name)).parameters) - OPTIONS
            missing += [f"{name}({p})" for p in sorted(parameters) if (name, p) not in tried]
            assert parameters, f"{name}: only options; say in NO_ARRAYS why"
    assert not missing, f"no call in CALLS, and no reason in OPTIONS or NO_ARRAYS: {missing}"
    assert set(NO_ARRAYS) | set(CALLS) <= set(tg.__all__)


# --- methods of Tensor ------------------------------------------------------------------------------------------------

PUBLIC = {getattr(tg, name) for name in tg.__all__ if inspect.isroutine(getattr(tg, name))}
NO_ARRAYS_IN = {  # methods that are no public functions, and take no second array
    **dict.fromkeys(["reshape", "permute", "transpose", "cuda", "cpu", "half", "float", "double", "detach", "tape",
                     "requires_grad_", "zero_grad", "retain_grad", "register_hook", "place", "take_place"],
                    "options; the tensor itself is recorded or left off the tape on purpose"),
    **dict.fromkeys(["numpy", "item", "tolist"], "copies of the values, on purpose: test_doors.py"),
    **dict.fromkeys(["as_constant", "count_with", "version_counter", "touch"], "the engine's"),
}  # fmt: skip
ROOM = ("__init__", "__repr__", "__hash__", "__format__", "__len__", "__iter__", "__bool__", "__int__", "__float__",
        "__index__", "__copy__", "__deepcopy__", "__reduce__", "__pos__", "__array__", "__array_function__",
        "__dlpack__", "__dlpack_device__", "__contains__", "__dir__", "__getitem__")  # fmt: skip
SECOND = P(3, 2, seed=4)
METHODS = {
    "__array_ufunc__": lambda x, v: np.multiply(x, v),
    "backward": lambda x, v: (x.backward(v, create_graph=True), x.grad)[1],
    "copy_": lambda x, v: x.detach().copy_(v) * x,
    "__setitem__": lambda x, v: (y := x.detach().clone(), y.__setitem__(..., v), y * x)[2],
}
OWN = [
    n
    for n, a in vars(tg.Tensor).items()
    if inspect.isroutine(a) and hasattr(tg.Tensor, n) and a not in PUBLIC and n[:2] != "_r"
]


def test_every_method_is_an_op_or_tried():
    binary = {n for n in OWN if n[:2] == "__"} - {*ROOM, *METHODS}
    assert {n for n in OWN if n[0] != "_"} <= {*NO_ARRAYS_IN, *METHODS}
    assert len(binary) > 25 and all(len(inspect.signature(getattr(tg.Tensor, n)).parameters) == 2 for n in binary)


@pytest.mark.parametrize("form", ["a tensor", "a list"])
@pytest.mark.parametrize("name", [n for n in OWN if n in METHODS or (n[:2] == "__" and n not in ROOM)])
def test_the_other_operand_of_a_method(name, form):
    """A method of a plain tensor with a tracked operand, as a method of a tracked tensor with a plain one."""
    value = np.arange(1.0, 5).reshape(2, 2) if "matmul" in name else SECOND
    function = METHODS.get(name, lambda x, v: getattr(x, name)(v))
    x = tg.tensor(value + 0.25, requires_grad=name == "backward")
    plain = name.strip("_")
    op = OPERATORS.get(plain[1:] if plain[0] in "ri" else plain, plain)

    def call(v):
        x.grad = None
        return function(x, v)

    result = check(call, value, form, [op, "t[i] = v", "bitwise", "tensor", "equal"])
    assert (result == "refused") == (form == "a list" or name in ("copy_", "__setitem__") or op[:7] == "bitwise")


# --- tangents and cotangents ------------------------------------------------------------------------------------------

X = P(3, seed=6)
SEEDED = {
    "vjp": lambda v: tg.vjp(tg.exp, X)[1](v)[0],
    "jvp": lambda v: tg.jvp(tg.exp, (X,), (v,))[1],
    "linearize": lambda v: tg.linearize(tg.exp, X)[1](v),
    "hvp": lambda v: tg.hvp(lambda x: tg.exp(x).sum(), X, v),
    "primal of jvp": lambda v: tg.jvp(tg.exp, (v,), (X,))[1],
    "input of grad": lambda v: tg.grad(lambda x: tg.exp(x).sum())(v),
    "input of hvp": lambda v: tg.hvp(lambda x: tg.exp(x).sum(), v, X),
    "input of jacobian": lambda v: tg.jacobian(tg.exp, v),
    "input of hessian": lambda v: tg.hessian(lambda x: tg.exp(x).sum(), v),
    "input of checkpoint": lambda v: tg.checkpoint(tg.exp)(v),
    "closed over in a checkpoint": lambda v: tg.checkpoint(lambda x: x * v)(tg.tensor(X)),
    "closed over in grad": lambda v: tg.grad(lambda x: (tg.exp(x) * v).sum())(X),
    "closed over in jvp": lambda v: tg.jvp(lambda x: x * v, (X,), (X,))[1],
    "keyword of grad": lambda v: tg.grad(lambda x, k: (tg.exp(x) * k).sum())(X, k=v),
    "keyword of checkpoint": lambda v: tg.checkpoint(lambda x, k: x * k)(tg.tensor(X), k=v),
    "grad_outputs": lambda v: tg.gradients(tg.exp(LEAF), LEAF, grad_outputs=v, create_graph=True),
}  # fmt: skip
LEAF = tg.tensor(X, requires_grad=True)


@pytest.mark.parametrize("form", ["a tensor", "a list"])
@pytest.mark.parametrize("door", SEEDED)
def test_tangents_cotangents_and_what_functions_close_over(door, form):
    """A list is a tree here: another structure than that of the result. It is recorded leaf by leaf, or refused."""
    call = SEEDED[door]
    if form == "a tensor":
        assert check(call, X + 0.5, form, []) == "right"
        return
    try:
        result = call(list(tg.tensor(X, requires_grad=True) * 1.0))
    except (TypeError, ValueError, RuntimeError) as error:
        assert len(str(error).split()) > 4
    else:
        assert all(y.requires_grad for y in floats_of(result))


# --- layers -----------------------------------------------------------------------------------------------------------

LAYERS = {  # class: (options with a derivative or without, inputs, what errors may name)
    "ELU": (dict(alpha=0.7), [N(3, 2)], ["elu"]),
    "GELU": ({}, [N(3, 2)], ["gelu"]),
    "GRU": (dict(input_size=2, hidden_size=3), [N(2, 4, 2), N(2, 3)], []),
    "GRUCell": (dict(input_size=2, hidden_size=3), [N(4, 2), N(4, 3)], []),
    "RNN": (dict(input_size=2, hidden_size=3), [N(2, 4, 2), N(2, 3)], []),
    "RNNCell": (dict(input_size=2, hidden_size=3), [N(4, 2), N(4, 3)], []),
    "SELU": ({}, [N(3, 2)], ["selu"]),
    "Dropout": (dict(p=0.5), [N(3, 2)], []),
    "Embedding": (dict(num_embeddings=3, embedding_dim=2), [LABELS], ["embedding"]),
    "Flatten": ({}, [N(3, 2, 2)], []),
    "LayerNorm": (dict(shape=2, eps=0.01), [N(3, 2)], ["layer_norm"]),
    "RMSNorm": (dict(shape=2, eps=0.01), [N(3, 2)], ["rms_norm"]),
    "LeakyReLU": (dict(negative_slope=0.2), [N(3, 2)], ["leaky_relu"]),
    "Linear": (dict(in_features=2, out_features=3), [N(3, 2)], ["affine"]),
    "LogSoftmax": ({}, [N(3, 2)], ["log_softmax"]),
    "ReLU": ({}, [N(3, 2)], ["relu"]),
    "SiLU": ({}, [N(3, 2)], ["silu"]),
    "Sigmoid": ({}, [N(3, 2)], ["sigmoid"]),
    "Softmax": ({}, [N(3, 2)], ["softmax"]),
    "Softplus": (dict(beta=1.5), [N(3, 2)], ["softplus"]),
    "BCEWithLogitsLoss": ({}, [N(3, 2), P(3, 2) / 4], ["binary_cross_entropy"]),
    "CrossEntropyLoss": ({}, [N(3, 2), P(3, 2)], ["cross_entropy"]),
    "HuberLoss": (dict(delta=0.7), [N(3, 2), P(3, 2)], ["huber"]),
    "L1Loss": ({}, [N(3, 2), P(3, 2)], ["l1"]),
    "MSELoss": ({}, [N(3, 2), P(3, 2)], ["mse"]),
    "NLLLoss": ({}, [N(3, 3), LABELS], ["nll"]),
    "SmoothL1Loss": (dict(beta=0.7), [N(3, 2), P(3, 2)], ["huber"]),
    "TTTMuon": (dict(dim=4, base_lr=0.3, chunk=2), [N(2, 4, 4)], []),
    "Tanh": ({}, [N(3, 2)], ["tanh"]),
}
NO_INPUT = {
    "Module": "the base class", "Sequential": "hands its input on", "Identity": "hands its input on",
    "Parameter": "a new leaf", "Buffer": "made like Parameter", "functional_call": "test_nn.py", "init": "a module",
    "TTTMuonCell": "the step of TTTMuon", "TransposedParameter": "a Parameter", "ModuleDict": "is not called",
    "ModuleList": "is not called",
}  # fmt: skip
WIDE = {"Embedding", "GRU", "GRUCell", "LayerNorm", "Linear", "RMSNorm", "RNN", "RNNCell", "TTTMuon"}


def layer_of(name, **options):
    random = {"rng": 0} if name in WIDE - {"LayerNorm", "RMSNorm"} or name == "Dropout" else {}
    return getattr(tg.nn, name)(**options, **random, **({"dtype": "float64"} if name in WIDE else {}))


def test_every_layer_is_tried():
    assert set(tg.nn.__all__) == {*LAYERS, *NO_INPUT}


@pytest.mark.parametrize("form", ["a tensor", "a list"])
@pytest.mark.parametrize("name, i", [(name, i) for name, layer in LAYERS.items() for i in range(len(layer[1]))])
def test_the_input_of_a_layer(name, i, form):
    options, inputs, names = LAYERS[name]

    def call(value):
        layer = layer_of(name, **options)
        return layer(*[value if k == i else tg.tensor(a) for k, a in enumerate(inputs)])

    check(call, inputs[i], form, [name, *names])


@pytest.mark.parametrize("form", ["a tensor", "a list"])
@pytest.mark.parametrize("name, option", [(name, o) for name, layer in LAYERS.items() for o in layer[0]])
def test_the_options_of_a_layer(name, option, form):
    options, inputs, names = LAYERS[name]
    given = [tg.tensor(a) for a in inputs]
    call = lambda value: layer_of(name, **{**options, option: value})(*given)
    assert check(call, options[option], form, [name, *names]) == "refused"


@pytest.mark.parametrize("form", ["a tensor", "a list"])
@pytest.mark.parametrize("name, option", [
    (name, p.name) for name, f in vars(tg.nn.init).items() if inspect.isfunction(f)
    for p in inspect.signature(f).parameters.values() if type(p.default) is float
])  # fmt: skip
def test_initial_values_are_off_the_tape(name, option, form):
    call = lambda value: getattr(tg.nn.init, name)((2, 3), **{option: value})
    assert check(call, 0.5, form, [name, "init."]) == "refused"
