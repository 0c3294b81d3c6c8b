"""NumPy's functions on tensors. They compute on tensors off the tape. For one on the tape the error names our function.

Otherwise ``np.dot(A, w)`` would be an array, and the gradient of that path would silently be 0. NumPy's universal
functions, such as ``np.sin``, call ours, which record.
"""

from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.tensor import Tensor

NAMES = {  # our names of NumPy's functions, where they differ
    "amax": "max", "amin": "min", "append": "concat", "arccos": "acos", "arcsin": "asin", "arctan": "atan",
    "array_split": "split", "average": "mean", "around": "round", "block": "concat", "broadcast_arrays": "broadcast_to",
    "column_stack": "stack", "concatenate": "concat", "copy": "clone", "copyto": "index_update", "dot": "matmul",
    "dstack": "stack", "fliplr": "flip", "flipud": "flip", "insert": "concat", "matvec": "matmul",
    "multi_dot": "matmul", "rollaxis": "moveaxis", "vdot": "vecdot", "vecmat": "matmul",
    "fill_diagonal": "index_update", "put": "index_update", "putmask": "where", "place": "where", "select": "where",
    "choose": "where", "compress": "take", "extract": "take", "delete": "take", "rot90": "flip",
}  # fmt: skip
WRITE = {"copyto", "fill_diagonal", "put", "put_along_axis", "putmask", "place"}  # written into
HARMLESS = {  # these have no gradient to lose
    "all", "allclose", "any", "argmax", "argmin", "argpartition", "argsort", "argwhere", "array2string", "array_equal",
    "array_equiv", "array_repr", "array_str", "can_cast", "count_nonzero", "digitize", "empty_like", "flatnonzero",
    "histogram", "isclose", "iscomplexobj", "isin", "isrealobj", "may_share_memory", "ndim", "nonzero", "ones_like",
    "result_type", "searchsorted", "shape", "shares_memory", "size", "unique", "zeros_like",
}  # fmt: skip
UNIVERSAL = {  # of those that are the same function
    "absolute": "abs", "arccos": "acos", "arccosh": "acosh", "arcsin": "asin", "arcsinh": "asinh", "arctan": "atan",
    "arctan2": "atan2", "arctanh": "atanh", "fabs": "abs", "invert": "bitwise_invert", "rint": "round",
    "left_shift": "bitwise_left_shift", "right_shift": "bitwise_right_shift",
}  # fmt: skip
NEAREST = {  # what to write instead of those that are not
    "add.reduce": "sum", "multiply.reduce": "prod", "maximum.reduce": "max", "minimum.reduce": "min",
    "float_power": "power", "fmax": "maximum", "fmin": "minimum", "fmod": "remainder",
}  # fmt: skip
PUBLIC: dict = {}  # our functions by name, which ``methods`` fills in


def call(function, args, kwargs):
    """``function`` of NumPy, with arrays in the place of tensors. Raises TypeError for a tensor on the tape."""
    name = function.__name__
    spelled = f"{function.__module__.replace('numpy', 'np', 1)}.{name}"
    ours = NAMES.get(name, name)
    instead = f"use tg.{ours}" if ours in PUBLIC else "use tinygrad_ms's functions"
    if name not in HARMLESS:
        for value in (*args, *kwargs.values()):
            refuse_tracked(spelled, value, f"{instead}, or x.detach()")
    written = args[0] if name in WRITE and args else kwargs.get("out")
    for value in written if isinstance(written, tuple) else (written,):
        if isinstance(value, Tensor):
            raise TypeError(f"{spelled}: NumPy cannot write into a Tensor: the change would not be counted; {instead}")
    return function(*plain(args), **{key: plain(value) for key, value in kwargs.items()})


class ArrayUfunc:
    """``Tensor.__array_ufunc__``: a function for NumPy, which asks the class, and None for CuPy, which asks a tensor.

    CuPy then leaves ``cupy_array * tensor`` to our operator, as it should.
    """

    def __get__(self, tensor, cls):
        return universal if tensor is None else None


def universal(tensor, ufunc, method, *inputs, **kwargs):
    """Our function for ``ufunc`` of NumPy. Raises TypeError where there is none, and for ``out=``."""
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    if (ours := UNIVERSAL.get(name, name)) in PUBLIC and not kwargs:
        return PUBLIC[ours](*inputs)
    why = "NumPy cannot write into its array here" if "out" in kwargs else "it takes no Tensor"
    ours = NEAREST.get(name, ours)
    instead = f"use tg.{ours}" if ours in PUBLIC else "use tinygrad_ms's functions"
    raise TypeError(f"np.{name}: {why}; {instead}, or x.detach().numpy() for the values")


def plain(value):
    """``value`` with arrays for the tensors in its lists, tuples and dicts."""
    if isinstance(value, Tensor):
        return value.detach().__array__()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [plain(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value
