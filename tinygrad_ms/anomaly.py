"""Observers that find a fault: the op that made the first NaN, or the line that writes into an array of the tape."""

from threading import RLock

import numpy

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_its_card
from tinygrad_ms.engine.around.modes import hooks
from tinygrad_ms.engine.tensor import raw


class detect_nan(hooks):
    """``with detect_nan():`` raises FloatingPointError at the first op, or rule of an op, whose result holds a NaN.

    The error names the op, the line that called it, and the range of its arguments. Every result is tested, and on a
    GPU each test waits for the device. So use it to find a fault, not always.
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


class guard_saved(hooks):
    """``with guard_saved():`` makes the NumPy arrays that ops inside save read-only until backward has used them.

    The tape saves arrays without copying them. A change through a Tensor (``copy_``, ``t[i] = v``, a step of an
    optimizer) is counted, and backward refuses an array that changed after it was saved. A change of the array itself
    is not seen, and then the gradient is wrong in silence. Such a change may go through ``x.data``, the result of
    ``x.numpy()`` or ``numpy.asarray(x)``, an array given to ``asarray`` or to a transform, an array that was the target
    or a constant of an op, or another library that shares the memory by DLPack.
    With this guard such a write raises ValueError ("read-only") at its line. The arrays stay read-only until the tape
    that has saved them is freed, by backward without ``retain_graph`` or with the last result. Views that NumPy makes
    in this time stay read-only. Writes through views that NumPy made before, and on other devices, are not caught.
    """

    def __init__(self):
        """It observes itself."""

    def after_op(self, primitive, arrays, outputs, node):
        if node is not None and node.saved:
            node.saved = Held(node.saved)
        for y in outputs if primitive.view else ():
            if type(y) is numpy.ndarray and (held := _held.get(id(chain_of(y)[-1]))):
                make_read_only(chain_of(y), held[1])


class Held(tuple):
    """The values that a node has saved. Their arrays are read-only as long as this tuple exists."""

    def __init__(self, values):
        self.owners = [hold(value) for value in values if type(value) is numpy.ndarray]

    def __del__(self):
        for owner in self.owners:
            let_go(owner)


_held: dict[int, tuple] = {}  # id of an array that owns memory -> ([how often it is held], arrays made read-only)
_lock = RLock()


def hold(array) -> int:
    """Make an array and the arrays whose memory it shows read-only. Returns the id of the owner of the memory."""
    chain = chain_of(array)
    with _lock:
        count, changed = _held.setdefault(id(chain[-1]), ([0], []))
        count[0] += 1
        make_read_only(chain, changed)
        return id(chain[-1])


def chain_of(array) -> list:
    """An array, the array whose memory it shows, and so on, up to the owner of the memory."""
    chain = [array]
    while type(chain[-1].base) is numpy.ndarray:
        chain.append(chain[-1].base)
    return chain


def make_read_only(chain, changed) -> None:
    """Make a chain of arrays read-only, and add those that ``let_go`` makes writeable again to ``changed``.

    The owner comes first, because NumPy makes no view of a read-only array writeable. A view of a read-only array is
    read-only from the start. A view with a step of 0 (``broadcast_to``) stays read-only for ever.
    """
    ours = chain[-1].flags.writeable or any(part is chain[-1] for part in changed)
    for part in reversed(chain):
        born = ours and 0 not in part.strides and all(part is not known for known in changed)
        if part.flags.writeable or born:
            part.flags.writeable = False
            changed.append(part)


def let_go(owner: int) -> None:
    with _lock:
        count, changed = _held[owner]
        count[0] -= 1
        if not count[0]:
            del _held[owner]
            for part in changed:
                part.flags.writeable = True


@on_its_card
def has_nan(value) -> bool:
    x = raw(value)
    if type(x) not in BACKENDS or not is_float(x.dtype):
        return x != x if isinstance(x, float) else False
    return bool((x != x).any())


@on_its_card
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
