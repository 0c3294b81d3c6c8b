"""Numbers for pictures: summaries of arrays, and the values and gradients that the tape does not keep."""

import math
from typing import Any

import numpy

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS, host
from tinygrad_ms.cards import on_card
from tinygrad_ms.engine.around.gradients import pullbacks
from tinygrad_ms.engine.around.modes import hooks
from tinygrad_ms.engine.backward import unbroadcast, walk
from tinygrad_ms.engine.tape import Constant, Leaf, Node, Output
from tinygrad_ms.engine.tensor import raw

SMALL = 9  # an array with at most so many elements is shown in full
STRIP = (4, 12)  # the most rows and columns of a heat strip


class Summary:
    """The facts that a picture shows of an array: all elements, or statistics and a heat strip if it is large."""

    __slots__ = ("shape", "dtype", "small", "low", "high", "mean", "std", "norm", "bad", "strip", "first")

    def __init__(self, array):
        x = host(raw(array))
        self.shape, self.dtype = x.shape, x.dtype
        self.small = x.copy() if x.size <= SMALL else None
        self.first = float(x.flat[0]) if x.size else None
        wide = x.astype(numpy.float64) if is_float(x.dtype) or x.dtype.kind in "iub" else x
        finite = wide[numpy.isfinite(wide)]
        self.bad = wide.size - finite.size  # the number of NaN and infinite elements
        some = finite if finite.size else numpy.zeros(1)
        self.low, self.high = float(some.min()), float(some.max())
        with numpy.errstate(over="ignore"):
            self.mean, self.std = float(some.mean()), float(some.std())
            self.norm = math.sqrt(float((some * some).sum()))
        self.strip = None if self.small is not None else block_means(wide)

    @property
    def text(self) -> str:
        """The elements themselves, or their statistics."""
        if self.small is not None:
            return elements(self.small)
        bad = f", {self.bad} not finite" if self.bad else ""
        mean = self.mean if abs(self.mean) > 1e-7 * max(-self.low, self.high) else 0.0  # below: rounding
        return f"{brief(self.low)} … {brief(self.high)}, mean {brief(mean)}, std {brief(self.std)}{bad}"

    def levels(self) -> list[list[float]]:
        """The heat strip as numbers from 0 (lowest) to 1 (highest)."""
        if self.strip is None:
            return []
        low, high = float(numpy.nanmin(self.strip)), float(numpy.nanmax(self.strip))
        span, even = (high - low) or 1.0, 0.5 * (high == low)
        return [[even + (float(v) - low) / span if math.isfinite(v) else math.nan for v in row] for row in self.strip]


