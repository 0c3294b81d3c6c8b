"""Serves host arrays as batches of tensors."""

import math
from numbers import Integral

import numpy as np

from tinygrad_ms.data.datasets import Dataset, rows_of, whole
from tinygrad_ms.engine.around.constructors import tensor
from tinygrad_ms.world import joined


class DataLoader:
    """Serves arrays of equal length as tuples of Tensors, `batch_size` rows at a time.

        for x, y in DataLoader(features, labels, batch_size=64, shuffle=True, seed=0):

    arrays: host arrays with the same number of rows, or one Dataset, which means its images and labels. They keep
        their dtypes and are not copied. Each batch is a copy on `device`; None is the default device.
    shuffle: a new order in each epoch. It depends only on (seed, epoch), so a resumed run sees the same batches.
    drop_last: leave out a last batch that is smaller than the others.
    shard: in a job of several ranks (``distributed.init``), each rank gets its part of every batch. The parts differ by
        at most one row, and batch_size counts the rows of all ranks together. None means: only with `shuffle`. If a
        batch has fewer rows than there are ranks, some ranks get a row of another rank; it has weight 0 under
        ``DataParallel``.
    Raises ValueError for arrays of unequal length, no rows, batch_size < 1, or if drop_last leaves no batch.

    Each pass over the loader is one epoch, even if it ends early or runs beside another pass. `state_dict` gives the
    place in the pass that began last.

    >>> loader = tg.data.DataLoader(np.arange(5.0), np.arange(5), batch_size=2, shuffle=True, seed=0)
    >>> len(loader), [x.shape for x, y in loader]
    (3, [(2,), (2,), (1,)])
    """

    def __init__(self, *arrays, batch_size, shuffle=False, seed=0, drop_last=False, device=None, shard=None):
        if len(arrays) == 1 and isinstance(arrays[0], Dataset):
            arrays = (arrays[0].images, arrays[0].labels)
        self.arrays = rows_of("DataLoader", arrays)
        self.batch_size = whole(batch_size, "DataLoader: batch_size", 1)
        self.seed = whole(seed, "DataLoader: seed", 0)
        self.shuffle, self.drop_last, self.device = shuffle, drop_last, device
        self.shard = bool(shuffle if shard is None else shard)
        if len(self) == 0:
            raise ValueError(
                f"DataLoader: batch_size {batch_size} is more than the {self.size} rows, and "
                "drop_last=True leaves no batch; use a smaller batch_size or drop_last=False"
            )
        self.epoch = 0  # the number of the pass that began last; when that has ended, of the next one
        self.batch = 0  # the number of batches that this pass has served
        self._next = 0  # the number of the next pass
        self._resuming = False

    @property
    def size(self):
        """The number of rows."""
        return len(self.arrays[0])

    def __len__(self):
        """The number of batches in one epoch."""
        return self.size // self.batch_size if self.drop_last else math.ceil(self.size / self.batch_size)

    def __iter__(self):
        epoch, first = (self.epoch, self.batch) if self._resuming else (self._next, 0)
        self._resuming = False
        self.epoch, self.batch, self._next = epoch, first, epoch + 1
        order = self._order(epoch)
        for batch in range(first, len(self)):
            rows = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            if self.epoch == epoch:  # if not, another pass has begun since, as in zip(loader, loader)
                self.batch = batch + 1
            if self.shard:
                rows = rows[joined().part(len(rows))]
            try:
                yield tuple(tensor(array[rows], device=self.device) for array in self.arrays)
            finally:
                joined().idle = False
        if self.epoch == epoch:
            self.epoch, self.batch = epoch + 1, 0

    def _order(self, epoch):
        if not self.shuffle:
            return np.arange(self.size)
        # In NumPy, (seed, 0) gives the same numbers as `seed`, which probably made the split. So we use epoch + 1.
        return np.random.default_rng((self.seed, epoch + 1)).permutation(self.size)

    def state_dict(self):
        """The place in the data. If it is saved after the step on a batch, a resumed run starts with the next batch."""
        finished = self.batch == len(self)
        return {"epoch": self.epoch + finished, "batch": 0 if finished else self.batch, **self._settings()}

    def load_state_dict(self, state):
        """Continue from a `state_dict()`. Raises KeyError or ValueError if the loaders have different settings."""
        if not isinstance(state, dict):
            raise ValueError(f"DataLoader.load_state_dict: the state is {type(state).__name__}, expected a dict")
        settings = self._settings()
        missing = [key for key in ("epoch", "batch", *settings) if key not in state]
        if missing:
            raise KeyError(f"DataLoader.load_state_dict: {', '.join(missing)} missing; found {list(state)}")
        other = [f"{key} was {state[key]} and is {now}" for key, now in settings.items() if state[key] != now]
        if other:
            raise ValueError(
                f"DataLoader.load_state_dict: {'; '.join(other)}. The batches would not be those of the saved run"
            )
        if not all(isinstance(state[key], Integral) for key in ("epoch", "batch")):
            raise ValueError(
                f"DataLoader.load_state_dict: epoch is {state['epoch']!r} and batch {state['batch']!r},"
                " expected integers"
            )
        if state["epoch"] < 0 or not 0 <= state["batch"] < len(self):
            raise ValueError(
                f"DataLoader.load_state_dict: epoch {state['epoch']}, batch {state['batch']} is "
                f"no place in epochs of {len(self)} batches"
            )
        self.epoch, self.batch, self._resuming = state["epoch"], state["batch"], True

    def _settings(self):
        return {
            "size": self.size,
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "drop_last": self.drop_last,
        }
