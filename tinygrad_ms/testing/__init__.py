"""Checks of derivatives, and the strict device for tests without a GPU: NumPy that behaves like CuPy.

Importing this module registers ``device="strict"``.
"""

from tinygrad_ms.arrays.registry import Backend, register
from tinygrad_ms.testing import strict
from tinygrad_ms.testing.differences import GradcheckError, check_jvp, gradcheck, gradgradcheck
from tinygrad_ms.testing.orders import check_grads
from tinygrad_ms.testing.strict import SyncForbidden, forbid_sync

__all__ = [
    "GradcheckError", "SyncForbidden", "check_grads", "check_jvp", "forbid_sync", "gradcheck", "gradgradcheck",
    "strict",
]  # fmt: skip


def from_host(host, index):
    return strict.asarray(host)


register(Backend("strict", strict.xp, strict.ndarray, from_host, strict.asnumpy))
