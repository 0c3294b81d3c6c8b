"""What is CuPy's alone: products by the cuBLAS that it has loaded (``products``), kernels of its own (``kernels``)."""

from functools import cache, lru_cache
from types import SimpleNamespace

import numpy

from tinygrad_ms.precision import current as precision


@cache
def cublas_functions():
    """The functions and constants, once CuPy is in use."""
    from cupy.cuda import device, runtime
    from cupy_backends.cuda.libs import cublas  # type: ignore[import-not-found]

    kinds = {"e": "CUDA_R_16F", "E": "CUDA_R_16BF", "f": "CUDA_R_32F", "d": "CUDA_R_64F"}
    return SimpleNamespace(
        call=cublas.gemmStridedBatchedEx,
        handle=device.get_cublas_handle,
        kinds={char: getattr(runtime, kind) for char, kind in kinds.items() if hasattr(runtime, kind)},
        plain={False: cublas.CUBLAS_COMPUTE_32F, True: cublas.CUBLAS_COMPUTE_64F},
        tf32=cublas.CUBLAS_COMPUTE_32F_FAST_TF32,
        algorithm=cublas.CUBLAS_GEMM_DEFAULT,
    )


@lru_cache(1024)
def number(value: float, wide: bool):
    """A number where BLAS reads it, on the host: its address, and what keeps it there."""
    kept = numpy.array(value, "float64" if wide else "float32")
    return kept.ctypes.data, kept


def gemm(call, a, b, out, alpha, beta) -> None:
    """Hand a ``Gemm`` to cuBLAS. Half precision is multiplied with sums in float32."""
    lib, char, size = cublas_functions(), out.dtype.char, out.itemsize
    wide, kind, (rows, columns, inner, matrices, first, second, third) = char == "d", lib.kinds[char], call
    compute = lib.tf32 if char == "f" and precision() == "tf32" else lib.plain[wide]
    lib.call(
        lib.handle(), int(second[1]), int(first[1]), columns, rows, inner, number(alpha, wide)[0],
        b.data.ptr + second[0] * size, kind, second[2], second[3],
        a.data.ptr + first[0] * size, kind, first[2], first[3],
        number(beta, wide)[0], out.data.ptr + third[0] * size, kind, third[2], third[3],
        matrices, compute, lib.algorithm,
    )  # fmt: skip


def launch(kernel, given) -> None:
    """Run a kernel of ``kernels.InPlace``, made of its text at the first call."""
    if kernel.made is None:
        import cupy

        facts = kernel.inputs, kernel.outputs, *kernel.texts
        make = cupy.ElementwiseKernel if kernel.identity is None else cupy.ReductionKernel
        kernel.made = make(
            *facts, *(() if kernel.identity is None else (kernel.identity,)), name=f"tinygrad_ms_{kernel.name}"
        )
    if kernel.identity is not None:
        kernel.made(*given[:-1], out=given[-1], axis=(1, 2))
    elif kernel.sized:
        kernel.made(*given, size=kernel.size(given))
    else:
        kernel.made(*given)
