"""The worst errors of elementwise functions and their derivatives, per dtype, as a table.

    python benchmarks/accuracy.py [--points 100000] [--only gelu tanh ...] [--write]

Each function gets so many arguments over the whole range where it has a finite value: half of them evenly spaced among
the floats of the dtype, half evenly spaced on the number line from -20 to 20. The reference of float16 and float32 is
this library in float64, that of float64 is mpmath with 60 digits on 500 of the arguments (``pip install mpmath``).
``--write`` writes docs/accuracy.md.
"""

import argparse
import math
import platform
from pathlib import Path

import numpy as np

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import REGISTRY

DTYPES = "float16", "float32", "float64"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "accuracy.md"
ZEROS = {  # of the derivatives
    "gelu": -0.7517915246935645, "gelu tanh": -0.7524614220710163, "silu": -1.2784645427610738,
    "mish": -1.1924312145154262,
}  # fmt: skip


class Case:
    """A function of one array, and the same of an mpmath number. ``low``, ``high``: its domain."""

    def __init__(self, function, exact, low=-math.inf, high=math.inf):
        self.function, self.exact, self.low, self.high = function, exact, low, high


def sigmoid(m, x):
    return 1 / (1 + m.exp(-x))


def cubic(m, x):
    return m.sqrt(2 / m.pi) * (x + m.mpf("0.044715") * x**3)


def log_of_sum(m, x):
    return m.log1p(m.exp(x)) if x < 0 else x + m.log1p(m.exp(-x))


def elu(m, x, alpha=1, scale=1):
    return scale * x if x > 0 else scale * m.mpf(alpha) * m.expm1(x)


CASES = {
    "acos": Case(tg.acos, lambda m, x: m.acos(x), -1, 1),
    "acosh": Case(tg.acosh, lambda m, x: m.acosh(x), 1),
    "acot": Case(tg.acot, lambda m, x: m.atan2(m.mpf(1), x)),
    "asin": Case(tg.asin, lambda m, x: m.asin(x), -1, 1),
    "asinh": Case(tg.asinh, lambda m, x: m.asinh(x)),
    "atan": Case(tg.atan, lambda m, x: m.atan(x)),
    "atanh": Case(tg.atanh, lambda m, x: m.atanh(x), -1, 1),
    "cbrt": Case(tg.cbrt, lambda m, x: m.sign(x) * m.cbrt(abs(x))),
    "cos": Case(tg.cos, lambda m, x: m.cos(x), -1e4, 1e4),
    "cosh": Case(tg.cosh, lambda m, x: m.cosh(x)),
    "cot": Case(tg.cot, lambda m, x: m.cot(x), -1e4, 1e4),
    "coth": Case(tg.coth, lambda m, x: m.coth(x)),
    "csc": Case(tg.csc, lambda m, x: m.csc(x), -1e4, 1e4),
    "csch": Case(tg.csch, lambda m, x: m.csch(x)),
    "elu": Case(tg.elu, elu),
    "erf": Case(tg.erf, lambda m, x: m.erf(x)),
    "erfc": Case(tg.erfc, lambda m, x: m.erfc(x)),
    "exp": Case(tg.exp, lambda m, x: m.exp(x)),
    "exp2": Case(tg.exp2, lambda m, x: m.mpf(2) ** x),
    "expm1": Case(tg.expm1, lambda m, x: m.expm1(x)),
    "gelu": Case(tg.gelu, lambda m, x: x * m.erfc(-x / m.sqrt(2)) / 2),
    "gelu tanh": Case(lambda x: tg.gelu(x, approximate="tanh"), lambda m, x: x * sigmoid(m, 2 * cubic(m, x))),
    "log": Case(tg.log, lambda m, x: m.log(x), 0),
    "log10": Case(tg.log10, lambda m, x: m.log10(x), 0),
    "log1p": Case(tg.log1p, lambda m, x: m.log1p(x), -1),
    "log2": Case(tg.log2, lambda m, x: m.log(x, 2), 0),
    "log_sigmoid": Case(tg.log_sigmoid, lambda m, x: -log_of_sum(m, -x)),
    "logit": Case(tg.logit, lambda m, x: m.log(x) - m.log1p(-x), 0, 1),
    "mish": Case(tg.mish, lambda m, x: x * m.tanh(log_of_sum(m, x))),
    "reciprocal": Case(tg.reciprocal, lambda m, x: 1 / x),
    "sec": Case(tg.sec, lambda m, x: m.sec(x), -1e4, 1e4),
    "sech": Case(tg.sech, lambda m, x: m.sech(x)),
    "selu": Case(tg.selu, lambda m, x: elu(m, x, 1.6732632423543772, m.mpf(1.0507009873554805))),
    "sigmoid": Case(tg.sigmoid, sigmoid),
    "silu": Case(tg.silu, lambda m, x: x * sigmoid(m, x)),
    "sin": Case(tg.sin, lambda m, x: m.sin(x), -1e4, 1e4),
    "sinc": Case(tg.sinc, lambda m, x: m.sincpi(x), -1e4, 1e4),
    "sinh": Case(tg.sinh, lambda m, x: m.sinh(x)),
    "softplus": Case(tg.softplus, log_of_sum),
    "sqrt": Case(tg.sqrt, lambda m, x: m.sqrt(x), 0),
    "square": Case(tg.square, lambda m, x: x**2),
    "tan": Case(tg.tan, lambda m, x: m.tan(x), -1e4, 1e4),
    "tanh": Case(tg.tanh, lambda m, x: m.tanh(x)),
    "x ** 3": Case(lambda x: x**3, lambda m, x: x**3),
    "x ** 4": Case(lambda x: x**4, lambda m, x: x**4),
}
FAR = {  # functions that mpmath can tell of numbers above 1,000
    "acosh", "acot", "asinh", "atan", "cbrt", "log", "log10", "log1p", "log2", "reciprocal", "sqrt", "square", "x ** 3",
    "x ** 4",
}  # fmt: skip
BARS = {  # the most ulp that a value or derivative is off
    name: {"float16": 1, "float32": 4, "float64": 4}
    for name in (
        "coth", "csch", "elu", "expm1", "gelu", "gelu tanh", "log1p", "log_sigmoid", "mish", "sech", "selu",
        "sigmoid", "silu", "softplus", "tanh",
    )
}  # fmt: skip
BARS["atan"] = {"float16": 1}


