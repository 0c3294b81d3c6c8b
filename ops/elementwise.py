"""Functions of each element: arithmetic, powers, exponentials, logarithms, rounding.

Sources: 001 Parr and Howard, The Matrix Calculus You Need For Deep Learning, 2018;
002 Microsoft ai-edu, derivatives of basic functions.
"""

import math

from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise, linear, multilinear
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.comparisons import where

__all__ = [
    "abs", "add", "cbrt", "ceil", "divide", "exp", "exp2", "expm1", "floor", "floor_divide", "hypot", "log",
    "log10", "log1p", "log2", "log_base", "multiply", "negative", "power", "reciprocal", "remainder",
    "round", "sign", "sqrt", "square", "subtract", "trunc",
]  # fmt: skip

# --- arithmetic -------------------------------------------------------------------------------------------


@linear(transpose=(lambda g: g, lambda g: g), formula=r"d(a + b) = da + db", source="002 (30)")
def add(xp, a, b):
    """a + b, elementwise with broadcasting."""
    return xp.add(a, b)


@linear(transpose=(lambda g: g, lambda g: -g), formula=r"d(a - b) = da - db", source="002 (31)")
def subtract(xp, a, b):
    """a - b, elementwise with broadcasting."""
    return xp.subtract(a, b)


@multilinear(transpose=(lambda g, b: g * b, lambda g, a: g * a), formula=r"d(a b) = b\,da + a\,db", source="002 (32)")
def multiply(xp, a, b):
    """a * b, elementwise with broadcasting."""
    return xp.multiply(a, b)


@elementwise(
    rule=(lambda g, b: g / b, lambda g, b, y: g * (-y / b)),  # not g * (1 / b): b may be the Python number 0
    formula=r"d\frac{a}{b} = \frac{da}{b} - \frac{y\,db}{b}",
    source="002 (33)",
    floats=True,
)
def divide(xp, a, b):
    """a / b, elementwise with broadcasting; integers are divided as floats."""
    return xp.divide(a, b)


@linear(transpose=lambda g: -g, formula=r"d(-x) = -dx", source="002 (31)")
def negative(xp, x):
    """-x."""
    return xp.negative(x)


@elementwise(
    derivative=lambda y: -y * y,
    formula=r"\frac{dy}{dx} = -\frac{1}{x^2} = -y^2",
    source="002 (33)",
    floats=True,
)
def reciprocal(xp, x):
    """1 / x."""
    return xp.reciprocal(x)


@elementwise(
    derivative=lambda x: sign(x),
    formula=r"\frac{dy}{dx} = \operatorname{sign} x",
    source="subgradient",
    notes="The gradient at 0 is 0.",
)
def abs(xp, x):
    """The absolute value."""
    return xp.abs(x)


