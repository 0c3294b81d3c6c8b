"""``tg.compile``: record a step once, run the list many times."""

from tinygrad_ms.replay.compiled import Compiled, compile

__all__ = ["Compiled", "compile"]
