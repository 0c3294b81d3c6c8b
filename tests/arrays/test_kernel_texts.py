"""Kernels of the iterations and of the optimizers: the text that a card compiles says what the array functions say.

A C++ compiler of this machine stands in for CUDA's; the body of each kernel is put into a plain loop.
"""

import ctypes
import shutil
import subprocess
import sys
import types
from itertools import product

import numpy as np
import pytest

import tinygrad_ms as tg
import tinygrad_ms.testing
from tests import nvrtc
from tinygrad_ms import nn, optim
from tinygrad_ms.launches import cuda
from tinygrad_ms.launches.kernels import KERNELS, Kernel, self_check
from tinygrad_ms.optim.on_device import clipped

COMPILER = shutil.which("c++") or shutil.which("g++")
TYPES = {"float64": "double", "int64": "long long"}
STEPS = [
    lambda p: optim.SGD(p, 0.1, weight_decay=0.1),
    lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.25),
    lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True),
    lambda p: optim.Adam(p, weight_decay=0.1),
    lambda p: optim.AdamW(p),
    lambda p: optim.RMSprop(p, momentum=0.5, centered=True),
    lambda p: optim.Muon(p, weight_decay=0.1),
    lambda p: optim.Muon(p, nesterov=False),
]


def kernels():
    """All kernels by their names; those of optimizers once a step was made."""
    for make, dtype in product(STEPS, ("float64", "float32")):
        params = [nn.Parameter(np.ones(size), dtype, "strict") for size in (2, 3, 4, 5, 6, (2, 3), (2, 3), (2, 3))]
        optimizer = make(params)
        for _ in range(2):
            for p in params:
                p.grad = tg.tensor(np.ones(p.shape), dtype, "strict")
            optimizer.step()
    clipped([p.grad.data for p in params], 1.0)
    return dict(KERNELS)


def fit(dtype):
    """Those for arrays of this dtype."""
    other = {"float32": "float64", "float64": "float32"}[dtype]
    return {name: kernel for name, kernel in kernels().items() if other not in name}


