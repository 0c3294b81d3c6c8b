"""Modules, layers and initial values."""

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
from tinygrad_ms.nn.containers import Sequential
from tinygrad_ms.nn.layers import Dropout, Embedding, Flatten, Identity, LayerNorm, Linear, RMSNorm
from tinygrad_ms.nn.module import Buffer, Module, Parameter, TransposedParameter, functional_call
from tinygrad_ms.nn.recurrent import GRU, RNN, GRUCell, RNNCell
from tinygrad_ms.nn.ttt_muon import TTTMuon, TTTMuonCell

__all__ = [
    "ELU", "GELU", "GRU", "RNN", "SELU", "Buffer", "Dropout", "Embedding", "Flatten", "GRUCell", "Identity",
    "LayerNorm", "LeakyReLU", "Linear", "LogSoftmax", "Module", "Parameter", "RMSNorm", "RNNCell", "ReLU",
    "Sequential", "SiLU", "Sigmoid", "Softmax", "Softplus", "TTTMuon", "TTTMuonCell", "Tanh", "TransposedParameter",
    "functional_call", "init",
]  # fmt: skip
