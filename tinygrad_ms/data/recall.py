"""Multi-query associative recall (MQAR): a sequence of key-value pairs, then keys; the task is to give their values.

Source: Arora et al. 2023, "Zoology", arXiv:2312.04927, section 3. Here pairs also repeat, by Zipf's law.
"""

import operator
from numbers import Integral
from typing import NamedTuple

import numpy as np


class Recall(NamedTuple):
    """A batch of sequences as host arrays.

    tokens: int64 (batch, length): key, value, key, value, ..., then the queries. A query is one key.
        Keys are 0 ... keys - 1, values are keys ... keys + values - 1.
    answers: int64 (batch, queries): the value of each query. A model predicts it at the place of the query.
    shown: int64 (batch, queries): how often the pair of the query appeared before. 1 is the tail of Zipf's law.
    """

    tokens: np.ndarray
    answers: np.ndarray
    shown: np.ndarray


class MQAR:
    """The generator of the task: ``MQAR().batch(32, rng)``.

    Each sequence draws ``pairs`` different keys of ``keys``, and as many different values of ``values``. The pairs fill
    ``slots`` places in random order. Each pair appears once; the other places are drawn from the same pairs with
    probability rank^-zipf. Then ``queries`` queries follow in random order, equally many for each pair. The length is
    2 slots + queries. With zipf=0 all pairs repeat equally often on average; with slots=pairs none repeats. Raises
    ValueError for numbers that do not fit each other.
    """

    def __init__(self, pairs=16, slots=48, queries=32, zipf=1.5, keys=64, values=64):
        for name, value in dict(pairs=pairs, slots=slots, queries=queries, keys=keys, values=values).items():
            if not isinstance(value, Integral):
                raise ValueError(f"MQAR: {name} is {value!r}; expected an integer")
        if not 1 <= pairs <= min(keys, values):
            raise ValueError(
                f"MQAR: pairs is {pairs}; expected 1 to {min(keys, values)}, the number of keys and values"
            )
        if slots < pairs:
            raise ValueError(f"MQAR: slots is {slots}; expected at least the {pairs} pairs, which all appear")
        if queries < 1 or queries % pairs:
            raise ValueError(
                f"MQAR: queries is {queries}; expected a multiple of the {pairs} pairs, all asked equally often"
            )
        if not zipf >= 0:
            raise ValueError(f"MQAR: zipf is {zipf}; expected an exponent of at least 0")
        self.pairs, self.slots, self.queries, self.zipf = pairs, slots, queries, zipf
        self.keys, self.values = keys, values

    @classmethod
    def uniform(cls, pairs=8, queries=16, **options):
        """The task without repeats: 8 pairs, 16 queries, 32 tokens. Every fast-weight layer learns it: a smoke test."""
        return cls(pairs, pairs, queries, zipf=0.0, **options)

    @property
    def vocabulary(self) -> int:
        """The number of different tokens."""
        return self.keys + self.values

    @property
    def length(self) -> int:
        """The number of tokens in a sequence. The last ``queries`` of them are the queries."""
        return 2 * self.slots + self.queries

    def batch(self, size, rng) -> Recall:
        """``size`` new sequences. rng: a seed or a numpy.random.Generator. Equal seeds give equal batches."""
        if operator.index(size) < 1:
            raise ValueError(f"MQAR.batch: size is {size}; expected at least 1")
        rng = np.random.default_rng(rng)
        keys, values = (distinct(rng, size, n, self.pairs) for n in (self.keys, self.values))
        values += self.keys
        weights = np.arange(1, self.pairs + 1) ** -float(self.zipf)
        repeats = rng.choice(self.pairs, (size, self.slots - self.pairs), p=weights / weights.sum())
        once = np.broadcast_to(np.arange(self.pairs), (size, self.pairs))
        order = rng.permuted(np.concatenate([once, repeats], axis=1), axis=1)
        asked = rng.permuted(np.tile(once, (1, self.queries // self.pairs)), axis=1)
        context = np.stack([pick(keys, order), pick(values, order)], axis=2).reshape(size, 2 * self.slots)
        counts = (order[:, :, None] == np.arange(self.pairs)).sum(axis=1)
        return Recall(np.concatenate([context, pick(keys, asked)], axis=1), pick(values, asked), pick(counts, asked))


def distinct(rng, size, n, count):
    """An array (size, count). Each row has different numbers of 0 ... n - 1, in random order."""
    return rng.permuted(np.broadcast_to(np.arange(n), (size, n)), axis=1)[:, :count]


def pick(table, index):
    return np.take_along_axis(table, index, axis=1)
