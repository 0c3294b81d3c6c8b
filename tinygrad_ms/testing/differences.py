"""Tests whether derivatives are right, of every order and in both modes, by central differences in float64.

Let y = f(x) have the Jacobian J, and take cotangents v and directions u. The tape gives <J^T v, u>. The differences
(f(x + h u) - f(x - h u)) / 2h give <v, J u>. If u and v are unit vectors, these are the elements of J. For large arrays
u and v are random; they show a wrong Jacobian with probability one.
"""

import numpy

from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.forward import push_forward
from tinygrad_ms.engine.around.modes import enable_grad, forward_mode
from tinygrad_ms.engine.backward import walk
from tinygrad_ms.engine.tensor import Tensor, raw

FULL = 32  # inputs with at most so many elements together are checked element by element
PROBES = 3  # larger ones are checked along so many random vectors per array
PAIRING = 1e-10  # tolerance relative to |v| |J u|, because JVP and VJP differ only by rounding


class GradcheckError(AssertionError):
    """A derivative differs from the differences. The message says which one, where, and by how much."""


def gradcheck(f, inputs, *, eps: float = 1e-5, atol: float = 1e-7, rtol: float = 1e-5) -> bool:
    """True if the gradients of ``f`` agree with central differences; else GradcheckError.

    f: a function of ``inputs`` that returns a Tensor or a tuple of Tensors, with the same values at every call.
    inputs: a Tensor or a tuple. Those with ``requires_grad`` are varied, and must be float64.
    eps: the step is h = eps max(1, max |x|). The error of the differences is about h^2 f''' / 6 + 1e-16 f / h.
    atol, rtol: an element of a Jacobian may be off by ``atol + rtol * (its largest element)``.
    Raises TypeError for inputs or outputs of lower precision, ValueError if no input requires a gradient.

    >>> x = tg.tensor([0.5, 1.0], dtype="float64", requires_grad=True)
    >>> tg.testing.gradcheck(tg.sin, [x])
    True
    """
    inputs, wanted = read(inputs, "gradcheck")
    leaves, outputs = evaluate(f, inputs, wanted)
    random = numpy.random.default_rng(0)
    few = sum(inputs[i].size for i in wanted) <= FULL
    directions = {i: probes(inputs[i].size, few, random) for i in wanted}
    moved = {i: [differences(f, inputs, wanted, {i: u}, eps) for u in directions[i]] for i in wanted}
    for k, y in enumerate(outputs):
        one_by_one = few and y.size <= FULL
        cotangents = probes(y.size, one_by_one, random)
        pulled = [pullback([y], [v], [leaves[i] for i in wanted]) for v in cotangents]
        for j, i in enumerate(wanted):
            x, u = inputs[i], directions[i]
            rows = numpy.reshape([gradients[j] for gradients in pulled], (len(cotangents), x.size))
            columns = numpy.reshape([change[k] for change in moved[i]], (len(u), y.size))
            what = f"gradcheck: the derivative of output {k} of {name_of(f)} by input {i}"
            where = place_of("output", y, one_by_one), place_of("input", x, few)
            compare(what, rows @ u.T, cotangents @ columns.T, where, atol, rtol)
    return True


def gradgradcheck(f, inputs, *, eps: float = 1e-5, atol: float = 1e-7, rtol: float = 1e-5) -> bool:
    """True if the second derivatives of ``f``, by backward through its backward, agree with central differences.

    The first gradients J^T v, with random v, are checked as functions of ``inputs`` and of v. Arguments and errors are
    as in ``gradcheck``.
    """
    return gradcheck(*differentiated(f, inputs), eps=eps, atol=atol, rtol=rtol)


def check_jvp(f, inputs, *, eps: float = 1e-5, atol: float = 1e-7, rtol: float = 1e-5) -> bool:
    """True if J u of forward mode agrees with central differences, and <v, J u> = <J^T v, u> with backward.

    First each input alone gets a random tangent, then all inputs together. Arguments and errors are as in
    ``gradcheck``.
    """
    inputs, wanted = read(inputs, "check_jvp")
    for tangents in tangent_sets(inputs, wanted):
        _, pushed = pushforward(f, inputs, wanted, tangents)
        moved = differences(f, inputs, wanted, tangents, eps)
        for k, (t, numeric) in enumerate(zip(pushed, moved)):
            what = f"check_jvp: the derivative of output {k} of {name_of(f)} along inputs {list(tangents)}"
            where = place_of("output", t, True), None
            compare(what, t.reshape(-1, 1), numeric.reshape(-1, 1), where, atol, rtol)
    return check_pairing(f, inputs)


