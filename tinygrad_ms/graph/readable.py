"""Replaces the letters in the LaTeX of a derivative by numbers: ``1 - y^2`` -> ``1 - 0.4621^2``, of value 0.7864.

sum      = product (+ product ...)         a comparison in square brackets is 1 or 0
product  = power power ...                 a capital letter is a matrix; its product is a matrix product
power    = piece ^ piece
piece    = letter, number, (sum), \\frac{sum}{sum}, \\sqrt{sum}, function piece
"""

import math
import re
from typing import Any, NamedTuple

import numpy

from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.graph.latex import FUNCTIONS
from tinygrad_ms.graph.values import number

TOKEN = re.compile(r"\\(?:operatorname|mathrm|text|begin|end)\{[^{}]*\}|\\[A-Za-z]+|\\.|\d+\.?\d*|\S")
SILENT = {r"\,", r"\;", r"\ ", r"\!", r"\Big", r"\left", r"\right"}
PAIRS = {"(": ")", "[": "]", "{": "}", "|": "|", r"\lfloor": r"\rfloor"}
COMPARISONS = {"=": numpy.equal, "<": numpy.less, ">": numpy.greater, r"\le": numpy.less_equal,
               r"\ge": numpy.greater_equal, r"\ne": numpy.not_equal}  # fmt: skip
CONSTANTS = {"e": math.e, r"\pi": math.pi, r"\infty": math.inf}
CALLED = {r"\ln": "log", r"\sigma": "sigmoid", r"\Phi": "normal_cdf"}  # the other functions are called as in LaTeX


class Unreadable(Exception):
    """The expression has a letter without a value, an index or a word. A line with only some numbers helps nobody."""


class Piece(NamedTuple):
    text: str
    value: Any = None  # None if it is not known
    kind: str = "factor"  # or "matrix"


def read(expression: str, known: dict[str, tuple], index: str = "") -> tuple[str, Any]:
    """The expression with numbers instead of letters, and its value.

    known: {letter: (LaTeX, value)}. ``"\\bar y"`` is one letter.
    index: the index that stands for all elements, such as i in x_i. ``\\sum_i`` brings its own index.
    """
    reader = Reader(expression, known, index)
    with numpy.errstate(all="ignore"):
        text, value, _ = reader.sum("")
    if reader.tokens:
        raise Unreadable
    return text, value


