"""What surrounds a call and must surround it again when ``checkpoint`` runs it a second time."""

from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

_entered: ContextVar[tuple] = ContextVar("tinygrad_ms.surroundings", default=())

current = _entered.get  # what was entered here, outermost first


@contextmanager
def surrounded(enter):
    """Run the block inside the context manager ``enter()``, which can be made again."""
    token = _entered.set((*_entered.get(), enter))
    try:
        with enter():
            yield
    finally:
        _entered.reset(token)


@contextmanager
def again(entered):
    """Run the block inside all that ``current()`` gave."""
    with ExitStack() as stack:
        for enter in entered:
            stack.enter_context(surrounded(enter))
        yield