def check_pairing(f, inputs) -> bool:
    """True if <v, J u> = <J^T v, u> up to rounding, for random v and u. It needs no differences and works at kinks."""
    inputs, wanted = read(inputs, "check_pairing")
    random = numpy.random.default_rng(2)
    for tangents in tangent_sets(inputs, wanted):
        (leaves, outputs), pushed = pushforward(f, inputs, wanted, tangents)
        cotangents = [random.standard_normal(y.size) for y in outputs]
        pulled = pullback(outputs, cotangents, [leaves[i] for i in tangents])
        forward = [v @ t.ravel() for v, t in zip(cotangents, pushed)]
        backward = [g.ravel() @ u for g, u in zip(pulled, tangents.values())]
        pairs = [*zip(cotangents, pushed), *zip(pulled, tangents.values())]
        tolerance = PAIRING * sum(float(numpy.linalg.norm(a) * numpy.linalg.norm(b)) for a, b in pairs)
        if not abs(sum(forward) - sum(backward)) <= tolerance:
            raise GradcheckError(
                f"check_jvp: JVP and VJP of {name_of(f)} do not pair for inputs {list(tangents)}: <v, J u> is"
                f" {sum(forward):.12g} and <J^T v, u> is {sum(backward):.12g}, tolerance {tolerance:.2g}"
            )
    return True


def differentiated(f, inputs):
    """The function (inputs, v) -> J^T v of ``f``, and arguments for its check. Apply it again for the next order."""
    inputs, wanted = read(inputs, "gradgradcheck")
    count = len(inputs)

    def gradients(*arguments):
        outputs = as_outputs(f, f(*arguments[:count]))
        on_tape = [arguments[i] for i in wanted]
        seeds = [(y.node, v) for y, v in zip(outputs, arguments[count:]) if y.node is not None]
        _, found = walk(seeds, [x.node for x in on_tape], retain=True, create_graph=True)
        zeros = (Tensor(BACKENDS[type(x.data)].xp.zeros_like(x.data)) for x in on_tape)
        return tuple(found.get(x.node, zero) for x, zero in zip(on_tape, zeros))

    gradients.__name__ = f"the gradient of {name_of(f)}"
    random = numpy.random.default_rng(1)
    _, outputs = evaluate(f, inputs, wanted)
    cotangents = [leaf(random.standard_normal(y.shape), y.device) for y in outputs]
    return gradients, (*inputs, *cotangents)


# --- evaluations --------------------------------------------------------------------------------------------


def read(inputs, caller) -> tuple[tuple, list[int]]:
    """The inputs as a tuple, and the places of the inputs to vary."""
    inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    wanted = [i for i, x in enumerate(inputs) if isinstance(x, Tensor) and x.requires_grad]
    if not wanted:
        raise ValueError(f"{caller}: no input requires a gradient; give one requires_grad=True")
    for i in wanted:
        require_float64(inputs[i], f"{caller}: input {i}")
    return inputs, wanted


def require_float64(tensor, what):
    if tensor.dtype != numpy.float64:
        raise TypeError(
            f"{what} is {tensor.dtype}: differences in less than float64 say nothing; use .astype('float64')"
        )


def leaf(host, device) -> Tensor:
    x = Tensor(to_device(numpy.array(host), device))
    x.requires_grad = True
    return x


def as_outputs(f, result) -> list[Tensor]:
    """The differentiable outputs."""
    outputs = result if isinstance(result, (tuple, list)) else (result,)
    for k, y in enumerate(outputs):
        if not isinstance(y, Tensor):
            what = f"output {k} of {name_of(f)} is {type(y).__name__}"
            raise TypeError(f"{what}, expected a Tensor or a tuple of Tensors")
    outputs = [y for y in outputs if is_float(y.dtype)]
    for k, y in enumerate(outputs):
        require_float64(y, f"output {k} of {name_of(f)}")
    return outputs


