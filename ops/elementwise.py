"""Functions of each element: arithmetic. Sources: 001 Parr and Howard, 2018; 002 Microsoft ai-edu."""

from tinygrad_ms.engine.primitive import elementwise, linear, multilinear, no_derivative
from tinygrad_ms.engine.tensor import Tensor


@linear(transpose=(lambda g: g, lambda g: g), formula=r"d(a + b) = da + db", source="002 (30)")
def add(xp, a, b):
    """a + b, elementwise with broadcasting."""
    return xp.add(a, b)


@linear(transpose=(lambda g: g, lambda g: -g), formula=r"d(a - b) = da - db", source="002 (31)")
def subtract(xp, a, b):
    """a - b, elementwise with broadcasting."""
    return xp.subtract(a, b)


@multilinear(
    transpose=(lambda g, b: g * b, lambda g, a: g * a), formula=r"d(a b) = b\,da + a\,db", source="002 (32)"
)
def multiply(xp, a, b):
    """a * b, elementwise with broadcasting."""
    return xp.multiply(a, b)


@elementwise(
    derivative=(lambda b: 1 / b, lambda b, y: -y / b),
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


@elementwise(derivative=lambda y: y, formula=r"\frac{dy}{dx} = e^x = y", source="002 (6)", floats=True)
def exp(xp, x):
    """e to the power x."""
    return xp.exp(x)


@no_derivative(formula=r"[a > b]")
def greater(xp, a, b):
    """a > b as booleans."""
    return xp.greater(a, b)


Tensor.__add__ = add
Tensor.__radd__ = lambda b, a: add(a, b)
Tensor.__sub__ = subtract
Tensor.__rsub__ = lambda b, a: subtract(a, b)
Tensor.__mul__ = multiply
Tensor.__rmul__ = lambda b, a: multiply(a, b)
Tensor.__truediv__ = divide
Tensor.__rtruediv__ = lambda b, a: divide(a, b)
Tensor.__neg__ = negative
Tensor.__gt__ = greater
Tensor.exp = exp
