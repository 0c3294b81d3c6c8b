"""Random programs against an interpreter in float64 that shares no code with the library.

A program is a Python function of one to three arrays, written out as source text: ops, blocks with other modes,
checkpoints, nested transforms, hooks, assignments, constants of every kind, lists of tensors. It is run through one of
the doors (backward, grad, vjp, jvp, ...). The same steps are interpreted on *jets*: float64 arrays with all their
derivatives, carried forward by the rules of calculus. So the reference has no tape, no cotangents, no differences.

What may differ, and why: each jet also carries a bound of the rounding of a computation in its dtype. Let u be the unit
roundoff of the coarsest dtype of the program. An op adds an error of u times the size of its result to the errors it
inherits through its derivatives (first-order error analysis, Higham 2002, section 3.1). Sizes of derivatives are the
sums of absolute values over all paths, as a backward walk adds the paths in another order than a forward one; it rounds
once more at each use of a value, so the number of steps times that size is added. The library may be off by ALLOWED
times this bound: ops and rules round several times inside, and err by up to 4 ulp.

A program with the seed s:  python tests/engine/test_fuzz.py s
"""

import math
import re
import sys
from functools import reduce
from itertools import accumulate, count

import numpy as np
import pytest

import tinygrad_ms as tg
import tinygrad_ms.testing  # makes device="strict" known

FEW, PROGRAMS, CHUNKS = 100, 5000, 10
ALLOWED = 4
UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11}
SQUARED = 2.0**-11  # products of two errors matter only where the value is zero
FLOOR = {"float64": 0.0, "float32": 2.0**-140, "float16": 2.0**-24}  # below the normal numbers errors are absolute


# --- jets: the reference ----------------------------------------------------------------------------------------------


