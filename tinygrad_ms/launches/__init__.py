"""What runs on a card in one launch: products of stacks (``products``), kernels of our own (``kernels``), by CuPy
(``cuda``). On the CPU nothing of this is used.

``launcher(x)`` is a module with ``gemm(call)`` and ``launch(kernel, given)`` for the library of a raw array; None
where it has none, and while ``tg.compile`` records.
"""

from typing import Any

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches import cuda

OF_FAMILIES: dict[str, Any] = {"cuda": cuda}
_known: dict[type, Any] = {}  # by array type


def launcher(x):
    """The launcher of the library of a raw array, or None."""
    kind = type(x)
    if kind not in _known:
        backend = BACKENDS.get(kind)
        _known[kind] = None if backend is None or backend.recorder else OF_FAMILIES.get(backend.name)
    return _known[kind]
