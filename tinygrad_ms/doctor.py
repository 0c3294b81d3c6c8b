"""``python -m tinygrad_ms doctor``: what this machine can compute on, what is wrong with it, and what mends that.

Each finding is a line. ``ok``: it works. ``--``: it is not there, and nothing needs it. ``!!``: it is there and does
not work; the line below says what to do.
"""

import ctypes
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy

from tinygrad_ms._version import __version__
from tinygrad_ms.arrays.devices import default_device, device_info, parse_device, to_device
from tinygrad_ms.arrays.registry import probe_cuda
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.graph.renderer import find_renderer
from tinygrad_ms.ops import exp, msign, tanh
from tinygrad_ms.ops.fused import INSTALLED
from tinygrad_ms.ops.fused.team import members
from tinygrad_ms.ops.fused.threads import get_num_threads
from tinygrad_ms.testing.differences import gradcheck

OK, ABSENT, BROKEN = "ok", "--", "!!"
Finding = tuple[str, str, str]  # sign, sentence, what to do


def doctor() -> tuple[list[Finding], bool]:
    """All findings, and whether nothing that is there is broken."""
    findings = [*software(), *computing("cpu"), *graphics()]
    return findings, not any(sign == BROKEN for sign, _, _ in findings)


def software() -> Iterator[Finding]:
    version = sys.version.split()[0]
    yield OK, f"tinygrad_ms {__version__}, Python {version}, NumPy {numpy.__version__}", ""
    threads = [
        f"{name}={os.environ[name]}" for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS") if name in os.environ
    ]
    yield OK, f"processors: {os.cpu_count()}{', ' if threads else ''}{', '.join(threads)}", ""
    yield OK, f"memory: {device_info()['memory']}", ""
    if INSTALLED:
        on = f"{count} threads of OpenBLAS" if (count := members()) > 1 else f"{get_num_threads()} threads"
        yield OK, f"compiled kernels on the CPU: numba {importlib.metadata.version('numba')}, {on}", ""
    else:
        yield ABSENT, "compiled kernels on the CPU: none", "pip install numba makes large arrays faster"
    if drawer := find_renderer():
        yield OK, f"renderer of pictures: {drawer}", ""
    else:
        yield ABSENT, "renderer of pictures: none", "pip install graphviz-pure, or apt-get install graphviz"


# --- a device that is there -------------------------------------------------------------------------------------------


def computing(device: str) -> Iterator[Finding]:
    """Whether a device computes what it should: a kernel, products, an msign, gradients."""
    for what, run in CHECKS.items():
        yield attempt(f"{device}: {what}", partial(run, device), advice(device))


def advice(device):
    return "pip install -U --force-reinstall numpy, in a fresh environment" if device == "cpu" else libraries_line()


def attempt(what: str, run: Callable[[], str], fix: str) -> Finding:
    """A finding made of what ``run`` says, or of what it raises."""
    try:
        return OK, f"{what}{run()}", ""
    except Exception as error:
        text = str(error).strip().split("\n")[0]
        return BROKEN, f"{what}: {type(error).__name__}: {text[:200]}", fix


def near(found, right, tolerance) -> None:
    host = parse_device("cpu")[0].to_host
    found = found.numpy() if isinstance(found, Tensor) else host(raw(found))
    error = numpy.abs(found - right).max()
    if not error <= tolerance:
        raise ArithmeticError(f"the result is off by {error:.3g}, which should be {tolerance:.3g} at most")


def points(*shape):
    return numpy.random.default_rng(0).standard_normal(shape)


def on(device, host) -> Tensor:
    return Tensor(to_device(host, device))


def check_kernel(device):
    x = points(1000)
    near(exp(on(device, x)), numpy.exp(x), 1e-12)
    return " of float64"


def check_products(device):
    for shape in ((64, 64), (3, 32, 32)):
        x = points(*shape)
        near(on(device, x) @ on(device, x), x @ x, 1e-10)
        single = x.astype("float32")
        near(on(device, single) @ on(device, single), x @ x, 1e-2)  # also in TF32
    return " of two axes and of batches"


def check_msign(device):
    x = points(5, 3)
    u, _, vh = numpy.linalg.svd(x, full_matrices=False)
    near(msign(on(device, x)), u @ vh, 1e-10)
    near(msign(on(device, x), method="svd"), u @ vh, 1e-10)
    return ", by products and by a singular value decomposition"


def check_gradients(device):
    x, y = on(device, points(3, 4)), on(device, points(4, 2))
    x.requires_grad = y.requires_grad = True
    gradcheck(lambda x, y: (tanh(x) @ y).sum(), [x, y])
    return " against central differences"


CHECKS: dict[str, Callable[[str], str]] = {
    "a kernel": check_kernel, "products": check_products, "msign": check_msign, "gradients": check_gradients,
}  # fmt: skip


# --- graphics cards ---------------------------------------------------------------------------------------------------


