"""Checks of derivatives, and the strict device for tests without a GPU: NumPy that behaves like CuPy.

Importing this module registers ``device="strict"``.
"""

from contextlib import contextmanager
from dataclasses import replace

from tinygrad_ms.arrays.registry import FAMILIES, SEVERAL, Backend, register
from tinygrad_ms.launches import OF_FAMILIES
from tinygrad_ms.testing import strict
from tinygrad_ms.testing.differences import GradcheckError, check_jvp, gradcheck, gradgradcheck
from tinygrad_ms.testing.orders import check_grads
from tinygrad_ms.testing.strict import SyncForbidden, forbid_sync

__all__ = [
    "GradcheckError", "SyncForbidden", "check_grads", "check_jvp", "forbid_sync", "gradcheck", "gradgradcheck",
    "strict", "two_devices",
]  # fmt: skip


def from_host(host, index):
    with strict.Device(index):
        return strict.asarray(host)


@contextmanager
def two_devices():
    """Give the strict device a second card, ``"strict:1"``, inside the block.

    As on CuPy, results land on the current card, which is number 0 unless somebody enters ``strict.Device(1)``, and a
    kernel raises ValueError for operands on another card than the current one.
    """
    before = FAMILIES["strict"]
    register(replace(before, index_of=lambda array: array._device, multi_device=strict.Device))
    try:
        yield
    finally:
        del SEVERAL[strict.ndarray]
        register(before)


register(Backend("strict", strict.xp, strict.ndarray, from_host, strict.asnumpy))
OF_FAMILIES["strict"] = strict
