"""Losses of elements. ``reduction``: "mean", "sum", or "none" for the loss of each element."""

from math import inf, prod

import numpy

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.sums import wide
from tinygrad_ms.engine.primitive import elementwise
from tinygrad_ms.ops.blocks import in_blocks, log1p, on_devices
from tinygrad_ms.ops.comparisons import clip
from tinygrad_ms.ops.elementwise import negative, sign
from tinygrad_ms.ops.operands import as_number, refuse_lists
from tinygrad_ms.ops.smooth_activations import sigmoid_slope, softplus

__all__ = ["binary_cross_entropy_with_logits", "huber", "l1", "mse"]

# --- the loss of one element --------------------------------------------------------------------------------


@elementwise(
    derivative=(lambda input, target: 2 * (input - target), lambda input, target: 2 * (target - input)),
    formula=r"l = (x - t)^2,\quad \frac{dl}{dx} = 2 (x - t)",
    source="ai-edu, equation 80 with the quadratic cost",
    floats=True,
)
def squared_error(xp, input, target):
    """(input - target)^2."""
    difference = input - target
    return difference * difference


@elementwise(
    derivative=(lambda input, target: sign(input - target), lambda input, target: sign(target - input)),
    formula=r"l = |x - t|,\quad \frac{dl}{dx} = \mathrm{sign}(x - t)",
    source="ai-edu, equation 1",
    floats=True,
    notes="gradient 0 where input equals target",
)
def absolute_error(xp, input, target):
    """abs(input - target)."""
    return xp.abs(input - target)


@elementwise(
    derivative=(
        lambda input, target, delta: clip(input - target, -delta, delta),
        lambda input, target, delta: clip(target - input, -delta, delta),
    ),
    formula=r"l = \begin{cases} (x - t)^2 / 2 & |x - t| \le \delta \\ \delta (|x - t| - \delta / 2) &"
    r" \text{else} \end{cases},\quad \frac{dl}{dx} = \mathrm{clip}(x - t, -\delta, \delta)",
    source="Huber 1964, section 4",
    floats=True,
    notes="the second derivative jumps where abs(input - target) = delta",
)
def huber_error(xp, input, target, delta=1.0):
    """Quadratic within ``delta`` of the target, linear beyond."""
    distance = xp.abs(input - target)
    near = xp.minimum(distance, delta)
    return near * (distance - 0.5 * near)


@elementwise(
    derivative=(lambda input, target: sigmoid_minus(input, target), lambda input: -input),
    formula=r"l = -t \ln \sigma(x) - (1 - t) \ln (1 - \sigma(x)),\quad \frac{dl}{dx} = \sigma(x) - t",
    source="ai-edu, equation 100; the stable form max(x, 0) - x t + ln(1 + exp(-|x|))",
    floats=True,
)
def logistic_error(xp, input, target):
    """The cross-entropy of the probability sigmoid(input) and the target, without overflow for any logit."""
    with numpy.errstate(invalid="ignore"):  # 0 times infinity
        return _by_blocks(xp, _logistic_kernel, _quick_logistic, 4, input, target)


@on_devices("logistic_error", takes=2, wide=True)
def _logistic_kernel(xp, x, t):
    size = xp.abs(x)
    right = (size == inf) & ((x > 0) == t)  # costs nothing
    linear = (1 - t) * xp.maximum(x, 0) + t * xp.maximum(-x, 0)
    return (xp.where(right, 0, linear) + xp.log1p(xp.exp(-size)),)


def _quick_logistic(xp, x, out, t):
    y, linear, w, *work = out
    linear[...] = x > 0
    linear -= t
    linear *= x
    xp.abs(x, out=w)
    xp.exp(xp.negative(w, out=w), out=w)
    log1p(xp, w, y, *work)
    y += linear
    return (y,)


def _by_blocks(xp, kernel, quick, spare, x, t):
    if (
        type(t) is type(x)
        and t.shape == x.shape
        and t.dtype == x.dtype
        and x.flags.c_contiguous
        and t.flags.c_contiguous
    ):
        return in_blocks(xp, kernel, x, double=False, quick=quick, beside=t, spare=spare)[0]
    return kernel(xp, x, t)[0]


@elementwise(
    derivative=(lambda input: sigmoid_slope(input), lambda: -1.0),
    formula=r"y = \sigma(x) - t",
    source="ai-edu, equation 100",
    floats=True,
)
def sigmoid_minus(xp, input, target):
    """sigmoid(input) - target. For input > 0 it is (1 - target) - sigmoid(-input), which keeps its digits."""
    return _by_blocks(xp, _minus_kernel, _quick_minus, 1, input, target)


