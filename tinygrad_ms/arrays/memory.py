"""The memory of freed arrays: whether the C library keeps it for the next ones."""

import ctypes
import os
import sys


def keep_freed_memory(size=2**28):
    """Let glibc keep up to ``size`` bytes of freed arrays for the next ones, which else cost a page fault every 4 KiB.

    It gives back what is free above 128 KiB, which made training steps up to twice as long. Its own environment
    variables (MALLOC_TRIM_THRESHOLD_ and the others) go before. Elsewhere than on Linux with glibc this does nothing.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3  # <malloc.h>
            mallopt(mmap_threshold, 2**25)  # larger arrays come from the system each time: this is glibc's limit
            mallopt(trim_threshold, size)
