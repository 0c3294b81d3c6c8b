"""Modules, layers and initial values."""

from tinygrad_ms.nn import init
from tinygrad_ms.nn.containers import Sequential
from tinygrad_ms.nn.module import Buffer, Module, Parameter

__all__ = ["Buffer", "Module", "Parameter", "Sequential", "init"]