class Reader:
    """Reads the tokens from left to right. Each method takes the tokens of what its name says and returns a Piece."""

    def __init__(self, expression, known, index=""):
        self.tokens = [token for token in TOKEN.findall(expression) if token not in SILENT]
        self.known, self.indices = known, {index}

    def next(self) -> str:
        return self.tokens[0] if self.tokens else ""

    def take(self) -> str:
        if not self.tokens:
            raise Unreadable
        return self.tokens.pop(0)

    def sum(self, *ends) -> Piece:
        """Terms and comparisons up to one of ``ends``. A comparison is 1 where it holds, else 0."""
        sign = self.take() if self.next() in ("+", "-") else ""
        whole = self.product(bool(sign), *ends)
        if sign == "-":
            whole = Piece(f"-{whole.text}", apply(numpy.negative, whole.value))
        while self.next() in ("+", "-"):
            sign = self.take()
            term = self.product(True, *ends)
            joined = apply(numpy.add if sign == "+" else numpy.subtract, whole.value, term.value)
            whole = Piece(f"{whole.text} {sign} {term.text}", joined)
        if self.next() in COMPARISONS:
            left, holds = whole, numpy.float64(1)
            while self.next() in COMPARISONS:
                mark = self.take()
                right = self.product(True, *ends)
                holds = apply(numpy.multiply, holds, apply(COMPARISONS[mark], left.value, right.value))
                whole, left = Piece(f"{whole.text} {mark} {right.text}", holds), right
        if self.next() == "," and "," not in ends:  # further arguments of a function
            self.take()
            whole = Piece(f"{whole.text}, {self.sum(*ends).text}")
        if self.next() not in ends:
            raise Unreadable
        return whole

    def product(self, inside, *ends) -> Piece:
        whole = self.power(inside)
        while (token := self.next()) and token not in (*ends, "+", "-", ",", *COMPARISONS):
            divide = token == "/"
            if divide or token == r"\cdot":
                self.take()
            other = self.power(True)
            matrices = "matrix" in (whole.kind, other.kind)
            letters = not (re.search(r"\d", whole.text) and re.search(r"\d", other.text))
            arrays = numpy.ndim(whole.value) and numpy.ndim(other.value)
            mark = " / " if divide else " " if matrices or letters else r" \odot " if arrays else r" \cdot "
            how = numpy.true_divide if divide else times(whole.value, other.value, matrices)
            whole = Piece(whole.text + mark + other.text, apply(how, whole.value, other.value),
                          "matrix" if matrices else "factor")  # fmt: skip
        return whole

    def power(self, inside=True) -> Piece:
        """inside: whether something stands before the power. Then a negative number needs brackets."""
        base = self.piece(inside)
        if self.next() == "_":  # an index: the array holds all elements
            self.take()
            if self.take() not in self.indices:
                raise Unreadable
        if self.next() != "^":
            return base
        self.take()
        if self.tokens[:1] == ["T"]:
            self.take()
            return Piece(f"{base.text}^T", apply(numpy.transpose, base.value), "matrix")
        exponent = self.group()
        if base.kind == "matrix":
            raise Unreadable
        return Piece(f"{base.text}^{{{exponent.text}}}", apply(numpy.float_power, base.value, exponent.value))

    def group(self) -> Piece:
        """The content of braces, or one digit or letter."""
        if self.next() == "{":
            self.take()
            inside = self.sum("}")
            self.take()
            return inside
        if len(self.next()) > 1 and self.next()[0].isdigit():
            self.tokens[:1] = [self.tokens[0][0], self.tokens[0][1:]]
        return self.piece(False)

    def piece(self, inside) -> Piece:
        token = self.take()
        if token == r"\bar":
            token = rf"\bar {self.take()}"
        if token in self.known:
            text, value = self.known[token]
            if not text:
                raise Unreadable
            bare = text.startswith("(-") and not inside and self.next() != "^"
            return Piece(text[1:-1] if bare else text, value, "matrix" if token[-1].isupper() else "factor")
        if token in PAIRS:
            return self.bracket(token, PAIRS[token])
        if token == r"\begin{cases}":
            return self.cases()
        if token in (r"\frac", r"\tfrac"):
            above, below = self.group(), self.group()
            return Piece(rf"\frac{{{above.text}}}{{{below.text}}}", apply(numpy.true_divide, above.value, below.value))
        if token == r"\sqrt":
            root = self.group()
            return Piece(rf"\sqrt{{{root.text}}}", apply(numpy.sqrt, root.value))
        if token == r"\sum" and self.take() == "_":
            self.indices = {*self.indices, i := self.take()}
            term = self.product(False, *PAIRS.values())
            rows = term.kind == "matrix"  # X_i are the rows of X, x_i the elements of each row of x
            added = apply(lambda a: numpy.sum(a, axis=rows - 1, keepdims=not rows and numpy.ndim(a) > 1), term.value)
            return Piece(rf"\sum_{i} {term.text}", added)
        if token in CONSTANTS or token[0].isdigit():
            return Piece(token, CONSTANTS[token] if token in CONSTANTS else float(token))
        if token in CALLED or token[1:] in FUNCTIONS or token.startswith((r"\operatorname{", r"\mathrm{")):
            return self.call(token)
        raise Unreadable

    def bracket(self, begin, end) -> Piece:
        inside = self.sum(end)
        self.take()
        if begin == "[" and numpy.ndim(inside.value):  # 1 where the condition holds, else 0
            return Piece(matrix(inside.value), inside.value)
        made = {"|": numpy.abs, r"\lfloor": numpy.floor}.get(begin, numpy.positive)
        text = f"{begin} {inside.text} {end}" if begin[0] == "\\" else begin + inside.text + end
        return Piece(text, apply(made, apply(numpy.float64, inside.value)), inside.kind)

    def cases(self) -> Piece:
        """Rows; each has a value and its condition."""
        text, total, end = "", numpy.float64(0), r"\end{cases}"
        while not text or self.take() != end:
            value = self.sum("&")
            self.take()
            condition = self.sum(r"\\", end)
            total = apply(numpy.add, total, apply(numpy.multiply, value.value, condition.value))
            text += rf"\\ {value.text} & {condition.text}"
        return Piece(rf"\begin{{cases}} {text[3:]} {end}", total)

    def call(self, name) -> Piece:
        """A function and its argument: the bracket that follows, else the factors up to the next function."""
        exponent = None
        if self.next() == "^":
            self.take()
            exponent = self.group()
        argument = self.power()
        while argument.text[:1] != "(" and self.next() in (*self.known, r"\frac"):
            other = self.power()
            argument = Piece(rf"{argument.text} \cdot {other.text}", apply(numpy.multiply, argument.value, other.value))
        primitive = REGISTRY.get(CALLED.get(name, re.sub(r"\W|operatorname|mathrm", "", name)))
        value = None if primitive is None else apply(primitive.op, apply(numpy.asarray, argument.value))
        power = ""
        if exponent is not None:
            power, value = f"^{{{exponent.text}}}", apply(numpy.power, value, exponent.value)
        return Piece(f"{name}{power}{argument.text if argument.text[:1] == '(' else ' ' + argument.text}", value)


def matrix(array) -> str:
    """The LaTeX of an array of one axis or two."""
    rows = array.reshape(1, -1) if array.ndim == 1 else array
    if len(rows) == 1:
        return f"[{', '.join(scientific(number(value)) for value in rows[0])}]"
    body = r" \\ ".join(" & ".join(scientific(number(value)) for value in row) for row in rows)
    return rf"{{\begin{{bmatrix}} {body} \end{{bmatrix}}}}"  # in braces, as the base of a power


def scientific(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e and exponent else text


def apply(function, *values):
    """``function(*values)``; None if a value is not known or ``function`` does not take it."""
    if any(value is None for value in values):
        return None
    try:
        return function(*values)
    except (TypeError, ValueError):
        return None


def times(a, b, matrices):
    return numpy.matmul if matrices and numpy.ndim(a) and numpy.ndim(b) else numpy.multiply
