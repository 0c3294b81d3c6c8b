"""Layers: Linear, Embedding, LayerNorm, RMSNorm, Dropout, Flatten, Identity."""

from math import prod, sqrt

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, is_float
from tinygrad_ms.cards import card
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.nn import init
from tinygrad_ms.nn.module import Module, Parameter
from tinygrad_ms.ops.affine import affine
from tinygrad_ms.ops.fused import calls
from tinygrad_ms.ops.indexing import embedding
from tinygrad_ms.ops.live import live
from tinygrad_ms.ops.normalization import layer_norm, rms_norm
from tinygrad_ms.ops.operands import as_number, as_operand
from tinygrad_ms.options import as_int, is_int
from tinygrad_ms.random import bits, drawing, generator, own_generator

BLOCK, FEW = 1 << 16, 4096  # numbers of a mask that are drawn together; for fewer the calls take the time


class Linear(Module):
    r"""An affine map of the last axis, $y = x W^T + b$: (..., in_features) -> (..., out_features).

    weight (out_features, in_features) and bias (out_features,), or None with ``bias=False``, start as
    U(-1/sqrt(in_features), 1/sqrt(in_features)), as in PyTorch. rng, dtype: see ``nn.init``. For other initial values
    write ``layer.weight = nn.Parameter(nn.init.he_normal(layer.weight.shape))``.
    Raises ValueError for an input whose last axis is not in_features.

    >>> layer = tg.nn.Linear(3, 2, rng=0)
    >>> layer
    Linear(in_features=3, out_features=2, bias=True)
    >>> layer(np.ones((5, 3), "float32")).shape
    (5, 2)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, in_features, out_features, bias=True, *, rng=None, device=None, dtype=DEFAULT_FLOAT):
        check_sizes(self, in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        rng, bound = generator(rng), 1 / sqrt(in_features)
        self.weight = Parameter(init.uniform((out_features, in_features), -bound, bound, rng, dtype), device=device)
        self.bias = Parameter(init.uniform((out_features,), -bound, bound, rng, dtype), device=device) if bias else None

    def forward(self, x):
        return affine(x, self.weight, 0.0 if self.bias is None else self.bias)

    def extra_repr(self):
        return f"in_features={self.in_features}, out_features={self.out_features}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors: integers of any shape (...) -> (..., embedding_dim), row i of the weight for i.

    weight (num_embeddings, embedding_dim) starts as N(0, 1), as in PyTorch. The row ``padding_idx`` starts as zeros and
    gets no gradient; it is for the padding of short sequences. Raises IndexError for an integer outside
    0 ... num_embeddings - 1 (the host waits for a GPU to know it) and for values that are not integers.

    >>> tg.nn.Embedding(10, 4)([1, 2, 1]).shape
    (3, 4)
    """

    weight: Parameter

    def __init__(
        self, num_embeddings, embedding_dim, padding_idx=None, *, rng=None, device=None, dtype=DEFAULT_FLOAT
    ):  # fmt: skip
        check_sizes(self, num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = padding_idx
        table = init.normal((num_embeddings, embedding_dim), rng=rng, dtype=dtype)
        if padding_idx is not None:
            if not -num_embeddings <= as_int(padding_idx, "Embedding: padding_idx") < num_embeddings:
                raise ValueError(f"Embedding: padding_idx is {padding_idx}, expected a row of {num_embeddings}")
            table[padding_idx] = 0
        self.weight = Parameter(table, device=device)

    def forward(self, indices):
        return embedding(self.weight, indices, self.padding_idx)

    def extra_repr(self):
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"


class LayerNorm(Module):
    r"""$y = w (x - \mu) / \sqrt{\sigma^2 + \epsilon} + b$, the mean and variance over the last axes.

    shape: the sizes of these axes, an int or a tuple. weight starts as ones; bias as zeros, or is None with
    ``bias=False``. Source: Ba, Kiros and Hinton 2016, arXiv:1607.06450, equation 3.
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(self, shape, eps: float = 1e-5, bias=True, *, device=None, dtype=DEFAULT_FLOAT):
        self.shape, self.eps = as_shape(self, shape), eps
        self.weight = Parameter(init.ones(self.shape, dtype), device=device)
        self.bias = Parameter(init.zeros(self.shape, dtype), device=device) if bias else None

    def forward(self, x):
        check_last_axes(self, x, self.shape, "shape")
        return layer_norm(x, self.weight, self.bias, self.eps, axes=range(-len(self.shape), 0))

    def extra_repr(self):
        return f"{self.shape}, eps={self.eps}, bias={self.bias is not None}"


class RMSNorm(Module):
    r"""$y = w x / \sqrt{\mathrm{mean}(x^2) + \epsilon}$, the mean over the last axes.

    shape: the sizes of these axes, an int or a tuple. weight starts as ones.
    Source: Zhang and Sennrich 2019, arXiv:1910.07467, equation 4.
    """

    weight: Parameter

    def __init__(self, shape, eps: float = 1e-6, *, device=None, dtype=DEFAULT_FLOAT):
        self.shape, self.eps = as_shape(self, shape), eps
        self.weight = Parameter(init.ones(self.shape, dtype), device=device)

    def forward(self, x):
        check_last_axes(self, x, self.shape, "shape")
        return rms_norm(x, self.weight, self.eps, axes=range(-len(self.shape), 0))

    def extra_repr(self):
        return f"{self.shape}, eps={self.eps}"


class Dropout(Module):
    """In training, set each element to zero with probability ``p`` and divide the others by 1 - p. Else return x.

    rng: a seed or a numpy.random.Generator; by default a child of the generator of ``manual_seed``. It is part of the
    state: a resumed run draws on. On a device the host draws a seed from it, and the device the mask: other masks than
    on the CPU, the same on all devices, and nothing is copied.
    Source: Srivastava et al. 2014, section 10 (scaled while training).
    """

    def __init__(self, p: float = 0.5, *, rng=None):
        p = as_number(p, "Dropout: p")
        if not 0 <= p <= 1:
            raise ValueError(f"Dropout: p is {p}, expected a probability from 0 to 1")
        self.p = p
        self.rng = own_generator(rng)

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        x = asarray(as_operand(x, "Dropout"))
        if not is_float(x.dtype):
            raise TypeError(f"Dropout: x has dtype {x.dtype}, expected a float: x.astype('float32')")
        return x * dropout_mask(self.rng, self.p, x.shape, x.dtype, x.device)

    def extra_repr(self):
        return f"p={self.p}"


@live("draws")
def dropout_mask(rng, p, shape, dtype, device) -> Tensor:
    """0 with probability p, rounded to 24 bits, else 1 / (1 - p)."""
    backend, index = parse_device(device)
    least, kept = round(p * 2**24), 1 / (1 - p) if p < 1 else 0.0
    with drawing(rng) as numbers, card(backend, index):
        if backend.name == "cpu":
            return Tensor(host_mask(numbers, least, kept, shape, dtype))
        key = int(numbers.integers(2**63))
        if (made := calls.dropout_mask(key, least, kept, shape, dtype, device)) is not None:
            return Tensor(made)
        random = bits(backend.xp, key, prod(shape)) >> numpy.uint64(40)
        mask = (random >= numpy.uint64(least)).reshape(shape).astype(dtype)
        mask *= kept
    return Tensor(mask)


def host_mask(numbers, least, kept, shape, dtype):
    """``kept`` where a random number of 24 bits is at least ``least``, else 0; part by part, in the cache.

    Two numbers of one of 64 bits are drawn in less than half the time of two floats; ``PCG64`` makes the same ones.
    """
    mask = numpy.empty(shape, dtype)
    flat = mask.reshape(-1)
    for start in range(0, flat.size, BLOCK):
        part = flat[start : start + BLOCK]
        if part.size < FEW:
            numpy.greater_equal(numbers.random(part.size, dtype=DEFAULT_FLOAT), least / 2**24, out=part)
        else:
            words = numbers.integers(0, 2**64, (part.size + 1) // 2, "uint64").astype("<u8", copy=False)
            numpy.greater_equal(words.view("<u4")[: part.size], least << 8, out=part)
        part *= kept
    return mask


class Flatten(Module):
    """Join all axes after the first: (batch, ...) -> (batch, product of the others)."""

    def forward(self, x):
        x = as_operand(x, "Flatten")
        return x.reshape((x.shape[0], prod(x.shape[1:])))


class Identity(Module):
    """Return x. It holds the place of another layer."""

    def forward(self, x):
        return x


def check_sizes(module, **sizes):
    for name, size in sizes.items():
        as_int(size, f"{type(module).__name__}: {name}", least=1)


def as_shape(module, shape) -> tuple[int, ...]:
    shape = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
    if not shape or not all(is_int(size) and size > 0 for size in shape):
        raise ValueError(f"{type(module).__name__}: shape is {shape}, expected integers of at least 1")
    return tuple(map(int, shape))


def check_last_axes(module, x, sizes, name):
    """Raise ValueError unless the shape of ``x`` ends with ``sizes``."""
    found = tuple(getattr(x, "shape", ()))
    if found[-len(sizes) :] != sizes:
        expected = f"(..., {', '.join(map(str, sizes))})"
        raise ValueError(f"{type(module).__name__}: x has shape {found}, expected {expected}, given by {name}")
