"""What is CuPy's alone: products by the cuBLAS that it has loaded (``products``), kernels of its own (``kernels``)."""

import warnings
from functools import cache, lru_cache
from types import SimpleNamespace

import numpy


@cache
def cublas_functions():
    """The functions and constants, once CuPy is in use."""
    from cupy.cuda import device, runtime
    from cupy_backends.cuda.libs import cublas  # type: ignore[import-not-found]

    kinds = {"float16": "CUDA_R_16F", "bfloat16": "CUDA_R_16BF", "float32": "CUDA_R_32F", "float64": "CUDA_R_64F"}
    return SimpleNamespace(
        call=cublas.gemmStridedBatchedEx,
        handle=device.get_cublas_handle,
        kinds={name: getattr(runtime, kind) for name, kind in kinds.items() if hasattr(runtime, kind)},
        plain={False: cublas.CUBLAS_COMPUTE_32F, True: cublas.CUBLAS_COMPUTE_64F},
        tf32=cublas.CUBLAS_COMPUTE_32F_FAST_TF32,
        algorithm=cublas.CUBLAS_GEMM_DEFAULT,
    )


@lru_cache(1024)
def number(value: float, wide: bool):
    """A number where BLAS reads it, on the host."""
    return numpy.array(value, "float64" if wide else "float32")


def gemm(call) -> None:
    """Hand a ``Gemm`` to cuBLAS. Half precision is multiplied with sums in float32."""
    lib, (a, b, out) = cublas_functions(), (call.a, call.b, call.out)
    name = out[0].dtype.name
    wide, kind = name == "float64", lib.kinds[name]
    compute = lib.tf32 if name == "float32" and fast() else lib.plain[wide]
    pointer_a, pointer_b, pointer_out = (x.data.ptr + start * x.itemsize for x, start, *_ in (a, b, out))
    alpha, beta = number(call.alpha, wide), number(call.beta, wide)
    lib.call(
        lib.handle(), int(b[2]), int(a[2]), call.columns, call.rows, call.inner,
        alpha.ctypes.data, pointer_b, kind, b[3], b[4], pointer_a, kind, a[3], a[4],
        beta.ctypes.data, pointer_out, kind, out[3], out[4], call.matrices, compute, lib.algorithm,
    )  # fmt: skip


def fast() -> bool:
    """Whether products of float32 may round their factors to TF32."""
    return False


def launch(kernel, given, size=None) -> None:
    """Run a ``Kernel``, which has to compute a sample right before its first use; else its array functions run."""
    import cupy

    dtype = given[-1].dtype.name
    if dtype not in kernel.problems:
        try:
            kernel.problems[dtype] = kernel.problem(run, cupy, dtype)
        except Exception as error:  # of the compiler, the driver, the card
            kernel.problems[dtype] = f"{type(error).__name__}: {error}"
        if kernel.problems[dtype]:
            text = f"tinygrad_ms: the kernel {kernel.name} of {dtype} is not used, calls of CuPy do its work"
            warnings.warn(f"{text}: {kernel.problems[dtype]}", RuntimeWarning, stacklevel=4)
    if kernel.problems[dtype]:
        kernel.rule(cupy, *given)
    else:
        run(kernel, given, size)


def run(kernel, given, size=None) -> None:
    """Run a ``Kernel``, made of its text at the first call."""
    if kernel.made is None:
        import cupy

        facts = kernel.inputs, kernel.outputs, *kernel.texts
        make = cupy.ElementwiseKernel if kernel.identity is None else cupy.ReductionKernel
        kernel.made = make(
            *facts, *(() if kernel.identity is None else (kernel.identity,)), name=f"tinygrad_ms_{kernel.name}"
        )
    if kernel.identity is not None:
        kernel.made(*given[:-1], out=given[-1], axis=(1, 2))
    elif all(raw for (raw, *_), x in zip(kernel.declared(), given) if hasattr(x, "shape")):
        kernel.made(*given, size=size)
    else:  # an array says it
        kernel.made(*given)
