"""Odd quintics x <- a x + b x^3 + c x^5 for Newton-Schulz: tables of coefficients, minimax rows, which rows to run.

Sources: Su Jianlin, The derivative of msign, the table after (5); Amsel et al., Polar Express, arXiv 2505.16932.
The iterations that run them are ``polar`` and ``block_solve``.
"""

from functools import lru_cache
from math import copysign, isfinite, prod, sqrt
from typing import NamedTuple

import numpy

from tinygrad_ms.options import is_int

__all__ = ["minimax_coefficients"]

POLISH = (1.875, -1.25, 0.375)  # x (15 - 10 x^2 + 3 x^4) / 8 converges to one with e -> 5/2 e^3


def with_safety(rows, factor=1.01):
    """The rows of p(x / factor). They take inputs that rounding has made up to ``factor`` times too large."""
    return tuple((a / factor, b / factor**3, c / factor**5) for a, b, c in rows)


TABLES = {
    # Su Jianlin, the table after (5), for singular values in [1e-3, 1] of M / ||M||_F. It has +1.268 in row 6.
    # The last two rows have no safety factor: it would move the fixed point to 1 - 2.4e-6.
    "su": (
        *with_safety((
            (8.28721, -23.5959, 17.3004), (4.10706, -2.94785, 0.544843), (3.94869, -2.9089, 0.551819),
            (3.31842, -2.48849, 0.510049), (2.30065, -1.6689, 0.418807), (1.8913, -1.268, 0.376804),
        )),
        POLISH, POLISH,
    ),
    # Amsel et al., the same composition with all digits and the safety factor on seven rows.
    "polar_express": (
        *with_safety((
            (8.2872120181, -23.5958865191, 17.3003873125), (4.1070591115, -2.9478499167, 0.5448431083),
            (3.9486908535, -2.9089021160, 0.5518191394), (3.3184196574, -2.4884880243, 0.5100489401),
            (2.3006520200, -1.6689039846, 0.4188073120), (1.8913014078, -1.2679958272, 0.3768040895),
            (1.8750014809, -1.2500016454, 0.3750001646),
        )),
        POLISH,
    ),
    # Jordan, Muon, 2024: five times the same row; singular values end in [0.7, 1.2], not at one.
    "muon": ((3.4445, -4.7750, 2.0315),) * 5,
    # You Jiacheng, 2025: five different rows, nearer to one.
    "muon_you": (
        (4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046), (2.8366, -3.0525, 1.2012),
    ),
}  # fmt: skip
TABLES["lact"] = TABLES["muon_you"]  # the language models of LaCT (Zhang et al. 2025, arXiv:2505.23884) run these rows


def odd_quintic(row, x):
    a, b, c = row
    return x * (a + x * x * (b + x * x * c))


def minimax_quintic(lower: float, upper: float) -> tuple[float, float, float]:
    """(a, b, c) of the odd quintic closest to one on [lower, upper], by Remez exchange."""
    if lower >= upper * (1 - 1e-5):  # nearly a point: Taylor's quintic is exact up to rounding
        a, b, c = POLISH
        return a / upper, b / upper**3, c / upper**5
    q, r, error = (3 * lower + upper) / 4, (lower + 3 * upper) / 4, 0.0
    for _ in range(100):  # p(x_i) + (-1)^i E = 1 at four points; the inner ones move to the extremes of p
        x = numpy.array([lower, q, r, upper])
        system = numpy.stack([x, x**3, x**5, [1, -1, 1, -1]], axis=1)
        a, b, c, new = map(float, numpy.linalg.solve(system, numpy.ones(4)))
        root = sqrt(9 * b * b - 20 * a * c)
        q, r = sqrt((-3 * b - root) / (10 * c)), sqrt((-3 * b + root) / (10 * c))
        if abs(new - error) < 1e-15:
            break
        error = new
    return a, b, c


def minimax_coefficients(lower, steps=None, *, cushion=0.02407327424182761, safety=1.0):
    """Rows (a, b, c) whose composition brings singular values in [lower, 1] to one: the Polar Express construction.

    Each row is the minimax quintic on the interval that the rows before it leave. If that is wider than
    [``cushion`` u, u], the row is made for this smaller one. Then small values grow a little slower, and large ones
    stay near one. ``steps=None`` makes as many rows as bring all of [lower, 1] within 1e-3 of one. ``safety`` is the
    factor of ``with_safety``. Raises ValueError unless 0 < lower <= 1.
    Source: Amsel et al., arXiv 2505.16932, algorithm 1.
    """
    if not 0 < lower <= 1:
        raise ValueError(f"minimax_coefficients: lower is {lower}; expected the least singular value, 0 < lower <= 1")
    rows: list[tuple] = []
    low, up = lower, 1.0
    while len(rows) < steps if steps is not None else 1 - low > 1e-3:
        row = minimax_quintic(max(low, cushion * up), up)
        ends = odd_quintic(row, low), odd_quintic(row, up)
        row = tuple(k * 2 / sum(ends) for k in row)  # was centred for the cushion
        low = odd_quintic(row, low)
        up = 2 - low
        rows.append(row)
    return with_safety(rows, safety)


@lru_cache
def rows_to_one(lower: float, tolerance: float):
    """The fewest minimax rows that bring all of [lower, 1] within ``tolerance`` of one."""
    steps, left = 0, lower
    while not steps or 1 - left > tolerance:
        steps, left = steps + 1, lower
        rows = minimax_coefficients(lower, steps=steps)
        for row in rows:
            left = odd_quintic(row, left)
    return rows


