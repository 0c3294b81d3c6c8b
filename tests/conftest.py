"""The suite runs on the CPU unless a test asks for another device, whatever this machine has."""

import os

import pytest
from hypothesis import settings

import tinygrad_ms as tg
import tinygrad_ms.testing  # makes device="strict" known

os.environ["TINYGRAD_MS_DEVICE"] = "cpu"  # for the processes that tests start
settings.register_profile("suite", derandomize=True, deadline=None, database=None)  # the same cases in every run
settings.load_profile("suite")
DEVICES = ["cpu", "strict", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(autouse=True)
def default_device():
    """Pinned anew for every test: one that changes it harms no other."""
    tg.set_default_device("cpu")


def require(device: str) -> str:
    """The device, or a visible skip with the reason why this machine has none."""
    if device.startswith("cuda"):
        reason = tg.device_info()["cuda"]
        if reason.startswith("not usable"):
            pytest.skip(f"cuda is {reason}")
    return device


@pytest.fixture(params=DEVICES)
def device(request) -> str:
    """Each device in turn: "cpu", "strict" (NumPy that behaves as CuPy) and, where there is a GPU, "cuda"."""
    return require(request.param)
