"""Functions of each element: arithmetic, powers, exponentials, logarithms, rounding.

Sources: Parr and Howard, The Matrix Calculus You Need For Deep Learning, 2018;
Microsoft ai-edu, derivatives of basic functions.
"""

import math

from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.arguments import NUMBERS
from tinygrad_ms.engine.primitive import elementwise, multilinear
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.blocks import MANY, fused, times_slope
from tinygrad_ms.ops.comparisons import where
from tinygrad_ms.ops.rows import Unary, binary, unary

__all__ = [
    "abs", "add", "cbrt", "ceil", "divide", "exp", "exp2", "expm1", "floor", "floor_divide", "hypot", "log",
    "log10", "log1p", "log2", "log_base", "multiply", "negative", "power", "reciprocal", "remainder",
    "round", "sign", "sqrt", "square", "subtract", "trunc",
]  # fmt: skip


def _power(a, b):
    """a ** b. Cubes and fourth powers of arrays are products. These take a tenth of the time of NumPy's power."""
    if type(b) in NUMBERS and (b == 3 or b == 4) and not isinstance(a, Tensor) and type(a) not in NUMBERS:
        kind = a.dtype.kind
        if (kind == "f" and a.dtype.char not in HALF) or (kind in "iu" and type(b) is int):
            square = a * a
            square *= a if b == 3 else square
            return square
    return a**b


def _power_base(a, b):
    """b a^(b - 1). For b = 0 it is 0; the product 0 * a^-1 would be NaN at a = 0."""
    if type(b) in NUMBERS:
        return b * _power(a, b - 1) if b else 0.0
    return b * a ** where((a == 0) & (b == 0), 0, b - 1)


def _power_exponent(a, b, y):
    """y ln a. For a = 0 <= b it is 0, because 0^b = 0 is constant there; ln 0 would be infinite."""
    if type(a) in NUMBERS and a > 0:
        return y * math.log(a)
    return y * log(where((a == 0) & (b >= 0), 1, a))


def _ln(base):
    return math.log(base) if type(base) in NUMBERS else log(base)


# fmt: off
# --- arithmetic -----------------------------------------------------------------------------------------------------

add = binary("add", "a + b, elementwise with broadcasting.", transpose=(lambda g: g, lambda g: g),
             formula=r"d(a + b) = da + db", source="ai-edu, equation 30", symmetric=True, batched=True,
             notation="{0} + {1}")
subtract = binary("subtract", "a - b, elementwise with broadcasting.", transpose=(lambda g: g, lambda g: -g),
                  formula=r"d(a - b) = da - db", source="ai-edu, equation 31", batched=True, notation="{0} - {1}")
multiply = binary("multiply", "a * b, elementwise with broadcasting.", kind=multilinear,
                  transpose=(lambda g, b: g * b, lambda g, a: g * a), formula=r"d(a b) = b\,da + a\,db",
                  source="ai-edu, equation 32", symmetric=True, batched=True, notation=r"{0} \cdot {1}")
divide = binary("divide", "a / b, elementwise with broadcasting; integers are divided as floats.",
                rule=(lambda g, b: g / b, lambda g, b, y: g * (-y / b)),  # not g * (1 / b): b may be the number 0
                formula=r"d(a / b) = \frac{da}{b} - \frac{y\,db}{b}", source="ai-edu, equation 33", floats=True,
                notation=r"\frac{{{0}}}{{{1}}}")
negative = unary("negative", "-x.", transpose=lambda g: -g, formula=r"d(-x) = -dx",
                 source="ai-edu, equation 31", batched=True, notation="-{0}")
reciprocal = unary("reciprocal", "1 / x.", derivative=lambda y: -y * y,
                   formula=r"\frac{dy}{dx} = -\frac{1}{x^2} = -y^2", source="ai-edu, equation 33", floats=True,
                   notation=r"\frac{{1}}{{{0}}}")
abs = unary("abs", "The absolute value.", derivative=lambda x: sign(x),
            formula=r"\frac{dy}{dx} = \operatorname{sign} x", source="subgradient", notation="|{0}|",
            notes="The gradient at 0 is 0.")
