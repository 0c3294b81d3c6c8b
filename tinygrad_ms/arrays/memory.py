"""The memory of freed arrays: whether the C library keeps it for the next ones."""

import ctypes
import os
import sys

_kept = 0  # bytes, once keep_freed_memory has been called


def keep_freed_memory(size: int = 2**28) -> bool:
    """Let the process keep up to ``size`` bytes of freed arrays for the next ones; True where that was done.

    glibc gives back to the system what is free above 128 KiB, and the next array then costs a page fault every 4 KiB.
    That made training steps up to twice as long. The call changes the allocator of the whole process, so a program
    makes it, never a library; ``TINYGRAD_MS_KEEP_MEMORY=1`` in the environment makes it at import.
    If one of glibc's own variables (MALLOC_TRIM_THRESHOLD_ and the others) is set, this changes nothing. On other
    systems than Linux with glibc it does nothing.
    """
    global _kept
    if sys.platform != "linux" or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
    # Larger arrays than 32 MiB come from the system each time: this is glibc's limit.
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
