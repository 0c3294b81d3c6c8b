"""Ops that are one row each: a function of the array library with its docstring, derivative, formula and source.

    sin = unary("sin", "The sine of x in radians.", derivative=lambda x: cos(x), formula=r"...", source="...")

A row makes the forward ``def sin(xp, x): return xp.sin(x)`` and the op. With ``derivative`` or ``rule`` the op is
elementwise, with ``transpose`` it is linear, and without one of these it has no derivative.
"""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, Protocol

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.primitive import Primitive, elementwise, linear, no_derivative
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.fused import INSTALLED, LEAST, UFUNCS, find

__all__: list[str] = []


class Array(Protocol):
    """An array of NumPy or CuPy."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...


ArrayLike = Tensor | Array | float | list[Any] | tuple[Any, ...]


class Unary(Protocol):
    """An op of one array. For a Tensor, a number or a list it returns a Tensor, for an array an array."""

    primitive: Primitive
    __name__: str

    def __call__(self, x: ArrayLike) -> Tensor: ...


class Binary(Protocol):
    """An op of two arrays, which are broadcast."""

    primitive: Primitive
    __name__: str

    def __call__(self, a: ArrayLike, b: ArrayLike) -> Tensor: ...


def unary(name: str, doc: str, forward: str | Callable = "", **facts) -> Unary:
    """An op of one array. ``forward``: its name in the array library (default: ``name``), or a function (xp, x).

    facts: as for the decorators of ``engine/primitive.py``. ``kind``: the decorator, if it is not the one of the rule.
    """

    def same_name(xp, x):
        return xp.same_name(x)

    return _define(name, doc, forward, same_name, sys._getframe(1), **facts)


def binary(name: str, doc: str, forward: str | Callable = "", **facts) -> Binary:
    """An op of two arrays; arguments as for ``unary``."""

    def same_name(xp, a, b):
        return xp.same_name(a, b)

    return _define(name, doc, forward, same_name, sys._getframe(1), **facts)


_PARAMETERS = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("xp", "x", "a", "b")]
_SIGNATURES = {2: inspect.Signature(_PARAMETERS[:2]), 3: inspect.Signature([_PARAMETERS[0], *_PARAMETERS[2:]])}


def _define(name, doc, forward, same_name, row: FrameType, kind=None, **facts) -> Any:
    plain = "" if callable(forward) else forward or name  # just a function of the array library
    if plain:  # code made from text, because getattr is slower
        code, place = same_name.__code__, row.f_code
        same_name.__code__ = code.replace(
            co_names=(plain,), co_name=name, co_filename=place.co_filename, co_firstlineno=row.f_lineno
        )
        forward = same_name
    forward.__name__ = forward.__qualname__ = name
    forward.__doc__, forward.__module__ = doc, row.f_globals["__name__"]
    forward.__signature__ = _SIGNATURES[
        forward.__code__.co_argcount
    ]  # all rows share it, because reading a signature takes time
    if kind is None:
        kind = (
            linear if "transpose" in facts else elementwise if {"derivative", "rule"} & facts.keys() else no_derivative
        )
    op = kind(**facts)(forward)
    op.primitive.each = True
    alone = [pair for pair in BACKENDS.items() if not pair[1].multi_device]
    for array_type, backend in alone:  # the call goes straight to the array library
        op.primitive.direct[array_type] = getattr(backend.xp, plain) if plain else partial(forward, backend.xp)
    if plain in COMPILED and INSTALLED and (plain in ALWAYS or not widest(plain)):
        op.primitive.direct[numpy.ndarray] = large_or(getattr(numpy, plain), plain)
    elif isinstance(ufunc := getattr(numpy, plain, None), numpy.ufunc):
        UFUNCS.append((op.primitive, ufunc))
    return op


COMPILED = {"exp", "expm1", "log", "log1p", "sin", "cos", "tanh"}  # functions of NumPy for which there is a kernel
ALWAYS = {"exp", "tanh"}  # of these, the ones whose kernel is faster than any loop of NumPy


def widest(name) -> bool:
    """Whether NumPy has an AVX-512 loop for this function of float32. Most kernels are no faster."""
    loops = numpy.lib.introspect.opt_func_info(func_name=f"^{name}$", signature="float32")
    return any(mark in loop["current"] for kinds in loops.values() for loop in kinds.values() for mark in ("V4", "512"))


def large_or(function, name):
    """The compiled kernel of that name for the arrays that it takes, and ``function`` of NumPy for all others."""

    def run(x):
        if x.size >= LEAST and (compiled := find(name, x)):
            return compiled(x)[0]
        return function(x)

    return run
