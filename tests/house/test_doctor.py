"""The doctor: each finding in words, what to do, and the exit status; a card is played by the strict device."""

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest

from tinygrad_ms import doctor
from tinygrad_ms.__main__ import main
from tinygrad_ms.testing import strict


def said(capsys, status):
    assert main(["doctor"]) == status
    return capsys.readouterr().out


def without_card(monkeypatch, reason="no NVIDIA driver was found (libcuda.so.1)", wheels=()):
    monkeypatch.setattr(doctor, "driver", lambda: (0, 0, reason))
    monkeypatch.setattr(doctor, "cupy_wheels", lambda: dict(wheels))


def test_on_a_cpu_alone_all_is_well_and_info_says_the_same(capsys, monkeypatch):
    without_card(monkeypatch)
    text = said(capsys, 0)
    for line in (
        "ok  cpu: a kernel of float64", "ok  cpu: products of two axes and of batches", "ok  cpu: msign, by products",
        "ok  cpu: gradients against central differences", "--  GPU: no NVIDIA driver", "none is needed",
        "--  CuPy: not installed", "this machine is ready",
    ):  # fmt: skip
        assert line in text
    assert main(["info"]) == 0 and capsys.readouterr().out == text


def test_cupy_without_a_card_is_no_fault(capsys, monkeypatch):
    without_card(monkeypatch, wheels={"cupy-cuda13x": "14.2.0"})
    assert "ok  CuPy: cupy-cuda13x 14.2.0" in said(capsys, 0)


def test_a_wrong_result_is_named_and_changes_the_status(capsys, monkeypatch):
    without_card(monkeypatch)
    right = doctor.exp
    monkeypatch.setattr(doctor, "exp", lambda x: right(x) * 1.001)
    text = said(capsys, 1)
    assert "!!  cpu: a kernel: ArithmeticError: the result is off by" in text
    assert "force-reinstall numpy" in text and "see the lines with !!" in text


def test_a_driver_that_does_not_start_is_a_fault(capsys, monkeypatch):
    without_card(monkeypatch, "the driver does not start (error 999)")
    text = said(capsys, 1)
    assert "!!  GPU: the driver does not start (error 999)" in text and "nvidia-smi must list it" in text


CARDS = {  # the driver, the packages, what CuPy says, what the doctor says
    "no CuPy": ((1, 13000), {}, None, "--  CuPy: not installed", 'pip install "cupy-cuda13x[ctk]" to use the GPU', 0),
    "no CuPy, older driver": ((2, 12040), {}, None, "driver: for CUDA 12.4 and older, 2 GPUs", "cupy-cuda12x[ctk]", 0),
    "two CuPys": (
        (1, 13000), {"cupy-cuda12x": "14.2", "cupy-cuda13x": "14.2"}, "x", "installed side by side",
        "pip uninstall cupy-cuda12x cupy-cuda13x, then pip install", 1,
    ),
    "a driver too old": (
        (1, 12040), {"cupy-cuda13x": "14.2"}, "CuPy is installed", "cupy-cuda13x needs a driver for CUDA 13",
        "cupy-cuda12x[ctk]", 1,
    ),
    "libraries missing": (
        (1, 13000), {"cupy-cuda13x": "14.2"}, "CuPy is installed, but libnvrtc.so.13 ...", "!!  CUDA: CuPy is",
        'pip install "cupy-cuda13x[ctk]" brings CuPy and the CUDA libraries that fit it', 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CARDS)
def test_what_is_wrong_with_a_card_is_said_with_what_mends_it(case, capsys, monkeypatch):
    (cards, cuda), wheels, problem, finding, fix, status = CARDS[case]
    monkeypatch.setattr(doctor, "driver", lambda: (cards, cuda, ""))
    monkeypatch.setattr(doctor, "cupy_wheels", lambda: wheels)
    monkeypatch.setattr(doctor, "probe_cuda", lambda: problem)
    text = said(capsys, status)
    assert finding in text and fix in text


@pytest.fixture
def card(monkeypatch):
    """A card that works, as far as the strict device can play one."""
    library = SimpleNamespace(
        linalg=strict.xp.linalg, eye=strict.xp.eye, arange=strict.xp.arange,
        ElementwiseKernel=lambda *source: lambda x: x + 1,
        cuda=SimpleNamespace(
            cublas=SimpleNamespace(getVersion=lambda handle: 130000), get_cublas_handle=lambda: 1,
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)), Device=strict.Device,
            runtime=SimpleNamespace(
                getDeviceProperties=lambda i: {"name": b"A card", "major": 9, "minor": 0},
                memGetInfo=lambda: (60 * 2**30, 80 * 2**30),
            ),
        ),
    )  # fmt: skip
    parse, computing, kernels = doctor.parse_device, doctor.computing, doctor.kernels
    monkeypatch.setattr(doctor, "driver", lambda: (1, 13000, ""))
    monkeypatch.setattr(doctor, "cupy_wheels", lambda: {"cupy-cuda13x": "14.2.0"})
    monkeypatch.setattr(doctor, "probe_cuda", lambda: None)
    monkeypatch.setattr(doctor, "parse_device", lambda d: (SimpleNamespace(xp=library), 0) if d == "cuda" else parse(d))
    monkeypatch.setattr(doctor, "computing", lambda d: computing("strict" if d == "cuda" else d))
    monkeypatch.setattr(doctor, "kernels", lambda d: kernels("strict"))
    return library


def test_a_card_that_works(card, capsys, monkeypatch):
    kernels = doctor.kernels
    monkeypatch.setattr(doctor, "kernels", lambda device: kernels("strict"))
    text = said(capsys, 0)
    for line in (
        "ok  driver: for CUDA 13.0 and older, 1 GPU\n", "ok  library cuBLAS: 130000", "ok  library cuSOLVER: ",
        "ok  library NVRTC: 13.0", "compute capability 9.0 (TF32 on request), 60.0 of 80.0 GiB free",
        "ok  strict: gradients against central differences", "ok  default device: cpu",
    ):  # fmt: skip
        assert line in text
    right, of = re.search(r"ok  strict: (\d+) of (\d+) kernels of this package right", text).groups()
    assert right == of and int(of) > 100


def test_a_library_that_is_missing_is_named(card, capsys):
    def gone(handle):
        raise ImportError("libcublas.so.13: cannot open shared object file")

    card.cuda.cublas.getVersion = gone
    assert "!!  library cuBLAS: ImportError: libcublas.so.13" in said(capsys, 1)


@pytest.mark.parametrize("found, status", [({"gelu float32": ""}, 0), ({"gelu float32": "", "rows float16": "off"}, 1)])
def test_the_kernels_say_of_themselves_whether_they_are_right(card, found, status, capsys, monkeypatch):
    kernels = ModuleType("tinygrad_ms.ops.fused.devices")
    kernels.self_check = lambda device: found
    monkeypatch.setitem(sys.modules, "tinygrad_ms.ops.fused.devices", kernels)
    text = said(capsys, status)
    assert f"strict: 1 of {len(found)} kernels of this package right" in text
    assert ("!!  strict: kernel rows float16: off" in text) == bool(status)


def test_the_real_driver_is_asked_without_cupy():
    count, version, reason = doctor.driver()
    assert count >= 0 and (bool(reason) != bool(count)) and isinstance(version, int)
    assert doctor.made_for("cupy-cuda12x") == 12 and doctor.made_for("cupy") == 0
