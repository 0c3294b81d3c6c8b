"""The warnings of msign. They name the line that called the library; Python shows each once per line."""

import sys
import warnings

import numpy

from tinygrad_ms.arrays.registry import BACKENDS, host
from tinygrad_ms.engine.call import ours
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.ops.iterations.coefficients import noise_floor, roundoff

__all__: list[str] = []


passed_through: set[str] = set()  # files of other frameworks: their frames do not count as callers


def warn_caller(message):
    """A RuntimeWarning at the innermost line outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and (ours(frame) or frame.f_code.co_filename in passed_through):
        frame = frame.f_back
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    where = frame.f_code.co_filename, frame.f_lineno, frame.f_globals.get("__name__")
    warnings.warn_explicit(message, RuntimeWarning, *where, registry=registry)


def warn_of_cap(rows, columns):
    """Warn that an adaptive iteration has used up its steps."""
    warn_caller(
        f"msign: a matrix of {max(rows, columns)} x {min(rows, columns)}, or its transpose, is numerically"
        " rank-deficient, where msign is discontinuous: the value is an iterate whose extra singular values are below"
        " one, the derivative is bounded but large; use eps > 0 for a smooth msign, method='svd' for the factor of its"
        " rank, or steps=k to run k steps without this look"
    )


def check_finite(M):
    M = raw(M)
    bad = int(M.size - BACKENDS[type(M)].xp.isfinite(M).sum())
    if bad:
        raise ValueError(f"msign: {bad} of the {M.size} elements of M {M.shape} are not finite")


def check_orthogonal(M, y, method, steps, coefficients):
    """Warn where msign(M) = y is far from orthogonal, with the worst matrix of the batch and the cause."""
    M, y = raw(M), raw(y)
    if not M.size:
        return
    n, m = sorted(M.shape[-2:])
    flat, q = (host(x).reshape((-1,) + x.shape[-2:]) for x in (M, y))
    gram = q @ q.mT if q.shape[-2] < q.shape[-1] else q.mT @ q
    residual = numpy.linalg.norm(gram - numpy.eye(n), axis=(-2, -1))
    worst = int(residual.argmax())
    if not residual[worst] > 0.1:
        return
    s = numpy.linalg.svd(flat[worst] / max(abs(flat[worst]).max(), 1e-300), compute_uv=False)
    s = s * float(abs(flat[worst]).max())
    which = f"matrix {worst} of M {M.shape}" if M.ndim > 2 else f"M {M.shape}"
    found = f"residual ||Y^T Y - I||_F = {residual[worst]:.2g}, smallest singular value {s[-1]:.2g}, largest {s[0]:.2g}"
    if s[-1] > noise_floor(n, m, roundoff(M.dtype)) * numpy.linalg.norm(s / max(s[0], 1e-300)) * s[0]:
        ran = f"steps={steps}, coefficients={coefficients!r}"
        warn_caller(
            f"msign: {which} has full rank, but {ran} has not converged: {found}; more steps, or steps=None, do"
        )
    elif method != "newton_schulz":
        rank = round(float((q[worst] ** 2).sum()))
        warn_caller(
            f"msign: {which} is numerically rank-deficient: {found}; the result is the factor of its rank {rank}"
        )
    else:
        advice = "use eps > 0, or method='svd' for the factor of its rank"
        warn_caller(f"msign: {which} is numerically rank-deficient: {found}; {advice}")
