"""Tensors from data: copies, shared arrays."""

from weakref import ref

from tinygrad_ms.arrays.devices import default_device, parse_device, to_device
from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, as_dtype, host_array, is_host_value
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_card
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.tensor import Tensor


def tensor(data, dtype=None, device=None, requires_grad: bool = False, name: str | None = None) -> Tensor:
    """A new tensor with a copy of ``data``: a number, nested lists, a NumPy or CuPy array, or a Tensor (its values).

    dtype: kept for arrays; Python floats become float32, Python integers int64, booleans bool.
    device: "cpu", "cuda", "cuda:1"; without it, device arrays stay where they are and host data goes to the
    default device. Raises TypeError for what is not numeric, or for ``requires_grad`` of integers.

    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True, name="x")
    >>> x
    Tensor([[1., 2.],
            [3., 4.]], dtype=float32, name='x', requires_grad=True)
    >>> (x * x).sum().backward()
    >>> x.grad.tolist()
    [[2.0, 4.0], [6.0, 8.0]]
    """
    refuse_tracked("tensor", () if requires_grad else data, "use x.clone() or tg.stack, or x.detach() for the values")
    raw = data.data if isinstance(data, Tensor) else data
    backend = BACKENDS.get(type(raw))
    if backend is None or (backend.name == "cpu" and not isinstance(data, Tensor)):
        host = host_array(_unwrap_list(raw))
        if dtype is None and not is_host_value(raw) and host.dtype.kind == "f":
            dtype = DEFAULT_FLOAT
        if dtype is not None:
            host = host.astype(as_dtype(dtype), copy=False)
        family, index = parse_device(default_device() if device is None else device)
        array = family.from_host(host, index)
    else:
        array = raw if device is None else to_device(raw, device)
        with on_card(array):
            array = array.astype(as_dtype(dtype)) if dtype is not None else array.copy() if array is raw else array
    return Tensor._of(array, name, requires_grad)


def asarray(data, dtype=None, device=None) -> Tensor:
    """Like ``tensor``, but a Tensor is returned as it is, and an array shares its memory where dtype and device fit.

    Tensors that share an array share its change counter. Nobody counts a write to the array itself.

    >>> tg.asarray(np.arange(3.0))
    Tensor([0., 1., 2.], dtype=float64)
    """
    if isinstance(data, Tensor) and dtype is None and device in (None, data.device):
        return data
    if isinstance(data, Tensor) and data.node is not None:
        return data.to(device=device, dtype=dtype)
    if not isinstance(data, Tensor) and type(data) in BACKENDS and dtype in (None, data.dtype):
        as_dtype(data.dtype)  # raises for complex numbers and text
        where = device or (default_device() if BACKENDS[type(data)].name == "cpu" else None)
        if where in (None, BACKENDS[type(data)].device_of(data)):
            result = Tensor(data)
            result.count_with(shared_counter(data))
            return result
    return tensor(data, dtype, device)


_counters: dict[int, tuple] = {}  # by id of an array that owns memory: (weak reference to it, counter)


def shared_counter(array, counter=None) -> list[int]:
    """The change counter of the memory that ``array`` shows. All Tensors made around this memory share it."""
    while type(array.base) is type(array):
        array = array.base
    key = id(array)
    if key not in _counters:
        _counters.setdefault(key, (ref(array, lambda _: _counters.pop(key, None)), counter or [0]))
    return _counters[key][1]


def _unwrap_list(value):
    """Nested lists may hold 0-d tensors."""
    if isinstance(value, (list, tuple)):
        return [_unwrap_list(item) for item in value]
    return value.tolist() if isinstance(value, Tensor) else value
