"""Locks that a forked process can use: the child lacks the thread that may hold one."""

import os
from threading import RLock


def lock_for_forks():
    """A lock that its owner may take again. A fork waits until nobody else holds it."""
    lock = RLock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
