"""Guards: the values outside a step on which its recording depends.

Numbers, strings and None are guarded by value, other objects by identity. Guarded are closure cells, default arguments,
the globals that the step and its functions use, the attributes of the modules, optimizers and objects found there, and
the items of the lists and dicts found there. Deeper values are not guarded; the recording keeps the old ones.
"""

import dis
import random
import secrets
import sys
import time
from collections import deque
from functools import partial
from types import BuiltinMethodType, CodeType, FunctionType, MappingProxyType, MethodType, ModuleType
from typing import Any

import numpy

from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.nn.module import Module
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.schedules import Schedule
from tinygrad_ms.replay.refusal import refusal

MISSING: Any = object()
SIMPLE = frozenset((int, float, bool, str, type(None), complex, bytes))
METHODS = frozenset((MethodType, BuiltinMethodType))  # each read of such an attribute makes a new object
COMPARED = SIMPLE | METHODS
CHANGING = (random, secrets, time, numpy.random)  # modules whose functions give other values at each call
LIVE = (Optimizer, Schedule)  # their calls run at each replay and read their values then
MOST_ITEMS = 1000


class Guards:
    """The present values that a function reads, and those that its functions and objects read."""

    def __init__(self, roots):
        self.entries: list[tuple] = []  # (function that reads, owner, key, value, name for messages)
        self.known: set[tuple] = set()
        self.lengths: list[tuple] = []  # (container, length, name for messages)
        self.seen: dict[int, Any] = {}  # id -> the object, which so stays alive
        self.used = {"forward", "__call__", *(getattr(root, "__name__", "") for root in roots)}  # names that code uses
        self.problems: list[tuple] = []  # (name of a method or "" for a function, the error that refuses it)
        self.in_class = False  # whether the methods of a class are visited now
        for root in roots:
            if not isinstance(root, (FunctionType, MethodType, Module, *LIVE)):
                root = MethodType(type(root).__call__, root)
            self.visit(root, getattr(root, "__name__", type(root).__name__))
        for name, error in self.problems:  # a method whose name no code uses is never called, so it may stay
            if not name or name in self.used:
                raise error

    def changed(self) -> str:
        """The name of a value that has changed; "" if none has."""
        for read, owner, key, value, label in self.entries:
            now = read(owner, key)
            if now is not value and not (type(now) in COMPARED and type(now) is type(value) and now == value):
                return label
        for container, length, label in self.lengths:
            if len(container) != length:
                return f"the length of {label}"
        return ""

    def conditions(self, bound) -> list[str]:
        """Python expressions that are true if all values are the same objects. bound: object -> its name in them."""
        found = []
        for read, owner, key, value, _ in self.entries:
            text = TEXTS[read].format(bound(owner), key if read is attribute_of else repr(key))
            if value is MISSING and read is entry_of and writable(key):
                found.append(f"{key!r} not in {bound(owner)}")
                continue
            if value is MISSING or (read is attribute_of and not str(key).isidentifier()) or not writable(key):
                text = f"{bound(read)}({bound(owner)}, {bound(key)})"
            found.append(f"{text} {'==' if type(value) in METHODS else 'is'} {bound(value)}")
        return found + [f"len({bound(container)}) == {length}" for container, length, _ in self.lengths]

    def add(self, read, owner, key, label) -> None:
        value = read(owner, key)
        if (place := (read, id(owner), key)) not in self.known:
            self.known.add(place)
            self.entries.append((read, owner, key, value, label))
        self.visit(value, label)

    def visit(self, value, label) -> None:
        """Guard the values inside a value."""
        if type(value) in SIMPLE or value is MISSING or id(value) in self.seen:
            return
        self.seen[id(value)] = value
        if isinstance(value, MethodType):
            self.visit(value.__self__, label)
            self.visit(value.__func__, label)
            self.attributes(value.__self__, label, names_of(getattr(value.__func__, "__code__", None)))
        elif isinstance(value, FunctionType):
            self.function(value)
        elif isinstance(value, property):
            self.visit(value.fget, label)
        elif isinstance(value, partial):
            for part in (value.func, *value.args, *value.keywords.values()):
                self.visit(part, label)
        elif isinstance(value, type):
            self.kind(value)
        elif any(value is module for module in CHANGING) or isinstance(value, (numpy.random.Generator, random.Random)):
            raise refusal("draws random numbers or reads the clock; use nn.Dropout, tg.rand or tg.randn", label)
        elif isinstance(value, Module):
            self.module(value, label)
        elif isinstance(value, LIVE):
            return
        elif isinstance(value, (list, tuple, dict)):
            self.items(value, label)
        elif isinstance(value, (set, frozenset, deque)):
            self.lengths.append((value, len(value), label))

    def items(self, value, label) -> None:
        if len(value) > MOST_ITEMS:
            raise refusal(f"has {len(value)} items, more than can be guarded; pass it as an argument", label)
        if isinstance(value, dict):
            self.lengths.append((value, len(value), label))
            for key in list(value):
                self.add(entry_of, value, key, f"{label}[{key!r}]")
        elif isinstance(value, list):
            self.lengths.append((value, len(value), label))
            for i in range(len(value)):
                self.add(item_of, value, i, f"{label}[{i}]")
        else:
            for i, item in enumerate(value):
                self.visit(item, f"{label}[{i}]")

    def module(self, module, label) -> None:
        """Guard all attributes of a module. Its submodules are among them."""
        for name in list(vars(module)):
            if name not in BOOKKEEPING and not isinstance(vars(module)[name], numpy.random.Generator):
                self.add(entry_of, vars(module), name, f"{label}.{name}")
        self.add(attribute_of, module, "training", f"{label}.training")
        self.kind(type(module), vars(module))

    def kind(self, kind, own=None) -> None:
        """Guard the methods and other attributes of the classes of an object, except those of this package."""
        for part in kind.__mro__:
            if not is_library(part):
                for name in list(vars(part)):
                    if not name.startswith("__") or name == "__call__":
                        self.in_class = True
                        self.add(attribute_of, part, name, f"{part.__name__}.{name}")
                        self.in_class = False
                        if (
                            own is not None and name not in own
                        ):  # an attribute of the object would hide that of the class
                            self.add(entry_of, own, name, f"{part.__name__}.{name}")

    def function(self, function) -> None:
        """Guard the cells, defaults and globals of a function, and those attributes of their objects that it names."""
        if not is_library(function):
            self.used.update(names_of(function.__code__))
            name, self.in_class = function.__name__ if self.in_class else "", False
            try:
                look_for_data(function.__code__)
                self.inside(function)
            except RuntimeError as error:
                self.problems.append((name, error))

    def inside(self, function) -> None:
        name, names, values = function.__name__, names_of(function.__code__), []
        for cell, variable in zip(function.__closure__ or (), function.__code__.co_freevars):
            self.add(content_of, cell, None, variable)
            values.append((variable, content_of(cell)))
        defaults = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
        for i, value in enumerate(defaults):
            self.visit(value, f"{name}: default {i}")
        for variable in names:
            if variable in function.__globals__:
                value = function.__globals__[variable]
                self.add(entry_of, function.__globals__, variable, variable)
                values.append((variable, value))
        for variable, value in values:
            self.attributes(value, variable, names)

    def attributes(self, value, label, names) -> None:
        """Guard the attributes of an object or a Python module that a function may read, by the names in its code."""
        if type(value) in SIMPLE or isinstance(value, (Tensor, Module, FunctionType, numpy.ndarray, *LIVE)):
            return
        if type(value).__module__.startswith("tinygrad_ms."):  # the compiled step itself: opt.step() names "step", too
            return
        if not isinstance(value, ModuleType) and not is_library(value):
            for part in type(value).__mro__:  # its methods may read attributes of self
                for method in [f for f in vars(part).values() if isinstance(f, FunctionType)]:
                    names = [*names, *names_of(method.__code__)]
            names = list(dict.fromkeys(names))
        if is_library(value):
            if getattr(value, "__name__", "") == "numpy" and "random" in names:
                raise refusal("draws random numbers; use nn.Dropout, tg.rand or tg.randn", "numpy.random")
            return
        inside = getattr(value, "__dict__", None)
        for name in names:
            if isinstance(inside, dict) and name in inside:
                self.add(entry_of, inside, name, f"{label}.{name}")
            elif isinstance(inside, MappingProxyType) and name in inside:
                self.add(attribute_of, value, name, f"{label}.{name}")
            elif not isinstance(value, ModuleType) and hasattr(type(value), name):
                self.add(attribute_of, type(value), name, f"{label}.{name}")
                if isinstance(inside, dict):
                    self.add(entry_of, inside, name, f"{label}.{name}")


