"""Activation functions as modules, for Sequential. The functions and derivatives: ops/activations.py
and ops/smooth_activations.py."""

from tinygrad_ms.nn.module import Module
from tinygrad_ms.ops.activations import leaky_relu, log_softmax, relu, softmax
from tinygrad_ms.ops.elu import elu, selu
from tinygrad_ms.ops.gelu import gelu
from tinygrad_ms.ops.smooth_activations import sigmoid, silu, softplus
from tinygrad_ms.ops.trigonometric import tanh
from tinygrad_ms.spelling import respelled


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x):
        return relu(x)


class LeakyReLU(Module):
    """x where x > 0, else negative_slope x."""

    def __init__(self, negative_slope: float = 0.01):
        self.negative_slope = negative_slope

    def forward(self, x):
        return leaky_relu(x, negative_slope=self.negative_slope)

    def extra_repr(self):
        return f"negative_slope={self.negative_slope}"


class ELU(Module):
    """x where x > 0, else alpha (e^x - 1)."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = alpha

    def forward(self, x):
        return elu(x, alpha=self.alpha)

    def extra_repr(self):
        return f"alpha={self.alpha}"


class SELU(Module):
    """1.0507 elu(x, 1.6733)."""

    def forward(self, x):
        return selu(x)


class GELU(Module):
    """x Phi(x). Phi is the normal distribution function, or its approximation by "tanh"."""

    def __init__(self, approximate: str = "none"):
        self.approximate = approximate

    def forward(self, x):
        return gelu(x, approximate=self.approximate)

    def extra_repr(self):
        return f"approximate={self.approximate!r}"


class SiLU(Module):
    """x sigmoid(x)."""

    def forward(self, x):
        return silu(x)


class Sigmoid(Module):
    """1 / (1 + e^-x)."""

    def forward(self, x):
        return sigmoid(x)


class Tanh(Module):
    """tanh x."""

    def forward(self, x):
        return tanh(x)


class Softplus(Module):
    """ln(1 + e^(beta x)) / beta."""

    def __init__(self, beta: float = 1.0):
        self.beta = beta

    def forward(self, x):
        return softplus(x, beta=self.beta)

    def extra_repr(self):
        return f"beta={self.beta}"


class Softmax(Module):
    """e^x divided by its sum along ``axis``."""

    def __init__(self, axis: int = -1, **others):
        self.axis = respelled("Softmax", others, ["axis"]).get("axis", axis)

    def forward(self, x):
        return softmax(x, axis=self.axis)

    def extra_repr(self):
        return f"axis={self.axis}"


class LogSoftmax(Module):
    """x minus the logarithm of the sum of e^x along ``axis``."""

    def __init__(self, axis: int = -1, **others):
        self.axis = respelled("LogSoftmax", others, ["axis"]).get("axis", axis)

    def forward(self, x):
        return log_softmax(x, axis=self.axis)

    def extra_repr(self):
        return f"axis={self.axis}"
