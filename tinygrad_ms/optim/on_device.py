"""Steps and clipping on devices: one launch for many parameters, whose gradients stay where they lie.

The text of a step is made of the method's own ``update``, which runs once on symbols in the place of arrays
(``ops/fused/symbols``). So each formula stands once, in NumPy.
"""

from functools import lru_cache
from itertools import accumulate
from typing import Any

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.launches import launcher
from tinygrad_ms.launches.kernels import InPlace, per_matrix_reduction
from tinygrad_ms.ops.fused.symbols import Functions, Symbol
from tinygrad_ms.optim.whole_steps import ELEMENTWISE
from tinygrad_ms.options import is_real

TOGETHER = 64  # gradients of one launch: what a kernel is told fits into 4 KB
HALF_OF_THEM = 32  # where two arrays belong to each
LANES = 2**17  # sums of squares that are made side by side


def launches(array) -> bool:
    """Whether steps of arrays like this one are kernels."""
    return launcher(array) is not None and array.dtype.char in "fd"


def place(index, first, last, name="g{k}[{i}]"):
    """The text of element ``index`` of the arrays ``first`` to ``last`` - 1, called g0, g1, ..., laid end to end."""
    if last - first == 1:
        return name.format(k=first, i=f"{index} - s{first}" if first else index)
    middle = (first + last) // 2
    parts = place(index, first, middle, name), place(index, middle, last, name)
    return f"({index} < s{middle} ? {parts[0]} : {parts[1]})"


def starts_of(gradients) -> list[int]:
    """Where each but the first begins, and the end of all."""
    return list(accumulate(g.size for g in gradients))


# --- steps ----------------------------------------------------------------------------------------------------------


class Element(Symbol):
    """One element of an array."""

    size = 0


class Option(Symbol):
    """A number among the options: a variable of the text, but zero or not is part of the text."""

    value = 0.0

    def __bool__(self):
        return bool(self.value)


class Stand:
    """An optimizer for one call of ``update``, with these numbers and arrays for intermediate results."""

    _fresh = False

    def __init__(self, optimizer, numbers, scratch):
        self._optimizer, self._given, self._make, self._numbers = optimizer, numbers, scratch, {}

    def __getattr__(self, name):
        return getattr(self._optimizer, name)

    def numbers(self, p, options, state):
        return self._given

    def scratch(self, p, number=0):
        return self._make(p)


@lru_cache(256)
def step_kernel(kind, real, count, names, numbers, options, fixed):
    """The kernel of ``kind`` for ``count`` gradients. options: (name, whether it is zero); fixed: other options."""
    lines: list[str] = []
    p, g = (Element(lines, name, real) for name in "pg")
    buffers = [Element(lines, f"b{i}", real) for i in range(len(names))]
    scalars = [Symbol(lines, f"c{i}", real) for i in range(numbers)]
    chosen = dict(fixed)
    for i, (name, nonzero) in enumerate(options):
        chosen[name] = Option(lines, f"o{i}", real)
        chosen[name].value = float(nonzero)
    stand = Stand(kind, scalars, lambda like: Element(lines, "none", real))
    kind.update(stand, Functions(), p, g, dict(zip(names, buffers)), chosen)
    results = [f"p = {p.name};", *(f"b{i} = {b.name};" for i, b in enumerate(buffers))]

    def rule(xp, *given):
        parts, given = given[:count], given[2 * count - 1 :]
        values, (array, *kept) = given[: numbers + len(options)], given[numbers + len(options) :]
        chosen = {name: value * nonzero for (name, nonzero), value in zip(options, values[numbers:])}
        whole = parts[0] if count == 1 else xp.concatenate(parts)
        stand = Stand(kind, values[:numbers], xp.empty_like)
        kind.update(stand, xp, array, whole, dict(zip(names, kept)), {**dict(fixed), **chosen})

    flags = "".join(str(int(nonzero)) for _, nonzero in options)
    rule.__name__ = f"{kind.__name__.lower()}_{real}_{count}_{flags}"
    inputs = [
        *(f"raw T g{i}" for i in range(count)), *(f"int64 s{i}" for i in range(1, count)),
        *(f"T c{i}" for i in range(numbers)), *(f"T o{i}" for i in range(len(options))),
    ]  # fmt: skip
    outputs = ["T p", *(f"T b{i}" for i in range(len(names)))]
    text = "\n".join([f"const T g = {place('i', 0, count)};", *lines, *results])
    return InPlace(rule, ", ".join(inputs), ", ".join(outputs), (text,), dtypes="d" if real == "float64" else "f")


