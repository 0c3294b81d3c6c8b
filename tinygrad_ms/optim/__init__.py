"""Optimizers, learning-rate schedules and gradient clipping."""

from tinygrad_ms.optim.adam import Adam, AdamW
from tinygrad_ms.optim.clipping import clip_grad_norm, clip_grad_value
from tinygrad_ms.optim.muon import Muon
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.schedules import CosineLR, LambdaLR, Schedule, StepLR, WarmupLR
from tinygrad_ms.optim.sgd import SGD

__all__ = [
    "SGD", "Adam", "AdamW", "CosineLR", "LambdaLR", "Muon", "Optimizer", "Schedule", "StepLR", "WarmupLR",
    "clip_grad_norm", "clip_grad_value",
]  # fmt: skip