def arguments(case, dtype, points):
    """``points`` floats of the domain, without zero and the ends."""
    info = np.finfo(dtype)
    whole = np.geomspace(float(info.tiny), float(info.max) / 2, points // 4).astype(dtype)
    line = np.linspace(max(case.low, -20), min(case.high, 20), points // 2).astype(dtype)
    x = np.unique(np.concatenate([-whole, line, whole]))
    return x[(x > case.low) & (x < case.high) & (x != 0)]


def value_and_slope(case, x, size=1000):
    """In small pieces, so that numbers of all sizes do not share a block, which may be computed in another way."""
    pieces = []
    for start in range(0, len(x), size):
        piece = tg.tensor(x[start : start + size], requires_grad=True)
        with np.errstate(all="ignore"):
            y = case.function(piece)
            y.backward(np.ones(piece.shape, x.dtype))
        pieces.append((y.numpy(), piece.grad.numpy()))
    return [np.concatenate(parts) for parts in zip(*pieces)]


def spacing(size, dtype):
    """The distance of floats of that size."""
    info = np.finfo(dtype)
    return 2.0 ** (np.floor(np.log2(np.maximum(np.abs(size), float(info.tiny)))) - info.nmant)


def worst(case, name, dtype, points=100_000):
    """The worst errors of value and derivative, in ulp of the right number."""
    x = arguments(case, dtype, points)
    found = value_and_slope(case, x)
    if dtype != "float64":
        right = value_and_slope(case, x.astype("float64"))
        return [error(f, r, dtype, x, name if i else None) for i, (f, r) in enumerate(zip(found, right))]
    try:
        import mpmath
    except ImportError:
        raise SystemExit(
            "accuracy: the reference of float64 is mpmath, which is not here: pip install mpmath"
        ) from None
    near = np.flatnonzero(np.abs(x) <= (math.inf if name in FAR else 1e3))
    chosen = near[np.linspace(0, len(near) - 1, min(500, points)).astype(int)]
    x, found = x[chosen], [f[chosen] for f in found]
    right = [exact_numbers(mpmath, case, v) for v in x.tolist()]
    result = []
    for i, f in enumerate(found):
        r = np.array([float(pair[i]) for pair in right])
        rest = np.array(
            [float(pair[i] - mpmath.mpf(v)) if math.isfinite(v) else 0.0 for pair, v in zip(right, r.tolist())]
        )
        result.append(error(f, r, dtype, x, name if i else None, rest))
    return result


def exact_numbers(mpmath, case, v):
    """Value and derivative at v; the derivative as a difference with many digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(v)
        y = case.exact(mpmath, x)
    tiny = max(0, -math.log10(abs(v)))
    with mpmath.workdps(300 + 2 * int(tiny)):
        h = abs(x) / mpmath.mpf(10) ** 100
        d = (case.exact(mpmath, x + h) - case.exact(mpmath, x - h)) / (2 * h)
    return y, d


def error(found, right, dtype, x, zero_of=None, rest=0.0):
    info = np.finfo(dtype)
    unit = spacing(right, dtype)
    if zero_of in ZEROS:  # within 1e-2 of a zero of the derivative: its largest term, about as large as 1 / 4
        unit = np.where(np.abs(x - ZEROS[zero_of]) < 1e-2, spacing(0.2, dtype), unit)
    with np.errstate(invalid="ignore"):
        e = np.abs((found.astype("float64") - right) - rest) / unit
    inside = np.isfinite(right) & (np.abs(right) <= float(info.max))
    wrong = inside & ~np.isfinite(found)
    return math.inf if wrong.any() else float(e[inside].max(initial=0))


# --- the table ----------------------------------------------------------------------------------------------


def named_in(name):
    """The primitive of a case."""
    return {"gelu tanh": "gelu", "x ** 3": "power", "x ** 4": "power", "log_sigmoid": "softplus"}.get(name, name)


def elementwise_primitives():
    """The public differentiable functions of each element in the registry, by name."""
    rooms = (
        "elementwise trigonometric special activations smooth_activations elu gelu mish hyperbolic comparisons".split()
    )
    return sorted(
        name
        for name, p in REGISTRY.items()
        if p.differentiable
        and p.checks is None
        and p.op.__module__.split(".")[-1] in rooms
        and vars(tg).get(name) is p.op
    )


TEXT = """# Accuracy of elementwise functions

The table has the error of the worst of 100,000 results, in ulp. 1 ulp is the distance of two neighbouring floats at the
right result; rounding alone gives an error of up to 0.5. Below the smallest normal number the distance is constant.
Each cell has two errors: of the value, and of the derivative (the gradient for a cotangent of 1). "yes" means that a
test checks a bar: 4 ulp in float32 and float64, 1 in float16 (for atan only this). `!` marks a figure above the bar.

`benchmarks/accuracy.py` makes the table (`python benchmarks/accuracy.py --write`). A quarter of the arguments is
spread evenly over the exponents of the dtype, on each side of 0, and half over -20 to 20. sin, cos, tan and their
reciprocals stop at 10,000. Arguments whose result is infinite or NaN are left out. The reference of float16 and
float32 is this library in float64; that of float64 is mpmath with 60 digits, on 500 of the arguments (up to 1,000
where the function is exponential or periodic). Within 0.01 of the zero of the derivative of gelu, silu and mish, errors
of the derivative are in ulp of its largest term, which is about 0.2.

On a GPU elu, gelu, selu, sigmoid, silu, softplus and the derivative of tanh are kernels that compute float32, and half
precision, in float32. Their text, run on a CPU by `tests/arrays/test_device_kernels.py`, is within 5 ulp where the
result is a normal number; half precision is rounded to the nearest. Smaller results are 0 in float32: CuPy compiles so.

NumPy's exp, log and tanh differ by a few tenths of an ulp between processors; this table was made on {machine}.

| function | float16 | float32 | float64 | bar |
|---|---|---|---|---|
{rows}

These have no row. They are made of one or two correctly rounded operations of NumPy, only choose or round, or have two
arguments: {others}.
"""


def cell(pair, bar):
    return " / ".join(f"{e:.3g}" + ("!" if bar and e > bar else "") for e in pair)


def table(names, points):
    for name in names:
        bars = BARS.get(name, {})
        cells = [cell(worst(CASES[name], name, dtype, points), bars.get(dtype)) for dtype in DTYPES]
        yield f"| {name} | {' | '.join(cells)} | {'yes' if bars else ''} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--only", nargs="*", choices=list(CASES), default=list(CASES), metavar="NAME")
    parser.add_argument("--write", action="store_true", help="write docs/accuracy.md")
    given = parser.parse_args()
    rows = []
    for row in table(given.only, given.points):
        rows.append(row)
        print(row, flush=True)
    if given.write:
        covered = {named_in(name) for name in CASES}
        others = [f"`{name}`" for name in elementwise_primitives() if name not in covered]
        machine = f"{platform.machine()} with NumPy {np.__version__}"
        PAGE.write_text(TEXT.format(rows="\n".join(rows), others=", ".join(others), machine=machine), encoding="utf-8")


if __name__ == "__main__":
    main()
