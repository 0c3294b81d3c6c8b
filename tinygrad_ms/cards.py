"""Machines with several cards: CuPy puts a result on the current card, whichever card its operands are on.

So forwards, rules and steps of optimizers run while the card of their arrays is the current one. On machines with one
card, and for NumPy, nothing is entered: ``SEVERAL`` is empty there.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from operator import itemgetter
from typing import Any, TypeVar

from tinygrad_ms.arrays.registry import BACKENDS, SEVERAL, Backend
from tinygrad_ms.surroundings import function_inside

F = TypeVar("F", bound=Callable[..., Any])
NOWHERE: Any = nullcontext()
_runners: dict[tuple, Backend] = {}


def on_card(array):
    """The context in which the card of a raw array, or of a Tensor, is the current one."""
    array = array if type(array) in BACKENDS else getattr(array, "data", None)
    backend = BACKENDS.get(type(array))
    return backend.multi_device(backend.index_of(array)) if backend is not None and backend.multi_device else NOWHERE


def card(backend: Backend, number: int):
    """The context in which that card of a library is the current one."""
    return backend.multi_device(number) if backend.multi_device else NOWHERE


def of_card(backend: Backend, array) -> Backend:
    """``backend``, whose forwards run on the card of ``array``."""
    if backend.multi_device is None or backend.recorder is not None:
        return backend
    key = backend.multi_device, backend.index_of(array)
    if key not in _runners:
        _runners[key] = replace(backend, recorder=Card(backend.xp, backend.multi_device(key[1])))
    return _runners[key]


class Card:
    """Stands where a recorder would, and runs a forward on one card."""

    def __init__(self, xp, context):
        self.xp, self.context = xp, context

    def run(self, primitive, arrays, constants):
        with self.context:
            return primitive.forward(self.xp, *arrays, **constants)


def there(function, x):
    """``function``, run while the card of the raw array, or Tensor, x is the current one."""
    if not SEVERAL or (context := on_card(x)) is NOWHERE:
        return function
    return function_inside(context, function)


def on_its_card(function: F) -> F:
    """Decorator: ``function`` runs while the card of its first argument is the current one."""

    @wraps(function)
    def call(*args, **kwargs):
        if not SEVERAL:
            return function(*args, **kwargs)
        return there(function, args[0] if args else next(iter(kwargs.values()), None))(*args, **kwargs)

    return call  # type: ignore[return-value]


# --- one after the other ----------------------------------------------------------------------------------------------


def by_card(items):
    """``items``, tuples that begin with an array, each while the card of its array is the current one."""
    return _entering(items, itemgetter(0)) if SEVERAL else items


def on_cards(nodes, gradients):
    """``nodes``, each while that card is the current one on which its rules leave what they send.

    That is the card of the gradients of its parents, if there are some (a copy between cards has its own gradient on
    another one), else the card of its own gradient.
    """

    def one_gradient(node):
        known = next((g for g in map(gradients.get, (*node.parents, node)) if g is not None), None)
        several = known.values() if isinstance(known, dict) else known if isinstance(known, tuple) else (known,)
        return next(g for g in several if g is not None or known is None)

    return _entering(nodes, one_gradient) if SEVERAL else nodes


def _entering(items, array_of):
    for item in items:
        with on_card(array_of(item)):
            yield item
