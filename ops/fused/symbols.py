"""From a kernel in NumPy to the C text of one element: the kernel runs once, on symbols in the place of arrays.

    lines, results = written(lambda xp, x: (x * xp.exp(-xp.abs(x)),), "float32", 1)

So the formula of an elementwise function stands once, in NumPy, and a GPU computes it in one loop. A symbol has the
dtype that an array would have. It follows writes in place and ``out=``, and refuses what needs a value or a shape.
``p *= x; p += 0.5``, the step of Horner's scheme, is rounded once.
"""

import math

import numpy

__all__: list[str] = []

NAMES = {"float32": "float", "float64": "double", "bool": "bool", "uint64": "unsigned long long"}  # of dtypes in C
CALLS = {  # functions of NumPy that C has
    "exp": "exp", "expm1": "expm1", "log": "log", "log1p": "log1p", "sqrt": "sqrt", "tanh": "tanh", "sinh": "sinh",
    "cosh": "cosh", "abs": "fabs", "copysign": "copysign",
}  # fmt: skip
SIGNS = {
    "add": "{} + {}", "subtract": "{} - {}", "multiply": "{} * {}", "divide": "{} / {}", "negative": "-{}",
    "greater": "{} > {}", "greater_equal": "{} >= {}", "less": "{} < {}", "less_equal": "{} <= {}",
    "equal": "{} == {}", "not_equal": "{} != {}", "logical_and": "{} && {}", "logical_or": "{} || {}",
    "logical_not": "!{}", "maximum": "{0} >= {1} || {0} != {0} ? {0} : {1}",  # NaN stays NaN
    "minimum": "{0} <= {1} || {0} != {0} ? {0} : {1}", "right_shift": "{} >> {}", "bitwise_xor": "{} ^ {}",
}  # fmt: skip
NUMBERS = {
    "add", "subtract", "multiply", "divide", "negative", "maximum", "minimum", "right_shift", "bitwise_xor",
}  # fmt: skip
TRUTHS = SIGNS.keys() - NUMBERS


class Symbol:
    """A variable of the text. ``lines``: of the text so far, which all its symbols share."""

    __array_ufunc__ = None

    def __init__(self, lines, name, dtype):
        self.lines, self.name, self.dtype = lines, name, numpy.dtype(dtype)
        self.product = ""  # the factors of a product that was just written into it

    def made(self, expression, dtype, out=None):
        """The symbol of a new line; or ``out``, which now means that line."""
        dtype = numpy.dtype(dtype)
        if out is not None and out.dtype != dtype:
            expression, dtype = f"({NAMES[out.dtype.name]})({expression})", out.dtype
        name = f"v{len(self.lines)}"
        self.lines.append(f"const {NAMES[dtype.name]} {name} = {expression};")
        if out is None:
            return Symbol(self.lines, name, dtype)
        out.name, out.product = name, ""
        return out

    def astype(self, dtype, copy=True):
        dtype = numpy.dtype(dtype)
        return self if dtype == self.dtype and not copy else self.made(f"({NAMES[dtype.name]})({self.name})", dtype)

    def __bool__(self):
        raise TypeError("the text of a kernel cannot depend on the value of an element")

    def __getitem__(self, key):
        raise TypeError("a symbol is one element")


def literal(value, dtype) -> str:
    """A number of Python in C, rounded to the dtype once."""
    if dtype == numpy.uint64:
        return f"{value}ULL"
    if not math.isfinite(value):
        return "not_a_number()" if value != value else f"{'-' if value < 0 else ''}infinity()"
    return f"{float(value)!r}{'f' if dtype == numpy.float32 else ''}"


def written_call(name, *operands, out=None):
    """The symbol of a function of NumPy on symbols and numbers. Numbers are weak."""
    symbols = [a for a in operands if isinstance(a, Symbol)]
    kinds = [a.dtype for a in symbols if a.dtype != bool]
    weak = [numpy.float32] if not kinds and any(type(a) is float for a in operands) else []
    dtype = numpy.result_type(*(kinds or weak or [numpy.bool_]))
    if name == "where":
        kinds = [a.dtype for a in operands[1:] if isinstance(a, Symbol)] or kinds
        dtype = numpy.result_type(*kinds)
    if dtype.kind == "b" and name not in TRUTHS:
        raise TypeError(f"{name} of truth values")
    values = []
    for k, a in enumerate(operands):
        if not isinstance(a, Symbol):
            values.append(literal(a, dtype))
        elif a.dtype == dtype or name in ("where", "logical_not") and k == 0:
            values.append(a.name)
        else:
            values.append(f"({NAMES[dtype.name]}){a.name}")
    if name == "where":
        text = "{} ? {} : {}".format(*values)
    elif name == "add" and out is operands[0] and out.product and len(symbols) == 1:
        text = f"fma({out.product}, {values[1]})"
    else:
        text = SIGNS[name].format(*values) if name in SIGNS else f"{CALLS[name]}({', '.join(values)})"
    y = symbols[0].made(text, numpy.bool_ if name in TRUTHS else dtype, out)
    if name == "multiply" and out is not None and out.dtype == dtype:
        y.product = ", ".join(values)
    return y


class Functions:
    """What a kernel gets as its array library ``xp``."""

    def __getattr__(self, name):
        if name not in CALLS and name not in SIGNS and name != "where":
            raise AttributeError(f"the text of a kernel has no {name}")
        return lambda *operands, out=None: written_call(name, *operands, out=out)

    def clip(self, x, low, high):
        return self.minimum(self.maximum(x, low), high)


def _attach():
    def operator(name, reflected=False, in_place=False):
        def method(self, other):
            operands = (other, self) if reflected else (self, other)
            return written_call(name, *operands, out=self if in_place else None)

        return method

    for short, name in (
        ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"), ("rshift", "right_shift"),
        ("xor", "bitwise_xor"),
    ):  # fmt: skip
        setattr(Symbol, f"__{short}__", operator(name))
        setattr(Symbol, f"__r{short}__", operator(name, reflected=True))
        setattr(Symbol, f"__i{short}__", operator(name, in_place=True))
    for short, name in (
        ("gt", "greater"), ("ge", "greater_equal"), ("lt", "less"), ("le", "less_equal"), ("eq", "equal"),
        ("ne", "not_equal"), ("and", "logical_and"), ("or", "logical_or"),
    ):  # fmt: skip
        setattr(Symbol, f"__{short}__", operator(name))
    for short, name in (("neg", "negative"), ("abs", "abs"), ("invert", "logical_not")):
        setattr(Symbol, f"__{short}__", lambda self, name=name: written_call(name, self))


_attach()


def written(kernel, dtype, inputs, constants=()) -> tuple[list[str], list[str]]:
    """The lines of ``kernel(xp, *inputs, *constants)`` in that dtype, and the names of its results.

    The inputs are called a0, a1, ... in the text. Raises TypeError or AttributeError where no text can be made.
    """
    lines: list[str] = []
    found = kernel(Functions(), *[Symbol(lines, f"a{k}", dtype) for k in range(inputs)], *constants)
    return lines, [y.name for y in found]
