"""Recurrent layers: the plain RNN and the GRU, as cells (one token) and as layers (a whole sequence)."""

from math import sqrt

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.nn import init
from tinygrad_ms.nn.layers import check_last_axes, check_sizes
from tinygrad_ms.nn.module import Module, Parameter
from tinygrad_ms.ops.activations import relu
from tinygrad_ms.ops.affine import affine
from tinygrad_ms.ops.creation import zeros
from tinygrad_ms.ops.shapes import split, stack, unstack
from tinygrad_ms.ops.smooth_activations import sigmoid
from tinygrad_ms.ops.trigonometric import tanh
from tinygrad_ms.random import generator
from tinygrad_ms.scopes import scope


class RecurrentCell(Module):
    """h' = ``advance(W_ih x + b_ih, h)`` for one token x (batch, input_size); a subclass defines ``advance``.

    h (batch, hidden_size); None is zero. Raises ValueError for other shapes of x or h.
    weight_ih (gates hidden_size, input_size), weight_hh (gates
    hidden_size, hidden_size) and the biases of both, or none with ``bias=False``, start as
    U(-1/sqrt(hidden_size), 1/sqrt(hidden_size)), as in PyTorch, with the same names and order of gates.
    """

    gates = 1
    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(self, input_size, hidden_size, bias=True, *, rng=None, device=None, dtype=DEFAULT_FLOAT):
        check_sizes(self, input_size=input_size, hidden_size=hidden_size)
        self.input_size, self.hidden_size = input_size, hidden_size
        rng, bound, rows = generator(rng), 1 / sqrt(hidden_size), self.gates * hidden_size

        def parameter(*shape):
            return Parameter(init.uniform(shape, -bound, bound, rng, dtype), device=device)

        self.weight_ih, self.weight_hh = parameter(rows, input_size), parameter(rows, hidden_size)
        self.bias_ih, self.bias_hh = (parameter(rows), parameter(rows)) if bias else (None, None)

    def forward(self, x, h=None):
        if getattr(x, "ndim", 0) != 2:
            raise ValueError(
                f"{type(self).__name__}: x has shape {getattr(x, 'shape', ())}, expected one token of each sequence,"
                f" (batch, {self.input_size})"
            )
        return self.advance(self.read(x), self.start(x, h))

    def read(self, x):
        """W_ih x + b_ih for all tokens (..., input_size) at once: (..., gates hidden_size)."""
        check_last_axes(self, x, (self.input_size,), "input_size")
        return affine(x, self.weight_ih, 0.0 if self.bias_ih is None else self.bias_ih)

    def read_state(self, h):
        """W_hh h + b_hh for the state h: (batch, gates hidden_size)."""
        return affine(h, self.weight_hh, 0.0 if self.bias_hh is None else self.bias_hh)

    def start(self, x, h=None):
        """The first state for the sequences of x: h, or zeros for None. Raises ValueError for a wrong shape."""
        shape = (x.shape[0], self.hidden_size)
        if h is None:
            return zeros(shape, dtype=x.dtype, device=x.device)
        if (found := getattr(h, "shape", type(h).__name__)) != shape:
            raise ValueError(
                f"{type(self).__name__}: h has shape {found} beside x of shape {tuple(x.shape)}, expected"
                f" (batch, hidden_size), which is {shape}"
            )
        return h

    def advance(self, read, h):
        raise NotImplementedError(f"{type(self).__name__} has no advance(self, read, h)")

    def extra_repr(self):
        return f"{self.input_size}, {self.hidden_size}, bias={self.bias_ih is not None}"


class RNNCell(RecurrentCell):
    r"""$h' = \tanh(W_{ih} x + b_{ih} + W_{hh} h + b_{hh})$; ``nonlinearity="relu"`` in the place of tanh.

    Source: Elman 1990, "Finding structure in time".
    """

    def __init__(self, input_size, hidden_size, bias=True, *, nonlinearity="tanh", **options):
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"{type(self).__name__}: nonlinearity is {nonlinearity!r}, expected 'tanh' or 'relu'")
        super().__init__(input_size, hidden_size, bias, **options)
        self.nonlinearity = nonlinearity

    def advance(self, read, h):
        return (tanh if self.nonlinearity == "tanh" else relu)(read + self.read_state(h))


class GRUCell(RecurrentCell):
    r"""The gated recurrent unit, with the gates r (reset), z (update), n (new) in the rows of the weights:

        r = sigmoid(x_r + h_r),  z = sigmoid(x_z + h_z),  n = tanh(x_n + r h_n),  h' = n + z (h - n)

    with $[x_r, x_z, x_n] = W_{ih} x + b_{ih}$ and $[h_r, h_z, h_n] = W_{hh} h + b_{hh}$.
    Source: Cho et al. 2014, arXiv:1406.1078, with the reset gate after the product, as in PyTorch and cuDNN.
    """

    gates = 3

    def advance(self, read, h):
        cut = [2 * self.hidden_size]
        x_rz, x_n = split(read, cut, axis=-1)
        h_rz, h_n = split(self.read_state(h), cut, axis=-1)
        r, z = split(sigmoid(x_rz + h_rz), 2, axis=-1)
        n = tanh(x_n + r * h_n)
        return n + z * (h - n)


class Recurrent(Module):
    """A cell over sequences: x (batch, T, input_size) -> all h (batch, T, hidden_size), and the last one.

    h: the first state, (batch, hidden_size); None is zero. Raises ValueError for other shapes.
    """

    def __init__(self, cell: RecurrentCell):
        self.cell = cell

    def forward(self, x, h=None):
        if getattr(x, "ndim", 0) != 3 or not x.shape[1]:
            size, shape = self.cell.input_size, getattr(x, "shape", ())
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(shape)}, expected (batch, T, {size}) with T >= 1"
            )
        h, outputs = self.cell.start(x, h), []
        for token in unstack(self.cell.read(x), axis=1):
            with scope("step"):
                h = self.cell.advance(token, h)
            outputs.append(h)
        return stack(outputs, axis=1), h


class RNN(Recurrent):
    """An ``RNNCell`` over sequences; the arguments are those of the cell."""

    def __init__(self, input_size, hidden_size, bias=True, **options):
        super().__init__(RNNCell(input_size, hidden_size, bias, **options))


class GRU(Recurrent):
    """A ``GRUCell`` over sequences; the arguments are those of the cell."""

    def __init__(self, input_size, hidden_size, bias=True, **options):
        super().__init__(GRUCell(input_size, hidden_size, bias, **options))
