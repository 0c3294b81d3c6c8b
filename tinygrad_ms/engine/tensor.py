"""Tensor: a raw array, its gradient, and its place on the tape. The operators and methods are attached by ops/."""

import weakref
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from tinygrad_ms.engine.backend import (
    BACKENDS,
    DEFAULT_FLOAT,
    as_dtype,
    default_device,
    format_array,
    host_array,
    is_float,
    is_host_value,
    parse_device,
    to_device,
)
from tinygrad_ms.engine.tape import Constant, Leaf, Node, current_state, tape_of

if TYPE_CHECKING:
    Axis = int | tuple[int, ...] | None


class Tensor:
    """An array that remembers how it was computed. Make one with ``tensor(...)`` or as the result of an op.

    data: the raw NumPy or CuPy array. Writes to it behind the tape's back are not seen.
    grad: after ``backward``, the gradient (a Tensor) of a leaf or of a tensor that asked with ``retain_grad()``.
    node: what recorded it (None: nothing did, and no gradient is wanted).
    """

    __slots__ = ("data", "node", "grad", "_version", "_constant", "__weakref__")
    __array_ufunc__ = None  # numpy_array * tensor: NumPy leaves it to our reflected operator

    data: Any
    node: Node | None
    grad: "Tensor | None"

    def __init__(self, data, node=None):
        self.data = data
        self.node = node
        self.grad = None
        self._version = None  # [counter of in-place changes], one per storage, made when first needed
        self._constant = None  # how the tape shows this tensor as an argument off the tape; holds its name

    # --- what it is ------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self):
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    @property
    def nbytes(self) -> int:
        return self.data.nbytes

    @property
    def device(self) -> str:
        """ "cpu", "cuda", "cuda:1", ..."""
        return BACKENDS[type(self.data)].device_of(self.data)

    @property
    def name(self) -> str | None:
        """How pictures and messages call it; modules name their parameters."""
        return self._constant and self._constant.name

    @name.setter
    def name(self, name: str | None):
        self.as_constant().name = name
        if isinstance(self.node, Leaf):
            self.node.name = name

    @property
    def is_leaf(self) -> bool:
        """Made by the user rather than by a recorded op: the place where ``backward`` leaves gradients."""
        return self.node is None or isinstance(self.node, Leaf)

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool):
        if self.node is not None and not self.is_leaf:
            raise RuntimeError(
                f"requires_grad: this tensor is the result of {self.node.op} ({self.node.line}); only leaves can be"
                " switched: use .detach() for a tensor without history"
            )
        if not wanted:
            self.node = None
        elif self.node is None:
            if not is_float(self.dtype):
                raise TypeError(
                    f"requires_grad: a tensor of dtype {self.dtype} cannot carry gradients; use .astype('float32') first"
                )
            self.node = Leaf(self.shape, self.dtype, BACKENDS[type(self.data)], self, self.name)

    def requires_grad_(self, wanted: bool = True) -> "Tensor":
        self.requires_grad = wanted
        return self

    # --- gradients -------------------------------------------------------------------------------------------------

    def retain_grad(self) -> "Tensor":
        """Keep the gradient of this interior tensor in ``.grad``, too."""
        if self.node is None:
            raise RuntimeError("retain_grad: this tensor is not on the tape (requires_grad is False)")
        if not self.is_leaf:
            mine = weakref.ref(self)

            def keep(gradient):
                if (tensor := mine()) is not None:
                    tensor.grad = gradient

            self.register_hook(keep)
        return self

    def register_hook(self, hook: Callable[["Tensor"], "Tensor | None"]) -> "HookHandle":
        """Call ``hook(gradient)`` when the gradient of this tensor is complete; what it returns, if anything, replaces it."""
        if self.node is None:
            raise RuntimeError("register_hook: this tensor is not on the tape (requires_grad is False)")
        if not callable(hook):
            raise TypeError(f"register_hook: hook is {type(hook).__name__}; expected a function of the gradient")
        self.node.hooks = [*(self.node.hooks or ()), hook]
        return HookHandle(self.node, hook)

    def zero_grad(self) -> None:
        self.grad = None

    def detach(self) -> "Tensor":
        """The same memory without history; in-place changes are counted in common."""
        result = Tensor(self.data)
        result._version = self.version_counter()
        return result

    def tape(self) -> "Tape":
        """The recorded ops that lead to this tensor; ``print`` shows them as a Wengert list."""
        return Tape(tape_of([self.node]) if self.node is not None else [])

    # --- in-place changes ------------------------------------------------------------------------------------------

    def as_constant(self) -> Constant:
        """What the tape keeps of this tensor as an argument that wants no gradient."""
        if self._constant is None:
            self._constant = Constant(self.shape, self.dtype, BACKENDS[type(self.data)])
        return self._constant

    def version_counter(self) -> list[int]:
        """Counts the in-place changes of the storage; shared by views and ``detach``."""
        if self._version is None:
            self._version = [0]
        return self._version

    def copy_(self, source) -> "Tensor":
        """Overwrite the values (broadcast from ``source``); allowed on a leaf only under ``no_grad``."""
        self._check_writable("copy_", "make a new tensor instead")
        source = _raw_like(source, self, "copy_")
        self.data[...] = source.astype(self.dtype, copy=False) if type(source) is type(self.data) else source
        self.version_counter()[0] += 1
        return self

    def __setitem__(self, index, value):
        self._check_writable("t[i] = v", "use tinygrad_ms.index_update(t, i, v), which returns a new tensor")
        value = _raw_like(value, self, "t[i] = v")
        try:
            self.data[raw_index(index)] = value
        except (IndexError, TypeError, ValueError) as error:
            raise type(error)(f"t[i] = v: {error} (t: {self.dtype} {self.shape}, i: {index!r})") from error
        self.version_counter()[0] += 1

    def _check_writable(self, what, instead):
        if self.node is not None and (not self.is_leaf or current_state().recording):
            origin = "requires_grad=True" if self.is_leaf else f"result of {self.node.op}, {self.node.line}"
            raise RuntimeError(
                f"{what}: in-place change of a tensor that is on the tape (shape {self.shape}, {origin}); {instead},"
                " or change a leaf inside no_grad()"
            )

    # --- crossings -------------------------------------------------------------------------------------------------

    def numpy(self):
        """The values as a NumPy array; on the CPU it shares this tensor's memory."""
        return BACKENDS[type(self.data)].to_host(self.data)

    def __array__(self, dtype=None, copy=None):
        if BACKENDS[type(self.data)].name != "cpu":
            raise TypeError(f"a tensor on {self.device} is not converted to NumPy silently: call .numpy() or .cpu()")
        if dtype is not None and as_dtype(dtype) != self.dtype:
            return self.data.astype(dtype)
        return self.data.copy() if copy else self.data

    def __dlpack__(self, **options):
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    def item(self):
        """The Python number of a tensor of one element."""
        if self.size != 1:
            raise ValueError(f"item: a tensor of shape {self.shape} has {self.size} elements; it must have one")
        return self.data.item()

    def tolist(self):
        return self.data.tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index, this one is {self.dtype}")
        return int(self.item())

    def __bool__(self):
        if self.size != 1:
            raise ValueError(f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        return bool(self.item())

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unstack())

    def __contains__(self, value):
        return bool((self.data == _raw_like(value, self, "in")).any())

    __hash__ = object.__hash__  # == compares elements; a tensor as a dict key is itself

    def __format__(self, spec):
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self):
        facts = [f"dtype={self.dtype}"]
        if 0 in self.shape:
            facts.insert(0, f"shape={self.shape}")
        if self.device != "cpu":
            facts.append(f"device={self.device!r}")
        if self.name:
            facts.append(f"name={self.name!r}")
        if self.node is not None:
            facts.append("requires_grad=True" if self.is_leaf else f"op={self.node.op}")
        return f"Tensor({format_array(self.data, len('Tensor('))}, {', '.join(facts)})"

    def _repr_html_(self):
        """Jupyter shows a tensor as its facts, its numbers and its graph."""
        return import_module("tinygrad_ms.graph").tensor_html(self)  # drawing is loaded when first used

    # --- copies ----------------------------------------------------------------------------------------------------

    def __deepcopy__(self, memo):
        if not self.is_leaf:
            raise RuntimeError(
                f"copy or pickle of a tensor with history (result of {self.node.op}, {self.node.line});"
                " use .detach() to copy the values, .clone() to stay on the tape"
            )
        result = memo[id(self)] = type(self).__new__(type(self))
        Tensor.__init__(result, self.data.copy())
        result.name = self.name
        result.requires_grad = self.requires_grad
        if self.grad is not None:
            result.grad = Tensor(self.grad.data.copy())
        return result

    def __copy__(self):
        return self.__deepcopy__({})

    def __reduce__(self):
        if not self.is_leaf:
            self.__deepcopy__({})
        return _unpickle, (type(self), self.numpy(), self.device, self.requires_grad, self.name)

    # --- attached by ops/: declared here for editors and type checkers ---------------------------------------------

    if TYPE_CHECKING:
        # autodiff
        def backward(
            self, gradient: Any = None, *, retain_graph: bool | None = None, create_graph: bool = False
        ) -> None: ...

        # elementwise and comparisons
        def __add__(self, other: Any) -> "Tensor": ...
        def __neg__(self) -> "Tensor": ...
        def __eq__(self, other: Any) -> "Tensor": ...  # type: ignore[override]
        def __ne__(self, other: Any) -> "Tensor": ...  # type: ignore[override]

        __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __add__
        __floordiv__ = __rfloordiv__ = __mod__ = __rmod__ = __pow__ = __rpow__ = __add__
        __gt__ = __ge__ = __lt__ = __le__ = __add__
        __and__ = __rand__ = __or__ = __ror__ = __xor__ = __rxor__ = __add__
        __lshift__ = __rlshift__ = __rshift__ = __rrshift__ = __add__
        __pos__ = __abs__ = __invert__ = __neg__
        abs = sign = floor = ceil = trunc = square = reciprocal = sqrt = cbrt = __neg__
        exp = exp2 = expm1 = log = log2 = log10 = log1p = isnan = isinf = isfinite = logical_not = __neg__
        pow = remainder = hypot = maximum = minimum = logical_and = logical_or = logical_xor = __add__

        def round(self, decimals: int = 0) -> "Tensor": ...
        def clip(self, min: Any = None, max: Any = None) -> "Tensor": ...

        # trigonometric, special, activations
        sin = cos = tan = cot = sec = csc = asin = acos = atan = acot = __neg__
        sinh = cosh = tanh = coth = sech = csch = asinh = acosh = atanh = __neg__
        erf = sinc = relu = sigmoid = __neg__
        atan2 = logaddexp = __add__

        def softmax(self, axis: Axis = -1) -> "Tensor": ...

        log_softmax = softmax

        # conversions
        def astype(self, dtype: Any) -> "Tensor": ...
        def to(self, *targets: Any, device: str | None = None, dtype: Any = None) -> "Tensor": ...
        def cuda(self, index: int = 0) -> "Tensor": ...

        clone = cpu = half = float = double = __neg__

        # reductions
        def sum(self, axis: Axis = None, keepdims: bool = False) -> "Tensor": ...

        mean = prod = max = min = any = all = logsumexp = sum

        def var(self, axis: Axis = None, correction: Any = 0, keepdims: bool = False) -> "Tensor": ...

        std = var

        def norm(self, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> "Tensor": ...
        def argmax(self, axis: int | None = None, keepdims: bool = False) -> "Tensor": ...

        argmin = argmax

        def cumsum(self, axis: int | None = None) -> "Tensor": ...

        cumprod = cumsum

        # shapes and indexing
        T: "Tensor"
        mT: "Tensor"

        def reshape(self, *shape: Any) -> "Tensor": ...
        def flatten(self, start_axis: int = 0, end_axis: int = -1) -> "Tensor": ...
        def ravel(self) -> "Tensor": ...
        def squeeze(self, axis: Axis = None) -> "Tensor": ...
        def expand_dims(self, axis: Any) -> "Tensor": ...

        unsqueeze = expand_dims

        def permute_dims(self, axes: tuple[int, ...]) -> "Tensor": ...
        def permute(self, *axes: Any) -> "Tensor": ...

        transpose = permute

        def swapaxes(self, axis1: int, axis2: int) -> "Tensor": ...
        def moveaxis(self, source: Any, destination: Any) -> "Tensor": ...
        def broadcast_to(self, shape: tuple[int, ...]) -> "Tensor": ...
        def flip(self, axis: Axis = None) -> "Tensor": ...
        def roll(self, shift: Any, axis: Axis = None) -> "Tensor": ...
        def repeat(self, repeats: Any, axis: int | None = None) -> "Tensor": ...
        def tile(self, reps: Any) -> "Tensor": ...
        def split(self, indices_or_sections: Any, axis: int = 0) -> "tuple[Tensor, ...]": ...
        def unstack(self, axis: int = 0) -> "tuple[Tensor, ...]": ...
        def __getitem__(self, index: Any) -> "Tensor": ...
        def take(self, indices: Any, axis: int | None = None) -> "Tensor": ...
        def sort(self, axis: int = -1, descending: bool = False) -> "Tensor": ...

        argsort = sort

        # products and parts of matrices
        matmul = dot = __matmul__ = __rmatmul__ = __add__

        def diagonal(self, offset: int = 0, axis1: int = -2, axis2: int = -1) -> "Tensor": ...
        def trace(self, offset: int = 0) -> "Tensor": ...
        def tril(self, k: int = 0) -> "Tensor": ...

        triu = tril
        inv = det = __neg__


def _unpickle(cls, host, device, requires_grad, name):
    result = cls.__new__(cls)
    backend, index = parse_device(device)
    Tensor.__init__(result, backend.from_host(host, index))
    result.name = name
    result.requires_grad = requires_grad
    return result


class HookHandle:
    """``remove()`` takes a tensor hook off again."""

    def __init__(self, node, hook):
        self._node, self._hook = weakref.ref(node), hook

    def remove(self) -> None:
        node = self._node()
        if node is not None and node.hooks:
            node.hooks = [hook for hook in node.hooks if hook is not self._hook] or None


class Tape(list):
    """The nodes of a result in recording order."""

    def __str__(self):
        number = {node: f"v{i}" for i, node in enumerate(self)}

        def show(value):
            if isinstance(value, Node):
                return number.get(value, "?")
            if isinstance(value, Constant):
                return value.name or f"{value.dtype}{list(value.shape)}"
            return repr(value)

        lines = []
        for node in self:
            arguments = [show(parent) for parent in node.parents]
            arguments += [f"{key}={value!r}" for key, value in node.constants.items() if len(repr(value)) < 40]
            what = (
                f"leaf {node.name or ''}".rstrip() if isinstance(node, Leaf) else f"{node.op}({', '.join(arguments)})"
            )
            shape = "" if node.shape is None else f"  # {node.dtype} {list(node.shape)}"
            scope = f"  in {'/'.join(node.scope)}" if node.scope else ""
            lines.append(f"{number[node]} = {what}{shape}{scope}")
        return "\n".join(lines)


def raw_index(index):
    """An index with the raw arrays of the tensors in it."""
    if isinstance(index, tuple):
        return tuple(raw_index(i) for i in index)
    return index.data if isinstance(index, Tensor) else index


def _raw_like(value, like: Tensor, op: str):
    """The raw array of ``value`` for an in-place write into ``like``, on the same device."""
    raw = value.data if isinstance(value, Tensor) else value
    if type(raw) in BACKENDS:
        if type(raw) is not type(like.data):
            there = BACKENDS[type(raw)].device_of(raw)
            raise ValueError(f"{op}: the tensor is on {like.device} and the value on {there}; move one with .to()")
        return raw
    if isinstance(raw, (list, tuple)):
        return to_device(host_array(raw, like.dtype), like.device)
    return raw


def tensor(data, dtype=None, device=None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested lists, a NumPy or CuPy array, or a Tensor (its values).

    dtype: kept for arrays; Python floats become float32, Python integers int64, booleans bool.
    device: "cpu", "cuda", "cuda:1"; without it, device arrays stay where they are and host data goes to the
    default device. Raises TypeError for what is not numeric, or for ``requires_grad`` of integers.
    """
    raw = data.data if isinstance(data, Tensor) else data
    backend = BACKENDS.get(type(raw))
    if backend is None or (backend.name == "cpu" and not isinstance(data, Tensor)):
        host = _unwrap_list(raw)
        own_dtype = is_host_value(host)
        host = host_array(host)
        if dtype is None and not own_dtype and host.dtype.kind == "f":
            dtype = DEFAULT_FLOAT
        if dtype is not None:
            host = host.astype(as_dtype(dtype), copy=False)
        family, index = parse_device(default_device() if device is None else device)
        array = family.from_host(host, index)
    else:
        array = raw if device is None else to_device(raw, device)
        array = array.astype(as_dtype(dtype)) if dtype is not None else array.copy() if array is raw else array
    result = Tensor(array)
    if name is not None:
        result.name = name
    if requires_grad:
        result.requires_grad = True
    return result


def asarray(data, dtype=None, device=None) -> Tensor:
    """Like ``tensor``, but a Tensor is returned as it is and an array shares its memory where dtype and device allow."""
    if isinstance(data, Tensor) and dtype is None and device in (None, data.device):
        return data
    if not isinstance(data, Tensor) and type(data) in BACKENDS and dtype in (None, data.dtype):
        as_dtype(data.dtype)  # raises for complex numbers and text
        where = device or (default_device() if BACKENDS[type(data)].name == "cpu" else None)
        if where in (None, BACKENDS[type(data)].device_of(data)):
            return Tensor(data)
    return tensor(data, dtype, device)


def _unwrap_list(value):
    """Nested lists may hold 0-d tensors."""
    if isinstance(value, (list, tuple)):
        return [_unwrap_list(item) for item in value]
    return value.tolist() if isinstance(value, Tensor) else value
