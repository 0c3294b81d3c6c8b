"""``tg.compile``: record a step once, run the list many times.

In reading order: ``traced``, the array that sees every call of a library; ``trace``, the calls in their order;
``recorder``, one run of a step under a trace; ``plan``, what of it runs, and in which memory; ``source``, the plan as
Python; ``program``, the list that runs, and when it fits; ``guards``, what must be as it was; ``compiled``, the object
that the user calls.
"""

from tinygrad_ms.replay.compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