def evaluate(f, inputs, wanted, moved=None):
    """Run ``f`` on new leaves; ``moved`` has other values for some. Returns the arguments and the outputs."""
    moved = moved or {}
    arguments = [leaf(moved.get(i, to_numpy(x)), x.device) if i in wanted else x for i, x in enumerate(inputs)]
    with enable_grad():
        return arguments, as_outputs(f, f(*arguments))


def differences(f, inputs, wanted, directions: dict, eps) -> list:
    """(f(x + h u) - f(x - h u)) / 2h for every output, as a vector."""
    values = {i: to_numpy(inputs[i]) for i in directions}
    h = eps * max([1.0, *(numpy.abs(x).max(initial=0) for x in values.values())])
    ends = []
    for step in (h, -h):
        moved = {i: x + step * directions[i].reshape(x.shape) for i, x in values.items()}
        ends.append([to_numpy(y).ravel() for y in evaluate(f, inputs, wanted, moved)[1]])
    return [(ahead - behind) / (2 * h) for ahead, behind in zip(*ends)]


def pullback(outputs, cotangents, leaves) -> list:
    """J^T v for each leaf, on the host."""
    pairs = [(y, v) for y, v in zip(outputs, cotangents) if y.node is not None]
    seeds = [(y.node, to_device(v.reshape(y.shape), y.device)) for y, v in pairs]
    _, found = walk(seeds, [x.node for x in leaves], retain=True)
    return [to_numpy(found[x.node]) if x.node in found else numpy.zeros(x.shape) for x in leaves]


def pushforward(f, inputs, wanted, tangents: dict):
    """(arguments, outputs), and then J u for each output, on the host."""
    with forward_mode():
        arguments, outputs = evaluate(f, inputs, wanted)
    varied = [(arguments[i], u) for i, u in tangents.items()]
    given = {x.node: to_device(u.reshape(x.shape), x.device) for x, u in varied}
    found = iter(push_forward([y.node for y in outputs if y.node is not None], given))
    pushed = [next(found) if y.node is not None else None for y in outputs]
    pushed = [numpy.zeros(y.shape) if t is None else to_numpy(t) for t, y in zip(pushed, outputs)]
    return (arguments, outputs), pushed


def tangent_sets(inputs, wanted):
    """A random tangent for each input alone, then for all inputs together."""
    random = numpy.random.default_rng(3)
    tangents = {i: random.standard_normal(inputs[i].size) for i in wanted}
    alone = [{i: u} for i, u in tangents.items()]
    return [*alone, tangents] if len(alone) > 1 else alone


def probes(size, one_by_one, random):
    """All unit vectors, or a few random ones."""
    return numpy.eye(size) if one_by_one else random.standard_normal((PROBES, size))


def to_numpy(x):
    array = raw(x)
    return BACKENDS[type(array)].to_host(array) if type(array) in BACKENDS else numpy.asarray(array)


# --- the verdict --------------------------------------------------------------------------------------------


def compare(what, analytic, numeric, where, atol, rtol):
    """Compare two matrices with a row per cotangent and a column per direction. Raises with the worst element."""
    largest = numpy.abs(numeric).max(initial=0)
    tolerance = atol + rtol * largest
    error = numpy.nan_to_num(numpy.abs(analytic - numeric), nan=numpy.inf)
    if error.max(initial=0) <= tolerance:
        return
    worst = numpy.unravel_index(error.argmax(), error.shape)
    places = " and ".join(describe(i) for describe, i in zip(where, worst) if describe)
    raise GradcheckError(
        f"{what} is wrong at {places}: analytic {analytic[worst]:.9g}, numeric {numeric[worst]:.9g},"
        f" difference {error[worst]:.3g} > tolerance {tolerance:.3g}"
        f" (atol {atol:g} + rtol {rtol:g} * largest {largest:.3g})"
    )


def place_of(what, x, one_by_one):
    """A function that names the i-th unit vector in the shape of x, or the i-th random vector, in a message."""
    if one_by_one:
        return lambda i: f"{what} element {tuple(map(int, numpy.unravel_index(i, x.shape)))}"
    return lambda i: f"random {what} vector {i}"


def name_of(f) -> str:
    return getattr(f, "__name__", type(f).__name__)