def stepped(optimizer, array, g, state, group):
    """None where a kernel has made the step; else the gradient, for ``update``. ``g``: one, or a list of them."""
    gradients = g if type(g) is list else [g.reshape(-1)]
    kind = next((c for c in type(optimizer).__mro__ if getattr(c, "update", None) in ELEMENTWISE), None)
    names = optimizer.buffers(group)
    arrays = [array, *(state[name] for name in names)]
    if kind is not None and not optimizer._fresh and launches(array) and all(a.flags.c_contiguous for a in arrays):
        numeric = {
            name: is_real(value) and type(value) is not bool for name, value in group.items() if name != "params"
        }
        options = tuple((name, group[name] != 0) for name, number in numeric.items() if number)
        fixed = tuple((name, group[name]) for name, number in numeric.items() if not number and is_plain(group[name]))
        scalars = optimizer.scalars(group, state["step"])
        kernel = step_kernel(kind, array.dtype.name, len(gradients), names, len(scalars), options, fixed)
        values = [*map(float, scalars), *(float(group[name]) for name, _ in options)]
        kernel(*gradients, *starts_of(gradients)[:-1], *values, *(a.reshape(-1) for a in arrays))
        return None
    return BACKENDS[type(array)].xp.concatenate(g) if type(g) is list else g


def is_plain(value) -> bool:
    return value is None or isinstance(value, (bool, str))


# --- the elementwise part of Muon -------------------------------------------------------------------------------------


@lru_cache(256)
def momentum_kernel(count, nesterov):
    """m <- beta m + g of ``count`` matrices, and the directions m or g + beta m end to end."""

    def rule(xp, *given):
        beta, direction, buffers = given[2 * count - 1], given[2 * count], given[-count:]
        for m, g in zip(buffers, given[:count]):
            m *= beta
            m += g
        rows = [m * beta + g if nesterov else m for m, g in zip(buffers, given[:count])]
        direction[...] = rows[0] if count == 1 else xp.concatenate(rows)

    rule.__name__ = f"momentum_{count}_{int(nesterov)}"
    inputs = [*(f"raw T g{i}" for i in range(count)), *(f"int64 s{i}" for i in range(1, count)), "T c0"]
    text = f"""
        const T g = {place("i", 0, count)};
        T& m = {place("i", 0, count, "m{k}[{i}]")};
        m = m * c0 + g;
        direction = {"m * c0 + g" if nesterov else "m"};"""
    outputs = ["T direction", *(f"raw T m{i}" for i in range(count))]
    return InPlace(rule, ", ".join(inputs), ", ".join(outputs), (text,))


@lru_cache(256)
def moving_kernel(count):
    """p <- shrink p - rate step, for ``count`` matrices, each with its rate; the steps lie end to end."""

    def rule(xp, *given):
        shrink, rates, step, params = given[count - 1], given[count : 2 * count], given[2 * count], given[-count:]
        first = 0
        for p, rate in zip(params, rates):
            p *= shrink
            p -= step[first : first + p.size] * rate
            first += p.size

    rule.__name__ = f"moving_{count}"
    inputs = [*(f"int64 s{i}" for i in range(1, count)), "T shrink", *(f"T c{i}" for i in range(count)), "T step"]
    text = f"T& p = {place('i', 0, count)}; p = p * shrink - step * {place('i', 0, count, 'c{k}')};"
    return InPlace(rule, ", ".join(inputs), ", ".join(f"raw T g{i}" for i in range(count)), (text,))


