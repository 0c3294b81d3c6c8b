"""Operators and methods of Tensor: what they are given, what comes out, and that editors know them."""

import ast
import inspect
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.ops import methods

X = np.array([[0.5, -1.5], [2.0, 3.0]])
OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize("other", [2, 2.0, np.float64(2), np.array([2.0, 3.0]), [2.0, 3.0]], ids=repr)
def test_operators_take_numbers_and_arrays_on_either_side(symbol, other):
    operator, base = OPERATORS[symbol], np.abs(X)
    for found, expected in (
        (operator(tg.tensor(base), other), operator(base, np.asarray(other))),
        (operator(other, tg.tensor(base)), operator(np.asarray(other), base)),
    ):
        assert isinstance(found, tg.Tensor)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-15)
        assert found.dtype == expected.dtype


def test_unary_operators():
    x = tg.tensor(X, requires_grad=True)
    assert +x is x
    np.testing.assert_array_equal((-x).numpy(), -X)
    np.testing.assert_array_equal(abs(x).numpy(), np.abs(X))


@pytest.mark.parametrize("symbol", ["&", "|", "^"])
def test_bit_operators(symbol):
    def operate(a, b):
        return {"&": a & b, "|": a | b, "^": a ^ b}[symbol]

    a, b = np.array([True, True, False]), np.array([True, False, False])
    np.testing.assert_array_equal(operate(tg.tensor(a), tg.tensor(b)).numpy(), operate(a, b))
    np.testing.assert_array_equal(operate(tg.tensor(a), True).numpy(), operate(a, True))
    np.testing.assert_array_equal(operate(6, tg.tensor([3, 5])).numpy(), operate(6, np.array([3, 5])))
    np.testing.assert_array_equal((~tg.tensor(a)).numpy(), ~a)


def test_shifts():
    x = np.array([-5, 3, 12])
    t = tg.tensor(x)
    for found, expected in [(t << 2, x << 2), (t >> 1, x >> 1), (1 << abs(t), 1 << abs(x)), (x >> abs(t), x >> abs(x))]:
        assert found.dtype == np.int64
        np.testing.assert_array_equal(found.numpy(), expected)


def test_bounds_of_clip_are_weak_scalars():
    x = tg.tensor([1, 2, 3])
    assert x.clip(2, 3).dtype == np.int64
    y = x.clip(1.5, 2.5)
    assert y.dtype == np.float32 and y.tolist() == [1.5, 2.0, 2.5]


def test_a_tensor_equals_no_other_kind_of_object_and_is_its_own_key():
    x, twin = tg.tensor([1.0, 2.0]), tg.tensor([1.0, 2.0])
    assert (x == None) is False and (x != None) is True
    assert (x == "x") is False
    assert (x == twin).all()
    assert len({x: 1, twin: 2}) == 2


@pytest.mark.parametrize("bad", [None, "2", {}])
def test_arithmetic_with_other_objects_names_the_op_and_the_argument(bad):
    with pytest.raises(
        TypeError, match=f"multiply: b is {type(bad).__name__}; expected a Tensor, an array or a number"
    ):
        tg.tensor(X) * bad


def test_python_numbers_take_the_dtype_of_the_tensor():
    for dtype in ("float16", "float32", "float64"):
        x = tg.tensor(np.abs(X), dtype=dtype)
        for y in (
            x + 1,
            2.0 * x,
            x / 3,
            2**x,
            x**2,
            x % 2,
            tg.maximum(x, 0.5),
            tg.where(x > 0, x, 0.0),
            tg.log_base(x, 2),
        ):
            assert y.dtype == dtype


def test_integers():
    n = tg.tensor([1, 2, 3])
    assert (n * 2).dtype == (n // 2).dtype == (n**2).dtype == np.int64
    for y in (n / 2, n / n, n * 0.5, tg.exp(n), n.sigmoid(), tg.where(n > 1, 0.5, 1.0), tg.hypot(n, n)):
        assert y.dtype == np.float32
    big = tg.tensor([2**53 - 1])
    assert (big / tg.tensor([1.0], dtype="float64")).item() == 2**53 - 1  # not by way of float32
    with pytest.raises(ValueError, match="power: the integer power -1 of integers has no integer value"):
        n**-1


def test_methods_are_the_functions():
    x = tg.tensor(np.abs(X) / 4)
    for name in (
        "exp log sqrt abs sign square sin cos tan asin acos atan sinh cosh tanh erf relu sigmoid isnan floor"
        " ceil round reciprocal expm1 log1p log2 log10 exp2 softmax log_softmax clone"
    ).split():
        method, function = getattr(x, name)(), getattr(tg, name)(x)
        np.testing.assert_array_equal(method.numpy(), function.numpy())
    np.testing.assert_array_equal(x.pow(2).numpy(), (x**2).numpy())
    np.testing.assert_array_equal(x.clip(0.2, 0.3).numpy(), tg.clip(x, 0.2, max=0.3).numpy())
    np.testing.assert_array_equal(x.maximum(0.2).numpy(), tg.maximum(x, 0.2).numpy())


def test_every_attached_method_is_declared_for_editors():
    classes = [tg.Tensor, methods.Methods, methods.Crossings, methods.OnTape]
    files = {inspect.getsourcefile(c) for c in classes}
    trees = [ast.parse(Path(file).read_text(encoding="utf-8")) for file in files]
    named = {"Methods", *(c.__name__ for c in classes)}
    body = [n for tree in trees for c in tree.body if isinstance(c, ast.ClassDef) and c.name in named for n in c.body]
    declared = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    declared |= {node.target.id for node in body if isinstance(node, ast.AnnAssign)}
    declared |= {target.id for node in body if isinstance(node, ast.Assign) for target in node.targets}
    of_python = set(dir(type("Empty", (), {}))) | {"__annotations__", "__firstlineno__", "__static_attributes__"}
    public = {name for name in dir(tg.Tensor) if name.startswith("__") or not name.startswith("_")}
    attached = {name for name in public if hasattr(tg.Tensor, name)}  # the others are hints at PyTorch's methods
    assert sorted(attached - declared - of_python) == ["__array_ufunc__"]  # a descriptor: ops/numpy_functions.py
    assert sorted(name for name in declared if not hasattr(tg.Tensor, name)) == []
