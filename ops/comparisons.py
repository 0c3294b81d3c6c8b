"""Comparisons, and functions that choose between elements: where, maximum, minimum, clip."""

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise, no_derivative
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.rows import binary, unary

__all__ = [
    "bitwise_and", "bitwise_invert", "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor",
    "clip", "equal", "greater", "greater_equal", "isclose", "isfinite", "isinf", "isnan", "less", "less_equal",
    "logical_and", "logical_not", "logical_or", "logical_xor", "maximum", "minimum", "nan_to_num", "not_equal",
    "where",
]  # fmt: skip


def _maximum_vjp(g, mine, other):
    """The part of the gradient for the argument ``mine``: all where it is the larger one, half at a tie."""
    return where(mine == other, g / 2, where(mine < other, 0, g))


# fmt: off
# --- booleans: no derivative ----------------------------------------------------------------------------------------

greater = binary("greater", "a > b, elementwise as booleans.", formula=r"y = [a > b]")
greater_equal = binary("greater_equal", "a >= b, elementwise as booleans.", formula=r"y = [a \ge b]")
less = binary("less", "a < b, elementwise as booleans.", formula=r"y = [a < b]")
less_equal = binary("less_equal", "a <= b, elementwise as booleans.", formula=r"y = [a \le b]")
equal = binary("equal", "a == b, elementwise as booleans.", formula=r"y = [a = b]", symmetric=True)
not_equal = binary("not_equal", "a != b, elementwise as booleans.", formula=r"y = [a \ne b]", symmetric=True)
logical_and = binary("logical_and", "Whether a and b are both nonzero.",
                     formula=r"y = [a \ne 0] \wedge [b \ne 0]", symmetric=True)
logical_or = binary("logical_or", "Whether a or b is nonzero.",
                    formula=r"y = [a \ne 0] \vee [b \ne 0]", symmetric=True)
logical_xor = binary("logical_xor", "Whether exactly one of a and b is nonzero.",
                     formula=r"y = [a \ne 0] \oplus [b \ne 0]", symmetric=True)
logical_not = unary("logical_not", "Whether x is zero (or False).", formula=r"y = [x = 0]")
bitwise_and = binary("bitwise_and", "``a & b`` of booleans or integers.",
                     formula=r"y = a \wedge b \text{ on every bit}", symmetric=True)
bitwise_or = binary("bitwise_or", "``a | b`` of booleans or integers.",
                    formula=r"y = a \vee b \text{ on every bit}", symmetric=True)
bitwise_xor = binary("bitwise_xor", "``a ^ b`` of booleans or integers.",
                     formula=r"y = a \oplus b \text{ on every bit}", symmetric=True)
bitwise_left_shift = binary("bitwise_left_shift", "``a << b`` of integers: the bits of a moved b places up.",
                            "left_shift", formula=r"y = a \, 2^b")
bitwise_right_shift = binary("bitwise_right_shift", "``a >> b`` of integers: the bits of a moved b places down.",
                             "right_shift", formula=r"y = \lfloor a \, 2^{-b} \rfloor")
bitwise_invert = unary("bitwise_invert", "``~x`` of booleans or integers.", "invert",
                       formula=r"y = \neg x \text{ on every bit}")
isnan = unary("isnan", "Whether an element is not a number.", formula=r"y = [x \text{ is NaN}]")
isinf = unary("isinf", "Whether an element is infinite.", formula=r"y = [|x| = \infty]")
isfinite = unary("isfinite", "Whether an element is neither infinite nor NaN.", formula=r"y = [|x| < \infty]")
# fmt: on


# --- choices ----------------------------------------------------------------------------------------------


