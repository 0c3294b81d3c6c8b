"""Optimizers, learning-rate schedules and gradient clipping."""

from typing import TYPE_CHECKING

from tinygrad_ms.optim.adam import Adam, AdamW
from tinygrad_ms.optim.clipping import clip_grad_norm, clip_grad_value
from tinygrad_ms.optim.muon import Muon
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.rmsprop import RMSprop
from tinygrad_ms.optim.schedules import CosineLR, LambdaLR, Schedule, StepLR, WarmupLR
from tinygrad_ms.optim.sgd import SGD
from tinygrad_ms.spelling import missing

__all__ = [
    "SGD", "Adam", "AdamW", "CosineLR", "LambdaLR", "Muon", "Optimizer", "RMSprop", "Schedule", "StepLR",
    "WarmupLR", "clip_grad_norm", "clip_grad_value",
]  # fmt: skip

if not TYPE_CHECKING:  # to which any name would be right

    def __getattr__(name):
        raise missing(f"module {__name__!r}", "torch.optim", name, __all__)