def momenta(pairs, beta, nesterov):
    """The directions of (buffer, gradient) pairs, contiguous and of one dtype, end to end; the buffers are changed."""
    xp = BACKENDS[type(pairs[0][0])].xp
    made = xp.empty(sum(m.size for m, _ in pairs), pairs[0][0].dtype)
    for first in range(0, len(pairs), HALF_OF_THEM):
        part = [(m.reshape(-1), g.reshape(-1)) for m, g in pairs[first : first + HALF_OF_THEM]]
        start = sum(m.size for m, _ in pairs[:first])
        buffers, gradients = zip(*part)
        ends = starts_of(gradients)
        kernel = momentum_kernel(len(part), bool(nesterov))
        kernel(*gradients, *ends[:-1], float(beta), made[start : start + ends[-1]], *buffers)
    return made


def moved(params, steps, rates, shrink) -> None:
    """Change contiguous arrays by their steps, which lie end to end."""
    for first in range(0, len(params), HALF_OF_THEM):
        part = [p.reshape(-1) for p in params[first : first + HALF_OF_THEM]]
        start, ends = sum(p.size for p in params[:first]), starts_of(part)
        numbers = [float(shrink), *map(float, rates[first : first + HALF_OF_THEM])]
        moving_kernel(len(part))(*ends[:-1], *numbers, steps[start : start + ends[-1]], *part)


# --- clipping -------------------------------------------------------------------------------------------------------


@lru_cache(256)
def squares_kernel(count):
    """Sums of squares in float64, of every ``lanes``-th element each."""

    def squares(xp, *given):
        *_, lanes, part = given
        whole = xp.square(xp.concatenate(given[:count]), dtype="float64")
        full = whole.size - whole.size % lanes
        part[...] = whole[:full].reshape(-1, lanes).sum(axis=0)
        part[: whole.size - full] += whole[full:]

    inputs = [*(f"raw T g{i}" for i in range(count)), *(f"int64 s{i}" for i in range(1, count + 1)), "int64 lanes"]
    text = f"""
        double sum = 0;
        for (long long j = i; j < s{count}; j += lanes) {{
            const double x = {place("j", 0, count)};
            sum += x * x;
        }}
        part = sum;"""
    squares.__name__ += f"_{count}"
    return InPlace(squares, ", ".join(inputs), "float64 part", (text,))


@per_matrix_reduction("T squares", "T y", "squares", "a + b", "y = sqrt(a)")
def root_of_sum(xp, squares, y):
    y[...] = xp.sqrt(squares.sum(axis=(1, 2)))


@lru_cache(256)
def scale_kernel(count):
    """g <- g min(1, most / (norm + 1e-6)), and g as it is where the norm is not finite."""

    def scaled(xp, norm, most, *given):
        factor = xp.where(xp.isfinite(norm), xp.minimum(most / (norm + 1e-6), 1.0), 1.0)
        for g in given[-count:]:
            g *= factor.astype(g.dtype)

    inputs = ["raw float64 norm", "float64 most", *(f"int64 s{i}" for i in range(1, count))]
    text = f"""
        const double factor = most / (norm[0] + 1e-6);
        {place("i", 0, count)} *= norm[0] - norm[0] == 0 && factor < 1 ? (T)factor : (T)1;"""
    scaled.__name__ += f"_{count}"
    return InPlace(scaled, ", ".join(inputs), ", ".join(f"raw T g{i}" for i in range(count)), (text,))


def clipped(gradients, max_norm) -> Any:
    """Scale contiguous float32 gradients, arrays of a device; their norm before, a 0-d array of float64."""
    xp = BACKENDS[type(gradients[0])].xp
    rows = [g.reshape(-1) for g in gradients if g.size]
    chunks = [rows[i : i + TOGETHER] for i in range(0, len(rows), TOGETHER)]
    lanes = min(LANES, max((g.size for g in rows), default=1))
    parts, norm = xp.empty((1, max(len(chunks), 1), lanes), "float64"), xp.empty(1, "float64")
    if not chunks:
        parts.fill(0)
    for i, chunk in enumerate(chunks):
        squares_kernel(len(chunk))(*chunk, *starts_of(chunk), lanes, parts[0, i])
    root_of_sum(parts, norm)
    for chunk in chunks:
        scale_kernel(len(chunk))(norm, float(max_norm), *starts_of(chunk)[:-1], *chunk)
    return norm.reshape(())
