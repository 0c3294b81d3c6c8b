"""The recorded list, as lines of Python over raw arrays, with what they name; and what tells two lists apart."""

import re
from typing import Any, NamedTuple

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.replay.refusal import Diverged

VARIABLE = re.compile(r"\b[xpv]\d+\b")


class Line(NamedTuple):
    """One line of a list. ``value``: the variable of an expression; "" for a statement."""

    text: str
    value: str
    where: str  # the line of the user's code
    counts: bool = True  # whether a list without it is another list
    spare: bool = False  # whether it goes where nobody reads its value


class Listing:
    """Lines, and the objects that they name."""

    def __init__(self):
        self.lines: list[Line] = []
        self.names: dict[str, Any] = {
            "Tensor": Tensor, "Diverged": Diverged, "errstate": numpy.errstate, "as_array": as_array
        }  # fmt: skip
        self.known: dict[Any, str] = {}  # by id of an object: its name
        self.facts: list[Any] = []  # what the names stand for, as far as two lists must agree
        self.count = 0

    def new(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def name(self, value, stem, fact) -> str:
        key = (stem, fact) if fact is not None else (stem, id(value))
        if key not in self.known:
            name = self.known[key] = f"{stem}_{len(self.known)}"
            self.names[name] = value
            self.facts.append((name, id(value) if fact is None else fact))
        return self.known[key]

    def function(self, function, name) -> str:
        return self.name(function, name.strip("_<>"), None)

    def constant(self, value) -> str:
        """A value that is the same at each replay."""
        if type(value) in (int, bool, type(None), str) or (type(value) is float and abs(value) < 1e300):
            return repr(value)
        return self.name(value, "c", describe(value))

    def static(self, value) -> str:
        """An argument of a live call: an object that is the same at each replay."""
        return self.constant(value) if isinstance(value, (int, float, str, type(None))) else self.name(
            value, "o", describe(value)
        )  # fmt: skip

    # --- lines ------------------------------------------------------------------------------------------------------

    def add(self, expression, value, where="") -> str:
        self.lines.append(Line(expression, value, where))
        return value

    def do(self, statement, where="") -> None:
        self.lines.append(Line(statement, "", where))

    def add_op(self, what, names, outputs, several, cache, backend, caches, where) -> None:
        """The call of a forward. caches: {which: name} of what it leaves for its rules."""
        first = self.new() if several or cache else names[0]
        self.add(what, first, where)
        if caches:
            for which, name in caches.items():
                self.add(f"{first}[1][{which}]", name)
        if several:
            for k, name in enumerate(names):
                self.add(f"{first}[0][{k}]" if cache else f"{first}[{k}]", name)
        elif cache:
            self.add(f"{first}[0]", names[0])
        for name, y in zip(names, outputs):
            if not y.ndim:  # NumPy's reductions give scalars
                self.add(f"as_array({name}, {self.name(backend, 'backend', None)})", name)

    def folded(self, value, array) -> str:
        """The constant ``array`` in place of the last line, if that makes ``value`` of constants alone."""
        line = self.lines[-1]
        if line.value != value or VARIABLE.search(line.text) or type(array) not in BACKENDS:
            return value
        self.lines.pop()
        return self.name(array, "c", line.text)

    def ask(self, function, texts, answer) -> None:
        self.do(f"if {function}({', '.join(texts)}) != {self.constant(answer)}: raise Diverged")

    def leaf(self, tensor) -> str:
        name = f"leaf_{id(tensor)}"
        self.names[name] = tensor
        return name

    def note_gradient(self, tensor, value) -> None:
        self.lines.append(Line(f"{self.leaf(tensor)}.grad.data", value, "", counts=False, spare=True))

    def drop_gradient(self, tensor) -> None:
        self.lines.append(Line(f"{self.leaf(tensor)}.grad = None", "", "", counts=False))

    # --- what becomes of them ---------------------------------------------------------------------------------------

    def key(self) -> tuple:
        """Two runs of a step have made the same list if their keys are equal."""
        return tuple(line[:2] for line in self.lines if line.counts), tuple(self.facts)

    def source(self, inputs: int, outside: int, results: list[str]) -> str:
        """The function that runs the list: arrays in, a list of results out. A value goes after its last use."""
        arguments = ", ".join([*(f"x{i}" for i in range(inputs)), *(f"p{i}" for i in range(outside))])
        end = f"return [{', '.join(results)}]"
        alive, body = set(VARIABLE.findall(end)), [end]
        for line in reversed(self.lines):
            if line.spare and line.value not in alive:
                continue
            used = {name for name in VARIABLE.findall(line.text) if name[0] == "v"}
            last = sorted(used - alive - {line.value})
            if line.value and line.value not in alive:
                last.append(line.value)
            alive -= {line.value}
            alive |= used
            indent = "    " if line.text.startswith(" ") else ""
            text = line.text.strip()
            text = f"{line.value} = {text}" if line.value else text
            if last:
                body.append(f"{indent}del {', '.join(last)}")
            body.append(indent + text)
        return f"def replay({arguments}):\n" + "\n".join(f"    {text}" for text in reversed(body)) + "\n"


def describe(value) -> Any:
    """What must be equal for two constants to be the same: values of numbers and arrays, else identity."""
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(describe, value))
    if type(value) in BACKENDS:
        host = BACKENDS[type(value)].to_host(value)
        return type(value).__name__, str(host.dtype), host.shape, host.tobytes()
    if isinstance(value, (int, float, str, slice, numpy.dtype, numpy.generic, type(None))) or value is Ellipsis:
        return type(value).__name__, repr(value)
    return id(value)