@elementwise(
    rule=(lambda g: g * 0.0, lambda g, condition: where(condition, g, 0), lambda g, condition: where(condition, 0, g)),
    formula=r"dy = \begin{cases} da & \text{condition} \\ db & \text{else} \end{cases}",
    source="linear map; its transpose",
    moves=True,
    notes="An infinite derivative in the branch not taken meets the zero gradient from here: 0 * inf = NaN."
    " Keep the argument of that branch inside its domain with a second where.",
)
def where(xp, condition, a, b):
    """a where the condition holds (is nonzero), else b; the three broadcast.

    >>> tg.where([True, False], [1.0, 2.0], 0.0)
    Tensor([1., 0.], dtype=float32)
    """
    y = xp.where(condition, a, b)
    numbers_only = type(a) in NUMBERS and type(b) in NUMBERS
    return y.astype(DEFAULT_FLOAT) if numbers_only and y.dtype.kind == "f" else y


# fmt: off
maximum = binary("maximum", "The larger of a and b, elementwise with broadcasting.",
                 rule=(lambda g, a, b: _maximum_vjp(g, a, b), lambda g, a, b: _maximum_vjp(g, b, a)),
                 formula=r"\frac{\partial y}{\partial a} = [a > b] + \tfrac12 [a = b]",
                 source="subgradient, as in PyTorch", symmetric=True,
                 notes="Ties share the gradient equally. Where either argument is NaN both receive the whole of it.")
minimum = binary("minimum", "The smaller of a and b, elementwise with broadcasting.",
                 rule=(lambda g, a, b: _maximum_vjp(g, -a, -b), lambda g, a, b: _maximum_vjp(g, -b, -a)),
                 formula=r"\frac{\partial y}{\partial a} = [a < b] + \tfrac12 [a = b]",
                 source="subgradient, as in PyTorch", symmetric=True,
                 notes="Ties share the gradient equally. Where either argument is NaN both receive the whole of it.")
# fmt: on


@no_derivative(formula=r"y = [\,|a - b| \le \text{atol} + \text{rtol}\,|b|\,]", source="as in NumPy")
def isclose(xp, a, b, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether a is within atol + rtol |b| of b, elementwise as booleans; equal infinities are, NaN if ``equal_nan``."""
    return xp.isclose(xp.asarray(a), xp.asarray(b), rtol=rtol, atol=atol, equal_nan=equal_nan)


@elementwise(
    rule=lambda g, x: where(isfinite(x), g, 0),
    formula=r"\frac{dy}{dx} = [\,|x| < \infty\,]",
    source="as in NumPy and PyTorch",
)
def nan_to_num(xp, x, nan=0.0, posinf=None, neginf=None):
    """x with numbers in the place of NaN and infinities; without ``posinf`` and ``neginf`` the largest of the dtype."""
    return xp.nan_to_num(x, nan=nan, posinf=posinf, neginf=neginf)


def _clip_vjp(g, x, min, max):
    if min is not None:
        g = where(x >= min, g, 0)
    if max is not None:
        g = where(x <= max, g, 0)
    return g


@elementwise(
    rule=_clip_vjp,
    formula=r"\frac{dy}{dx} = [\min \le x \le \max]",
    source="subgradient, as in PyTorch",
    notes="The gradient is 1 on the closed interval, bounds included, and 0 for NaN.",
)
def _clip(xp, x, min=None, max=None):
    """x limited to an interval whose bounds are not tensors."""
    if min is None and max is None:
        return x.copy()
    if x.dtype.kind != "f" and (type(min) is float or type(max) is float):  # weak scalars, as in x + 0.5
        x = x.astype(DEFAULT_FLOAT)
    return xp.clip(x, min, max)


def clip(x, min=None, max=None):
    """x limited to the interval from ``min`` to ``max``: numbers, arrays or Tensors that broadcast; None: no bound.

    On the closed interval the gradient goes to x. Outside it goes to the bound, if the bound is a Tensor. Where ``min``
    is above ``max`` the result is ``max``.

    >>> tg.clip([-1.0, 0.5, 2.0], 0, 1)
    Tensor([0. , 0.5, 1. ], dtype=float32)
    """
    if not (isinstance(min, Tensor) or isinstance(max, Tensor)):
        return _clip(x, min=min, max=max)
    x = x if min is None else where(x < min, min, x)
    return x if max is None else where(x > max, max, x)
