"""Functions that a replay of ``tg.compile`` calls anew each time, instead of replaying their array calls.

They are updates of parameters, clipping, and random numbers.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from tinygrad_ms.engine.around.modes import current_state, notify

__all__: list[str] = []

F = TypeVar("F", bound=Callable[..., Any])


def live(effect: str) -> Callable[[F], F]:
    """Decorator: observers hear ``before_live(function, args, kwargs, effect)`` and ``after_live(result)``.

    effect: "writes" into parameters, gradients or options; "draws" random numbers; "makes" a new tensor.
    """

    def decorate(function):
        @wraps(function)
        def call(*args, **kwargs):
            if not (hooks := current_state().hooks):
                return function(*args, **kwargs)
            notify(hooks, "before_live", function, args, kwargs, effect)
            result = function(*args, **kwargs)
            notify(hooks, "after_live", result)
            return result

        return call  # type: ignore[return-value]

    return decorate
