"""Formulas with numbers: ``tanh(0.5) = 0.4621`` for a forward step, ``-1.076 · (1 - 0.4621²) = -0.846`` for a rule.

A line is made from ``notation`` or ``formula`` of the primitive. The numbers of one call replace the letters, and the
line is computed once more as a check. A line with another result is not shown, nor is a formula that cannot be read in
this way (with indices, solvers or words).
"""

import math
import re
from typing import NamedTuple

import numpy

from tinygrad_ms.graph.readable import Unreadable, apply, matrix, read, scientific
from tinygrad_ms.graph.structure import shape_text
from tinygrad_ms.graph.values import number


class Operand(NamedTuple):
    """A number or array of a call, as far as it is known."""

    array: numpy.ndarray | None = None  # only of a small array
    first: float | None = None  # the first element
    shape: tuple = ()

    @classmethod
    def of(cls, summary) -> "Operand":
        return cls() if summary is None else cls(summary.small, summary.first, tuple(summary.shape))

    @classmethod
    def plain(cls, text: str) -> "Operand":
        """The Operand of a Python number, from its text in a picture."""
        try:
            return cls(numpy.asarray(float(text)), float(text))
        except ValueError:
            return cls()


def forward_line(primitive, operands: dict, constants: dict, result: Operand) -> str:
    """The call with numbers: ``0.5 \\cdot 1.5 = 0.75``. Large arrays show their first elements, or their shapes.

    operands: {argument: Operand} in the order of the call. constants: {keyword: text}. All lines are LaTeX.
    """
    line, pick = view(operands.values(), [result], is_local(primitive))
    parts = [pick(operand) for operand in operands.values()]
    if not all(parts) or not pick(result):
        return ""
    if primitive.notation and not constants and "sum" not in primitive.notation:
        arrays = pick is written and all(operand.shape for operand in operands.values())
        notation = primitive.notation.replace(r"\cdot", r"\odot") if arrays else primitive.notation
        bare = notation.startswith("{0} ")
        left = notation.format(*(in_place(part) if i or not bare else part for i, part in enumerate(parts)))
    elif pick is shapes:
        return ""
    else:
        words = [*parts, *(rf"\text{{{plain(f'{key} = {value}')}}}" for key, value in constants.items())]
        name = plain(primitive.name).replace("_", r"\_")
        left = rf"\mathrm{{{name}}}({', '.join(words)})"
    return line + left + (r" \to " if pick is shapes else " = ") + pick(result)


def rule_line(primitive, argument, operands: dict, constants: dict, result: Operand, g: Operand, sent: Operand) -> str:
    """The rule for one argument with numbers: the gradient ``g`` that arrives becomes the gradient ``sent``."""
    kind, expression = rule_of(primitive, argument)
    if not kind:
        return ""
    local, own, index = kind == "local", result_letter(primitive), index_of(primitive, argument)
    line, pick = view(operands.values(), [result, g, sent], local)
    if index and pick is not written:  # one element can stand for all only if the rule has no index
        if "_" in expression:
            return ""
        line, pick = "", element
    constants = {**{name: str(value) for name, value in primitive.defaults.items()}, **constants}
    known = {a: operands.get(name) or Operand.plain(constants.get(name, "")) for a, name in letters(primitive).items()}
    known |= {own.lower(): result, own.upper(): result, rf"\bar {own.lower()}": g, rf"\bar {own.upper()}": g}
    many = sent.shape  # the elements of a mean
    if index and pick is written and index not in known:  # the index counts along the last axis
        known[index] = Operand(numpy.arange(sent.shape[-1] if sent.shape else 1), shape=sent.shape[-1:])
        if index in re.findall(r"\\mathrm\{\w+\}|\\[A-Za-z]+|_?.", expression):
            many = sent.shape[:-1]  # a row has one number
            known |= {a: column(x) for a, x in known.items() if x.shape == many != ()}
    filled = {letter: (in_place(pick(x)), numbers(pick, x)) for letter, x in known.items()}
    n = 1 if "sum" in constants.get("reduction", "") else math.prod(many) // max(math.prod(g.shape), 1)
    if "n" not in dict(clauses(primitive.formula)):
        filled.setdefault("n", (str(n), n))
    try:
        for left, rights in clauses(primitive.formula):  # letters that the formula defines: p = softmax(z)
            if pick is not shapes and re.fullmatch(r"[A-Za-z]|\\[a-z]+", left) and left not in filled:
                value = read(rights[0], filled)[1]
                meant = Operand() if value is None else Operand(numpy.asarray(value), float(numpy.ravel(value)[0]))
                filled[left] = (in_place(pick(meant)), value)
        text, value = read(expression, filled, index)
    except Unreadable:
        return ""
    summed = local and not index and sent.shape != g.shape  # the rule sums over broadcast axes
    if not pick(g) or not pick(sent) or (summed and pick is element):
        return ""
    if pick is shapes:
        return f"{text} \\to {pick(sent)}"
    if local:
        times = r" \odot " if pick is written and g.shape and numpy.ndim(value) else r" \cdot "
        text = pick(g) + times + (f"({text})" if is_sum(text) else text)
        text = r"\sum " * summed + text
        value = apply(numpy.multiply, numbers(pick, g), value)
    elif value is not None and not numpy.ndim(value) and sent.shape:
        line, pick = r"\text{each element: }", element
    if value is None or not agrees(value, numbers(pick, sent), summed):
        return ""
    return line + (text if text == pick(sent) else f"{text} = {pick(sent)}")