def graphics() -> Iterator[Finding]:
    """The driver, CuPy, its libraries; then each card as a device."""
    cards, cuda, problem = driver()
    wheels = cupy_wheels()
    if not cards:
        sign = ABSENT if problem.startswith("no ") else BROKEN
        yield sign, f"GPU: {problem}", "none is needed: everything runs on the CPU" if sign == ABSENT else DRIVER
    else:
        yield OK, f"driver: for CUDA {cuda // 1000}.{cuda % 1000 // 10} and older, {cards} GPU{'s'[: cards > 1]}", ""
    if len(wheels) > 1:
        yield (
            BROKEN,
            f"CuPy: {' and '.join(wheels)} are installed side by side",
            f"pip uninstall {' '.join(wheels)}, then {install_line(cuda)}",
        )
    elif not wheels:
        yield ABSENT, "CuPy: not installed", f"{install_line(cuda)} to use the GPU" if cards else ""
    elif cards and (needs := made_for(next(iter(wheels)))) > cuda // 1000:
        yield (
            BROKEN,
            f"CuPy: {next(iter(wheels))} needs a driver for CUDA {needs}",
            f"{install_line(cuda)}, or a newer driver",
        )
    else:
        yield OK, f"CuPy: {' '.join(f'{name} {version}' for name, version in wheels.items())}", ""
    if not (cards and wheels):
        return
    if reason := probe_cuda():
        yield BROKEN, f"CUDA: {reason}", libraries_line()
        return
    xp = parse_device("cuda")[0].xp
    for library, version in LIBRARIES.items():
        yield attempt(f"library {library}", partial(version, xp), libraries_line())
    for number in range(cards):
        device = f"cuda:{number}" if number else "cuda"
        yield attempt(f"{device}", partial(describe_card, xp, number), DRIVER)
        yield from computing(device)
        yield from kernels(device)
    yield OK, f"default device: {default_device()}", ""


DRIVER = "install the driver of the GPU (nvidia-smi must list it), and restart"


def driver() -> tuple[int, int, str]:
    """(number of GPUs, the newest CUDA that the driver knows as 1000 major + 10 minor, why there is none)."""
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    try:
        library = ctypes.CDLL(name)
    except OSError:
        return 0, 0, f"no NVIDIA driver was found ({name})"
    count, version = ctypes.c_int(), ctypes.c_int()
    library.cuDriverGetVersion(ctypes.byref(version))
    if status := library.cuInit(0):
        return 0, version.value, "no GPU was found" if status == 100 else f"the driver does not start (error {status})"
    library.cuDeviceGetCount(ctypes.byref(count))
    return count.value, version.value, "" if count.value else "no GPU is visible (CUDA_VISIBLE_DEVICES)"


def cupy_wheels() -> dict[str, str]:
    """The installed packages that bring the module cupy, and their versions."""
    names = {"cupy": 0, "cupy-cuda11x": 11, "cupy-cuda12x": 12, "cupy-cuda13x": 13}
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def made_for(wheel: str) -> int:
    """The major version of CUDA that a wheel was made for; 0 for one built here."""
    return int(digits) if (digits := "".join(filter(str.isdigit, wheel))) else 0


def install_line(cuda: int) -> str:
    return f'pip install "cupy-cuda{12 if 0 < cuda < 13000 else 13}x[ctk]"'


def libraries_line() -> str:
    """How to get the CUDA libraries that fit: with those of the wheel."""
    return f"{install_line(driver()[1])} brings CuPy and the CUDA libraries that fit it"


def cublas_version(xp):
    return ": " + str(xp.cuda.cublas.getVersion(xp.cuda.get_cublas_handle()))


def cusolver_version(xp):
    xp.linalg.svd(xp.eye(2))
    return ": a singular value decomposition runs"


def nvrtc_version(xp):
    xp.ElementwiseKernel("T x", "T y", "y = x + (T)1", "tinygrad_ms_doctor")(xp.arange(3))
    return ": " + ".".join(map(str, xp.cuda.nvrtc.getVersion()))


LIBRARIES = {"cuBLAS": cublas_version, "cuSOLVER": cusolver_version, "NVRTC": nvrtc_version}


def describe_card(xp, number) -> str:
    facts = xp.cuda.runtime.getDeviceProperties(number)
    with xp.cuda.Device(number):
        free, total = xp.cuda.runtime.memGetInfo()
    tf32 = "TF32 on request" if facts["major"] >= 8 else "no TF32"
    return (
        f": {facts['name'].decode()}, compute capability {facts['major']}.{facts['minor']} ({tf32}),"
        f" {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    )


def kernels(device) -> Iterator[Finding]:
    """What the kernels of this package for cards say of themselves."""
    from tinygrad_ms.ops.fused.devices import self_check

    try:
        found = self_check(device)
    except Exception as error:
        yield BROKEN, f"{device}: kernels: {type(error).__name__}: {str(error)[:200]}", libraries_line()
        return
    wrong = {name: why for name, why in found.items() if why}
    yield OK, f"{device}: {len(found) - len(wrong)} of {len(found)} kernels of this package right", ""
    for name, why in wrong.items():
        yield BROKEN, f"{device}: kernel {name}: {why}", "it is switched off, and CuPy's own are used; please report it"


def show() -> int:
    """Print the findings; the exit status: 0 unless something that is there does not work."""
    findings, usable = doctor()
    for sign, sentence, fix in findings:
        print(f"{sign}  {sentence}")
        if fix:
            print(f"      {fix}")
    print("this machine is ready" if usable else "something above does not work: see the lines with !!")
    return 0 if usable else 1