def text(kernel, real):
    """A function of the number of elements and the parameters, arrays as pointers."""
    given, _ = kernel.sample("float32")
    parameters, reads = ["long long size"], []
    for (raw, kind, name), value in zip(kernel.declared, given, strict=True):
        kind = {**TYPES, "T": real}[kind]
        if not isinstance(value, np.ndarray):
            parameters.append(f"{kind} {name}")
        else:
            parameters.append(f"{kind}* {name}" if raw else f"{kind}* {name}_")
            reads += [] if raw else [f"{kind}& {name} = {name}_[i];"]
    head = f'extern "C" void {kernel.name}_{real}({", ".join(parameters)}) {{ typedef {real} T;'
    if kernel.identity is None:
        return "\n".join([head, "for (long long i = 0; i < size; i++) {", *reads, f"{kernel.texts[0]};", "} }"])
    each, both, last = kernel.texts
    *inputs, (_, kind, out) = kernel.declared
    kind = {**TYPES, "T": real}[kind]
    return "\n".join([
        head, f"for (long long k = 0; k < size; k++) {{ {kind} a = {kernel.identity};",
        "for (long long i = 9 * k; i < 9 * k + 9; i++) {", *reads[:-1], f"{kind} b = {each}; a = {both};", "}",
        f"{kind}& {out} = {out}_[k]; {last};", "} }",
    ])  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """The function of each kernel and dtype, compiled."""
    if COMPILER is None:
        pytest.skip("no C++ compiler is here")
    folder = tmp_path_factory.mktemp("kernels")
    reals = {"float32": "float", "float64": "double"}
    parts = [text(kernel, real) for dtype, real in reals.items() for kernel in fit(dtype).values()]
    (folder / "kernels.cpp").write_text("#include <cmath>\nusing namespace std;\n" + "\n".join(parts))
    command = [COMPILER, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", "kernels.so", "kernels.cpp"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]
    return ctypes.CDLL(str(folder / "kernels.so"))


def run_on_host(library):
    def run(kernel, given, size):
        passed, kept = [ctypes.c_longlong(size)], []
        shape = (2, 3, 3)
        for (raw, kind, _), value in zip(kernel.declared, given, strict=True):
            if isinstance(value, np.ndarray):
                wide = value if raw or value.shape != (2, 1, 1) else np.broadcast_to(value, shape).copy()
                kept.append(wide)
                passed.append(ctypes.c_void_p(wide.ctypes.data))
            elif kind == "int64":
                passed.append(ctypes.c_longlong(value))
            else:
                single = kind == "T" and real_of(kernel, given) == "float"
                passed.append((ctypes.c_float if single else ctypes.c_double)(value))
        getattr(library, f"{kernel.name}_{real_of(kernel, given)}")(*passed)

    return run


def real_of(kernel, given):
    """The type that T is for these arguments."""
    kinds = [v.dtype for (_, k, _), v in zip(kernel.declared, given) if k == "T" and isinstance(v, np.ndarray)]
    return "double" if kinds[0] == np.float64 else "float"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_text_of_each_kernel_is_its_array_functions(library, dtype):
    names = fit(dtype)
    assert {
        "combined",
        "completed",
        "relative",
        "squares_8",
        "scaled_8",
        "momentum_3_0",
        "momentum_3_1",
        "moving_3",
    } <= names.keys()
    assert sum("sgd" in name for name in names) >= 3 and sum("adam" in name for name in names) >= 2
    for name, kernel in names.items():
        assert kernel.problem(run_on_host(library), np, dtype) == "", name


def test_a_wrong_text_is_found_out(library):
    def nothing(kernel, given, size):
        pass

    for name, kernel in fit("float32").items():
        assert "its reference" in kernel.problem(nothing, np, "float32"), name


def test_all_kernels_can_be_checked_on_a_device():
    kernels()
    found = self_check("strict")
    assert {"combined float32", "combined float64", "squares_8 float32"} <= found.keys()
    assert not any(found.values()) and not any("float32" in key and "float64" in key for key in found)
    with pytest.raises(ValueError, match="'cpu' has no kernels of this kind"):
        self_check("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
def test_nvrtc_takes_every_text(architecture):
    compiler = nvrtc.find_library()
    if compiler is None:
        pytest.skip('NVRTC is not installed: pip install "tinygrad-ms[nvrtc]", or nvidia-cuda-nvrtc-cu12')
    reals = {"float32": "float", "float64": "double"}
    parts = [text(kernel, real) for dtype, real in reals.items() for kernel in fit(dtype).values()]
    source = "\n".join(parts).replace('extern "C" void', 'extern "C" __global__ void')
    options = ["--std=c++17", "-ftz=true", "-w", f"--gpu-architecture={architecture}"]
    code, log = nvrtc.compiled(compiler, source, options)
    assert code.startswith(b"\x7fELF") and not log.strip("\0\n"), log[:3000]


def test_a_kernel_that_is_wrong_on_a_card_steps_aside_with_one_warning(monkeypatch):
    """CuPy is not needed: NumPy stands in for it, and a kernel that CuPy has made writes nothing."""
    made = types.ModuleType("cupy")
    made.array, made.add = np.array, np.add
    monkeypatch.setitem(sys.modules, "cupy", made)

    def doubled(xp, x, y):
        xp.add(x, x, out=y)

    kernel = Kernel(doubled, "T x", "T y", ("y = x + x",))
    monkeypatch.delitem(KERNELS, "doubled")  # it is none of the library
    kernel.made = lambda *given: None
    x, y = np.arange(3.0), np.empty(3)
    with pytest.warns(RuntimeWarning, match="the kernel doubled of float64 is not used, calls of CuPy do its work"):
        cuda.launch(kernel, [x, y])
    y[:] = 0
    cuda.launch(kernel, [x, y])  # without another warning
    assert y.tolist() == [0, 2, 4]
    kernel.problems.clear()
    kernel.made = lambda x, y: np.add(x, x, out=y)
    cuda.launch(kernel, [x, y])
    assert kernel.problems == {"d": ""}
