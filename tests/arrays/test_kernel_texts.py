"""Kernels of the iterations and of the optimizers: the text that a card compiles says what the array functions say.

A C++ compiler of this machine stands in for CUDA's; the body of each kernel is put into a plain loop.
"""

import ctypes
import shutil
import subprocess
from itertools import product

import numpy as np
import pytest

import tinygrad_ms as tg
import tinygrad_ms.testing
from tests import nvrtc
from tinygrad_ms import nn, optim
from tinygrad_ms.arrays.registry import FAMILIES
from tinygrad_ms.launches.kernels import KERNELS, InPlace
from tinygrad_ms.ops.fused.devices import self_check
from tinygrad_ms.optim.on_device import clipped
from tinygrad_ms.testing import strict

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
    return {name: kernel for name, kernel in KERNELS.items() if isinstance(kernel, InPlace)}


def fit(dtype):
    """Those for arrays of this dtype."""
    return {name: kernel for name, kernel in kernels().items() if np.dtype(dtype).char in kernel.dtypes}


def text(kernel, real):
    """A function of the number of elements and the parameters, arrays as pointers."""
    given = kernel.samples("f")
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


@pytest.fixture
def host(library, monkeypatch):
    """The strict device runs the texts."""

    def launch(kernel, given):
        given = [x._a if type(x) is strict.ndarray else x for x in given]
        passed, kept = [ctypes.c_longlong(kernel.size(given))], []
        for (raw, kind, _), value in zip(kernel.declared, given, strict=True):
            if isinstance(value, np.ndarray):
                wide = value if raw or value.shape != (2, 1, 1) else np.broadcast_to(value, (2, 3, 3)).copy()
                kept.append(wide)
                passed.append(ctypes.c_void_p(wide.ctypes.data))
            elif kind == "int64":
                passed.append(ctypes.c_longlong(value))
            else:
                single = kind == "T" and real_of(kernel, given) == "float"
                passed.append((ctypes.c_float if single else ctypes.c_double)(value))
        getattr(library, f"{kernel.name}_{real_of(kernel, given)}")(*passed)

    yield from launching(launch, monkeypatch)


def launching(launch, monkeypatch):
    """The strict device with another ``launch``, which kernels check before they use it."""
    monkeypatch.setattr(strict, "launch", launch)
    monkeypatch.setattr(strict.RawModule, "runs_references", False)
    yield FAMILIES["strict"]
    for kernel in KERNELS.values():
        kernel.checked.clear()


def real_of(kernel, given):
    """The type that T is for these arguments."""
    kinds = [v.dtype for (_, k, _), v in zip(kernel.declared, given) if k == "T" and isinstance(v, np.ndarray)]
    return "double" if kinds[0] == np.float64 else "float"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_text_of_each_kernel_is_its_array_functions(host, dtype):
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
        assert kernel.problem(host, np.dtype(dtype).char, 0) == "", name


@pytest.fixture
def idle(monkeypatch):
    """A card whose kernels write nothing."""
    kernels()
    yield from launching(lambda kernel, given: None, monkeypatch)


def test_a_wrong_text_is_found_out(idle):
    for name, kernel in KERNELS.items():
        if isinstance(kernel, InPlace) and "f" in kernel.dtypes:
            assert "its reference" in kernel.problem(idle, "f", 0), name


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


def test_a_kernel_that_is_wrong_on_a_card_steps_aside_with_one_warning(idle, monkeypatch):
    def doubled(xp, x, y):
        xp.add(x, x, out=y)

    kernel = InPlace(doubled, "T x", "T y", ("y = x + x",))
    monkeypatch.delitem(KERNELS, "doubled")  # it is none of the library
    x, y = strict.xp.arange(3.0), strict.xp.empty(3)
    with pytest.warns(RuntimeWarning, match="the kernel doubled of float64 is not used on strict, where calls of the"):
        kernel(x, y)
    y[...] = 0
    kernel(x, y)  # without another warning
    assert strict.asnumpy(y).tolist() == [0, 2, 4]
    kernel.checked.clear()
    monkeypatch.setattr(strict, "launch", lambda kernel, given: kernel.rule(strict.xp, *given))
    kernel(x, y)
    assert kernel.checked == {("strict", "d"): ""}