def column(x: Operand) -> Operand:
    return x if x.array is None else Operand(x.array[..., None], x.first, (*x.shape, 1))


def agrees(value, sent, summed) -> bool:
    value, sent = numpy.asarray(value, "float64"), numpy.asarray(sent, "float64")
    if summed:
        value, sent = value.sum(), sent.sum()
    with numpy.errstate(all="ignore"):
        return value.shape == sent.shape and bool(numpy.allclose(value, sent, rtol=2e-2, atol=1e-4, equal_nan=True))


# --- numbers, first elements, shapes --------------------------------------------------------------------------


def written(operand: Operand) -> str:
    """All numbers of a small operand in LaTeX; "" for another."""
    array = operand.array
    if array is None or array.ndim > 2 or not array.size:
        return ""
    if not array.ndim:
        return scientific(number(array[()]))
    return matrix(array)


def element(operand: Operand) -> str:
    return "" if operand.first is None else scientific(number(operand.first))


def shapes(operand: Operand) -> str:
    return rf"\text{{{shape_text(operand.shape)}}}" if operand.shape else element(operand)


def numbers(pick, operand):
    return None if pick is shapes else operand.array if pick is written else operand.first


def view(operands, results, local) -> tuple:
    """(words for the reader, function that writes an operand): all its numbers, its first element, or its shape."""
    if all(map(written, (*operands, *results))):
        return "", written
    return (r"\text{first element: }", element) if local else ("", shapes)


def in_place(latex: str) -> str:
    """A number inside a formula. It is in brackets if it is negative or a product."""
    return f"({latex})" if latex.startswith("-") or latex[:1].isdigit() and "cdot" in latex else latex


def plain(text: str) -> str:
    return re.sub(r"[^\w .,:;=()\-/\[\]]", "·", text[:32].replace("'", ""))


def is_sum(latex: str) -> bool:
    return any(len(list(cut(latex, sign))) > 1 for sign in (" + ", " - ")) or latex.startswith("-")


# --- reading what a primitive says of itself ------------------------------------------------------------------


def cut(text: str, mark: str):
    """The pieces of ``text`` between the ``mark``s that are outside of brackets."""
    depth = start = 0
    for i in range(len(text)):
        if depth == 0 and i >= start and text.startswith(mark, i):
            yield text[start:i].strip()
            start = i + len(mark)
        depth += (text[i] in "([{" or text.startswith(r"\begin", i)) - (text[i] in ")]}" or text.startswith(r"\end", i))
    yield text[start:].strip()


def clauses(formula: str):
    """``y = f, \\quad \\frac{dy}{dx} = u = v`` -> ("y", ["f"]), ("\\frac{dy}{dx}", ["u", "v"])."""
    for clause in re.split(r"[,:;]?\\quad|:\\ |,\\ (?=\\bar|d|[A-Za-z] = )", formula):
        left, *rights = cut(clause.strip(" ,:"), " = ")
        if rights:
            yield left, rights


def is_local(primitive) -> bool:
    """Whether the formula holds for each element alone."""
    return any(rule_of(primitive, name)[0] == "local" for name in primitive.arguments)