def _quick_minus(xp, x, out, t):  # (e (1 - t) - t) / (1 + e)
    y, e = out
    xp.exp(x, out=e)
    xp.subtract(1, t, out=y)
    y *= e
    y -= t
    e += 1
    y /= e
    return (y,)


@on_devices("sigmoid_minus", takes=2, wide=True)
def _minus_kernel(xp, x, t):
    w = xp.exp(-xp.abs(x))
    w /= 1 + w
    above = (x > 0).astype(w.dtype)
    y = above - t
    above *= -2
    above += 1
    w *= above
    y += w
    return (y,)


# --- losses of elements -------------------------------------------------------------------------------------


def mse(input, target, weight=None, reduction="mean"):
    """Mean squared error of arrays of equal shape, mean (input - target)^2.

    weight: factor of each element; the mean is then sum(weight loss) / sum(weight).
    Raises ValueError where the shapes differ: a (n, 1) against a (n,) would silently broadcast to (n, n).

    >>> tg.mse([1.0, 2.0], [1.0, 4.0]).item()
    2.0
    """
    input, target, dtype = _alike("mse", input, target)
    return _reduce("mse", squared_error(input, target), weight, reduction, dtype)


def l1(input, target, weight=None, reduction="mean"):
    """Mean absolute error, mean abs(input - target); gradient 0 at equality. Arguments as for ``mse``."""
    input, target, dtype = _alike("l1", input, target)
    return _reduce("l1", absolute_error(input, target), weight, reduction, dtype)


def huber(input, target, delta=1.0, weight=None, reduction="mean"):
    """Huber loss: (input - target)^2 / 2 within ``delta``, slope ``delta`` beyond; arguments of ``mse``."""
    if not as_number(delta, "huber: delta") > 0:
        raise ValueError(f"huber: delta is {delta}; it must be positive")
    input, target, dtype = _alike("huber", input, target)
    return _reduce("huber", huber_error(input, target, delta=float(delta)), weight, reduction, dtype)


def binary_cross_entropy_with_logits(input, target, weight=None, pos_weight=None, reduction="mean"):
    """Cross-entropy of sigmoid(input) against targets in [0, 1], of equal shape.

    Stable for logits of any size.

    weight: factor of each element's loss (the mean divides by the number of elements, as in PyTorch);
    pos_weight: factor of the term of the positive class, broadcast.
    """
    op = "binary_cross_entropy_with_logits"
    input, target, dtype = _alike(op, input, target)
    refuse_lists(op, weight, pos_weight)
    if pos_weight is None:
        losses = logistic_error(input, target)
    else:
        losses = pos_weight * target * softplus(negative(input)) + (1 - target) * softplus(input)
    return _reduce(op, losses if weight is None else losses * weight, None, reduction, dtype)


def _alike(op, input, target):
    """The arguments, whose shapes must be equal (a number fits any), and the dtype of the loss.

    Half precision is computed in float32, where squares cannot overflow, and rounded once. Else the dtype is None.
    """
    here, there = getattr(input, "shape", None), getattr(target, "shape", None)
    if here == there is not None and input.dtype.itemsize > 2 < target.dtype.itemsize:
        return input, target, None
    refuse_lists(op, input, target)
    if here != there and here is not None and there:
        hint = f"; did you mean target.reshape({here})?" if prod(here) == prod(there) else ""
        raise ValueError(f"{op}: input has shape {here} and target has shape {there}: they must be equal{hint}")
    arrays = [a for a in (input, target) if hasattr(a, "dtype")]
    dtypes = {a.dtype for a in arrays if is_float(a.dtype)}
    dtype = dtypes.pop() if len(dtypes) == 1 else None  # float16 beside float32 makes float32
    if dtype is None or dtype.itemsize > 2:
        return input, target, None
    input, target = (wide(a, prod(a.shape)) if hasattr(a, "dtype") else a for a in (input, target))
    return input, target, dtype


def _reduce(op, losses, weight, reduction, dtype=None):
    check_reduction(op, reduction)
    if dtype is not None:
        return _reduce(op, losses, weight, reduction).astype(dtype)
    if weight is not None:
        refuse_lists(op, weight)
        losses = losses * weight
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if weight is None:
        return losses.mean()
    return losses.sum() / (weight * (losses * 0 + 1)).sum()


def check_reduction(op, reduction):
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{op}: reduction is {reduction!r}; it must be "mean", "sum" or "none"')
