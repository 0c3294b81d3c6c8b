"""Data sets of handwritten digits and clothes, as host arrays."""
from tinygrad_ms.data.datasets import (
    Dataset,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    train_test_split,
)

__all__ = ["Dataset", "load_digits", "load_fashion_mnist", "load_mnist", "train_test_split"]