def rule_of(primitive, argument: str) -> tuple[str, str]:
    """The rule of an argument as a formula: ("local", dy/dx), or ("whole", the gradient that is sent), or ("", "")."""
    named = {name: letter for letter, name in reversed(letters(primitive).items()) if name in primitive.arguments}
    if argument not in named:
        return "", ""
    letter = re.escape(named[argument])
    for left, rights in clauses(primitive.formula):
        if re.fullmatch(rf"\\frac\{{(d|\\partial )\w\}}\{{(d|\\partial ){letter}(_\w)?\}}", left):
            return "local", min(rights, key=difficulty)
        if re.fullmatch(rf"\\bar {letter}(_i)?", left, re.IGNORECASE):
            return ("local", "1") if rights[0] == r"\bar y" and argument == "x" and "_" not in left else (
                "whole", rights[0])  # fmt: skip
        if re.match(r"d(\(|\\frac|[a-z]$)", left):
            d = coefficient(min(rights, key=difficulty), letter)
            return ("local", d) if d else ("", "")
    if primitive.symmetric and argument == primitive.arguments[1]:  # the formula shows only the first argument
        kind, expression = rule_of(primitive, primitive.arguments[0])
        swap = {"a": "b", "b": "a"}
        return kind, re.sub(r"\\[A-Za-z]+|[ab]", lambda match: swap.get(match[0], match[0]), expression)
    return "", ""


def index_of(primitive, argument) -> str:
    """The index of the argument in its rule: i of ``\\bar x_i = ...``."""
    named = {name: letter for letter, name in reversed(letters(primitive).items())}
    found = re.search(
        rf"(?:\\bar |\{{d|partial ){re.escape(named[argument])}_(\w)\}}?(?=$| =)", primitive.formula, re.IGNORECASE
    )
    return found[1] if found else ""


def difficulty(expression: str) -> tuple[int, int]:
    """A key for ``min``: the easiest of equal derivatives has the fewest functions, then the fewest letters."""
    return len(re.findall(r"\\(?!frac|cdot|,)[A-Za-z]+|e\^", expression)), len(expression)


def coefficient(total: str, letter: str) -> str:
    """The factor of ``d letter`` in a differential: in ``b\\,da + a\\,db`` it is b for a. ``letter`` is escaped."""
    if found := re.match(r"\\frac\{", total):
        above, _, below = total[found.end() :].partition("}{")
        if len(list(cut(total, " "))) == 1 and below.count("}") == 1 + below.count("{"):
            above = coefficient(above, letter)
            return above and rf"\frac{{{above}}}{{{below[:-1]}}}"
    if "cases" in total:
        return ""
    mine, kept = re.compile(rf"(\\,)?(?<![A-Za-z\\])d{letter}(?![A-Za-z])"), ""
    for part in cut(total, " + "):
        for j, term in enumerate(cut(part, " - ")):
            if mine.search(term):
                rest = re.sub(r"\{\}", "{1}", mine.sub("", term)).strip()
                sign = "-" if j else "+" if kept else ""
                kept += f" {sign} " * bool(sign) + (rest + "1" if rest in ("", "-") else rest)
    return kept.strip() or "0" * (total == "0")


def result_letter(primitive) -> str:
    """The letter of the result in the formula; y if the formula has none."""
    for left, _ in clauses(primitive.formula):
        if found := re.fullmatch(r"([A-Za-z])|\\frac\{(?:d|\\partial )(\w)\}.*", left):
            return found[1] or found[2]
    return "y"


def letters(primitive) -> dict[str, str]:
    """{letter of the formula: argument or keyword}. The letter is the name, or its first letter, or x or z."""
    formula = re.sub(r"\\(operatorname|mathrm|text|begin|end)\{[^{}]*\}", " ", primitive.formula)
    used = set(re.findall(r"\\[A-Za-z]+|(?<=d)[A-Za-z]|[A-Za-z]", formula)) - {result_letter(primitive), "d"}
    bound: dict[str, str] = {}
    for name in sorted((*primitive.arguments, *primitive.constants), key=lambda name: len(name) > 1):
        choices = [name] if len(name) == 1 else ["\\" + name, name[0], name.rpartition("_")[2][0]]
        choices += ["p"] * (name == "ord")
        if name in primitive.arguments:
            choices += ["x", "z"] * (name == primitive.arguments[0])
        elif primitive.moves:
            choices = choices[:1]
        for choice in choices:
            forms = (choice, choice.upper()) if name in primitive.arguments else (choice,)
            written_so = [c for c in dict.fromkeys(forms) if c in used and len(c) <= len(choice)]
            if written_so and not {choice, choice.upper()} & bound.keys():
                bound |= dict.fromkeys(written_so, name)
                break
    return bound
