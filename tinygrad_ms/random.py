"""Random numbers. All are drawn on the host by NumPy, so that every device starts from the same ones."""

import numpy

_default = numpy.random.default_rng(0)


def manual_seed(seed: int) -> numpy.random.Generator:
    """Start the default generator anew (its first seed is 0): initial weights and dropout masks follow."""
    global _default
    _default = numpy.random.default_rng(seed)
    return _default


def generator(rng=None) -> numpy.random.Generator:
    """``rng`` as a generator: None is the default one, an integer seeds a new one, a Generator is itself."""
    if rng is None:
        return _default
    if isinstance(rng, numpy.random.Generator):
        return rng
    if isinstance(rng, (int, numpy.integer, numpy.random.SeedSequence)) and not isinstance(rng, bool):
        return numpy.random.default_rng(rng)
    raise TypeError(
        f"rng is {type(rng).__name__}; expected an integer seed, a numpy.random.Generator, or None for the"
        " default generator (tinygrad_ms.manual_seed)"
    )


def own_generator(rng=None) -> numpy.random.Generator:
    """Like ``generator``, but None gives a child of the default one, which takes no numbers from it."""
    return _default.spawn(1)[0] if rng is None else generator(rng)
