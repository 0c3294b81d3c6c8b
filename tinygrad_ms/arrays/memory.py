"""The memory of freed arrays: whether the C library keeps it for the next ones."""

import ctypes
import os
import sys

_kept = 0  # bytes, once keep_freed_memory has been called


def keep_freed_memory(size: int = 2**28) -> bool:
    """Let the process keep up to ``size`` bytes of freed arrays for the next arrays. Returns whether it worked.

    By default glibc returns freed memory above 128 KiB to the system. The next array then costs a page fault every
    4 KiB, which made training steps up to twice as long. The call changes the allocator of the whole process. So a
    program should make it, never a library. With ``TINYGRAD_MS_KEEP_MEMORY=1`` in the environment, the import makes it.
    If one of glibc's own variables (MALLOC_TRIM_THRESHOLD_ and the others) is set, this function changes nothing. On
    systems other than Linux with glibc it does nothing.
    """
    global _kept
    unknown = sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ)
    mallopt = None if unknown else getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
    # glibc asks the system for each array above 32 MiB; this limit is fixed.
    done = bool(mallopt(mmap_threshold, 2**25)) and bool(mallopt(trim_threshold, size))
    _kept = size if done else _kept
    return done


def memory_info() -> str:
    """What happens to the memory of freed arrays, for ``device_info``."""
    if _kept:
        return f"up to {_kept / 2**20:.0f} MiB of freed arrays are kept for the next ones"
    return "freed arrays go back to the system (tg.keep_freed_memory() keeps them for the next ones)"


if os.environ.get("TINYGRAD_MS_KEEP_MEMORY") == "1":
    keep_freed_memory()
