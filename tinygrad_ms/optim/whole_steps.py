"""A step is made as a whole or not at all. If an update raises, everything is put back."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_card, on_its_card
from tinygrad_ms.float_errors import STATE

RAISE_NOTHING: set[Callable] = (
    set()
)  # updates that raise nothing by themselves, once ``step`` has checked what they get


ELEMENTWISE: set[Callable] = set()  # updates that do the same to each element, with + - * / and roots


def raises_nothing(update):
    """Mark an ``update`` of that kind: no copies are kept for it."""
    RAISE_NOTHING.add(update)
    return update


def elementwise(update):
    """Mark an ``update`` of that kind: it may get many parameters end to end."""
    ELEMENTWISE.add(update)
    return raises_nothing(update)


# filters of warnings (the list, its first item, its length) and what NumPy does at errors ...
_known: list = [None, None, 0, None]


def arithmetic_raises() -> bool:
    """Whether an overflow, say, may raise here, as a floating-point error or as a warning that is an error."""
    filters, errors = warnings.filters, STATE.get() if STATE is not None else numpy.geterr()
    known, first, count, harmless = _known
    if filters is known and len(filters) == count and filters[0] is first and errors == harmless:
        return False
    if not filters or not {"ignore", "warn"}.issuperset(numpy.geterr().values()):
        return True
    if any(action == "error" and issubclass(RuntimeWarning, kind) for action, _, kind, *_ in filters):
        return True
    _known[:] = filters, filters[0], len(filters), errors  # ... of which all that is known already
    return False


@contextmanager
def undone_on_error(parameters, states) -> Iterator[None]:
    """If the block raises, restore the values of the parameters and their entries in ``states``.

    Arrays keep their identity. An update that keeps values elsewhere has to restore these itself.
    """
    before = [(p, copied(p.data), p.version_counter()[0]) for p in parameters]
    entries = [(p, states[p], [(k, v, copied(v)) for k, v in states[p].items()]) for p in parameters if p in states]
    try:
        yield
    except BaseException:  # Ctrl-C as well
        for p, array, version in before:
            with on_card(array):
                p.data[...] = array
            p.version_counter()[0] = version
            states.pop(p, None)
        for p, entry, values in entries:
            entry.clear()
            for name, value, copy in values:
                if type(value) in BACKENDS:
                    with on_card(value):
                        value[...] = copy
                entry[name] = value if type(value) in BACKENDS else copy
            states[p] = entry
        raise


@on_its_card
def copied(value):
    return value.copy() if type(value) in BACKENDS else deepcopy(value)
