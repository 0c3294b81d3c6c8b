"""Compiled kernels on the threads of BLAS: the same numbers as without them, beside products, and after a fork."""

import ctypes
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.ops import fused
from tinygrad_ms.ops.fused import jobs, team

pytestmark = pytest.mark.skipif(not fused.INSTALLED, reason="numba is not installed: pip install numba")
ROOT = Path(__file__).resolve().parents[2]


def blas(what):
    library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
    return next(getattr(library, name.format(what)) for name in team.NAMES if hasattr(library, name.format(what)))


@pytest.fixture
def two_of_blas():
    """BLAS has two threads, so a call on two of them has somebody to run it, on any machine."""
    if team.team() is None:
        pytest.skip("NumPy has no OpenBLAS with threads of its own")
    before = blas("get_num_threads")()
    blas("set_num_threads")(2)
    tg.set_num_threads(2)
    yield
    blas("set_num_threads")(before)
    tg.set_num_threads(None)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f")


def of_many_kernels():
    """Kernels of elements, with constants and long results; of rows, with sums and labels; of matrices; a chain."""
    x, w, b, m = numbers(1000, 300), numbers(300, seed=1), numbers(300, seed=2), numbers(200, 32, 32) / 8
    labels, found = np.random.default_rng(3).integers(0, 300, 1000), []
    for function, *given in (
        (tg.gelu, x), (tg.elu, x), (tg.silu, numbers(2000, 1000)), (tg.softmax, x), (tg.softmax, numbers(2000, 1000)),
        (tg.layer_norm, x, w, b), (lambda z: tg.cross_entropy(z, labels), x), (tg.matmul, m, m.mT), (tg.matmul, m, m),
        (lambda z: tg.msign_unrolled(z, steps=3), m),
    ):  # fmt: skip
        tensors = [tg.tensor(a, requires_grad=True) for a in given]
        y = function(*tensors)
        (y * y).sum().backward()
        found += [y.numpy(), *(t.grad.numpy() for t in tensors)]
    p = tg.nn.Parameter(x)
    optimizer = tg.optim.AdamW([p], lr=0.1)
    p.grad = tg.tensor(x)
    optimizer.step()
    step = tg.compile(lambda z: (tg.exp(-z * z) * tg.sin(z) + z).sum())
    return [*found, p.numpy(), *(step(tg.tensor(x)).numpy() for _ in range(3))]


def test_the_numbers_are_the_same_with_and_without_the_team(two_of_blas, monkeypatch):
    calls = []
    original = jobs.Job.__call__
    monkeypatch.setattr(
        jobs.Job, "__call__", lambda job, *given: (calls.append(team.members()), original(job, *given))[1]
    )
    monkeypatch.setattr(team, "FEW", 1000)
    monkeypatch.setattr(team, "MANY", 1000)
    shared = of_many_kernels()
    assert len(calls) > 20 and set(calls) == {2}
    calls.clear()
    with monkeypatch.context() as without:
        without.setattr(team, "team", lambda: None)
        by_python = of_many_kernels()
    assert len(calls) > 20 and set(calls) == {1}
    tg.set_num_threads(1)
    for a, b, c in zip(shared, by_python, of_many_kernels()):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_a_limit_for_blas_is_one_for_kernels(two_of_blas):
    assert team.members() == 2
    blas("set_num_threads")(1)
    assert team.members() == 1


def test_a_job_refuses_what_its_machine_code_was_not_made_for(two_of_blas):
    from numba.core.errors import TypingError

    x = numbers(100_000)
    kernel = fused.find("relu", x)
    job = kernel.job(x.dtype)
    near = np.empty((2, 0), "f")
    job(50_000, 100_000, x, y := np.empty_like(x), near)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    for wrong in (x.astype("d"), x.reshape(500, 200), np.repeat(x, 2)[::2]):
        with pytest.raises(TypingError, match=r"was made for array\(float32, 1d, C\), and it gets"):
            job(50_000, 100_000, wrong, y, near)


def test_threads_of_python_do_what_numba_cannot_compile(two_of_blas, monkeypatch):
    x = numbers(100_000)
    kernel = fused.find("relu", x)
    job = jobs.Job(kernel.made[x.dtype], kernel.made[x.dtype].signatures[0], kernel.hows())
    monkeypatch.setattr(job, "text", lambda: ("@job\ndef job(words):\n    nonsense(words)", 4))
    y, near = np.empty_like(x), np.empty((2, 0), "f")
    with pytest.warns(RuntimeWarning, match="relu_loop cannot run on the threads of BLAS"):
        job(50_000, 100_000, x, y, near)
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    job(50_000, 100_000, x, y, near)  # without another warning


@pytest.mark.parametrize("missing", [OSError, AttributeError])
def test_another_blas_has_no_team(monkeypatch, missing):
    def library(path):
        if missing is OSError:
            raise OSError
        return object()  # it has no function of any name

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert team.team.__wrapped__() is None


def test_an_openblas_with_threads_of_openmp_has_no_team(monkeypatch):
    class OpenMP:
        gotoblas_pthread = ctypes.CFUNCTYPE(None)(lambda: None)
        openblas_get_parallel = staticmethod(lambda: 2)
        openblas_get_num_threads = staticmethod(lambda: 2)

    monkeypatch.setattr(ctypes, "CDLL", lambda path: OpenMP)
    assert team.team.__wrapped__() is None
    monkeypatch.setattr(OpenMP, "openblas_get_parallel", staticmethod(lambda: 1))
    assert team.team.__wrapped__()[1]() == 2


BESIDE_PRODUCTS = """
import threading, numpy as np, tinygrad_ms as tg
x, a = np.linspace(-5, 5, 300_000).astype("f"), np.random.default_rng(0).normal(size=(400, 400)).astype("f")
right, product, wrong = tg.gelu(x), a @ a, []

def kernels():
    wrong.extend(not np.array_equal(tg.gelu(x), right) for _ in range(60))

def products():
    wrong.extend(not np.allclose(a @ a, product, atol=1e-3) for _ in range(60))

threads = [threading.Thread(target=f) for f in (kernels, products, kernels)]
[t.start() for t in threads]
[t.join() for t in threads]
assert len(wrong) == 180 and not any(wrong)
import os
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(tg.gelu(x), right) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
kernels()
assert not any(wrong)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_kernels_run_beside_products_and_after_a_fork():
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", BESIDE_PRODUCTS]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "OPENBLAS_NUM_THREADS": "2"}, check=True, timeout=120)
