"""Makes gradients smaller, between backward and the step of the optimizer."""

from math import inf
from typing import Any

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import there
from tinygrad_ms.engine.around.constructors import tensor
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.launches import launcher
from tinygrad_ms.ops.fused.calls import in_place, sum_of_rows
from tinygrad_ms.ops.live import live
from tinygrad_ms.optim.on_device import clipped
from tinygrad_ms.optim.optimizer import fit
from tinygrad_ms.options import is_real


@live("writes")
def clip_grad_norm(parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    r"""Scale all gradients, in place, by one factor, so that their common norm is at most ``max_norm``.

    $g \leftarrow g \min(1, c / (\lVert g\rVert + 10^{-6}))$, where $c$ is ``max_norm``.
    norm_type: 2 for the Euclidean norm, or inf for the largest absolute value.
    Returns the norm before the scaling, a 0-d Tensor on the device of the gradients. The call waits for no device;
    ``float(norm)`` does.
    If the norm is not finite, the gradients stay as they are. Test the result before ``optimizer.step()``, or pass
    ``error_if_nonfinite``: it waits for the device and raises RuntimeError with the names of the parameters.
    Squares are summed in float64. On a CPU, 1,024 at a time are summed in the dtype of the gradient if they fit it.
    float64 gradients are divided by their largest element first if their squares could leave the range of float64. So
    the norm of finite gradients is finite. Gradients in half precision are scaled in float32.
    Raises ValueError or TypeError for a gradient that does not fit its parameter. Then no gradient has changed.
    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.

    >>> w = tg.nn.Parameter([3.0, 4.0])
    >>> (w * w / 2).sum().backward()
    >>> tg.optim.clip_grad_norm([w], 1.0).item(), tg.round(w.grad, 4)
    (5.0, Tensor([0.6, 0.8], dtype=float32))
    """
    check_positive("clip_grad_norm", "max_norm", max_norm)
    if norm_type not in (2, inf):
        raise ValueError(f"clip_grad_norm: norm_type is {norm_type}, expected 2 or inf")
    parameters = with_gradients("clip_grad_norm", parameters)
    if not parameters:
        return tensor(0.0)
    return there(_clipped, parameters[0].grad)(parameters, max_norm, norm_type, error_if_nonfinite)


def _clipped(parameters, max_norm, norm_type, error_if_nonfinite) -> Tensor:
    backend = BACKENDS[type(parameters[0].grad.data)]
    xp = backend.xp
    if norm_type == 2 and launcher(parameters[0].grad.data) is not None and not error_if_nonfinite:
        arrays = [g for _, g in each_array(parameters)]
        if all(g.dtype.char == "f" and g.flags.c_contiguous for g in arrays):
            norm = clipped(arrays, max_norm)
            for p in parameters:
                p.grad.touch()
            return Tensor(norm)
    arrays = joined(xp, [p.grad.data for p in parameters])
    norm = xp.asarray(largest(xp, arrays) if norm_type == inf else euclidean(xp, arrays))
    norm = norm.astype(DEFAULT_FLOAT) if norm.dtype.itemsize < 4 else norm
    if error_if_nonfinite and not xp.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm: the norm of the gradients is {float(norm)}: {nonfinite(parameters)}")
    factor = xp.where(xp.isfinite(norm), xp.minimum(max_norm / (norm + 1e-6), 1.0), 1.0)
    if (
        backend.name == "cpu" and backend.recorder is None and factor == 1.0
    ):  # this test of a value would make a card wait, and cannot be recorded
        return Tensor(norm)
    factors: dict = {}  # dtype -> factor
    for p, g in each_array(parameters):
        dtype = g.dtype if g.dtype.itemsize >= 4 else DEFAULT_FLOAT  # a factor below 6e-8 is 0 in half precision
        if dtype not in factors:
            factors[dtype] = factor.astype(dtype)
        if g.dtype.itemsize < 4:
            g[...] = (g.astype(dtype) * factors[dtype]).astype(g.dtype)
        elif not in_place("scaled", g, factor):
            xp.multiply(g, factors[dtype], out=g)
        p.grad.touch()
    return Tensor(norm)


def joined(xp, arrays):
    """The arrays, where the short ones of one dtype are joined end to end."""
    result: list = []
    short: dict = {}
    for g in arrays:
        (result if g.size >= SHORT else short.setdefault(g.dtype, [])).append(g)
    for part in short.values():
        result.append(xp.concatenate([g.reshape(-1) for g in part]) if len(part) > 1 else part[0])
    return result


def largest(xp, arrays):
    """The largest absolute value of all elements. It is NaN if an element is NaN."""
    result = 0.0
    for g in arrays:
        result = xp.maximum(result, xp.abs(g).max() if g.size else 0.0)
    return result


def euclidean(xp, arrays):
    """The root of the sum of all squares, in float64."""
    if BACKENDS[type(arrays[0])].name == "cpu" and all(g.dtype.char in SAFE and g.flags.c_contiguous for g in arrays):
        with numpy.errstate(over="ignore", under="ignore"):
            total = sum(map(sum_of_squares, arrays))
        if max(SAFE[g.dtype.char] for g in arrays) < total < inf:
            return numpy.sqrt(total)
    scale = None
    if any(g.dtype.itemsize > 4 for g in arrays):  # their squares could leave the range of float64
        scale = largest(xp, arrays)
        scale = xp.where(xp.isfinite(scale) & (scale > 0), scale, 1.0)
    total = sum(xp.sum(xp.square(g if scale is None else g / scale, dtype="float64")) for g in arrays)
    return xp.sqrt(total) if scale is None else scale * xp.sqrt(total)


def sum_of_squares(g):
    """The sum of the squares of a contiguous array. Dot products of short vectors in its dtype are added in float64.

    For float32 the relative error is within 2e-7, unless a square or a dot product is out of the range of the dtype.
    """
    if (total := sum_of_rows("squares", g)) is not None:
        return total
    g = g.reshape(-1)
    whole = g.size - g.size % SHORT
    blocks = g[:whole].reshape(-1, SHORT)
    return numpy.vecdot(blocks, blocks).sum(dtype="float64") + (g[whole:] @ g[whole:]).astype("float64")


SHORT = 1024  # the numbers that one dot product adds up
SAFE = {"f": 1e-25, "d": 1e-280}  # in a larger sum, squares that underflow to 0 do not count


@live("writes")
def clip_grad_value(parameters, clip_value: float) -> None:
    """Clip every element of the gradients, in place, to [-clip_value, clip_value]. NaN stays NaN.

    Raises ValueError or TypeError for a gradient that does not fit its parameter. Then no gradient has changed.
    """
    check_positive("clip_grad_value", "clip_value", clip_value)
    for p, g in each_array(with_gradients("clip_grad_value", parameters)):
        there(BACKENDS[type(g)].xp.clip, g)(g, -clip_value, clip_value, out=g)
        p.grad.touch()


def with_gradients(caller, parameters):
    """The parameters that have a gradient, each once. A gradient that does not fit its parameter is refused."""
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    found = list({id(p): p for p in parameters if p.grad is not None}.values())
    for p in found:
        g, array = p.grad, p.data
        given: Any = g.data if isinstance(g, Tensor) else None
        if type(given) is not type(array) or given.dtype is not array.dtype or given.shape != array.shape:
            fit(caller, p)
        if not getattr(given.flags, "writeable", True):
            raise ValueError(f"{caller}: the gradient of {p.name or 'a parameter'} is read-only; give it a copy")
    kinds = {type(p.data) for p in found}
    apart = len(kinds) > 1 or any(BACKENDS[kind].multi_device for kind in kinds)
    devices = sorted({p.device for p in found}) if apart else ()
    if len(devices) > 1:
        raise ValueError(f"{caller}: the gradients are on {' and '.join(devices)}; clip them apart")
    return found


def each_array(parameters):
    """(parameter, array of its gradient). Each array comes once, because two parameters may share one gradient."""
    return {id(p.grad.data): (p, p.grad.data) for p in parameters}.values()


def check_positive(caller, name, value):
    if not is_real(value) or not value > 0:
        raise ValueError(f"{caller}: {name} is {value!r}, expected a number above 0")


def nonfinite(parameters) -> str:
    """A sentence that names the gradients with NaN or infinity."""
    bad = []
    for i, p in enumerate(parameters):
        g = p.grad.data
        if not BACKENDS[type(g)].xp.isfinite(g).all():
            bad.append(p.name or f"parameter {i} of shape {p.shape}")
    return f"NaN or infinity in the gradient of {', '.join(bad)}"
