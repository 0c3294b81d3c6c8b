"""Writes a plan as Python, one line per call, with the arrays and functions that it names."""

import operator
import re
from collections import deque
from functools import partial
from itertools import starmap
from math import prod
from types import BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType
from typing import Any, NamedTuple

import numpy

from tinygrad_ms.engine.tape import last_change, tick
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.float_errors import QUICK, prepare
from tinygrad_ms.ops.fused.team import pays
from tinygrad_ms.replay.fusion import laid
from tinygrad_ms.replay.layout import buffer_of, name_of, values_in
from tinygrad_ms.replay.plan import FILLS, FREE, REDUCTIONS, STAYING, WEAK, Plan, has_out
from tinygrad_ms.replay.refusal import Diverged
from tinygrad_ms.replay.small import HOST
from tinygrad_ms.replay.trace import VIEWS, Input, Value
from tinygrad_ms.tree import Slot

IN_C = (numpy.ufunc, BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType)


class Line(NamedTuple):
    """One call. target: the variable of its result, or "". pieces: function and arguments as text, or a plain store."""

    text: str
    target: str
    reads: tuple  # variables
    effect: bool  # whether it changes an object of the user
    pieces: str  # "" if it is neither a single call in C nor a store
    errors: Any  # the treatment of floating-point errors; None if there can be none
    note: str
    raises: bool = True  # it may


