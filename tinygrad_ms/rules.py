"""All the decorators that make primitives: ``@tg.rules.linear(...)``. (``tg.linear`` itself is the affine op.)

They are the decorators of the engine, but each call of their primitives is checked (``own_primitives``).
"""

import inspect
from collections.abc import Callable
from functools import update_wrapper, wraps
from typing import TYPE_CHECKING, Any

from tinygrad_ms.engine import primitive as engine
from tinygrad_ms.engine.around.signatures import Op, P
from tinygrad_ms.own_primitives import CHECKS

__all__ = ["custom_vjp", "elementwise", "linear", "multilinear", "no_derivative", "primitive"]


def checked(kind):
    """The decorator ``kind``. Its primitives must satisfy ``CHECKS``."""
    return wraps(kind)(lambda *rules, **facts: kind(*rules, checks=CHECKS, **facts))


if TYPE_CHECKING:
    from tinygrad_ms.engine.primitive import elementwise, linear, multilinear, no_derivative, primitive
else:
    elementwise, linear, multilinear = checked(engine.elementwise), checked(engine.linear), checked(engine.multilinear)
    no_derivative, primitive = checked(engine.no_derivative), checked(engine.primitive)


def custom_vjp(vjp, jvp=None, **facts) -> Callable[[Callable[P, Any]], Op[P]]:
    """Hide a black box behind a rule: ``@custom_vjp(lambda g, x, y: ...)`` above a function of raw arrays.

    The function may call anything (SciPy, a solver, another language). The rule is written as for ``primitive``. If the
    rule is made of operators and ops, it can be differentiated in turn.

    >>> @tg.custom_vjp(lambda g, x: g * 2 * x)
    ... def square(x):
    ...     return x * x
    >>> tg.grad(square)(3.0).item()
    6.0
    """

    def decorate(function):
        def forward(xp, *arrays, **constants):
            return function(*arrays, **constants)

        update_wrapper(forward, function)
        parameters = list(inspect.signature(function).parameters.values())
        kind = min((p.kind for p in parameters), default=inspect.Parameter.POSITIONAL_ONLY)
        signature = inspect.Signature([inspect.Parameter("xp", kind), *parameters])
        vars(forward).update(__signature__=signature)
        return primitive(vjp, jvp, **facts)(forward)

    return decorate