# --- which rows to run ---------------------------------------------------------------------------------------------


def as_rows(coefficients) -> tuple:
    """The rows of a named table or of the user's own: a sequence of (a, b, c)."""
    if isinstance(coefficients, str):
        if coefficients not in TABLES:
            raise ValueError(f"coefficients={coefficients!r} is unknown: the tables are {', '.join(TABLES)}")
        return TABLES[coefficients]
    rows = tuple(tuple(map(float, row)) for row in coefficients)
    if not rows or any(len(row) != 3 or not all(map(isfinite, row)) or not any(row[1:]) for row in rows):
        raise ValueError(
            f"coefficients={coefficients!r}: expected rows (a, b, c) of finite numbers, with b or c different from zero"
        )
    return rows


def hashable(coefficients):
    """Coefficients as ``make_schedule`` caches them: None, a table's name, or a tuple of rows."""
    return coefficients if coefficients is None or isinstance(coefficients, str) else as_rows(coefficients)


def shifts(rows, end=1.0):
    """The scale to start from and the shifts (p, q) of each row, so that X = scale * Y ends with scale ``end``.

    Write x = s y. Then a row is s' y' = c s^5 ((y^2 + p)^2 + q) y, where s' and y' belong to the next row. We choose s
    so that c s^5 = s', and the factor disappears. The last scale is given, so the scales are computed from the last row
    backwards. A row with c = 0 is y' = (y^2 + p) y, and its q is None.
    """
    scale, pairs = end, []
    for a, b, c in reversed(rows):
        if c:
            scale = copysign(abs(scale / c) ** 0.2, scale / c)
            pairs.append((b / (2 * c * scale**2), (a - b * b / (4 * c)) / (c * scale**4)))
        else:
            scale = copysign(abs(scale / b) ** (1 / 3), scale / b)
            pairs.append((a / (b * scale**2), None))
    return scale, tuple(reversed(pairs))


def fixed_rows(steps, coefficients):
    """The rows that ``steps`` and ``coefficients`` ask for: rows 1..steps, the last one repeated; None: adaptive."""
    if steps is not None and not (is_int(steps) and steps >= 1):
        raise ValueError(f"steps={steps!r}: expected a positive integer, or None for adaptive steps")
    if steps is None and coefficients is None:
        return None
    rows = as_rows("su" if coefficients is None else coefficients)
    count = len(rows) if steps is None else int(steps)
    return (rows + rows[-1:] * count)[:count]


def noise_floor(n, m, precision):
    """The least singular value above the rounding noise, for an n x m matrix with ||M||_F = 1.

    The noise was measured as 1 to 2 sqrt(max(n, m)) u, where u is the unit roundoff.
    """
    return 25 * sqrt(max(n, m, 1)) * precision


@lru_cache(maxsize=256)
def converge(steps, coefficients, lower, n, m, precision) -> bool:
    """Whether those rows bring all of [lower, 1] to one, within a hundredth."""
    rows = fixed_rows(steps, coefficients)
    if rows is None:
        return lower >= noise_floor(n, m, precision)
    x = numpy.geomspace(lower, 1, 500)
    with numpy.errstate(all="ignore"):
        for row in rows:
            x = odd_quintic(row, x)
    return bool((abs(x - 1) < 0.01).all())


class Schedule(NamedTuple):
    """The rows to run: ``chunks`` of (start scale, shifts); then, if given, ``polishing`` until convergence."""

    chunks: tuple
    end: float = 1.0  # the scale after each chunk
    polishing: tuple | None = None
    tolerance: float = 0.0  # of the residual ||X^T X - I||_F


@lru_cache(maxsize=256)
def make_schedule(steps, coefficients, n: int, m: int, precision: float) -> Schedule:
    """The rows for an n x m matrix of roundoff ``precision``; ``coefficients`` is a table's name, rows or None.

    Without ``steps`` and ``coefficients`` the schedule is adaptive. The table "su" makes small singular values 1,820
    times larger. While the residual is large, further chunks follow, until values at the ``noise_floor`` are near one.
    The noise of a rank-deficient matrix then stays below about 0.1; it never comes near one.
    """
    rows = fixed_rows(steps, coefficients)
    if rows is not None:
        return Schedule((shifts(rows),))
    end = POLISH[2] ** -0.25  # the scale that a polishing step leaves as it is
    table = TABLES["su"][:6]
    gain, floor = prod(row[0] for row in table), noise_floor(n, m, precision)
    chunks, lower = [table], floor * gain
    while lower < 0.5:  # the part of the range that is still below
        short = lower < 1e-3
        chunks.append(table if short else minimax_coefficients(lower, safety=1.01))
        lower = lower * gain if short else 1.0
    polishing = shifts((POLISH,), end)[1][0]
    return Schedule(tuple(shifts(rows, end) for rows in chunks), end, polishing, sqrt(n) * precision)


@lru_cache
def roundoff(dtype) -> float:
    """The unit roundoff u of a float dtype."""
    return float(numpy.finfo(dtype.name).eps) / 2


def schedule_for(shape, dtype, steps, coefficients) -> Schedule:
    """``make_schedule`` for matrices of this shape, tall or wide."""
    n, m = sorted(shape[-2:])
    return make_schedule(steps, hashable(coefficients), n, m, roundoff(dtype))