remainder = binary("remainder", "a modulo b, with the sign of b (Python's %).",
                   rule=(lambda g: g, lambda g, a, b: -g * (a // b)),
                   formula=r"y = a - b \lfloor a / b \rfloor, \quad dy = da - \lfloor a / b \rfloor\,db",
                   source="ai-edu, equation 31",
                   notes="The derivative almost everywhere; y jumps where a / b is an integer. On a GPU floats follow"
                   " the formula as it rounds: NaN for infinite b, few digits where a / b is large; integers modulo 0"
                   " are 0.")

# --- steps: piecewise constant, gradient zero -----------------------------------------------------------------------

floor_divide = binary("floor_divide", "a // b: the quotient rounded towards minus infinity.",
                      derivative=(lambda: 0.0, lambda: 0.0), formula=r"y = \lfloor a / b \rfloor, \quad dy = 0",
                      source="ai-edu, equation 1", notes="The derivative almost everywhere; PyTorch defines none. On a"
                      " GPU the quotient of floats is rounded before it is rounded down (1 // 0.1 is 10 there, 9 on a"
                      " CPU); integers divided by 0 are 0.")
sign: Unary = unary("sign", "-1, 0 or 1.", derivative=lambda: 0.0,
             formula=r"\frac{dy}{dx} = 0", source="ai-edu, equation 1", notes="sign 0 = 0.")
floor = unary("floor", "The largest integer not above x, in the dtype of x.", derivative=lambda: 0.0,
              formula=r"\frac{dy}{dx} = 0", source="ai-edu, equation 1")
ceil = unary("ceil", "The smallest integer not below x, in the dtype of x.", derivative=lambda: 0.0,
             formula=r"\frac{dy}{dx} = 0", source="ai-edu, equation 1")
trunc = unary("trunc", "x rounded towards zero.", derivative=lambda: 0.0,
              formula=r"\frac{dy}{dx} = 0", source="ai-edu, equation 1")
# fmt: on


@elementwise(
    derivative=lambda: 0.0,
    formula=r"\frac{dy}{dx} = 0",
    source="ai-edu, equation 1",
    notes="Halves go to the even side.",
)
def round(xp, x, decimals=0):
    """x rounded to the nearest number with that many decimals."""
    return xp.round(x, decimals)


@fused("exp_rule", takes=2)
def _times_exp(xp, x, g):
    return (g * xp.exp(x),)


def _quick_times_exp(xp, x, out, g):
    (y,) = out
    xp.exp(x, out=y)
    y *= g
    return (y,)


# --- powers ---------------------------------------------------------------------------------------------------------


@elementwise(
    derivative=(_power_base, _power_exponent),
    formula=r"d(a^b) = b\,a^{b-1}\,da + a^b \ln a\,db",
    source="ai-edu, equations 2 and 5",
    notation="{0}^{{{1}}}",
    notes="0^0 = 1 with gradient 0 for a and for b; 0^b with b > 0 has gradient 0 for b; where a < 0,"
    " the gradient for b is NaN. Integers to a negative integer power are a ValueError; where the exponents are an"
    " array on a GPU, which the host would have to read, they are 1 or -1 for these bases, else 0.",
)
def power(xp, a, b):
    """a to the power b (``a ** b``), elementwise with broadcasting, for x^n and for c^x."""
    if type(b) is int and b < 0 and a.dtype.kind in "iu":
        raise ValueError(f"the integer power {b} of integers has no integer value; use a.astype('float32')")
    return _power(a, b)


# fmt: off
square = unary("square", "x squared.", derivative=lambda x: 2 * x,
               formula=r"\frac{dy}{dx} = 2x", source="ai-edu, equation 2", notation="{0}^2")
sqrt = unary("sqrt", "The square root.", rule=lambda g, y: 0.5 * g / y,
             formula=r"\frac{dy}{dx} = \frac{1}{2\sqrt{x}} = \frac{1}{2y}", source="ai-edu, equation 2", floats=True,
             notation=r"\sqrt{{{0}}}", notes="At 0 the gradient is infinite; NaN for x < 0.")
cbrt = unary("cbrt", "The real cube root, also of negative numbers.", derivative=lambda y: 1 / (3 * y * y),
             formula=r"\frac{dy}{dx} = \frac{1}{3 y^2}", source="ai-edu, equation 2", floats=True,
             notes="At 0 the gradient is infinite.")
hypot = binary("hypot", "sqrt(a^2 + b^2) without overflow.", derivative=(lambda a, y: a / y, lambda b, y: b / y),
               formula=r"dy = \frac{a\,da + b\,db}{y}", source="ai-edu, equations 2 and 52", floats=True,
               symmetric=True, notes="At (0, 0) both gradients are NaN, as in PyTorch.")

# --- exponentials and logarithms ------------------------------------------------------------------------------------

exp: Unary = unary("exp", "e to the power x.\n\n>>> tg.exp(0.0).item()\n1.0", derivative=lambda y: y,
            formula=r"\frac{dy}{dx} = e^x = y", source="ai-edu, equations 6 and 7", floats=True, notation="e^{{{0}}}")
expm1 = unary("expm1", "e^x - 1, accurate for small x.",
              rule=lambda g, x: times_slope(g, x, exp, _times_exp, _quick_times_exp, beyond=MANY),
              formula=r"\frac{dy}{dx} = e^x", source="ai-edu, equation 6", floats=True)
exp2 = unary("exp2", "2 to the power x.", derivative=lambda y: y * math.log(2),
             formula=r"\frac{dy}{dx} = y \ln 2", source="ai-edu, equation 5", floats=True)
log = unary("log", "The natural logarithm.", rule=lambda g, x: g / x,
            formula=r"\frac{dy}{dx} = \frac{1}{x}", source="ai-edu, equation 4", floats=True, notation=r"\ln {0}",
            notes="At 0: value -inf, gradient inf. For x < 0 the value is NaN and the gradient 1 / x.")
log1p = unary("log1p", "ln(1 + x), accurate for small x.", rule=lambda g, x: g / (1 + wide(x)),
              formula=r"\frac{dy}{dx} = \frac{1}{1 + x}", source="ai-edu, equation 4", floats=True,
              notes="At -1: value -inf, gradient inf.")
log2 = unary("log2", "The logarithm to base 2.", derivative=lambda x: 1 / (x * math.log(2)),
             formula=r"\frac{dy}{dx} = \frac{1}{x \ln 2}", source="ai-edu, equation 3", floats=True,
             notes="At 0: value -inf, gradient inf.")
log10 = unary("log10", "The logarithm to base 10.", derivative=lambda x: 1 / (x * math.log(10)),
              formula=r"\frac{dy}{dx} = \frac{1}{x \ln 10}", source="ai-edu, equation 3", floats=True,
              notes="At 0: value -inf, gradient inf.")
# fmt: on


@elementwise(
    derivative=(lambda x, base: 1 / (x * _ln(base)), lambda base, y: -y / (base * log(base))),
    formula=r"y = \frac{\ln x}{\ln a}, \quad dy = \frac{dx}{x \ln a} - \frac{y\,da}{a \ln a}",
    source="ai-edu, equation 3",
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
