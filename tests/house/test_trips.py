"""The trips of a newcomer: how many files one opens to follow a call to the line that does the work.

Two ways of counting, because they answer two questions. *Entered*: every file of ours whose code runs on the way,
helpers included. *On the way*: the files of the calls that have not returned yet when the line is reached; a reader
passes through these even if he trusts every helper by its name.
"""

import ast
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import primitive  # as the library's own ops are made: tg.primitive adds checks

ROOT = Path(tg.__file__).resolve().parents[1]
ROOMS = (ROOT / "tinygrad_ms", ROOT / "ops")


def ours(code):
    """The file of a code object, if it is one of the library's: "ops/shapes.py"."""
    return in_library(code.co_filename)


@cache
def in_library(name):
    path = Path(name).resolve()
    return path.relative_to(ROOT).as_posix() if any(path.is_relative_to(room) for room in ROOMS) else None


class Entered:
    """``with Entered() as seen``: the code objects that are called inside."""

    def __enter__(self):
        self.codes = set()
        self.before = sys.getprofile()
        sys.setprofile(lambda frame, event, argument: self.codes.add(frame.f_code))
        return self

    def __exit__(self, *error):
        sys.setprofile(self.before)

    def files(self):
        return set(map(ours, list(self.codes))) - {None}


def on_the_way(frame):
    """The files of ours in the chain of calls that led to ``frame``."""
    found = set()
    while frame:
        found.add(ours(frame.f_code))
        frame = frame.f_back
    return found - {None}


def statement_at(file, line):
    """The top-level statement of a file that covers a line, decorators included."""
    for statement in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
        first = min([statement.lineno, *(d.lineno for d in getattr(statement, "decorator_list", []))])
        if first <= line <= statement.end_lineno:
            return statement


def names_in(statement):
    for node in ast.walk(statement):
        yield getattr(node, "name", None) or getattr(node, "id", None) or getattr(node, "value", None)


@pytest.mark.parametrize("name", ["tanh", "exp", "sin", "sqrt"])
def test_an_op_and_its_rule_stand_in_one_statement_of_one_file(name):
    x = tg.tensor([0.5, 0.7], requires_grad=True)
    y = getattr(tg, name)(x)
    with Entered() as seen:
        y.backward(np.ones(2))
    rules = [code for code in seen.codes if (ours(code) or "").startswith("ops/")]
    assert rules and len(set(map(ours, rules))) == 1
    for rule in rules:
        assert name in names_in(statement_at(ours(rule), rule.co_firstlineno))


def test_backward_enters_three_files_before_it_adds_gradients():
    """All files entered, but for the rule of the op: here it is the test's own, defined as those of the library are."""

    class Spy(np.ndarray):
        def __add__(self, other):
            added.append(seen.files())
            return np.add(self, other)

    added = []
    product = primitive([lambda g, b: (g * b).view(Spy), lambda g, a: (g * a).view(Spy)])(plain_product)
    x = tg.tensor([3.0], requires_grad=True)
    loss = product(x, x)
    with Entered() as seen:
        loss.backward()
    assert x.grad.item() == 6.0
    assert len(added) == 1
    assert len(added[0]) <= 3, added[0]


def plain_product(xp, a, b):
    return a * b


MSIGN_ON_THE_WAY = 4
MSIGN_ENTERED = 12  # before the first product; a wide matrix is transposed, too


@pytest.mark.parametrize("shape", [(5, 5), (3, 5)])
def test_msign_to_its_products(shape, monkeypatch):
    """Four files on the way to every product of the forward; entered are more: checks, coefficients, memory."""
    products, matmul = [], np.matmul

    def spy(*arguments, **options):
        products.append((on_the_way(sys._getframe(1)), seen.files()))
        return matmul(*arguments, **options)

    M = tg.tensor(np.random.default_rng(0).standard_normal(shape, dtype=np.float32), requires_grad=True)
    tg.msign(M)  # what is computed once, the coefficients, is no part of the trip
    monkeypatch.setattr(np, "matmul", spy)
    with Entered() as seen:
        tg.msign(M)
    assert products
    for way, _ in products:
        assert len(way) <= MSIGN_ON_THE_WAY, way
    assert len(products[0][1]) <= MSIGN_ENTERED, products[0][1]
