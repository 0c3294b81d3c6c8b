"""Data sets of handwritten digits and clothes, as host arrays, and the loader that serves them in batches."""
from tinygrad_ms.data.datasets import (
    Dataset,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    train_test_split,
)
from tinygrad_ms.data.loader import DataLoader

__all__ = ["DataLoader", "Dataset", "load_digits", "load_fashion_mnist", "load_mnist", "train_test_split"]
