"""Comparisons, and functions that choose between elements: where, maximum, minimum, clip."""

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise, no_derivative
from tinygrad_ms.engine.tensor import Tensor

__all__ = [
    "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "clip", "equal", "greater", "greater_equal", "isfinite", "isinf", "isnan", "less", "less_equal",
    "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "not_equal", "where",
]  # fmt: skip

# --- booleans: no derivative ------------------------------------------------------------------------------


@no_derivative(formula=r"y = [a > b]")
def greater(xp, a, b):
    """a > b, elementwise as booleans."""
    return xp.greater(a, b)


@no_derivative(formula=r"y = [a \ge b]")
def greater_equal(xp, a, b):
    """a >= b, elementwise as booleans."""
    return xp.greater_equal(a, b)


@no_derivative(formula=r"y = [a < b]")
def less(xp, a, b):
    """a < b, elementwise as booleans."""
    return xp.less(a, b)


@no_derivative(formula=r"y = [a \le b]")
def less_equal(xp, a, b):
    """a <= b, elementwise as booleans."""
    return xp.less_equal(a, b)


@no_derivative(formula=r"y = [a = b]")
def equal(xp, a, b):
    """a == b, elementwise as booleans."""
    return xp.equal(a, b)


@no_derivative(formula=r"y = [a \ne b]")
def not_equal(xp, a, b):
    """a != b, elementwise as booleans."""
    return xp.not_equal(a, b)


@no_derivative(formula=r"y = [a \ne 0] \wedge [b \ne 0]")
def logical_and(xp, a, b):
    """Whether a and b are both nonzero."""
    return xp.logical_and(a, b)


@no_derivative(formula=r"y = [a \ne 0] \vee [b \ne 0]")
def logical_or(xp, a, b):
    """Whether a or b is nonzero."""
    return xp.logical_or(a, b)


@no_derivative(formula=r"y = [a \ne 0] \oplus [b \ne 0]")
def logical_xor(xp, a, b):
    """Whether exactly one of a and b is nonzero."""
    return xp.logical_xor(a, b)


@no_derivative(formula=r"y = [x = 0]")
def logical_not(xp, x):
    """Whether x is zero (or False)."""
    return xp.logical_not(x)


@no_derivative(formula=r"y = a \wedge b \text{ on every bit}")
def bitwise_and(xp, a, b):
    """``a & b`` of booleans or integers."""
    return xp.bitwise_and(a, b)


@no_derivative(formula=r"y = a \vee b \text{ on every bit}")
def bitwise_or(xp, a, b):
    """``a | b`` of booleans or integers."""
    return xp.bitwise_or(a, b)


@no_derivative(formula=r"y = a \oplus b \text{ on every bit}")
def bitwise_xor(xp, a, b):
    """``a ^ b`` of booleans or integers."""
    return xp.bitwise_xor(a, b)


@no_derivative(formula=r"y = a \, 2^b")
def bitwise_left_shift(xp, a, b):
    """``a << b`` of integers: the bits of a moved b places up."""
    return xp.left_shift(a, b)


@no_derivative(formula=r"y = \lfloor a \, 2^{-b} \rfloor")
def bitwise_right_shift(xp, a, b):
    """``a >> b`` of integers: the bits of a moved b places down."""
    return xp.right_shift(a, b)


@no_derivative(formula=r"y = \neg x \text{ on every bit}")
def bitwise_invert(xp, x):
    """``~x`` of booleans or integers."""
    return xp.invert(x)


@no_derivative(formula=r"y = [x \text{ is NaN}]")
def isnan(xp, x):
    """Whether an element is not a number."""
    return xp.isnan(x)


@no_derivative(formula=r"y = [|x| = \infty]")
def isinf(xp, x):
    """Whether an element is infinite."""
    return xp.isinf(x)


@no_derivative(formula=r"y = [|x| < \infty]")
def isfinite(xp, x):
    """Whether an element is neither infinite nor NaN."""
    return xp.isfinite(x)


# --- choices ----------------------------------------------------------------------------------------------


