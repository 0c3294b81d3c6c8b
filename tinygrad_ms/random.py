"""Random numbers. All are drawn on the host by NumPy, so that every device starts from the same ones."""

from contextlib import contextmanager
from contextvars import ContextVar

import numpy

_default = None


def manual_seed(seed: int) -> "numpy.random.Generator":
    """Start the default generator anew, from ``seed`` (at first 0): initial weights and dropout masks follow."""
    global _default
    _default = numpy.random.default_rng(seed)
    return _default


def generator(rng=None) -> "numpy.random.Generator":
    """``rng`` as a generator: None is the default one, an integer seeds a new one, a Generator is itself."""
    if rng is None:
        return manual_seed(0) if _default is None else _default
    if isinstance(rng, numpy.random.Generator):
        return rng
    if isinstance(rng, (int, numpy.integer, numpy.random.SeedSequence)) and not isinstance(rng, bool):
        return numpy.random.default_rng(rng)
    raise TypeError(
        f"rng is {type(rng).__name__}; expected an integer seed, a numpy.random.Generator, or None for the"
        " default generator (tinygrad_ms.manual_seed)"
    )


def own_generator(rng=None) -> "numpy.random.Generator":
    """Like ``generator``, but None gives a child of the default one, which takes no numbers from it."""
    return generator().spawn(1)[0] if rng is None else generator(rng)


# --- running again with the same numbers --------------------------------------------------------------------

_records: ContextVar[tuple[dict, ...]] = ContextVar("tinygrad_ms.random.records", default=())


def drawing(rng: "numpy.random.Generator") -> "numpy.random.Generator":
    """``rng``, about to be drawn from in a forward: ``checkpoint`` must be able to draw the same again."""
    for record in _records.get():
        record.setdefault(id(rng), (rng, rng.bit_generator.state))
    return rng


@contextmanager
def recorded():
    """A record of every generator that is drawn from inside, as it was before."""
    record: dict[int, tuple] = {}
    token = _records.set((*_records.get(), record))
    try:
        yield record
    finally:
        _records.reset(token)


@contextmanager
def replayed(record):
    """Draw the numbers of ``record`` again inside; afterwards the generators go on where they were."""
    now = [(rng, rng.bit_generator.state) for rng, _ in record.values()]
    for rng, state in record.values():
        rng.bit_generator.state = state
    try:
        yield
    finally:
        for rng, state in now:
            rng.bit_generator.state = state
