"""In which precision is computed: float32 matrices on a card, perhaps as TF32; half precision in float32."""

from typing import Any

from tinygrad_ms.arrays.registry import FAMILIES, probe_cuda
from tinygrad_ms.cards import card

PRECISIONS = ("float32", "tf32")
_current = "float32"


class matmul_precision:
    """Products of float32 matrices on GPUs from now on: ``"float32"`` (at first), or ``"tf32"`` on tensor cores.

        tg.matmul_precision("tf32")             # from here on
        with tg.matmul_precision("tf32"):       # or in a block, behind which it is as before
            y = model(x)

    TF32 rounds the factors to 10 bits of fraction, as float16 has, keeps the range of float32, and adds up in float32:
    a product is off by about 1e-3 of |A| |B|. It takes an NVIDIA GPU of compute capability 8.0 (Ampere) or more; older
    ones go on with float32, and CuPy warns. All products of float32 follow, of two axes and of batches, those inside
    ``msign`` and of derivatives, too; float64 and half precision do not change, nor does anything on NumPy, where
    float32 is float32. It holds for the process; products of batches follow in the thread that said so.
    The variable CUPY_TF32=1 concerns CuPy's products of two axes alone; this call goes before it.
    Raises ValueError for another name. Source: NVIDIA, cuBLAS library, CUBLAS_TF32_TENSOR_OP_MATH.
    """

    def __init__(self, precision: str):
        if precision not in PRECISIONS:
            raise ValueError(f"matmul_precision: {precision!r}; expected {' or '.join(map(repr, PRECISIONS))}")
        self.before = _current
        _choose(precision)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        _choose(self.before)


def current() -> str:
    """The name that was chosen last; what calls cuBLAS itself asks here."""
    return _current


def _choose(precision):
    global _current
    if precision != _current and not probe_cuda():
        tell(FAMILIES["cuda"], precision)
    _current = precision


def tell(backend: Any, precision: str) -> None:
    """Set what CuPy and cuBLAS go by.

    Products of two axes name a compute type, which CuPy keeps by dtype. Those of batches name none: there cuBLAS goes
    by the mode of its handle, one for each thread and card.
    """
    xp, tf32 = backend.xp, precision == "tf32"
    linear = xp._core._routines_linalg
    xp._core.set_compute_type("float32", linear.COMPUTE_TYPE_TF32 if tf32 else linear.COMPUTE_TYPE_DEFAULT)
    for number in range(xp.cuda.runtime.getDeviceCount()):
        with card(backend, number):
            xp.cuda.cublas.setMathMode(xp.cuda.get_cublas_handle(), TF32_TENSOR_OP_MATH if tf32 else DEFAULT_MATH)


DEFAULT_MATH, TF32_TENSOR_OP_MATH = 0, 3  # cublasMath_t of cublas_api.h