@elementwise(
    rule=(
        lambda g: g * 0.0,
        lambda g, condition: where(condition, g, 0),
        lambda g, condition: where(condition, 0, g),
    ),
    formula=r"dy = \begin{cases} da & \text{condition} \\ db & \text{else} \end{cases}",
    source="linear map; its transpose",
    notes="An infinite derivative in the branch not taken meets the zero gradient from here: 0 * inf = NaN."
    " Keep the argument of that branch inside its domain with a second where.",
)
def where(xp, condition, a, b):
    """a where the condition holds (is nonzero), else b; the three broadcast."""
    y = xp.where(condition, a, b)
    numbers_only = type(a) in NUMBERS and type(b) in NUMBERS
    return y.astype(DEFAULT_FLOAT) if numbers_only and y.dtype.kind == "f" else y


def _share(g, mine, other):
    """The gradient of the larger of two: all of it where mine is, half of it at a tie."""
    return where(mine == other, g / 2, where(mine < other, 0, g))


@elementwise(
    rule=(lambda g, a, b: _share(g, a, b), lambda g, a, b: _share(g, b, a)),
    formula=r"\frac{\partial y}{\partial a} = [a > b] + \tfrac12 [a = b]",
    source="subgradient, as in PyTorch",
    notes="Ties share the gradient equally. Where either argument is NaN both receive the whole of it.",
)
def maximum(xp, a, b):
    """The larger of a and b, elementwise with broadcasting."""
    return xp.maximum(a, b)


@elementwise(
    rule=(lambda g, a, b: _share(g, -a, -b), lambda g, a, b: _share(g, -b, -a)),
    formula=r"\frac{\partial y}{\partial a} = [a < b] + \tfrac12 [a = b]",
    source="subgradient, as in PyTorch",
    notes="Ties share the gradient equally. Where either argument is NaN both receive the whole of it.",
)
def minimum(xp, a, b):
    """The smaller of a and b, elementwise with broadcasting."""
    return xp.minimum(a, b)


def _clip_rule(g, x, min, max):
    if min is not None:
        g = where(x >= min, g, 0)
    if max is not None:
        g = where(x <= max, g, 0)
    return g


@elementwise(
    rule=_clip_rule,
    formula=r"\frac{dy}{dx} = [\min \le x \le \max]",
    source="subgradient, as in PyTorch",
    notes="The gradient is 1 on the closed interval, bounds included, and 0 for NaN.",
)
def clip(xp, x, min=None, max=None):
    """x limited to the interval from ``min`` to ``max`` (numbers or arrays; None: no bound on that side).

    Raises TypeError for bounds that are Tensors: ``minimum(maximum(x, low), high)`` has gradients for them.
    """
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        raise TypeError("clip: the bounds must be numbers or arrays; for Tensors use minimum(maximum(x, low), high)")
    if min is None and max is None:
        return x.copy()
    if x.dtype.kind != "f" and (type(min) is float or type(max) is float):  # weak scalars, as in x + 0.5
        x = x.astype(DEFAULT_FLOAT)
    return xp.clip(x, min, max)


# --- operators --------------------------------------------------------------------------------------------


def _comparable(value):
    """``tensor == None`` and ``tensor == "name"`` are False, as for any Python object."""
    return value is not None and not isinstance(value, (str, dict, set))


Tensor.__gt__ = greater
Tensor.__ge__ = greater_equal
Tensor.__lt__ = less
Tensor.__le__ = less_equal
Tensor.__eq__ = lambda a, b: equal(a, b) if _comparable(b) else NotImplemented
Tensor.__ne__ = lambda a, b: not_equal(a, b) if _comparable(b) else NotImplemented
Tensor.__and__ = Tensor.__rand__ = bitwise_and
Tensor.__or__ = Tensor.__ror__ = bitwise_or
Tensor.__xor__ = Tensor.__rxor__ = bitwise_xor
Tensor.__lshift__ = bitwise_left_shift
Tensor.__rlshift__ = lambda b, a: bitwise_left_shift(a, b)
Tensor.__rshift__ = bitwise_right_shift
Tensor.__rrshift__ = lambda b, a: bitwise_right_shift(a, b)
Tensor.__invert__ = bitwise_invert

for _op in (
    clip, isfinite, isinf, isnan, logical_and, logical_not, logical_or, logical_xor, maximum, minimum,
):  # fmt: skip
    setattr(Tensor, _op.__name__, _op)