BOOKKEEPING = {
    "_name",
    "_named_at",
    "_nested",
    "_seen",
    "training",
}  # bookkeeping of modules, and ``training``, which is guarded as an attribute of the class


def is_library(value) -> bool:
    """Whether a function, class, object or module belongs to this package, to NumPy or to Python itself."""
    name = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", "") or ""
    top = str(name).partition(".")[0]
    return top != "__main__" and (top in ("tinygrad_ms", "numpy", "cupy") or top in sys.stdlib_module_names)


def names_of(code) -> list[str]:
    """The names of globals and attributes that a function and the functions inside it use."""
    if not isinstance(code, CodeType):
        return []
    names = list(code.co_names)
    for constant in code.co_consts:
        names += names_of(constant)
    return list(dict.fromkeys(names))


def look_for_data(code) -> None:
    """Refuse a function that reads the raw arrays of tensors, because calls on them could not be recorded."""
    if UNSEEN.isdisjoint(names_of(code)):
        return
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_ATTR", "STORE_ATTR", "LOAD_METHOD") and instruction.argval in UNSEEN:
            line = instruction.positions.lineno if instruction.positions else code.co_firstlineno
            raise refusal(
                f"uses .{instruction.argval}, whose arrays a recording does not see; use ops, or .detach()",
                f"{code.co_filename}:{line}",
            )
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            look_for_data(constant)


UNSEEN = {"data"}


# --- how to read a value; MISSING where there is none -----------------------------------------------------------------


def content_of(cell, key=None):
    try:
        return cell.cell_contents
    except ValueError:  # not bound yet
        return MISSING


def entry_of(container, key):
    return container.get(key, MISSING)


def item_of(container, i):
    return container[i] if i < len(container) else MISSING


def attribute_of(owner, name):
    return getattr(owner, name, MISSING)


def writable(key) -> bool:
    """Whether ``repr`` of a key is Python for that key."""
    return type(key) in (str, int, type(None))


TEXTS = {content_of: "{}.cell_contents", entry_of: "{}[{}]", item_of: "{}[{}]", attribute_of: "{}.{}"}