def block_means(array) -> numpy.ndarray | None:
    """The array as a matrix, averaged over blocks. There are at most STRIP blocks."""
    if not array.size:
        return None
    matrix = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)
    for axis, most in enumerate(STRIP):
        n = matrix.shape[axis]
        if n > most:
            edges = [n * k // most for k in range(most + 1)]
            parts = [matrix.take(range(a, b), axis).mean(axis, keepdims=True) for a, b in zip(edges, edges[1:])]
            matrix = numpy.concatenate(parts, axis)
    return matrix


def number(value: Any) -> str:
    """A number with at most four significant digits: 3, -0.5, 1.235e-05."""
    if isinstance(value, (bool, numpy.bool_)):
        return str(value)
    if isinstance(value, (int, numpy.integer)) and abs(int(value)) < 10**6:
        return str(value)
    value = float(value) + 0.0  # no -0
    return f"{value:.4g}" if math.isfinite(value) else str(value)


def brief(value: float) -> str:
    return f"{value:.3g}"


def elements(array) -> str:
    """All elements of a small array: ``0.5``, ``[1, 2]``. Each row of a matrix has its own line."""
    if not array.size:
        return "empty"
    if array.ndim == 2:
        return "\n".join(map(elements, array))
    return " ".join(numpy.array2string(array, separator=", ", formatter={"all": number}).split())


# --- values of the forward pass -----------------------------------------------------------------------------


class recording(hooks):
    """``with recording() as record:`` keeps a summary of every result and argument of the ops inside.

    ``build(loss, values=record)`` shows them. ``build(loss, values=True)`` has no record: it reads the values that the
    tape saved, and computes others from them again. A value stays unknown if no rule saved it and it depends on a
    constant that was not saved.
    """

    def __init__(self):
        self.results = {}  # node number -> summaries of the outputs
        self.arguments = {}  # (node number, argument) -> summary

    def after_op(self, primitive, arrays, outputs, node):
        if node is not None:
            self.results[node.seq] = [Summary(y) for y in outputs]
            for i, parent in enumerate(node.parents):
                if isinstance(parent, Constant):
                    self.arguments[node.seq, i] = Summary(arrays[i])


class watching(hooks):
    """Only these observers are active. The observers of the user do not see the ops that a picture runs."""

    def change(self, state):
        return state.replace(hooks=self.observers)


def find_values(tape, known) -> tuple[dict, dict]:
    """Raw values of the nodes of ``tape`` (tuples, one entry per output) and of its constants, as far as known.

    They come from ``known`` (node -> raw array, such as the outputs), from the tensors of leaves, from the values
    that the nodes saved, and from ops that are run again.
    """
    values: dict[Node, tuple] = {node: (value,) for node, value in known.items()}
    constants: dict[Constant, Any] = {}
    for node in tape:
        if isinstance(node, Leaf):
            tensor = node.tensor() if node.tensor is not None else None
            if tensor is not None:
                values[node] = (tensor.data,)
        elif node.saved is not None and node.plan is not None:
            read_saved(node, values, constants)
    with watching():
        for node in tape:
            if node not in values and not isinstance(node, Leaf):
                outputs = run_again(node, values, constants)
                if outputs is not None:
                    values[node] = outputs
    return values, constants


def read_saved(node, values, constants) -> None:
    """Put the values that a node saved into ``values`` and ``constants``. They are its inputs and its outputs."""
    plan = node.plan
    for value, i in zip(node.saved, plan.inputs):
        parent = node.parents[i]
        if isinstance(parent, Node):
            values.setdefault(parent, (value,))
        elif isinstance(parent, Constant):
            constants[parent] = value
    if not plan.primitive.outputs:
        for value in node.saved[len(plan.inputs) :][: len(plan.outputs)]:
            values[node] = (value,)


def run_again(node, values, constants) -> tuple | None:
    """The outputs of a node, computed again. None if an argument is unknown."""
    arrays = [argument_value(parent, values, constants) for parent in node.parents]
    if any(array is None for array in arrays):
        return None
    if isinstance(node, Output):
        return (values[node.parents[0]][node.constants["index"]],)
    primitive, xp = node.plan.primitive, node.backend.xp
    with on_card(next((a for a in arrays if type(a) in BACKENDS), None)):
        if primitive.floats:
            arrays = [a if not hasattr(a, "dtype") or is_float(a.dtype) else a.astype(numpy.float32) for a in arrays]
        outputs, _ = primitive.run(xp, arrays, node.constants)
    return tuple(a if type(a) in BACKENDS else xp.asarray(a) for a in outputs)


def argument_value(parent, values, constants):
    if isinstance(parent, Node):
        return values[parent][0] if parent in values else None
    return constants.get(parent) if isinstance(parent, Constant) else parent


# --- gradients ----------------------------------------------------------------------------------------------


class Backward:
    """The gradients of a backward pass: the gradient at every node, and those that every rule sent to its parents."""

    def __init__(self, keep):
        self.keep = keep
        self.received = {}  # node -> ``keep`` of the complete gradient of its output
        self.sent = {}  # node -> [(parent, ``keep`` of the gradient that was sent to it)]

    def before_rule(self, node, gradient):
        self.received[node] = self.keep(gradient)

    def after_rule(self, node, gradient, gradients):
        self.sent[node] = [
            (parent, self.keep(g if isinstance(g, dict) else unbroadcast(g, parent, node))) for parent, g in gradients
        ]


def run_backward(seeds, keep) -> Backward:
    """Walk the tape from ``seeds`` (node, cotangent) and keep the gradients.

    The tape is not freed, ``.grad`` stays as it is, and no hook or observer of the user runs.
    """
    watched = Backward(keep)
    with watching(watched):
        leaves, _ = walk(seeds, retain=True, hooked=False)
    for node, g in leaves:
        watched.received[node] = watched.keep(g)
    return watched


def local_products(node, g):
    """(argument, gradient) for each argument to which the rule of ``node`` sends one, for the cotangent ``g``."""
    saved = node.saved
    for i, rule, positions in node.plan.pullbacks or pullbacks(node, g, saved):
        d = rule(g, *[saved[p] for p in positions])
        if d is not None:
            yield i, d


def slopes(node) -> dict[int, Any]:
    """The derivative of a scalar result by each argument, on the host; {} unless all arguments are scalars."""
    if node.shape != () or any(getattr(parent, "shape", ()) != () for parent in node.parents):
        return {}
    with watching():
        found = dict(local_products(node, node.backend.xp.ones((), node.dtype)))
    return {i: Summary(d).small for i, d in found.items()}


def summarised(gradient):
    """The Summary of the gradient of one array. None for an op with several outputs; each output has its own."""
    return None if isinstance(gradient, dict) else Summary(gradient)


def is_freed(tape) -> bool:
    return any(node.saved is None for node in tape)
