"""Modules, layers and initial values."""

from typing import TYPE_CHECKING

from tinygrad_ms.nn import init
from tinygrad_ms.nn.activations import (
    ELU,
    GELU,
    SELU,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from tinygrad_ms.nn.containers import ModuleDict, ModuleList, Sequential
from tinygrad_ms.nn.layers import Dropout, Embedding, Flatten, Identity, LayerNorm, Linear, RMSNorm
from tinygrad_ms.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, HuberLoss, L1Loss, MSELoss, NLLLoss, SmoothL1Loss
from tinygrad_ms.nn.module import Buffer, Module, Parameter, TransposedParameter, functional_call
from tinygrad_ms.nn.recurrent import GRU, RNN, GRUCell, RNNCell
from tinygrad_ms.nn.ttt_muon import TTTMuon, TTTMuonCell
from tinygrad_ms.spelling import missing

__all__ = [
    "ELU", "GELU", "GRU", "RNN", "SELU", "BCEWithLogitsLoss", "Buffer", "CrossEntropyLoss", "Dropout", "Embedding",
    "Flatten", "GRUCell", "HuberLoss", "Identity", "L1Loss", "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax",
    "MSELoss", "Module", "ModuleDict", "ModuleList", "NLLLoss", "Parameter", "RMSNorm", "RNNCell", "ReLU",
    "Sequential", "SiLU", "Sigmoid", "SmoothL1Loss", "Softmax", "Softplus", "TTTMuon", "TTTMuonCell", "Tanh",
    "TransposedParameter", "functional_call", "init",
]  # fmt: skip

if not TYPE_CHECKING:  # to which any name would be right

    def __getattr__(name):
        raise missing(f"module {__name__!r}", "torch.nn", name, __all__)
