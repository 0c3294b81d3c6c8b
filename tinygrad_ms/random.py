"""Random numbers. Initial values are drawn on the host by NumPy, so that every device starts from the same ones.

What a training step draws on a device (dropout masks) is made there, from a seed that the host draws: ``bits``.
"""

import copy
from contextlib import contextmanager
from contextvars import ContextVar

import numpy

from tinygrad_ms.locks import lock_for_forks

_default = None


def manual_seed(seed: int) -> "numpy.random.Generator":
    """Seed the default generator, which starts with seed 0. Initial weights and dropout masks are drawn from it.

    >>> _ = tg.manual_seed(0)
    >>> a = tg.rand(2)
    >>> _ = tg.manual_seed(0)
    >>> (tg.rand(2) == a).all().item()
    True
    """
    global _default
    _default = numpy.random.default_rng(seed)
    return _default


def generator(rng=None) -> "numpy.random.Generator":
    """``rng`` as a generator. None gives the default one, an integer the seed of a new one."""
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
    """Like ``generator``, but None gives a child of the default one. Making the child draws no numbers."""
    return generator().spawn(1)[0] if rng is None else generator(rng)


def bits(xp, seed: int, count: int):
    """``count`` random numbers of 64 bits, uint64 (count,), made by ``xp`` on the current device; nothing waits.

    The generator SplitMix64, each number from its place in the sequence: the same on every device. seed: below 2^64.
    Source: Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators"; its mix is Stafford's 13.
    """
    return splitmix(xp.arange(1, count + 1, dtype="uint64"), numpy.uint64(seed))


def splitmix(z, seed):
    """The numbers of the places z, counted from 1, which are overwritten. It is also the text of a device kernel."""
    z *= numpy.uint64(0x9E3779B97F4A7C15)
    z += seed
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> numpy.uint64(shift)
        z *= numpy.uint64(factor)
    z ^= z >> numpy.uint64(31)
    return z


# --- running again with the same numbers --------------------------------------------------------------------

_records: ContextVar[tuple[list, ...]] = ContextVar("tinygrad_ms.random.records", default=())
_replay: ContextVar[list | None] = ContextVar("tinygrad_ms.random.replay", default=None)


_lock = lock_for_forks()


@contextmanager
def drawing(rng: "numpy.random.Generator"):
    """The generator from which a forward draws, instead of ``rng``. So ``checkpoint`` can draw the same numbers again.

    Only one thread at a time draws here. A replay draws from copies, because other threads may draw from ``rng``.
    """
    replay = _replay.get()
    if replay is not None:
        if not replay:
            raise RuntimeError(
                "checkpoint: random numbers were drawn that were not drawn the first time (was the mode changed?)"
            )
        rng = replay.pop()
    with _lock:
        for record in _records.get():
            record.append(copy.deepcopy(rng))
        yield rng


@contextmanager
def recorded():
    """A record of the drawings inside. It has a copy of the generator before each of them."""
    record: list = []
    token = _records.set((*_records.get(), record))
    try:
        yield record
    finally:
        _records.reset(token)


@contextmanager
def replayed(record):
    """Draw the numbers of ``record`` again inside. Raises RuntimeError if more or fewer numbers are drawn."""
    left = [copy.deepcopy(rng) for rng in reversed(record)]
    token = _replay.set(left)
    try:
        yield
    finally:
        _replay.reset(token)
    if left:
        raise RuntimeError(
            f"checkpoint: {len(left)} of {len(record)} random drawings were not made again (was the mode changed?)"
        )