class Source:
    """The text of the function that replays, and the objects that it names."""

    def __init__(self, plan: Plan, trace, structure, base_errors):
        self.plan, self.trace, self.base = plan, trace, base_errors
        self.names: dict[str, Any] = {
            "Tensor": Tensor, "Diverged": Diverged, "enter": QUICK[0], "leave": QUICK[1],
            "tick": tick, "calls_of": partial(starmap, operator.call), "run": deque, "last_change": last_change,
            "copyto": numpy.copyto, "asarray": numpy.asarray, "decides": set(),
            "blank": object.__new__, "fill": Tensor._fill, "laid": laid,
        }  # fmt: skip
        self.known: dict[Any, str] = {}
        self.texts: dict[Value, str] = {}
        self.stays: dict[Value, bool] = {}
        self.block = None
        self.make_block()
        self.lines: list[Line] = []
        self.views: dict[str, Any] = {}  # by name: how an array is laid out for a loop
        self.loops: list[str] = []  # what the loops compute, for people
        self.first: list[str] = []  # what is read at the start
        self.gradients: list[str] = []  # lines that make the tensors of gradients, in half the time of Tensor(...)
        self.scalars: dict[tuple, Any] = {}
        self.prepared: dict[str, Any] = {}  # treatments of floating-point errors, for ``enter``
        self.count = 0
        for e in plan.entries:
            self.entry(e)
        self.text = self.whole(structure)

    def make_block(self):
        plan = self.plan
        if not plan.static:
            return
        block = plan.backend.xp.empty(plan.size + 64, numpy.uint8)
        shift = -block.ctypes.data % 64 if isinstance(block, numpy.ndarray) else 0
        self.block = block[shift : shift + plan.size]
        for storage, v in plan.static.items():
            plan.made[v] = buffer_of(self.block, plan.offsets[storage], v)

    # --- names --------------------------------------------------------------------------------------------------------

    def bound(self, thing, stem) -> str:
        key = id(thing)
        if key not in self.known:
            name = f"{stem}{len(self.known)}"
            self.known[key] = name
            self.names[name] = thing
        return self.known[key]

    def function(self, function) -> str:
        name = name_of(function)
        name = name if name.isidentifier() else "f"
        if self.names.get(name, function) is function:
            self.names[name] = function
            return name
        return self.bound(function, f"{name}_")

    def stay(self, v) -> bool:
        """Whether the array of a Value is the same object at each replay."""
        if v not in self.stays:
            s, e = v.storage, v.entry
            if v.scalar:
                self.stays[v] = v in self.plan.made
            elif v.thing is not None:
                self.stays[v] = not isinstance(v.thing, (Input, Tensor))
            elif v.root or e is None:
                self.stays[v] = s.kind in STAYING or s in self.plan.static
            else:
                reads = self.plan.reads(e)
                self.stays[v] = type(e.outs) is Value and all(map(self.stay, reads))
        return self.stays[v]

    def value(self, v) -> str:
        v = self.plan.resolve(v)
        if v not in self.texts:
            if self.stay(v):
                stem = {"outside": "p", "number": "n", "constant": "c"}.get(v.storage.kind, "b")
                self.texts[v] = self.bound(self.plan.array_of(v), stem)
            elif isinstance(v.thing, Input):
                self.texts[v] = f"x{v.thing}"
            elif isinstance(v.thing, Tensor):
                self.texts[v] = f"g{len(self.texts)}"
                self.first.append(f"{self.texts[v]} = {self.bound(v.thing, 't')}.grad.data")
            else:
                self.count += 1
                self.texts[v] = f"v{self.count}"
        return self.texts[v]

    def argument(self, x) -> str:
        kind = type(x)
        if kind is Value:
            return self.value(x)
        if kind in (int, bool, type(None), str) or (kind is float and abs(x) < 1e300):
            return repr(x)
        if kind is tuple or kind is list:
            inside = "".join(f"{self.argument(item)}, " for item in x)
            return f"({inside})" if kind is tuple else f"[{inside}]"
        return "..." if x is Ellipsis else self.bound(x, "k")

    def target(self, outs) -> str:
        if outs is None:
            return "_"
        if type(outs) is Value:
            return self.value(outs) if not self.stay(outs) else "_"
        return "(" + "".join(f"{self.target(item)}, " for item in outs) + ")"

    # --- lines --------------------------------------------------------------------------------------------------------

    def add(self, e, text, target="", effect=False, pieces="", errors=True):
        reads = tuple(dict.fromkeys(self.value(v) for v in self.plan.reads(e) if not self.stay(v)))
        kernel = e.kind == "fused" or hasattr(e.function, "written")  # which raises nothing
        self.lines.append(Line(text, target, reads, effect, pieces, e.errors if errors else None, e.label, not kernel))

    def call(self, e, function, args, kwargs=(), target=""):
        """Add the line of a call. Its function and arguments are objects and Values."""
        kwargs = dict(kwargs)
        effect = any(s.kind not in ("buffer", "number") for s in e.writes)
        args_text = [self.argument(a) for a in args]
        if isinstance(function, str):
            head, rest, pieces = f"{args_text[0]}.{function}", args_text[1:], ""
        else:
            head, rest = self.function(function), args_text
            whole = head
            in_c = isinstance(function, IN_C) and all(self.stay(v) for v in values_in(kwargs))
            if kwargs and effect and in_c:
                whole = self.bound(partial(function, **self.plan.filled(kwargs)), "f")
            pieces = f"({', '.join([whole, *rest])},)" if in_c and not target else ""
        rest = rest + [f"{k}={self.argument(v)}" for k, v in kwargs.items()]
        text = f"{head}({', '.join(rest)})"
        if function is operator.setitem:
            text = f"{rest[0]}[{rest[1]}] = {rest[2]}"
        self.add(e, f"{target} = {text}" if target else text, target, effect, pieces)

    def entry(self, e):
        getattr(self, f"do_{e.kind}")(e)

    def do_expect(self, e):
        v, answer = e.args
        self.names["decides"].add(e.label)
        test = self.value(v) if e.function is bool else f"{self.function(e.function)}({self.value(v)})"
        self.add(e, f"if {'not ' if answer else ''}{test}: raise Diverged({e.label!r})", errors=False)

    def do_shape(self, e):
        v, shape = e.args
        self.add(e, f"if {self.value(v)}.shape != {shape}: raise Diverged", errors=False)

    def do_numbers(self, e):
        n, step = self.bound(e.function, "numbers"), self.step_before(e.function.state)
        test = f'if {self.bound(e.function.options, "group")}["lr"] is not {n}.lr: ' if e.function.of_lr_alone else ""
        self.add(e, f"{test}{n}.refresh({step})", errors=False)

    def step_before(self, state) -> str:
        """The variable that holds the count of steps of a parameter's state at the start of the replay."""
        text = f"{self.bound(state, 's')}"
        if (line := f'{text}_step = {text}["step"]') not in self.first:
            self.first.append(line)
        return f"{text}_step"

    def do_draws(self, e):
        target = self.target(e.outs)
        text = f"{self.function(e.function)}({self.listed(e)}).data"
        self.add(e, f"{target} = {text}", target)

    do_makes = do_draws

    def do_whole(self, e):
        target = self.target(e.outs)
        self.add(e, f"{target} = {self.function(e.function)}({self.listed(e)})", target)

    def do_live(self, e):
        self.add(e, f"{self.function(e.function)}({self.listed(e)})", effect=True)

    def listed(self, e) -> str:
        return ", ".join([*map(self.argument, e.args), *(f"{k}={self.argument(v)}" for k, v in e.kwargs.items())])

    def do_gradient(self, e):
        t, (v,) = self.bound(e.function, "t"), e.args
        text = f"{t}.grad = " + ("None" if v is None else f"Tensor({self.value(v)})")
        made = "None" if v is None else f"g_{t}"
        if v is not None:
            self.gradients += [f"{made} = blank(Tensor)", f"fill({made}, {self.value(v)})"]
        self.add(e, text, effect=True, pieces=f"{t}.grad = {made}", errors=False)

    def do_tick(self, e):
        state, before, n = self.bound(e.function, "s"), self.step_before(e.function), e.args[2]
        text = f'{state}["step"] = {before} + {n}'
        self.add(e, text, effect=True, pieces=text, errors=False)

    def do_fused(self, e):
        """A loop: memory for what the user keeps, the call, and what it has added up."""
        loop = e.function
        for v in e.outs:
            if v not in loop.sums and not self.stay(v):
                text = f"{self.value(v)} = empty({v.shape}, {self.bound(v.dtype, 'k')})"
                self.names["empty"] = numpy.empty
                self.add(e, text, self.value(v), errors=False)
        given = ", ".join(self.laid_out(v, how) for v, how in [*loop.inputs, *loop.outputs])
        name = self.bound(loop.chain, "fused")
        text = f"{name}({loop.sizes}, {given})"
        self.add(e, f"sums = {text}" if loop.sums else text, errors=False)
        for k, v in enumerate(loop.sums):
            if self.stay(v):
                self.add(e, f"copyto({self.value(v)}, sums[{k}])", errors=False)
            else:
                cast = f"sums[{k}].astype({self.bound(v.dtype, 'k')})"
                text = f"{self.value(v)} = {f'asarray({cast})' if v.lifted else cast}"
                self.add(e, text, self.value(v), errors=False)
        self.loops.append(f"# {name}: {loop.text()}")

    def laid_out(self, v, how) -> str:
        """An array as a loop gets it, a number as a float."""
        if type(v) is float:
            return self.argument(v)
        v, name = self.plan.resolve(v), self.value(v)
        if how is None:
            return f"float({name}.item(0))"
        if not self.stay(v):
            return f"laid({name}, {', '.join(map(str, how))})"
        view = laid(array := self.plan.array_of(v), *how)
        if not numpy.may_share_memory(view, array):
            return f"laid({name}, {', '.join(map(str, how))})"
        key = f"{name}_{'x'.join(map(str, how[2]))}"
        while self.views.setdefault(key, how) != how:  # the same shape, seen in another way
            key += "_"
        self.names[key] = view
        return key

    def do_call(self, e):
        function, args, kwargs, out = e.function, e.args, dict(e.kwargs), e.outs
        if type(out) is Value and out.entry is e and not out.root and not e.writes and self.stay(out):
            return  # a view, made once
        name = name_of(function)
        if hasattr(function, "nin") and name in WEAK:
            args = self.numbers_as_arrays(args)
        if type(out) is Value and out.entry is e and out.root and out.storage in self.plan.static and has_out(e):
            self.into(e, function, name, args, kwargs, out)
        elif e.writes and "out" in kwargs and type(kwargs["out"]) is Value and takes_out(function):
            self.ufunc(e, function, args, kwargs, kwargs.pop("out"))
        elif e.writes and name == "fill":
            self.call(e, operator.setitem, (args[0], ..., args[1]))
        elif getattr(function, "into", None) and self.is_one_part(args):
            self.kernel_in_place(e, function, args)
        elif e.writes:
            self.call(e, function, args, kwargs)
        elif isinstance(function, str) and name in VIEWS:
            target = self.target(out)
            name = "T" if name == "mT" and len(self.plan.resolve(args[0]).shape) == 2 else name  # faster
            self.add(e, f"{target} = {self.value(args[0])}.{name}", target, errors=False)
        else:
            if isinstance(function, str) and name in REDUCTIONS:
                function, args, kwargs = self.reduction(name, args, kwargs, None)
            self.call(e, function, args, kwargs, self.target(out))
            if type(out) is Value and out.lifted:
                line = self.lines.pop()
                self.lines.append(line._replace(text=line.text.replace(" = ", " = asarray(", 1) + ")"))

    def is_one_part(self, args) -> bool:
        """Whether one thread runs a kernel on these arrays, and its numbers are known before the first change."""
        given = [self.plan.resolve(a) for a in args]
        known = all(v.shape or v.storage.kind == "number" for v in given if type(v) is Value)
        return known and not pays(prod(given[0].shape))

    def kernel_in_place(self, e, kernel, args):
        """The machine code of a kernel that changes arrays of the user's, called as a function in C."""
        first, code = self.plan.resolve(args[0]), []
        for a in args[: kernel.takes]:
            v = self.plan.resolve(a)
            code.append(self.laid_out(v, (None, None, (prod(v.shape),))))
        for a in args[kernel.takes : kernel.takes + len(kernel.constants)]:
            code.append(f"float({self.argument(a)})" if type(a) is Value else self.argument(float(a)))
        loop = kernel.made[first.dtype]
        name = kernel.name if self.names.setdefault(kernel.name, loop) is loop else self.bound(loop, kernel.name)
        effect = any(s.kind not in ("buffer", "number") for s in e.writes)
        self.add(e, f"{name}({', '.join(code)})", "", effect, f"({name}, {', '.join(code)})", errors=False)

    def into(self, e, function, name, args, kwargs, out):
        """Add a call that writes its result into a buffer."""
        if name in FREE:
            return
        if name in FILLS or name in ("full", "full_like"):
            value = FILLS[name] if name in FILLS else args[1] if len(args) > 1 else kwargs["fill_value"]
            self.call(e, operator.setitem, (out, ..., value))
        elif name in ("astype", "copy", "ascontiguousarray"):
            self.call(e, operator.setitem, (out, ..., args[0]))
        elif isinstance(function, str) and name in REDUCTIONS:
            function, args, kwargs = self.reduction(name, args, kwargs, out)
            self.call(e, function, args, kwargs)
        elif takes_out(function):
            self.ufunc(e, function, args, kwargs, out)
        else:
            self.call(e, function, args, {**kwargs, "out": out})

    def ufunc(self, e, function, args, kwargs, out):
        if name_of(function) in ("maximum", "minimum"):  # NumPy deprecates a third positional argument here
            self.call(e, function, args, {**kwargs, "out": out})
        else:
            self.call(e, function, (*args, out), kwargs)

    def reduction(self, name, args, kwargs, out):
        """x.sum(...) as the reduction of a ufunc. NumPy would call that, too."""
        x = args[0]
        if (
            self.plan.resolve(x).kind is not numpy.ndarray
            or len(args) > 2
            or set(kwargs) - {"axis", "dtype", "keepdims"}
        ):
            return name, args, kwargs if out is None else {**kwargs, "out": out}
        axis = args[1] if len(args) == 2 else kwargs.get("axis")
        rest = (axis, kwargs.get("dtype"), out, bool(kwargs.get("keepdims", False)))
        return getattr(numpy, REDUCTIONS[name]).reduce, (x, *rest), {}

    def numbers_as_arrays(self, args):
        """The arguments with numbers beside floats as 0-d arrays, because NumPy reads these faster."""
        args = tuple([self.array_instead(a) for a in args])
        arrays = [self.plan.resolve(a) for a in args if type(a) is Value]
        dtypes = {v.dtype for v in arrays}
        if len(dtypes) != 1 or len(arrays) == len(args) or not all(v.kind in HOST for v in arrays):
            return args
        (dtype,) = dtypes
        if dtype.char not in "fd":
            return args
        return tuple(self.number(a, dtype) if type(a) in (int, float) else a for a in args)

    def array_instead(self, x):
        v = self.plan.resolve(x)
        if type(v) is not Value or not v.scalar or v not in self.plan.made:
            return x
        return self.scalars.setdefault(("scalar", v), numpy.asarray(self.plan.made[v]))

    def number(self, x, dtype):
        key = (type(x), repr(x), dtype)
        if key not in self.scalars:
            with numpy.errstate(all="ignore"):
                self.scalars[key] = numpy.array(x, dtype)
        return self.scalars[key]

    # --- the function -------------------------------------------------------------------------------------------------

    def whole(self, structure) -> str:
        plan = self.plan
        results = iter(plan.results)
        result_text = self.result(structure, results)
        touched = self.touched()
        first_effect = next((i for i, line in enumerate(self.lines) if line.effect), len(self.lines))
        before, after = self.lines[:first_effect], self.lines[first_effect:]
        same = {repr(line.errors) for line in after if line.errors is not None} <= {repr(self.base)}
        self.atomic = same and all(line.pieces for line in after)
        inputs = ", ".join(f"x{i}" for i in range(self.trace.inputs))
        body = [f"def replay({inputs}):"]
        body += [f"    {text}" for text in self.first]
        gone = self.last_uses(self.lines, result_text)
        body += self.block_of(before, gone)
        if touched:
            body.append("    now = tick()")
        marks = [f"    {' = '.join(f'{name}[0]' for name in touched)} = now"] if touched else []
        if self.atomic:
            made = [f"results = {result_text}"]
            if result_text.startswith("Tensor("):
                made = ["results = blank(Tensor)", f"fill(results, {result_text[7:]}"]
            body += [f"    {line}" for line in [*self.gradients, *made]]
            body += self.at_once(after, marks)
        else:
            body += [*self.block_of(after, {}), f"    results = {result_text}", *marks]
        body.append("    return results")
        return "\n".join([*body, *self.loops]) + "\n"

    def at_once(self, lines, marks) -> list[str]:
        """The effects: stores, and one call at last. Python listens to Ctrl-C after a call, not after a store."""
        calls = [line for line in lines if line.pieces.startswith("(")]
        stores = [f"    {line.pieces}" for line in lines if not line.pieces.startswith("(")] + marks
        if len(calls) == 1 and calls[0].text.count("(") == 1:
            return [*stores, f"    {calls[0].text}  # {calls[0].note}"]
        if calls:
            rows = [f"        {line.pieces},  # {line.note}" for line in calls]
            return ["    calls = calls_of((", *rows, "    ))", *stores, "    run(calls, 0)"]
        return stores

    def touched(self) -> list[str]:
        """The change counters of the tensors from outside that the list writes."""
        written = {s for e in self.plan.entries if e.kind == "call" for s in e.writes if s.kind in ("outside", "input")}
        counters = []
        for t, array in self.trace.swapped:
            if array.value.storage in written and (t.node is not None or t._constant is not None):
                counters.append(self.bound(t.version_counter(), "i"))
        return [*dict.fromkeys(counters), "last_change"] if counters else []

    def last_uses(self, lines, result) -> dict[int, list[str]]:
        """Number of a line -> the variables that are deleted after it."""
        alive: set[str] = set()
        gone: dict[int, list[str]] = {}
        for i in range(len(lines) - 1, -1, -1):
            made = [lines[i].target] if lines[i].target.isidentifier() else []
            last = [n for n in (*lines[i].reads, *made) if n not in alive and n[0] in "vg" and not used_in(n, result)]
            gone[i] = list(dict.fromkeys(last))
            alive |= set(last)
        return gone

    def block_of(self, lines, gone) -> list[str]:
        """The lines. Those that treat floating-point errors in another way than the rest of the step are in blocks."""
        body, current = [], self.base
        for i, line in enumerate(lines):
            if line.errors is not None and line.errors != current:
                if line.errors == self.base:
                    body += ["    finally:", "        leave(before)"]
                else:
                    other = ", ".join(f"{k}: {v}" for k, v in line.errors.items() if v != self.base[k])
                    text = f"enter({self.bound_errors(line.errors)})  # {other}"
                    body += [f"    before = {text}", "    try:"] if current == self.base else [f"        {text}"]
                current = line.errors
            indent = "    " if current == self.base else "        "
            body.append(f"{indent}{line.text}" + (f"  # {line.note}" if line.note else ""))
            if gone.get(i):
                body.append(f"{indent}del {', '.join(gone[i])}")
        if current != self.base:
            body += ["    finally:", "        leave(before)"]
        return body

    def bound_errors(self, errors) -> str:
        if (key := repr(errors)) not in self.prepared:
            self.prepared[key] = prepare(**errors)
        return self.bound(self.prepared[key], "errors")

    def result(self, structure, results) -> str:
        if structure is Slot:
            kind, x = next(results)
            if kind == "constant":
                return self.argument(x)
            return f"Tensor({self.value(x)})" if kind == "tensor" else self.value(x)
        if structure is None:
            return "None"
        kind, keys, structures = structure
        items = [self.result(item, results) for item in structures]
        if kind is dict:
            return "{" + ", ".join(f"{self.argument(k)}: {item}" for k, item in zip(keys, items)) + "}"
        if hasattr(kind, "_fields"):
            return f"{self.bound(kind, 'kind')}({', '.join(items)})"
        inside = "".join(f"{item}, " for item in items)
        return (
            f"({inside})"
            if kind is tuple
            else f"[{inside}]"
            if kind is list
            else f"{self.bound(kind, 'kind')}([{inside}])"
        )


def takes_out(function) -> bool:
    """Whether the argument after the operands is the array for the result."""
    return hasattr(function, "nin") or function is numpy.dot


def used_in(name, text) -> bool:
    return name in re.findall(r"\w+", text)