class Jet:
    """A float64 array and its derivatives, one row each: the value, those to all inputs, that along u, those of that.

    rows: (2 + 2 n, *shape). sizes: of the rows, as sums of absolute values over the paths. errors: of the rows, in u.
    """

    def __init__(self, rows, sizes, errors):
        self.rows, self.sizes, self.errors = rows, sizes, errors
        self.sizes[0] = np.abs(rows[0])

    value = property(lambda self: self.rows[0])
    shape = property(lambda self: self.rows.shape[1:])
    n = property(lambda self: len(self.rows) // 2 - 1)

    def linear(self, move, rounds=True):
        """A linear map with coefficients that are not negative, such as a sum or a selection."""
        rows, sizes, errors = (np.stack([np.asarray(move(a)) for a in b]) for b in (self.rows, self.sizes, self.errors))
        return Jet(rows, sizes, errors + sizes if rounds else errors)

    def constant(self):
        """The value alone, off the tape."""
        return Jet(*(np.concatenate([b[:1], 0 * b[1:]]) for b in (self.rows, self.sizes, self.errors)))

    def scaled(self, c):
        """The same value with its derivatives times c: what a hook that multiplies by c does."""
        parts = (c, self.rows), (abs(c), self.sizes), (abs(c), self.errors)
        return Jet(*(np.concatenate([b[:1], factor * b[1:]]) for factor, b in parts))

    def function(self, y, f1, f2, f3):
        """y = f(x) of each element, with the values of the derivatives of f."""
        one, two, three = np.abs(f1), np.abs(f2), np.abs(f3)
        x, s, e, k = self.rows, self.sizes, self.errors, self.n + 1
        rows = np.concatenate([y[None], f1 * x[1 : k + 1], f1 * x[k + 1 :] + f2 * x[k] * x[1:k]])
        sizes = np.concatenate([abs(y)[None], one * s[1 : k + 1], one * s[k + 1 :] + two * s[k] * s[1:k]])
        errors = np.concatenate([
            one * e[:1] + SQUARED * two * e[:1] ** 2,
            one * e[1 : k + 1] + two * e[0] * s[1 : k + 1],
            one * e[k + 1 :] + two * (e[0] * s[k + 1 :] + e[k] * s[1:k] + s[k] * e[1:k]) + three * e[0] * s[k] * s[1:k],
        ])  # fmt: skip
        return Jet(rows, sizes, errors + sizes)

    def negated(self):
        return Jet(-self.rows, self.sizes.copy(), self.errors.copy())

    def __add__(self, other):
        a, b = ((x.rows, x.sizes, x.errors) for x in (self, other))
        ndim = max(len(self.shape), len(other.shape))
        a, b = ([np.reshape(r, (len(r),) + (1,) * (ndim + 1 - r.ndim) + r.shape[1:]) for r in x] for x in (a, b))
        return Jet(a[0] + b[0], a[1] + b[1], a[2] + b[2] + a[1] + b[1])

    def __mul__(self, other):
        return bilinear("...,...->...", self, other)


def bilinear(spec, a, b):
    """The rule of the product of every order, for a product given as an einsum."""
    left, right, out = re.fullmatch(r"(.*),(.*)->(.*)", spec).groups()
    sizes = {}
    for letters, shape in ((left, a.shape), (right, b.shape)):  # einsum would broadcast them
        letters = letters.replace("...", "")
        need([sizes.setdefault(c, n) == n for c, n in zip(letters[::-1], shape[::-1])])
    k = a.n + 1

    def times(x, y):
        plain = lambda p, q: np.einsum(spec, p, q)
        from_left = lambda p, q: np.einsum(f"z{left},{right}->z{out}", p, q)
        from_right = lambda p, q: np.einsum(f"{left},z{right}->z{out}", p, q)
        first = from_left(x[1:k], y[0]) + from_right(x[0], y[1:k])
        along = plain(x[k], y[0]) + plain(x[0], y[k])
        mixed = from_left(x[k + 1 :], y[0]) + from_right(x[0], y[k + 1 :])
        mixed = mixed + from_left(x[1:k], y[k]) + from_right(x[k], y[1:k])
        return np.concatenate([plain(x[0], y[0])[None], first, along[None], mixed])

    sizes = times(a.sizes, b.sizes)
    errors = times(a.sizes, b.errors) + times(a.errors, b.sizes) + SQUARED * times(a.errors, b.errors)
    return Jet(times(a.rows, b.rows), sizes, errors + sizes)


def _tanh(v):
    t = np.tanh(v)
    d = 1 / np.cosh(v) ** 2
    return t, d, -2 * t * d, (6 * t * t - 2) * d


def _sigmoid(v):
    s = 1 / (1 + np.exp(-v))
    d = s / (1 + np.exp(v))
    return s, d, d * (1 - 2 * s), d * (1 - 6 * s + 6 * s * s)


def _atan(v):
    d = 1 / (1 + v * v)
    return np.arctan(v), d, -2 * v * d * d, (6 * v * v - 2) * d**3


FUNCTIONS = {  # name: (value and three derivatives, where the op is used)
    "exp": (lambda v: (np.exp(v),) * 4, lambda v: v < 2),
    "expm1": (lambda v: (np.expm1(v),) + (np.exp(v),) * 3, lambda v: v < 2),
    "sin": (lambda v: (np.sin(v), np.cos(v), -np.sin(v), -np.cos(v)), lambda v: abs(v) < 4),
    "cos": (lambda v: (np.cos(v), -np.sin(v), -np.cos(v), np.sin(v)), lambda v: abs(v) < 4),
    "tanh": (_tanh, lambda v: abs(v) < 4),
    "sigmoid": (_sigmoid, lambda v: abs(v) < 4),
    "softplus": (lambda v: (np.logaddexp(0, v), *_sigmoid(v)[:3]), lambda v: abs(v) < 4),
    "atan": (_atan, lambda v: abs(v) < 9),
    "square": (lambda v: (v * v, 2 * v, 2 + 0 * v, 0 * v), lambda v: abs(v) < 3),
    "reciprocal": (lambda v: (1 / v, -1 / v**2, 2 / v**3, -6 / v**4), lambda v: abs(v) > 0.4),
    "log": (lambda v: (np.log(v), 1 / v, -1 / v**2, 2 / v**3), lambda v: v > 0.4),
    "log1p": (lambda v: (np.log1p(v), 1 / (1 + v), -1 / (1 + v) ** 2, 2 / (1 + v) ** 3), lambda v: v > -0.5),
    "sqrt": (lambda v: (v**0.5, 0.5 * v**-0.5, -0.25 * v**-1.5, 0.375 * v**-2.5), lambda v: v > 0.4),
    "cube": (lambda v: (v**3, 3 * v**2, 6 * v, 6 + 0 * v), lambda v: abs(v) < 2),
}


class Skip(Exception):
    """This step does not fit here; the generator draws another one."""


def need(condition):
    if not np.all(condition):
        raise Skip


def apply(name, x):
    function, domain = FUNCTIONS[name]
    need(domain(x.value))
    return x.function(*function(x.value))


def divided(a, b):
    return a * apply("reciprocal", b)


# --- programs ---------------------------------------------------------------------------------------------------------


class Value:
    """A name in the program, what it holds, and whether it is on the tape."""

    def __init__(self, name, jet, dtype, tracked):
        self.name, self.jet, self.dtype, self.tracked = name, jet, dtype, tracked

    shape = property(lambda self: self.jet.shape)


class Program:
    """Source text and jets, grown step by step."""

    def __init__(self, seed):
        self.seed, self.random = seed, np.random.default_rng(seed)
        self.dtype = self.choice(["float64", "float64", "float32", "float32", "float16"])
        self.device = self.choice(["cpu"] * 7 + ["strict"])
        self.door = DOORS[seed % len(DOORS)]
        self.hooks = "hooks" in self.door.allows
        self.dtypes = {self.dtype}
        self.outside, self.lines, self.indent = [], [], 1  # lines before f, and in it
        self.numbers, self.constants = count(), count()
        self.recording, self.nesting, self.steps = True, 0, 0
        self.may_refuse = ""  # a pattern of a refusal that is as right as the right gradient
        self.crossings = False
        shapes = self.leaf_shapes()
        n = sum(int(np.prod(shape)) for shape in shapes)
        self.u = self.numbers_of((n,))
        self.leaves, start = [], 0
        for shape in shapes:
            rows = np.zeros((2 * n + 2, *shape))
            rows[0], size = self.numbers_of(shape), int(np.prod(shape))
            rows[1 + start : 1 + start + size] = np.eye(size).reshape((size, *shape))
            rows[n + 1] = self.u[start : start + size].reshape(shape)
            name, start = f"x{len(self.leaves)}", start + size
            dtype = self.dtype if self.random.random() < 0.9 else self.choice(["float32", "float64"])
            self.dtypes.add(dtype)
            jet = Jet(rows, abs(rows), 0 * rows)
            frozen = self.leaves and "frozen" in self.door.allows and self.random.random() < 0.15
            self.leaves.append(Value(name, jet.constant() if frozen else jet, dtype, not frozen))
            self.outside.append(f"{name} = {self.literal(rows[0], dtype)}")
        self.n = n
        self.values = list(self.leaves)
        for leaf in self.leaves:
            self.maybe_hook(leaf)
        self.grow(int(self.random.integers(3, 7 if self.dtype == "float16" else 13)))
        self.finish()

    # --- numbers ---------------------------------------------------------------------------------------------

    def choice(self, items):
        return items[int(self.random.integers(len(items)))]

    def leaf_shapes(self):
        base = tuple(self.random.integers(1, 4, self.random.integers(0, 4)).tolist())
        if self.random.random() < 0.02:
            return [(*base[:1], 0), base[1:]]
        shapes = [base if np.prod(base, dtype=int) <= 12 else base[1:]]
        for _ in range(self.random.integers(0, 3)):
            kind, s = self.random.integers(4), shapes[0]
            shapes.append(s if kind == 0 else s[1:] if kind == 1 else s[::-1] if kind == 2 else (s + (2,))[-2:])
        return shapes

    def numbers_of(self, shape):
        """Sixteenths between 1/4 and 2 with a sign: exact in every dtype."""
        return self.random.integers(4, 33, shape) / 16 * self.random.choice([-1.0, 1.0, 1.0], shape)

    def literal(self, array, dtype):
        array = np.asarray(array)
        return f"np.array({array.tolist()}, dtype={dtype!r})" if array.size else f"np.zeros({array.shape}, {dtype!r})"

    def fixed(self, array):
        """A jet without derivatives, exact."""
        rows = np.zeros((2 * self.n + 2, *np.shape(array)))
        rows[0] = array
        return Jet(rows, abs(rows), 0 * rows)

    @property
    def unit(self):
        return max(UNIT[dtype] for dtype in self.dtypes)

    def bound(self, jet):
        """What the library may differ from the rows of a jet."""
        steps = self.steps + 2
        steps = np.reshape([1] + [steps] * (len(jet.rows) - 1), (-1,) + (1,) * len(jet.shape))
        floor = max(FLOOR[dtype] for dtype in self.dtypes) * steps
        return ALLOWED * (self.unit * (jet.errors + steps * jet.sizes) + floor * (1 + jet.sizes.max(initial=1)))

    def apart(self, jet, gaps):
        """The distances of the value from a kink, too large for rounding to cross it."""
        need(np.abs(gaps) > 0.05 + 2 * self.bound(jet)[0].max(initial=0))

    # --- the text --------------------------------------------------------------------------------------------

    def emit(self, line):
        self.lines.append("    " * self.indent + line)

    def new(self, jet, dtype, tracked):
        return Value(f"v{next(self.numbers)}", jet, dtype, tracked and self.recording)

    def pick(self, condition=lambda v: True):
        """A value in sight, late ones more often."""
        fitting = [v for v in self.values if condition(v)]
        if not fitting:
            raise Skip
        i = max(self.random.integers(len(fitting), size=2).tolist())
        return fitting[i]

    def sound(self, jet):
        """Values and derivatives of a size with which every dtype can work."""
        half = self.dtype == "float16"
        need(np.isfinite(jet.rows))
        need(np.abs(jet.value) < (8 if half else 30))
        need(jet.sizes[1 : self.n + 2] < (60 if half else 1e4))
        need(jet.sizes[self.n + 2 :] < (400 if half else 1e6))
        need(self.bound(jet)[0] < 0.1)
        need(jet.value.size <= 48)

    def grow(self, steps):
        """Add steps; those that do not fit are drawn again."""
        made = tries = 0
        while made < steps and tries < 8 * steps:
            tries += 1
            kept, held = len(self.lines), list(self.values)
            try:
                self.choice(STEPS)(self)
                made += 1
                self.steps += 1
            except (Skip, ZeroDivisionError):
                del self.lines[kept:]
                self.values = held

    def add(self, text, jet, arguments, dtype=None):
        """One more line ``v = text``; the value is on the tape if an argument is."""
        self.sound(jet)
        dtype = dtype or str(np.result_type(*(v.dtype for v in arguments)))
        value = self.new(jet, dtype, any(v.tracked for v in arguments))
        if not value.tracked:
            value.jet = value.jet.constant()
        self.dtypes.add(dtype)
        self.emit(f"{value.name} = {text}")
        # Of second order only where no rule reads the result: what flows back to it passes the hook a second time.
        if "first order" in self.door.allows or re.search(r" [-+*] |tg\.(add|multiply|concat|stack|flip)", text):
            self.maybe_hook(value)
        self.values.append(value)
        return value

    def maybe_hook(self, value):
        if not (self.hooks and value.tracked and self.recording) or self.random.random() > 0.08:
            return
        c = self.choice([2.0, -0.5, 0.5, 0.0, None])
        if c is None:
            self.emit(f"{value.name}.register_hook(lambda g: None)")
        else:
            writes = "leaf" in self.door.allows and "first order" in self.door.allows and self.random.random() < 0.5
            self.emit(f"{value.name}.register_hook(lambda g: {f'g.copy_({c} * g)' if writes else f'g * {c}'})")
            value.jet = value.jet.scaled(c)
            self.sound(value.jet)

    # --- the end ---------------------------------------------------------------------------------------------

    def finish(self):
        tracked = [v for v in self.values if v.tracked and v.name[0] == "v"] or [self.leaves[0]]
        outputs = [tracked[-1]] + [self.pick() for _ in range(self.random.integers(0, 3))]
        self.outputs = list({v.name: v for v in outputs}.values())
        if self.crossings and "leaf" not in self.door.allows:  # also where a second derivative is the constant 0
            self.may_refuse += "|a result is off the tape"
        results = [v for v in self.values if v.name[0] == "v"]
        shared = any(".numpy()" in line for line in self.lines)  # a raw array is not counted
        if results and not shared and self.random.random() < 0.04:  # a change after the use: noticed, or of no matter
            copies = [self.new(v.jet.linear(np.copy), v.dtype, v.tracked) for v in self.outputs]
            for copy, v in zip(copies, self.outputs):
                copy.tracked = v.tracked
                self.emit(f"{copy.name} = {v.name} * 1")
            self.outputs = copies
            self.emit("with tg.no_grad():")
            self.emit(f"    {self.choice(results).name}.detach()[...] = 9.0")
            self.may_refuse += "|changed in place|read-only"
        self.emit(f"return {', '.join(v.name for v in self.outputs)},")
        self.seeds = [self.numbers_of(v.shape) for v in self.outputs]
        self.source = "\n".join([
            "import numpy as np", "import tinygrad_ms as tg", "import tinygrad_ms.testing", "",
            *self.outside,
            f"inputs = [{', '.join(v.name for v in self.leaves)}]",
            f"seeds = [{', '.join(self.literal(s, v.dtype) for s, v in zip(self.seeds, self.outputs))}]",
            f"u = {self.tangents()}",
            f"on = lambda arrays: [tg.tensor(a, device={self.device!r}) for a in arrays]",
            "total = lambda ys: sum(((y * s).sum() for y, s in zip(ys, on(seeds))), 0.0)", "",
            "", f"def f({', '.join(v.name for v in self.leaves)}):", *self.lines, "",
            "", *self.door.text(self).splitlines(), "",
        ])  # fmt: skip

    def tangents(self):
        texts, start = [], 0
        for v in self.leaves:
            size = int(np.prod(v.shape))
            texts.append(self.literal(self.u[start : start + size].reshape(v.shape), v.dtype))
            start += size
        return f"[{', '.join(texts)}]"

    def expected(self):
        """What the door must give: {name: [(rows, bounds, dtype)]}."""
        n, result = self.n, {"values": [], "tangents": []}
        total = None
        for v, seed in zip(self.outputs, self.seeds):
            bound = self.bound(v.jet)
            result["values"].append((v.jet.value, bound[0], v.dtype))
            result["tangents"].append((v.jet.rows[n + 1], bound[n + 1], v.dtype))
            term = (v.jet * self.fixed(seed)).linear(np.sum)
            total = term if total is None else total + term
        bound = self.bound(total)
        for name, first in (("gradients", 1), ("second", n + 2)):
            result[name], start = [], first
            for v in self.leaves:
                part = slice(start, start := start + int(np.prod(v.shape)))
                if not v.tracked and "only" in self.door.allows:
                    continue
                result[name].append((total.rows[part].reshape(v.shape), bound[part].reshape(v.shape), v.dtype))
        return result


# --- steps ------------------------------------------------------------------------------------------------------------

STEPS: list = []


def step(weight):
    def register(function):
        STEPS.extend([function] * weight)
        return function

    return register


@step(4)
def elementwise_function(p):
    v, name = p.pick(), p.choice(sorted(FUNCTIONS))
    text = f"{v.name} ** 3" if name == "cube" else f"tg.{name}({v.name})"
    p.add(text, apply(name, v.jet), [v])


@step(1)
def negation(p):
    v = p.pick()
    p.add(p.choice([f"-{v.name}", f"tg.negative({v.name})"]), v.jet.negated(), [v])


def operand(p, v):
    """The second operand beside the value v: (text, jet, the values in it)."""
    kind = p.choice(["value"] * 5 + ["number", "number", "NumPy scalar", "array", "tensor", "list", "int"])
    if kind == "value":
        w = p.pick(lambda w: broadcasts(w.shape, v.shape))
        return w.name, w.jet, [w]
    if kind in ("number", "NumPy scalar", "int"):
        c = int(p.choice([1, 2, 3, -1, -2])) if kind == "int" else float(p.numbers_of(()))
        text = f"{p.choice(['np.float64', 'np.float32'])}({c})" if kind == "NumPy scalar" else f"{c}"
        return text, p.fixed(c), []
    shape = p.choice([v.shape, v.shape[-1:], v.shape[1:]])
    array = p.numbers_of(shape)
    if kind == "list":
        need(shape)
        return repr(array.tolist()), p.fixed(array), []
    name, dtype = f"c{next(p.constants)}", p.choice([v.dtype, v.dtype, p.dtype])
    tensor = kind == "tensor" or p.device != "cpu"
    text = p.literal(array, dtype)
    p.outside.append(f"{name} = tg.tensor({text}, device={p.device!r})" if tensor else f"{name} = {text}")
    return name, p.fixed(array), [Value(name, p.fixed(array), dtype, False)]


def broadcasts(a, b):
    return all(m == n or m == 1 or n == 1 for m, n in zip(a[::-1], b[::-1]))


def _power(a, b):
    return apply("exp", b * apply("log", a))


ARITHMETIC = {
    "+": ("add", lambda a, b: a + b),
    "-": ("subtract", lambda a, b: a + b.negated()),
    "*": ("multiply", lambda a, b: a * b),
    "/": ("divide", divided),
    "**": ("power", _power),
}


@step(6)
def arithmetic(p):
    v = p.pick()
    text, jet, others = operand(p, v)
    symbol = p.choice(["+", "-", "*", "*", "/", "**"])
    name, rule = ARITHMETIC[symbol]
    if symbol == "**":
        need(np.abs(jet.value) < 3)
    pairs = [(v.name, v.jet), (text, jet)][:: p.choice([1, -1])]
    (a, x), (b, y) = pairs
    p.add(p.choice([f"{a} {symbol} {b}" if b[0] != "-" else f"{a} {symbol} ({b})", f"tg.{name}({a}, {b})"])
          if a[0] != "-" else f"tg.{name}({a}, {b})", rule(x, y), [v, *others])  # fmt: skip


@step(1)
def power_of_two(p):
    v, c = p.pick(), p.choice([2, 2.0, 4, 0.5])
    jet = {2: lambda: apply("square", v.jet), 4: lambda: apply("square", apply("square", v.jet))}.get(
        c, lambda: apply("sqrt", v.jet)
    )()
    p.add(f"{v.name} ** {c}", jet, [v])


def mixed(mask, a, b):
    """a where the mask holds, else b: the masks are constants."""
    one = np.asarray(mask, dtype=float)
    ndim = max(one.ndim, len(a.shape), len(b.shape))

    def masked(x, m):
        grow = lambda r: np.reshape(r, (len(r),) + (1,) * (ndim + 1 - r.ndim) + r.shape[1:])
        return Jet(*(grow(r) * m for r in (x.rows, x.sizes, x.errors)))

    x, y = masked(a, one), masked(b, 1 - one)
    return Jet(x.rows + y.rows, x.sizes + y.sizes, x.errors + y.errors)


@step(3)
def choices(p):
    v = p.pick()
    kind = p.choice(["relu", "abs", "maximum", "minimum", "where", "where", "clip", "leaky_relu"])
    zero = p.fixed(0.0)
    if kind in ("relu", "abs", "leaky_relu"):
        p.apart(v.jet, v.jet.value)
        other = {"relu": zero, "abs": v.jet.negated(), "leaky_relu": v.jet * p.fixed(0.25)}[kind]
        slope = ", negative_slope=0.25" if kind == "leaky_relu" else ""
        p.add(f"tg.{kind}({v.name}{slope})", mixed(v.jet.value > 0, v.jet, other), [v])
    elif kind == "clip":
        low, high = -0.75, 1.25
        p.apart(v.jet, v.jet.value - low)
        p.apart(v.jet, v.jet.value - high)
        jet = mixed(v.jet.value < low, p.fixed(low), mixed(v.jet.value > high, p.fixed(high), v.jet))
        p.add(p.choice([f"tg.clip({v.name}, {low}, {high})", f"{v.name}.clip(min={low}, max={high})"]), jet, [v])
    else:
        text, jet, others = operand(p, v)
        if kind == "where":
            w = p.pick(lambda w: broadcasts(w.shape, v.shape) and broadcasts(w.shape, jet.shape))
            p.apart(w.jet, w.jet.value - 0.1)
            result = mixed(w.jet.value > 0.1, v.jet, jet)
            p.add(f"tg.where({w.name} > 0.1, {v.name}, {text})", result, [v, *others])
        else:
            gap = v.jet.value - jet.value
            p.apart(v.jet + jet, gap)
            p.add(f"tg.{kind}({v.name}, {text})", mixed(gap > 0 if kind == "maximum" else gap < 0, v.jet, jet),
                  [v, *others])  # fmt: skip


PRODUCTS = [
    ("{} @ {}", "...ij,...jk->...ik", 2, 2), ("{} @ {}", "...ij,j->...i", 2, 1), ("{} @ {}", "i,i->", 1, 1),
    ("{} @ {}", "i,...ij->...j", 1, 2), ("tg.outer({}, {})", "i,j->ij", 1, 1),
    ("tg.einsum('ij,kj->ik', {}, {})", "ij,kj->ik", 2, 2), ("tg.einsum('ij,ij->j', {}, {})", "ij,ij->j", 2, 2),
    ("tg.einsum('i,jk->kij', {}, {})", "i,jk->kij", 1, 2), ("tg.inner({}, {})", "i,i->", 1, 1),
    ("tg.dot({}, {})", "ij,jk->ik", 2, 2), ("tg.tensordot({}, {}, axes=((0,), (0,)))", "ia,ib->ab", 2, 2),
    ("tg.vecdot({}, {})", "...i,...i->...", 1, 1), ("tg.kron({}, {}).reshape(-1)", None, 1, 1),
]  # fmt: skip


@step(4)
def products(p):
    form, spec, left, right = p.choice(PRODUCTS)
    fits = lambda v, ndim: len(v.shape) >= ndim if "..." in (spec or "") and ndim == 2 else len(v.shape) == ndim
    a, b = p.pick(lambda v: fits(v, left)), p.pick(lambda v: fits(v, right))
    try:
        if spec is None:
            jet = bilinear("i,j->ij", a.jet, b.jet).linear(np.ravel, rounds=False)
        else:
            jet = bilinear(spec, a.jet, b.jet)
    except ValueError:
        raise Skip from None
    p.add(form.format(a.name, b.name), jet, [a, b])


@step(5)
def reductions(p):
    v = p.pick(lambda v: len(v.shape) > 0)
    ndim = len(v.shape)
    axis = p.choice([None, -1, int(p.random.integers(ndim)), tuple(range(ndim))[-2:]])
    keep = p.choice([False, False, True])
    axes = tuple(range(ndim)) if axis is None else axis
    end = lambda x: x if keep else x.linear(lambda a: np.squeeze(a, axes), rounds=False)
    total = lambda x: x.linear(lambda a: a.sum(axis=axes, keepdims=True))
    size = v.jet.value.size // max(total(v.jet).value.size, 1)
    need(size)
    kind = p.choice(["sum", "sum", "mean", "max", "min", "var", "std", "logsumexp", "norm", "prod"])
    mean = lambda x: total(x) * p.fixed(1 / size)
    if kind in ("sum", "mean"):
        jet = total(v.jet) if kind == "sum" else mean(v.jet)
    elif kind in ("max", "min"):
        x = v.jet.value if kind == "max" else -v.jet.value
        best = x == x.max(axis=axes, keepdims=True)
        need(best.sum(axis=axes) == 1)
        p.apart(v.jet, (x.max(axis=axes, keepdims=True) - x)[~best])
        jet = mixed(best, v.jet, p.fixed(0.0)).linear(lambda a: a.sum(axis=axes, keepdims=True), rounds=False)
    elif kind in ("var", "std"):
        deviation = v.jet + mean(v.jet).negated()
        jet = mean(deviation * deviation)
        jet = apply("sqrt", jet) if kind == "std" else jet
    elif kind == "logsumexp":
        largest = p.fixed(v.jet.value.max(axis=axes, keepdims=True))
        jet = apply("log", total(apply("exp", v.jet + largest.negated()))) + largest
    elif kind == "norm":
        need(not isinstance(axis, tuple) or len(axis) < 3)
        jet = apply("sqrt", total(apply("square", v.jet)))
    else:
        need(not isinstance(axis, tuple))
        rows = v.jet if axis is not None else v.jet.linear(np.ravel, rounds=False)
        where = 0 if axis is None else axis
        parts = [rows.linear(lambda a, i=i: np.take(a, i, where), rounds=False) for i in range(rows.shape[where])]
        jet = reduce(lambda a, b: a * b, parts)
        jet = jet.linear(lambda a: a.reshape(total(v.jet).shape), rounds=False)
    method = kind != "norm" and p.random.random() < 0.5
    text = (
        f"{v.name}.{kind}(axis={axis}, keepdims={keep})"
        if method
        else f"tg.{kind}({v.name}, axis={axis}, keepdims={keep})"
    )
    p.add(text, end(jet), [v])


@step(2)
def along_an_axis(p):
    v = p.pick(lambda v: len(v.shape) > 0)
    axis = int(p.random.integers(-len(v.shape), len(v.shape)))
    kind = p.choice(["softmax", "log_softmax", "cumsum", "sort", "topk", "cummax", "diff", "median"])
    x = v.jet.value
    need(x.size)
    if kind in ("softmax", "log_softmax"):
        shifted = v.jet + p.fixed(x.max(axis=axis, keepdims=True)).negated()
        e = apply("exp", shifted)
        total = e.linear(lambda a: a.sum(axis=axis, keepdims=True))
        jet = divided(e, total) if kind == "softmax" else shifted + apply("log", total).negated()
        p.add(f"tg.{kind}({v.name}, axis={axis})", jet, [v])
    elif kind == "cumsum":
        p.add(f"{v.name}.cumsum(axis={axis})", v.jet.linear(lambda a: np.cumsum(a, axis)), [v])
    elif kind == "diff":
        need(v.shape[axis] > 1)
        n = v.shape[axis]
        tail = v.jet.linear(lambda a: np.take(a, range(1, n), axis), rounds=False)
        head = v.jet.linear(lambda a: np.take(a, range(n - 1), axis), rounds=False)
        p.add(f"tg.diff({v.name}, axis={axis})", tail + head.negated(), [v])
    else:
        p.apart(v.jet, np.diff(np.sort(x, axis), axis=axis))
        order = np.argsort(x, axis)
        if kind == "cummax":
            places = np.arange(x.shape[axis]).reshape([-1 if a == axis % x.ndim else 1 for a in range(x.ndim)])
            running = np.maximum.accumulate(x, axis)
            order = np.maximum.accumulate(np.where(x == running, places, 0), axis)
            text = f"tg.cummax({v.name}, axis={axis})[0]"
        elif kind == "topk":
            order = np.flip(order, axis).take(range((x.shape[axis] + 1) // 2), axis)
            text = f"tg.topk({v.name}, {order.shape[axis]}, axis={axis})[0]"
        elif kind == "median":
            need(x.shape[axis] % 2)
            order = order.take([x.shape[axis] // 2], axis)
            text = f"tg.median({v.name}, axis={axis}, keepdims=True)"
        else:
            text = f"tg.sort({v.name}, axis={axis})"
        p.add(text, v.jet.linear(lambda a: np.take_along_axis(a, order, axis), rounds=False), [v])


@step(5)
def moves(p):
    v = p.pick()
    s, ndim = v.shape, len(v.shape)
    i = int(p.random.integers(ndim)) if ndim else None
    forms = [
        (f"{v.name}.reshape(-1)", np.ravel), (f"tg.expand_dims({v.name}, 0)", lambda a: a[None]),
        (f"{v.name}.T", np.transpose), (f"tg.squeeze({v.name})", np.squeeze), (f"{v.name}.clone()", np.copy),
        (f"tg.broadcast_to({v.name}, {(2, *s)})", lambda a: np.broadcast_to(a, (2, *s))),
        (f"tg.flip({v.name})", np.flip), (f"tg.tile({v.name}, 2)", lambda a: np.tile(a, 2)),
        (f"{v.name}[None, ...]", lambda a: a[None]), (f"tg.stack([{v.name}, {v.name}])", lambda a: np.stack([a, a])),
        (f"tg.checkpoint(lambda a: a.reshape(-1))({v.name})", np.ravel),
        (f"tg.asarray({v.name}, dtype={v.dtype!r}) + 0", np.copy),
    ]  # fmt: skip
    if ndim:
        n = s[i]
        need(n)
        at = (slice(None),) * i
        k, places = int(p.random.integers(n)), p.random.integers(-n, n, p.random.integers(1, 4)).tolist()
        cut = slice(int(p.random.integers(n)), None, p.choice([None, 2]))
        whole = ":, " * i
        forms += 2 * [
            (f"{v.name}[{whole}{k}]", lambda a: a[(*at, k)]),
            (f"{v.name}[{whole}{places}]", lambda a: a[(*at, places)]),
            (f"{v.name}[{whole}{cut.start}::{cut.step or 1}]", lambda a: a[(*at, cut)]),
            (f"{v.name}[{whole}::-1]", lambda a: a[(*at, slice(None, None, -1))]),
            (f"tg.take({v.name}, {places}, axis={i})", lambda a: np.take(a, places, i)),
            (f"tg.roll({v.name}, 1, axis={i})", lambda a: np.roll(a, 1, i)),
            (f"tg.repeat({v.name}, 2, axis={i})", lambda a: np.repeat(a, 2, i)),
            (f"tg.moveaxis({v.name}, {i}, 0)", lambda a: np.moveaxis(a, i, 0)),
            (f"tg.swapaxes({v.name}, 0, -1)", lambda a: np.swapaxes(a, 0, -1)),
            (f"list({v.name})[{s[0] - 1}]", lambda a: a[-1]),
            (f"tg.split({v.name}, [{k}], axis={i})[1]", lambda a: np.split(a, [k], i)[1]),
            (f"tg.concat([*{v.name}.unstack(axis={i})[::-1], {v.name}.unstack(axis={i})[0]], axis=None)",
             lambda a: np.concatenate([*np.moveaxis(a, i, 0)[::-1], np.moveaxis(a, i, 0)[0]], axis=None)),
            (f"tg.pad({v.name}, 1)", lambda a: np.pad(a, 1)),
            (f"tg.pad({v.name}, (1, 0), mode='edge')", lambda a: np.pad(a, (1, 0), mode="edge")),
        ]  # fmt: skip
        order = p.random.integers(-n, n, s).argsort(axis=i).tolist()
        forms += [
            (f"tg.take_along_axis({v.name}, on([np.array({order})])[0], axis={i})",
             lambda a: np.take_along_axis(a, np.array(order), i)),
            (f"{v.name}[on([np.array({places})])[0]]" if i == 0 else f"{v.name}[..., None]",
             (lambda a: a[places]) if i == 0 else (lambda a: a[..., None])),
            (f"tg.nan_to_num({v.name})", np.copy), (f"{v.name}.flatten()", np.ravel),
            (f"tg.permute_dims({v.name}, {tuple(range(ndim))[::-1]})", np.transpose),
        ]  # fmt: skip
    if ndim >= 2:
        forms += [
            (f"tg.triu({v.name}, k=1)", lambda a: np.triu(a, 1)),
            (f"tg.vec({v.name}[..., :1, :])", lambda a: a[..., 0, :]),
            (f"tg.embedding({v.name}, {[k % n for k in places]})" if i == 0 else f"{v.name}[..., 0, :]",
             (lambda a: a[places]) if i == 0 else (lambda a: a[..., 0, :])),
            (f"tg.diagonal({v.name})", lambda a: np.diagonal(a, 0, -2, -1)), (f"tg.tril({v.name})", np.tril),
            (f"tg.trace({v.name})", lambda a: np.trace(a, 0, -2, -1)),
            (f"{v.name}.mT", lambda a: np.swapaxes(a, -1, -2)),
        ]  # fmt: skip
    text, move = p.choice(forms)
    try:
        p.add(text, v.jet.linear(move, rounds="trace" in text), [v])
    except (ValueError, IndexError):  # of an empty array
        raise Skip from None


@step(1)
def a_mask(p):
    v = p.pick(lambda v: len(v.shape) > 0)
    p.apart(v.jet, v.jet.value)
    mask = v.jet.value > 0
    need(mask.any())
    p.add(f"{v.name}[{v.name} > 0]", v.jet.linear(lambda a: a[mask], rounds=False), [v])


@step(4)
def lists_of_tensors(p):
    kind = p.choice(["stack", "concat", "flat", "hstack", "vstack", "meshgrid"])
    a = p.pick(lambda v: len(v.shape) > 0 or kind not in ("concat", "vstack", "hstack"))
    same = [p.pick(lambda v: v.shape == a.shape) for _ in range(p.random.integers(1, 3))]
    several = [a, *same]
    if kind == "flat":
        several = [a, p.pick(), p.pick()]
        text = "tg.concat([" + ", ".join(v.name for v in several) + "], axis=None)"
        join = lambda *xs: np.concatenate(xs, axis=None)
    elif kind == "meshgrid":
        need([len(v.shape) == 1 for v in several])
        text = f"tg.meshgrid({a.name}, {same[0].name}, indexing='ij')[1]"
        several, n = several[:2], a.shape[0]
        join = lambda x, y: np.broadcast_to(y, (n, len(y))) + 0 * x[:, None]
    else:
        axis = int(p.random.integers(len(a.shape))) if a.shape else 0
        names = ", ".join(v.name for v in several)
        text = f"tg.{kind}([{names}])" if kind[1:] == "stack" else f"tg.{kind}([{names}], axis={axis})"
        join = {"stack": lambda *xs: np.stack(xs, axis), "concat": lambda *xs: np.concatenate(xs, axis),
                "hstack": lambda *xs: np.hstack(xs), "vstack": lambda *xs: np.vstack(xs)}[kind]  # fmt: skip
    parts = zip(*[(v.jet.rows, v.jet.sizes, v.jet.errors) for v in several])
    jet = Jet(*(np.stack([join(*rows) for rows in zip(*part)]) for part in parts))
    used = several[1:] if kind == "meshgrid" else several
    p.add(text, jet, used)


@step(3)
def functional_assignment(p):
    v = p.pick(lambda v: len(v.shape) > 0)
    index = p.choice(["0", "-1", "...", "[0]", "slice(None)"])
    place = eval(index)
    need(v.shape[0])
    w = p.pick(lambda w: broadcasts(w.shape, v.jet.value[place].shape) and
               np.broadcast_shapes(w.shape, v.jet.value[place].shape) == v.jet.value[place].shape)  # fmt: skip
    kind = p.choice(["index_update", "index_add"])
    others = [v, w] if kind == "index_update" else [v]
    parts = []
    for x, y in zip((v.jet.rows, v.jet.sizes, v.jet.errors), (w.jet.rows, w.jet.sizes, w.jet.errors)):
        x = x.copy()
        for row, given in zip(x, y):
            row[place] = given if kind == "index_update" else row[place] + given
        parts.append(x)
    jet = Jet(*parts)
    if kind == "index_add":
        jet.errors = jet.errors + jet.sizes
    value = p.add(f"tg.{kind}({v.name}, {index}, {w.name})", jet, [v, w], dtype=v.dtype)
    assert others and value.dtype == v.dtype


def matrix(p):
    v = p.pick(lambda v: len(v.shape) == 2 and v.shape[0] == v.shape[1] and v.dtype != "float16")
    need(v.jet.value.size > 0)
    need(np.linalg.cond(v.jet.value) < 20)
    return v


def inverse(p, x):
    """Newton's iteration from the inverse of the value: each step has one more order of derivative right."""
    y = p.fixed(np.linalg.inv(x.value))
    for _ in range(2):
        y = y * p.fixed(2.0) + bilinear("ij,jk->ik", bilinear("ij,jk->ik", y, x), y).negated()
    return y


def determinant(x):
    """By the first column."""
    part = lambda *index: x.linear(lambda a: a[index], rounds=False)
    n = x.shape[0]
    if n == 1:
        return part(0, 0)
    terms = []
    for i in range(n):
        others = [k for k in range(n) if k != i]
        minor = determinant(x.linear(lambda a, k=others: a[k][:, 1:], rounds=False))
        terms.append(part(i, 0) * (minor.negated() if i % 2 else minor))
    return reduce(lambda a, b: a + b, terms)


def normwise(x, cond):
    """Bounds for what goes through LAPACK: each of the largest size of its order, times the condition number."""
    k = x.n + 1
    for part in (slice(0, 1), slice(1, k), slice(k, k + 1), slice(k + 1, None)):
        for bounds in (x.sizes, x.errors):
            bounds[part] = bounds[part].max(initial=0)
    return Jet(x.rows, x.sizes, x.errors + cond * x.sizes)


@step(2)
def matrix_functions(p):
    kind = p.choice(["inv", "solve", "det", "slogdet", "matrix_power", "pinv"])
    v = matrix(p)
    cond = np.linalg.cond(v.jet.value)
    if kind in ("inv", "pinv"):
        p.add(f"tg.{kind}({v.name})", normwise(inverse(p, v.jet), cond), [v])
    elif kind == "solve":
        w = p.pick(lambda w: w.shape == v.shape)
        need(w.dtype != "float16")
        jet = normwise(bilinear("ij,jk->ik", inverse(p, v.jet), w.jet), cond)
        p.add(f"tg.solve({v.name}, {w.name})", jet, [v, w])
    elif kind == "matrix_power":
        square = bilinear("ij,jk->ik", v.jet, v.jet)
        p.add(f"tg.matrix_power({v.name}, 3)", bilinear("ij,jk->ik", square, v.jet), [v])
    else:
        d = normwise(determinant(v.jet), cond)
        p.apart(d, d.value)
        d = mixed(d.value > 0, d, d.negated()) if kind == "slogdet" else d
        p.add(
            f"tg.{kind}({v.name}){'[1]' if kind == 'slogdet' else ''}", apply("log", d) if kind == "slogdet" else d, [v]
        )


@step(1)
def the_matrix_sign(p):
    """msign by Newton and Schulz, X <- (3 X - X X^T X) / 2; the bound from 1 / smallest singular value instead."""
    v = p.pick(lambda v: len(v.shape) == 2 and min(v.shape) > 1 and v.dtype != "float16")
    s = np.linalg.svd(v.jet.value, compute_uv=False)
    need(s[-1] > 0.25 * s[0])
    exact = Jet(v.jet.rows, 0 * v.jet.sizes, 0 * v.jet.errors)
    y = exact * p.fixed(1 / s[0])
    for _ in range(14):
        gram = bilinear("ij,kj->ik", y, y)
        y = y * p.fixed(1.5) + bilinear("ij,jk->ik", gram, y) * p.fixed(-0.5)
    k, slope, near = p.n + 1, 2 / s[-1], 20 * s[0] / s[-1]
    whole = lambda b: b.sum(axis=(-2, -1), keepdims=True) + 0 * b
    z, e = whole(v.jet.sizes), whole(v.jet.errors)
    sizes, errors = slope * z, slope * e
    sizes[k + 1 :] += slope**2 * z[k] * z[1:k]
    errors[1:] += slope**2 * e[0] * z[1:]
    errors[k + 1 :] += slope**2 * (e[k] * z[1:k] + z[k] * e[1:k]) + slope**3 * e[0] * z[k] * z[1:k]
    sizes[0] = 1
    method = p.choice(["", "", ", method='svd'"])
    p.add(f"tg.msign({v.name}{method})", Jet(y.rows, sizes, errors + near * sizes), [v])


@step(3)
def losses_and_norms(p):
    kind = p.choice(["mse", "huber", "l1", "softmax_cross_entropy", "layer_norm", "rms_norm", "linear", "bce", "silu"])
    v = p.pick(lambda v: len(v.shape) > 0)
    n = v.shape[-1]
    need(v.jet.value.size)
    mean = lambda x: x.linear(np.mean)
    rows = lambda x: x.linear(lambda a: a.mean(axis=-1, keepdims=True))
    if kind == "silu":
        p.add(f"tg.silu({v.name})", v.jet * apply("sigmoid", v.jet), [v])
    elif kind in ("mse", "huber", "l1", "bce"):
        w = p.pick(lambda w: w.shape == v.shape)
        need(w is not v)
        gap = v.jet + w.jet.negated()
        if kind == "mse":
            p.add(f"tg.mse({v.name}, {w.name})", mean(apply("square", gap)), [v, w])
        elif kind == "bce":
            jet = mean(apply("softplus", v.jet) + (w.jet * v.jet).negated())
            p.add(f"tg.binary_cross_entropy_with_logits({v.name}, {w.name})", jet, [v, w])
        else:
            p.apart(gap, gap.value)
            size = mixed(gap.value > 0, gap, gap.negated())
            if kind == "l1":
                p.add(f"tg.l1({v.name}, {w.name}, reduction='sum')", size.linear(np.sum), [v, w])
            else:
                p.apart(gap, size.value - 1)
                jet = mixed(size.value < 1, apply("square", gap) * p.fixed(0.5), size + p.fixed(-0.5))
                p.add(f"tg.huber({v.name}, {w.name}, reduction='none')", jet, [v, w])
    elif kind == "softmax_cross_entropy":
        labels = p.random.integers(0, n, v.shape[:-1])
        shifted = v.jet + p.fixed(v.jet.value.max(axis=-1, keepdims=True)).negated()
        log_p = shifted + apply("log", rows(apply("exp", shifted)) * p.fixed(float(n))).negated()
        jet = mean(log_p.linear(lambda a: np.take_along_axis(a, labels[..., None], -1), rounds=False)).negated()
        p.add(f"tg.softmax_cross_entropy({v.name}, on([np.array({labels.tolist()})])[0])", jet, [v])
    elif kind == "linear":
        w = p.pick(lambda w: len(w.shape) == 2 and w.shape[1] == n)
        b = p.pick(lambda b: b.shape == w.shape[:1])
        jet = bilinear("...i,ji->...j", v.jet, w.jet) + b.jet
        p.add(f"tg.linear({v.name}, {w.name}, {b.name})", jet, [v, w, b])
    else:
        w = p.pick(lambda w: w.shape == (n,))
        x = v.jet + rows(v.jet).negated() if kind == "layer_norm" else v.jet
        scale = apply("reciprocal", apply("sqrt", rows(apply("square", x)) + p.fixed(0.25)))
        p.add(f"tg.{kind}({v.name}, {w.name}, eps=0.25)", x * scale * w.jet, [v, w], dtype=v.dtype)


@step(1)
def a_buffer(p):
    """A tensor off the tape that is used and then changed: backward notices if it had been saved."""
    need(p.nesting == 0 and p.random.random() < 0.6)
    v = p.pick(lambda v: v.tracked)
    name = f"b{next(p.constants)}"
    first = p.numbers_of(v.shape)
    p.emit(f"{name} = tg.tensor({p.literal(first, v.dtype)}, device={p.device!r})")
    symbol = p.choice(["+", "-", "*", "*"])
    value = p.add(f"{v.name} {symbol} {name}", ARITHMETIC[symbol][1](v.jet, p.fixed(first)), [v])
    if p.random.random() < 0.5:
        value = p.add(f"tg.checkpoint(lambda a: a * {name})({value.name})", value.jet * p.fixed(first), [value])
    change = p.choice([f"{name}[...] = 3.0", f"{name}.copy_({name} * 2)", f"{name}.reshape(-1)[:1] = 5.0"])
    p.emit(change)
    p.may_refuse += "|changed in place|read-only"


@step(1)
def assignment_under_no_grad(p):
    """A buffer that is filled off the tape is a constant."""
    w = p.pick(lambda w: len(w.shape) > 0)
    name = f"b{next(p.constants)}"
    p.emit(f"{name} = tg.zeros({w.shape}, dtype={w.dtype!r}, device={p.device!r})")
    p.emit("with tg.no_grad():")
    p.emit(f"    {name}[...] = {w.name}")
    p.add(f"{name} * 1", w.jet.constant(), [Value("", w.jet, w.dtype, False)])


@step(2)
def rebinding(p):
    """``v += w`` on a result binds the name anew; what was computed with the old one keeps it."""
    v = p.pick(lambda v: v.name[0] == "v")
    text, jet, others = operand(p, v)
    symbol = p.choice(["+", "-", "*"])
    result = ARITHMETIC[symbol][1](v.jet, jet)
    p.sound(result)
    dtype = str(np.result_type(v.dtype, *(w.dtype for w in others)))
    new = p.new(result, dtype, v.tracked or any(w.tracked for w in others))
    if not new.tracked:
        new.jet = new.jet.constant()
    p.emit(f"{new.name} = {v.name}")
    p.emit(f"{new.name} {symbol}= {text}")
    p.values.append(new)


@step(2)
def a_cast(p):
    v = p.pick()
    dtype = p.choice(["float32", "float64", p.dtype])
    text = p.choice([f"{v.name}.astype({dtype!r})", f"tg.asarray({v.name}, dtype={dtype!r}) + 0"])
    p.dtypes.add(dtype)
    p.add(text, v.jet.linear(np.copy), [v], dtype=dtype)


@step(2)
def off_the_tape(p):
    v = p.pick()
    kind = p.choice(["detach", "number", "numpy"])
    if kind == "detach":
        p.add(f"{v.name}.detach() * 1", v.jet.constant(), [Value("", v.jet, v.dtype, False)])
        return
    w = p.pick()
    p.crossings = True
    if kind == "numpy":
        need(p.device == "cpu" and broadcasts(v.shape, w.shape))
        p.add(f"{w.name} * {v.name}.numpy()", w.jet * v.jet.constant(), [w, Value("", v.jet, v.dtype, False)])
    else:
        c = v.jet.constant().linear(np.sum)
        p.add(f"{w.name} * float({v.name}.sum())", w.jet * c, [w])


REFUSED = [
    "{0} * [{0}.sum(), 1.0]", "tg.exp([{0}, {0}])", "tg.tensor({0})", "tg.tensor([{0}.sum()])",
    "tg.full((2,), {0}.sum())", "tg.full_like({1}, {0}.sum())", "tg.elu({1}, alpha={0}.sum())",
    "tg.softplus({1}, beta={0}.sum())", "tg.linspace(0, {0}.sum(), 3)", "tg.pad({1}, 1, value={0}.sum())",
    "np.asarray({0})", "np.stack([{0}, {0}])", "np.linalg.norm({0})", "tg.zeros((2,)).copy_({0}.sum())",
    "tg.zeros((2,)).__setitem__(0, {0}.sum())", "tg.index_update(tg.zeros((2,)), 0, [{0}.sum()])",
    "tg.mse({1}, {1}, weight=[{0}.sum()])", "tg.where({1} > 0, [{0}.sum()], 0.0)", "{0}.__setitem__(..., 0.0)",
    "{0}.copy_({1}.detach())",
]  # fmt: skip


@step(2)
def what_is_refused(p):
    """A door through which the gradient would be lost: an error, and the program goes on."""
    need(p.recording)
    v, w = p.pick(lambda v: v.tracked), p.pick()
    form = p.choice(REFUSED)
    need(p.device == "cpu" or "tg.zeros" not in form)
    if form.endswith("__(..., 0.0)") or "copy_({1}" in form:
        need("leaf" in p.door.allows or v.name[0] == "v")
    p.emit("try:")
    p.emit(f"    {form.format(v.name, w.name)}")
    p.emit("except (TypeError, RuntimeError) as refusal:")
    p.emit("    assert 'tape' in str(refusal), refusal")
    p.emit("else:")
    p.emit("    raise AssertionError('this was not refused')")


@step(1)
def a_leaf_in_place(p):
    """Refused while ops record, where the leaf is the user's; in a transform the name is bound anew."""
    need(p.recording and p.nesting == 0 and "leaf" in p.door.allows)
    v = p.choice([v for v in p.leaves if v.tracked])
    p.emit("try:")
    p.emit(f"    {v.name} *= 2")
    p.emit("except RuntimeError:")
    p.emit("    pass")
    p.emit("else:")
    p.emit("    raise AssertionError('this was not refused')")


def block(p, head, recording, steps=2):
    """A nested block of steps; what it makes stays in sight if ``head`` is a ``with``."""
    before = p.recording
    p.emit(head)
    p.indent += 1
    p.recording, p.nesting = recording, p.nesting + 1
    here = len(p.lines)
    p.grow(steps)
    made = len(p.lines) > here
    p.indent -= 1
    p.recording, p.nesting = before, p.nesting - 1
    need(made)


@step(2)
def of_two(p):
    """Functions of two arguments that are made of others here."""
    a = p.pick()
    b = p.pick(lambda b: broadcasts(b.shape, a.shape))
    kind = p.choice(["hypot", "logaddexp", "atan2", "mish", "gelu", "elu", "cumprod", "norm", "cross"])
    if kind == "hypot":
        jet = apply("sqrt", apply("square", a.jet) + apply("square", b.jet))
        p.add(f"tg.hypot({a.name}, {b.name})", jet, [a, b])
    elif kind == "logaddexp":
        p.add(f"tg.logaddexp({a.name}, {b.name})", apply("softplus", a.jet + b.jet.negated()) + b.jet, [a, b])
    elif kind == "atan2":
        need(b.jet.value > 0.4)
        p.add(f"tg.atan2({a.name}, {b.name})", apply("atan", divided(a.jet, b.jet)), [a, b])
    elif kind == "mish":
        p.add(f"tg.mish({a.name})", a.jet * apply("tanh", apply("softplus", a.jet)), [a])
    elif kind == "gelu":
        x = a.jet * p.fixed(0.5**0.5)
        slope = 2 / np.pi**0.5 * np.exp(-(x.value**2))
        erf = x.function(np.vectorize(math.erf, otypes=[float])(x.value), slope, -2 * x.value * slope,
                         (4 * x.value**2 - 2) * slope)  # fmt: skip
        p.add(f"tg.gelu({a.name})", a.jet * (erf + p.fixed(1.0)) * p.fixed(0.5), [a])
    elif kind == "elu":
        p.apart(a.jet, a.jet.value)
        p.add(f"tg.elu({a.name}, alpha=0.75)",
              mixed(a.jet.value > 0, a.jet, apply("expm1", a.jet) * p.fixed(0.75)), [a])  # fmt: skip
    elif kind == "cumprod":
        need(len(a.shape) > 0)
        parts = [a.jet.linear(lambda r, i=i: np.take(r, [i], -1), rounds=False) for i in range(a.shape[-1])]
        running = list(accumulate(parts, lambda x, y: x * y))
        need(len(running))
        blocks = zip(*[(x.rows, x.sizes, x.errors) for x in running])
        p.add(f"{a.name}.cumprod(axis=-1)", Jet(*(np.concatenate(b, axis=-1) for b in blocks)), [a])
    elif kind == "norm":
        need(len(a.shape) > 0 and a.jet.value.size)
        p.apart(a.jet, a.jet.value)
        size = mixed(a.jet.value > 0, a.jet, a.jet.negated())
        p.add(f"tg.norm({a.name}, ord=1, axis=-1)", size.linear(lambda r: r.sum(axis=-1)), [a])
    else:
        need(a.shape[-1:] == (3,) == b.shape[-1:])
        roll = lambda x, k: x.linear(lambda r: np.roll(r, -k, -1), rounds=False)
        jet = roll(a.jet, 1) * roll(b.jet, 2) + (roll(a.jet, 2) * roll(b.jet, 1)).negated()
        p.add(f"tg.cross({a.name}, {b.name})", jet, [a, b])


@step(1)
def noise(p):
    """What must change nothing."""
    v = p.pick()
    text = p.choice(["{}.retain_grad()", "repr({})", "{}.tape()", "{} > 0", "tg.argmax({})", "len({}.shape)",
                     "{}.detach().clone().requires_grad_()", "tg.sign({}).sum()", "{}.register_hook(lambda g: None)",
                     "{}.register_hook(lambda g: g * 3).remove()"])  # fmt: skip
    tracked = "retain" in text or "hook" in text
    need(not tracked or (v.tracked and (p.recording or "hook" in text)))
    need(v.jet.value.size)
    p.emit(text.format(v.name))


@step(2)
def another_mode(p):
    need(p.nesting < 2)
    outer = p.recording
    mode, recording = p.choice([("no_grad", False), ("enable_grad", True), ("inference_mode", False)])
    need(not (mode == "enable_grad" and getattr(p, "inference", False)))
    if mode == "inference_mode":
        need(not getattr(p, "inference", False))
        p.inference = True
    try:
        block(p, f"with tg.{mode}():", recording, int(p.random.integers(1, 4)))
    finally:
        p.recording = outer
        if mode == "inference_mode":
            p.inference = False


@step(3)
def a_checkpoint(p):
    """A block that is run again; it closes over what it does not take as an argument."""
    need(p.nesting < 2)
    name = f"f{next(p.constants)}"
    arguments = list({v.name: v for v in (p.pick(), p.pick())}.values())
    before, indent, mode, nesting = list(p.values), p.indent, p.recording, p.nesting
    try:
        block(p, f"def {name}({', '.join(v.name for v in arguments)}):", p.recording, int(p.random.integers(1, 4)))
        new = [v for v in p.values if v not in before]
        need(len(new))
        chosen = [new[-1], p.choice(p.values if p.recording else new)]  # called as it is, it would return a leaf
        p.emit(f"    return {', '.join(v.name for v in chosen)}")
        results = [p.new(v.jet, v.dtype, v.tracked) for v in chosen]
        for value, v in zip(results, chosen):
            value.tracked = v.tracked  # also under no_grad, where the block is called as it is
        p.emit(f"{', '.join(v.name for v in results)} = tg.checkpoint({name})({', '.join(v.name for v in arguments)})")
        p.values = before + results
    finally:
        p.indent, p.recording, p.nesting = indent, mode, nesting


@step(2)
def a_nested_transform(p):
    v = p.pick()
    w = p.pick(lambda w: np.broadcast_shapes(w.shape, v.shape) == v.shape if broadcasts(w.shape, v.shape) else False)
    same = str(np.result_type(v.dtype, w.dtype))
    need(same == v.dtype and p.recording)
    kind = p.choice(["grad", "jvp", "vjp", "value_and_grad", "hvp", "jacobian", "hessian"])
    a, b = v.name, w.name
    sine = FUNCTIONS["sin"][0]
    cosine = lambda x: x.function(np.cos(x.value), -np.sin(x.value), -np.cos(x.value), np.sin(x.value))
    if kind in ("grad", "value_and_grad"):
        tail = "[1]" if kind[0] == "v" else ""
        p.add(f"tg.{kind}(lambda a: (tg.sin(a) * {b}).sum())({a}){tail}", cosine(v.jet) * w.jet, [v, w])
    elif kind == "vjp":
        p.add(f"tg.vjp(lambda a: a * a * {b}, {a})[1]({a})[0]", v.jet * v.jet * w.jet * p.fixed(2.0), [v, w])
    elif kind == "jvp":
        p.add(f"tg.jvp(lambda a: tg.sin(a) * {b}, ({a},), ({a} * 2,))[1]",
              cosine(v.jet) * w.jet * v.jet * p.fixed(2.0), [v, w])  # fmt: skip
    elif kind in ("jacobian", "hessian"):
        need(v.shape == w.shape and len(v.shape) == 1 and v.jet.value.size > 0)
        x = v.jet.function(*(-x for x in sine(v.jet.value))) if kind == "hessian" else cosine(v.jet)
        inner = "(tg.sin(a) * {}).sum()" if kind == "hessian" else "tg.sin(a) * {}"
        p.add(f"tg.{kind}(lambda a: {inner.format(b)}, {a})", (x * w.jet).linear(np.diag, rounds=False), [v, w])
    else:
        second = v.jet.function(*(-x for x in sine(v.jet.value)))
        p.add(f"tg.hvp(lambda a: (tg.sin(a) * {b}).sum(), {a}, {a})", second * w.jet * v.jet, [v, w])


# --- doors ------------------------------------------------------------------------------------------------------------


class Door:
    """How a program is differentiated: text that leaves lists called as in ``Program.expected``.

    allows: words. "hooks": they run once in each walk. "leaf": the inputs are leaves of the user's. "first order":
    nothing is differentiated twice. "any dtype": derivatives may have the dtype of the result. "frozen": some inputs
    may want no gradient, and with "only" there is none of them.
    times: how often the gradient is accumulated.
    """

    def __init__(self, name, code, allows="", times=1):
        self.name, self.code, self.allows, self.times = name, code, allows, times

    def text(self, p):
        wanted = [i for i, v in enumerate(p.leaves) if v.tracked]
        raw = (
            p.device == "cpu" and len(wanted) == len(p.leaves) and p.random.random() < 0.3
        )  # arrays, in the place of tensors
        names = [v.name for v in p.leaves]
        made = {"x": "inputs" if raw else "on(inputs)", "argnums": tuple(wanted), "wanted": wanted, "on": "on(inputs)",
                "device": repr(p.device),
                "names": ", ".join(names), "tree": "{" + ", ".join(f"'{n}': [{n}]" for n in names) + "}",
                "of_tree": ", ".join(f"t['{n}'][0]" for n in names)}  # fmt: skip
        return self.code.strip("\n").format(**made)


LEAVES = "leaves = {on}\nfor i in {wanted}:\n    leaves[i].requires_grad = True\n"
DOORS = [
    Door("backward", LEAVES + """
values = f(*leaves)
total(values).backward()
gradients = [x.grad for x in leaves]
""", "hooks leaf frozen first order"),
    Door("backward of each", LEAVES + """
values = f(*leaves)
for y, s in zip(values, on(seeds)):
    if y.requires_grad:
        y.backward(s, retain_graph=True)
gradients = [x.grad for x in leaves]
""", "leaf frozen first order"),
    Door("backward twice", LEAVES + """
values = f(*leaves)
loss = total(values)
loss.backward(retain_graph=True)
with tg.no_grad():
    loss.backward()
gradients = [x.grad for x in leaves]
""", "hooks leaf frozen first order", times=2),
    Door("backward under observers", LEAVES + """
with tg.guard_saved(), tg.detect_nan(), tg.profile(), tg.scope("all"):
    values = f(*leaves)
    total(values).backward()
gradients = [x.grad for x in leaves]
""", "hooks leaf frozen first order"),
    Door("create_graph", LEAVES + """
values = f(*leaves)
total(values).backward(create_graph=True)
gradients = [x.grad for x in leaves]
along = sum(((g * t).sum() for g, t in zip(gradients, on(u)) if g is not None), 0.0)
for x in leaves:
    x.zero_grad()
second = [None for x in leaves]
if getattr(along, "requires_grad", False):
    along.backward()
    second = [x.grad for x in leaves]
""", "hooks leaf"),
    Door("gradients", LEAVES + """
values = f(*leaves)
gradients = tg.gradients(total(values), leaves, create_graph=True, allow_unused=True)
along = sum(((g * t).sum() for g, t in zip(gradients, on(u)) if g is not None), 0.0)
second = [None for x in leaves]
if getattr(along, "requires_grad", False):
    second = tg.gradients(along, leaves, allow_unused=True)
""", "hooks leaf"),
    Door("grad", """
gradients = tg.grad(lambda *x: total(f(*x)), argnums={argnums})(*{x})
""", "hooks frozen only first order"),
    Door("grad of a tree", """
{names}, = {x}
tree = tg.grad(lambda t: total(f({of_tree})))({tree})
gradients = [leaf for leaves in tree.values() for leaf in leaves]
""", "hooks first order"),
    Door("value_and_grad", """
(_, values), gradients = tg.value_and_grad(lambda *x: (total(y := f(*x)), y), argnums={argnums}, has_aux=True)(*{x})
""", "hooks frozen only first order"),
    Door("functional_call", """
class Model(tg.nn.Module):
    def __init__(self):
        self.w = [tg.nn.Parameter(a, device={device}) for a in inputs]

    def forward(self):
        return f(*self.w)

model = Model()
gradients = tg.grad(lambda w: total(tg.nn.functional_call(model, w)))(dict(zip(dict(model.named_parameters()), {on})))
gradients = list(gradients.values())
total(model()).backward()
assert all(w.grad is None or (g.data == w.grad.data).all() for g, w in zip(gradients, model.w))
""", "hooks first order"),
    Door("vjp", """
values, pull = tg.vjp(f, *{x})
gradients = pull(tuple(on(seeds)))
again = pull(tuple(on(seeds)))
assert all((a.data == b.data).all() for a, b in zip(gradients, again))
""", "hooks first order"),
    Door("jvp", """
values, tangents = tg.jvp(f, tuple({x}), tuple(on(u)))
""", "first order"),
    Door("linearize", """
values, push = tg.linearize(f, *{x})
tangents = push(*on(u))
again = push(*on(u))
assert all((a.data == b.data).all() for a, b in zip(tangents, again))
""", "first order"),
    Door("jacobian", """
rows = tg.jacobian(lambda *x: total(f(*x)).reshape(1), *{x}, argnums={argnums}, mode="forward")
gradients = [row[0] for row in rows]
""", "frozen only first order any dtype"),
    Door("grad of grad", """
outer = lambda *x: sum((g * t).sum() for g, t in zip(tg.grad(lambda *x: total(f(*x)), argnums={argnums})(*x), on(u)))
second = tg.grad(outer, argnums={argnums})(*{x})
""", "hooks"),
    Door("jvp of grad", """
gradients, second = tg.jvp(tg.grad(lambda *x: total(f(*x)), argnums={argnums}), tuple({x}), tuple(on(u)))
"""),
    Door("grad of jvp", """
along = lambda *x: total(tg.jvp(f, x, tuple(on(u)))[1])
second = tg.grad(along, argnums={argnums})(*{x})
"""),
    Door("jvp of jvp", """
inner = lambda *x: tg.jvp(lambda *x: total(f(*x)), x, tuple(on(u)))[1]
second = list(tg.jacobian(inner, *{x}, argnums={argnums}, mode="forward"))
""", "any dtype"),
    Door("all in a checkpoint", LEAVES + """
values = tg.checkpoint(f)(*leaves)
total(values).backward()
gradients = [x.grad for x in leaves]
""", "hooks frozen first order"),
    Door("leaves that require gradients in a transform", LEAVES + """
gradients = tg.grad(lambda *x: total(f(*x)), argnums={argnums})(*leaves)
along = sum((g * t).sum() for g, t in zip(gradients, on(u)))
second = [None for x in leaves]
if along.requires_grad:
    along.backward()
    second = [x.grad for x in leaves]
""", "hooks"),
]  # fmt: skip


# --- the test ---------------------------------------------------------------------------------------------------------


def run(program):
    """What is wrong with the program, or None, and whether it was refused."""
    namespace = {"__name__": "program"}
    try:
        exec(compile(program.source, f"program {program.seed}", "exec"), namespace)
    except Exception as error:
        if program.may_refuse and re.search(program.may_refuse[1:], str(error)):
            return None, True
        return f"{type(error).__name__}: {error}", False
    expected = program.expected()
    for name in ("values", "gradients", "tangents", "second"):
        if name not in namespace:
            continue
        times = program.door.times if name == "gradients" else 1
        for i, (got, (right, bound, dtype)) in enumerate(zip(namespace[name], expected[name], strict=True)):
            what = f"{name}[{i}]"
            if got is None:  # no gradient: the right one is zero
                got = tg.zeros(right.shape, dtype=dtype)
            if (str(got.dtype) != dtype and "any dtype" not in program.door.allows) or got.shape != right.shape:
                return f"{what} is {got.dtype} {got.shape}, expected {dtype} {right.shape}", False
            got = got.cpu().detach().numpy().astype("float64")
            wrong = ~(np.abs(got - times * right) <= times * bound)
            if wrong.any():
                return f"{what} is\n{got}\nexpected\n{times * right}\nwithin\n{times * bound}", False
    return None, False


def check(seeds):
    refused = 0
    for seed in seeds:
        program = Program(seed)
        wrong, refusal = run(program)
        assert wrong is None, f"program {seed} ({program.door.name}):\n\n{program.source}\n{wrong}"
        refused += refusal
    assert refused < len(seeds) / 8  # the others are compared


@pytest.mark.filterwarnings("error")
def test_a_few_random_programs():
    check(range(FEW))


@pytest.mark.slow
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_random_programs(chunk):
    size = PROGRAMS // CHUNKS
    check(range(FEW + chunk * size, FEW + (chunk + 1) * size))


if __name__ == "__main__":
    shown = Program(int(sys.argv[1]))
    print(f"{shown.source}\n# {shown.door.name}: {run(shown)}")
