"""DLPack, by which array libraries show each other their memory: arrays of PyTorch, JAX and others come in here.

The way out is ``Tensor.__dlpack__``: ``torch.from_dlpack(tensor.detach())``. Source: https://dmlc.github.io/dlpack.
"""

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.dtypes import as_dtype
from tinygrad_ms.engine.around.constructors import shared_counter
from tinygrad_ms.engine.tensor import Tensor

FAMILIES = {1: "cpu", 2: "cuda", 3: "cpu", 13: "cuda"}  # kDLCPU, kDLCUDA, kDLCUDAHost, kDLCUDAManaged


def array_from_dlpack(x, what: str = "from_dlpack"):
    """The NumPy or CuPy array that shows the memory of ``x``. ``what``: how a message calls it."""
    kind, index = x.__dlpack_device__()
    if kind not in FAMILIES:
        raise ValueError(
            f"{what}: the array ({type(x).__name__}) is on a device of DLPack's kind {int(kind)}; known are"
            " the CPU and CUDA: move it to one of them first"
        )
    family = FAMILIES[kind]
    backend, _ = parse_device(f"cuda:{index}" if family == "cuda" else family)
    if hasattr(x, "is_neg") and x.is_neg():  # a lazy negative of PyTorch, which shows its memory without the sign
        x = x.resolve_neg()
    try:
        array = backend.xp.from_dlpack(x)
        as_dtype(array.dtype)
    except (BufferError, RuntimeError, TypeError) as error:
        kind = BufferError if isinstance(error, BufferError) else TypeError
        raise kind(f"{what}: the {type(x).__name__} of {x.dtype} does not come in: {error}") from None
    return array


def from_dlpack(x) -> Tensor:
    """A tensor that shows the memory of ``x``, an array of another library with ``__dlpack__``; nothing is copied.

    On the CPU it is a NumPy array's, on CUDA a CuPy array's. Writes of the other library are not seen by the tape.
    The tensor is no part of the other library's graph: ``tinygrad_ms.interop.torch`` and ``.jax`` carry gradients
    across. Raises TypeError for what has no ``__dlpack__``, for complex numbers and for dtypes that NumPy has not (such
    as bfloat16: use ``.float()``), ValueError for other devices, and the BufferError of a library that keeps its array
    to itself, as PyTorch does where a gradient is required (``.detach()``).
    """
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"from_dlpack: {type(x).__name__} has no __dlpack__; tg.tensor takes numbers and lists")
    if isinstance(x, numpy.ma.MaskedArray):
        raise TypeError("from_dlpack: a masked array would lose its mask; use its .filled(...)")
    array = array_from_dlpack(x)
    result = Tensor(array)
    result.count_with(x.version_counter() if isinstance(x, Tensor) else shared_counter(array))
    return result
