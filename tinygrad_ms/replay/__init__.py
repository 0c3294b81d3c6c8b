"""``tg.compile``: record a step once, run the list many times.

The files in reading order: ``traced`` is the array that sees every call of a library. ``trace`` holds the calls in
their order. ``recorder`` records one run of a step. ``plan`` decides which calls run, and in which memory; ``small``,
``gathered`` and ``fusion`` are its parts. ``source`` writes the plan as Python. ``program`` runs the list
and knows when it fits. ``guards`` keeps the values that must not have changed. ``compiled`` is the object that the user
calls.
"""

from tinygrad_ms.replay.compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