@elementwise(
    rule=(lambda g: g, lambda g, a, b: -g * (a // b)),
    formula=r"y = a - b \lfloor a / b \rfloor, \quad dy = da - \lfloor a / b \rfloor\,db",
    source="002 (31)",
    notes="The derivative almost everywhere; y jumps where a / b is an integer.",
)
def remainder(xp, a, b):
    """a modulo b, with the sign of b (Python's %)."""
    return xp.remainder(a, b)


# --- steps: piecewise constant, gradient zero -------------------------------------------------------------


@elementwise(
    derivative=(lambda: 0.0, lambda: 0.0),
    formula=r"y = \lfloor a / b \rfloor, \quad dy = 0",
    source="002 (1)",
    notes="The derivative almost everywhere; PyTorch defines none.",
)
def floor_divide(xp, a, b):
    """a // b: the quotient rounded towards minus infinity."""
    return xp.floor_divide(a, b)


@elementwise(derivative=lambda: 0.0, formula=r"\frac{dy}{dx} = 0", source="002 (1)", notes="sign 0 = 0.")
def sign(xp, x):
    """-1, 0 or 1."""
    return xp.sign(x)


@elementwise(derivative=lambda: 0.0, formula=r"\frac{dy}{dx} = 0", source="002 (1)")
def floor(xp, x):
    """The largest integer not above x, in the dtype of x."""
    return xp.floor(x)


@elementwise(derivative=lambda: 0.0, formula=r"\frac{dy}{dx} = 0", source="002 (1)")
def ceil(xp, x):
    """The smallest integer not below x, in the dtype of x."""
    return xp.ceil(x)


@elementwise(derivative=lambda: 0.0, formula=r"\frac{dy}{dx} = 0", source="002 (1)")
def trunc(xp, x):
    """x rounded towards zero."""
    return xp.trunc(x)


@elementwise(
    derivative=lambda: 0.0,
    formula=r"\frac{dy}{dx} = 0",
    source="002 (1)",
    notes="Halves go to the even side.",
)
def round(xp, x, decimals=0):
    """x rounded to the nearest number with that many decimals."""
    return xp.round(x, decimals)


# --- powers -----------------------------------------------------------------------------------------------


def _power_base(a, b):
    """b a^(b - 1), and 0 for b = 0, where 0 * a^-1 would be NaN at a = 0."""
    if type(b) in NUMBERS:
        return b * a ** (b - 1) if b else 0.0
    return b * a ** where((a == 0) & (b == 0), 0, b - 1)


def _power_exponent(a, b, y):
    """y ln a, and 0 for a = 0 <= b, where 0^b = 0 is constant but ln 0 infinite."""
    if type(a) in NUMBERS and a > 0:
        return y * math.log(a)
    return y * log(where((a == 0) & (b >= 0), 1, a))


@elementwise(
    derivative=(_power_base, _power_exponent),
    formula=r"d(a^b) = b\,a^{b-1}\,da + a^b \ln a\,db",
    source="002 (2), (5)",
    notes="0^0 = 1 with gradient 0 for a and for b; 0^b with b > 0 has gradient 0 for b; where a < 0,"
    " the gradient for b is NaN. Integers to negative integer powers are an error, as in NumPy.",
)
def power(xp, a, b):
    """a to the power b (``a ** b``), elementwise with broadcasting: x^n and c^x alike."""
    return a**b


@elementwise(derivative=lambda x: 2 * x, formula=r"\frac{dy}{dx} = 2x", source="002 (2)")
def square(xp, x):
    """x squared."""
    return xp.square(x)


@elementwise(
    derivative=lambda y: 0.5 / y,
    formula=r"\frac{dy}{dx} = \frac{1}{2\sqrt{x}} = \frac{1}{2y}",
    source="002 (2)",
    floats=True,
    notes="At 0 the gradient is infinite; NaN for x < 0.",
)
def sqrt(xp, x):
    """The square root."""
    return xp.sqrt(x)


@elementwise(
    derivative=lambda y: 1 / (3 * y * y),
    formula=r"\frac{dy}{dx} = \frac{1}{3 y^2}",
    source="002 (2)",
    floats=True,
    notes="At 0 the gradient is infinite.",
)
def cbrt(xp, x):
    """The real cube root, also of negative numbers."""
    return xp.cbrt(x)


@elementwise(
    derivative=(lambda a, y: a / y, lambda b, y: b / y),
    formula=r"dy = \frac{a\,da + b\,db}{y}",
    source="002 (2), (52)",
    floats=True,
    notes="At (0, 0) both gradients are NaN, as in PyTorch.",
)
def hypot(xp, a, b):
    """sqrt(a^2 + b^2) without overflow."""
    return xp.hypot(a, b)


# --- exponentials and logarithms --------------------------------------------------------------------------


@elementwise(derivative=lambda y: y, formula=r"\frac{dy}{dx} = e^x = y", source="002 (6), (7)", floats=True)
def exp(xp, x):
    """e to the power x."""
    return xp.exp(x)


@elementwise(derivative=lambda y: y + 1, formula=r"\frac{dy}{dx} = e^x = y + 1", source="002 (6)", floats=True)
def expm1(xp, x):
    """e^x - 1, accurate for small x."""
    return xp.expm1(x)


@elementwise(derivative=lambda y: y * math.log(2), formula=r"\frac{dy}{dx} = y \ln 2", source="002 (5)", floats=True)
def exp2(xp, x):
    """2 to the power x."""
    return xp.exp2(x)


@elementwise(
    derivative=lambda x: 1 / x,
    formula=r"\frac{dy}{dx} = \frac{1}{x}",
    source="002 (4)",
    floats=True,
    notes="At 0: value -inf, gradient inf. For x < 0 the value is NaN and the gradient 1 / x.",
)
def log(xp, x):
    """The natural logarithm."""
    return xp.log(x)


@elementwise(
    derivative=lambda x: 1 / (1 + x),
    formula=r"\frac{dy}{dx} = \frac{1}{1 + x}",
    source="002 (4)",
    floats=True,
    notes="At -1: value -inf, gradient inf.",
)
def log1p(xp, x):
    """ln(1 + x), accurate for small x."""
    return xp.log1p(x)


@elementwise(
    derivative=lambda x: 1 / (x * math.log(2)),
    formula=r"\frac{dy}{dx} = \frac{1}{x \ln 2}",
    source="002 (3)",
    floats=True,
    notes="At 0: value -inf, gradient inf.",
)
def log2(xp, x):
    """The logarithm to base 2."""
    return xp.log2(x)


@elementwise(
    derivative=lambda x: 1 / (x * math.log(10)),
    formula=r"\frac{dy}{dx} = \frac{1}{x \ln 10}",
    source="002 (3)",
    floats=True,
    notes="At 0: value -inf, gradient inf.",
)
def log10(xp, x):
    """The logarithm to base 10."""
    return xp.log10(x)


def _ln(base):
    return math.log(base) if type(base) in NUMBERS else log(base)


@elementwise(
    derivative=(lambda x, base: 1 / (x * _ln(base)), lambda base, y: -y / (base * log(base))),
    formula=r"y = \frac{\ln x}{\ln a}, \quad dy = \frac{dx}{x \ln a} - \frac{y\,da}{a \ln a}",
    source="002 (3)",
    floats=True,
    notes="At x = 0 as log. The base must be positive and not 1.",
)
def log_base(xp, x, base):
    """The logarithm of x to any base: a number, or an array or Tensor that broadcasts with x."""
    if type(base) in NUMBERS:
        if base <= 0 or base == 1:
            raise ValueError(f"log_base: the base is {base}; it must be positive and not 1")
        return xp.log(x) / math.log(base)
    if type(x) in NUMBERS:
        x = xp.asarray(x, base.dtype)
    return xp.log(x) / xp.log(base)


# --- operators and methods --------------------------------------------------------------------------------

Tensor.__add__ = add
Tensor.__radd__ = lambda b, a: add(a, b)
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda b, a: subtract(a, b)
Tensor.__mul__ = multiply
Tensor.__rmul__ = lambda b, a: multiply(a, b)
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda b, a: divide(a, b)
Tensor.__floordiv__ = floor_divide
Tensor.__rfloordiv__ = lambda b, a: floor_divide(a, b)
Tensor.__mod__ = remainder
Tensor.__rmod__ = lambda b, a: remainder(a, b)
Tensor.__pow__ = power
Tensor.__rpow__ = lambda b, a: power(a, b)
Tensor.__neg__ = negative
Tensor.__pos__ = lambda x: x
Tensor.__abs__ = abs
Tensor.pow = power

for _op in (
    abs, cbrt, ceil, exp, exp2, expm1, floor, hypot, log, log10, log1p, log2, reciprocal, remainder, round,
    sign, sqrt, square, trunc,
):  # fmt: skip
    setattr(Tensor, _op.__name__, _op)
