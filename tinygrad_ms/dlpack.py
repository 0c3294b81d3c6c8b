"""DLPack lets array libraries share memory. Arrays of PyTorch, JAX and others come in here.

They go out by ``Tensor.__dlpack__``: ``torch.from_dlpack(tensor.detach())``. Source: https://dmlc.github.io/dlpack.
"""

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.dtypes import as_dtype
from tinygrad_ms.engine.around.constructors import shared_counter
from tinygrad_ms.engine.tensor import Tensor

FAMILIES = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}  # kDLCPU, kDLCUDA, kDLCUDAHost, kDLCUDAManaged


def array_from_dlpack(x, what: str = "from_dlpack"):
    """The NumPy or CuPy array that shows the memory of ``x``. ``what``: the name of the call in error messages."""
    kind, index = x.__dlpack_device__()
    if kind not in FAMILIES:
        raise ValueError(
            f"{what}: the array ({type(x).__name__}) is on a device of DLPack's kind {int(kind)}; known are"
            " the CPU and CUDA: move it to one of them first"
        )
    family = FAMILIES[kind]
    backend, _ = parse_device(f"cuda:{index}" if family == "cuda" else family)
    if hasattr(x, "is_neg") and x.is_neg():  # a lazy negative of PyTorch: its memory lacks the sign
        x = x.resolve_neg()
    try:
        array = backend.xp.from_dlpack(x)
        as_dtype(array.dtype)
    except (BufferError, RuntimeError, TypeError) as error:
        kind = BufferError if isinstance(error, BufferError) else TypeError
        raise kind(f"{what}: the {type(x).__name__} of {x.dtype} does not come in: {error}") from None
    return array


def from_dlpack(x) -> Tensor:
    """A tensor that shows the memory of ``x``, an array of another library with ``__dlpack__``. Nothing is copied.

    Its data is a NumPy array on the CPU and a CuPy array on CUDA. The tape does not see writes of the other library.
    The tensor is not part of the graph of the other library; ``tinygrad_ms.interop.torch`` and ``.jax`` carry gradients
    across. Raises TypeError for an object without ``__dlpack__``, for complex numbers, and for dtypes that NumPy does
    not have (such as bfloat16: use ``.float()``). Raises ValueError for other devices. Raises the BufferError of a
    library that does not share its array; PyTorch does so if the array requires a gradient (use ``.detach()``).
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"from_dlpack: {type(x).__name__} has no __dlpack__; tg.tensor takes numbers and lists")
    if isinstance(x, numpy.ma.MaskedArray):
        raise TypeError("from_dlpack: a masked array would lose its mask; use its .filled(...)")
    array = array_from_dlpack(x)
    result = Tensor(array)
    result.count_with(x.version_counter() if isinstance(x, Tensor) else shared_counter(array))
    return result
