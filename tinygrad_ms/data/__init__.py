"""Data sets as host arrays (digits, clothes, recall, text), and a loader that serves them in batches."""

from tinygrad_ms.data.datasets import Dataset, load_digits, load_fashion_mnist, load_mnist, train_test_split
from tinygrad_ms.data.loader import DataLoader
from tinygrad_ms.data.recall import MQAR, Recall
from tinygrad_ms.data.text import Text, load_text, windows

__all__ = [
    "MQAR", "DataLoader", "Dataset", "Recall", "Text", "load_digits", "load_fashion_mnist", "load_mnist",
    "load_text", "train_test_split", "windows",
]  # fmt: skip
