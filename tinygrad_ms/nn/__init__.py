"""Modules, layers and initial values."""

from tinygrad_ms.nn import init
from tinygrad_ms.nn.containers import Sequential
from tinygrad_ms.nn.layers import Dropout, Embedding, Flatten, Identity, LayerNorm, Linear, RMSNorm
from tinygrad_ms.nn.module import Buffer, Module, Parameter

__all__ = [
    "Buffer", "Dropout", "Embedding", "Flatten", "Identity", "LayerNorm", "Linear", "Module", "Parameter",
    "RMSNorm", "Sequential", "init",
]  # fmt: skip
