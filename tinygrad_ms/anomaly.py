"""Find the op that made the first NaN: an observer of every op and every rule."""

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.modes import hooks
from tinygrad_ms.engine.tensor import raw


class detect_nan(hooks):
    """``with detect_nan():`` raises FloatingPointError at the first op, or rule of an op, whose result holds a NaN.

    The sentence names the op, where it was called, and what its arguments held. Every result is inspected (on a GPU
    that waits for the device), so use it to look for a fault rather than always.
    """

    def __init__(self):
        """It observes itself."""

    def after_op(self, primitive, arrays, outputs, node):
        for y in outputs:
            if has_nan(y):
                arguments = zip((primitive.argument_name(i) for i in range(len(arrays))), arrays)
                facts = "; ".join(f"{name}: {describe_values(value)}" for name, value in arguments)
                line = f" at {node.line}" if node is not None else ""
                raise FloatingPointError(f"first NaN: the result of {primitive.name}{line} ({facts})")

    def after_rule(self, node, gradient, gradients):
        for parent, g in gradients:
            if has_nan(g):
                raise FloatingPointError(
                    f"first NaN: the gradient that the rule of {node.op}, recorded at {node.line}, sends to"
                    f" {parent.op} {parent.shape} (it received {describe_values(gradient)})"
                )


def has_nan(value) -> bool:
    x = raw(value)
    if type(x) not in BACKENDS or not is_float(x.dtype):
        return x != x if isinstance(x, float) else False
    return bool((x != x).any())


def describe_values(value) -> str:
    """``float32 (2, 3) in [-1.5, 4.0], with 2 inf``."""
    x = raw(value)
    if type(x) not in BACKENDS or not x.size or not is_float(x.dtype):
        return f"{getattr(x, 'dtype', type(x).__name__)} {getattr(x, 'shape', x)}"
    xp = BACKENDS[type(x)].xp
    finite = xp.isfinite(x)
    parts = [f"{x.dtype} {x.shape}"]
    if bool(finite.any()):
        low, high = float(xp.where(finite, x, xp.inf).min()), float(xp.where(finite, x, -xp.inf).max())
        parts.append(f"in [{low:.4g}, {high:.4g}]")
    nans, infs = int((x != x).sum()), int(xp.isinf(x).sum())
    if nans or infs:
        parts.append(f"with {nans} NaN and {infs} inf")
    return " ".join(parts)
