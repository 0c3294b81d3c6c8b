"""msign and its family for JAX: functions of ``tinygrad_ms`` on JAX arrays, with reverse derivatives of every order.

    from tinygrad_ms.interop.jax import msign
    jax.jit(jax.grad(lambda W: msign(W, eps=1e-2).sum()))(W)

Each is a ``jax.custom_vjp`` over ``jax.pure_callback``: it works under ``jit``, ``grad``, ``vjp``, ``jacrev`` and
``vmap``, which hands over all matrices at once ("broadcast_all"). The work is NumPy's, on the CPU; arrays on a GPU or
TPU travel to the host and back. float64 (under ``jax_enable_x64``) and float32 are computed as they are; float16 and
bfloat16 in float32, with one rounding at the end. ``jvp``, and ``jacfwd`` and ``hessian`` which use it, are an error of
JAX: ``jacrev(jacrev(f))`` is the Hessian. docs/jax.md.
"""

from collections import OrderedDict
from functools import lru_cache, partial
from itertools import count

import numpy

from tinygrad_ms.interop.calls import Call, Pull, as_tuple
from tinygrad_ms.ops.matrix_sign import msign as polar_factors
from tinygrad_ms.ops.matrix_sign import roots, sylvester

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError("tinygrad_ms.interop.jax needs JAX: pip install jax") from error

__all__ = ["msign", "polar", "solve_sylvester", "sqrtm"]


def msign(M, **options):
    """``tg.msign`` of M (..., n, m); options: ``eps``, ``method``, ``steps`` and the others of ``tg.msign``.

    Raises TypeError for dtypes that are no floats and for unknown options, ValueError for shapes and options that do
    not fit. What only values show is raised in the callback, and reported by JAX.
    """
    return _call("msign", polar_factors.msign, options, M=M)[0]


def polar(M, side="right", **options):
    """``tg.polar`` of M (..., n, m): (U, H) with M = U H, or M = H U for ``side="left"``. Errors as in ``msign``."""
    return _call("polar", polar_factors.polar, {"side": side, **options}, M=M)


def solve_sylvester(A, B, C, **options):
    """``tg.solve_sylvester``: the X with A X + X B = C. Batches broadcast. Errors as in ``msign``."""
    return _call("solve_sylvester", sylvester.solve_sylvester, options, A=A, B=B, C=C)[0]


def sqrtm(A, **options):
    """``tg.sqrtm``: the square root of symmetric positive definite A (..., n, n). Errors as in ``msign``."""
    return _call("sqrtm", roots.sqrtm, options, A=A)[0]


# --- JAX's side of a call ------------------------------------------------------------------------------------------


def _call(op, f, options, **arrays):
    """``f`` of JAX arrays, once they are known to be such as it takes."""
    values = {name: jnp.asarray(x) for name, x in arrays.items()}
    dtype = next(iter(values.values())).dtype
    for name, x in values.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"{op}: {name} is {x.dtype}, expected a float; use {name}.astype('float32')")
        if x.dtype != dtype:
            raise TypeError(f"{op}: {name} is {x.dtype} beside {dtype}; convert one with .astype")
        if x.ndim < 2:
            raise ValueError(f"{op}: {name} has shape {x.shape}; expected matrices (..., n, m)")
    lead = jnp.broadcast_shapes(*(x.shape[:-2] for x in values.values()))
    wide = numpy.dtype("float32") if dtype.itemsize < 4 else dtype
    inputs = [jnp.broadcast_to(x.astype(wide), (*lead, *x.shape[-2:])) for x in values.values()]
    key = f, tuple((k, frozen(options[k])) for k in sorted(options)), wide, *(x.shape[-2:] for x in inputs)
    try:
        function = _function(*key)
    except TypeError:  # an option that has no hash; or an error of f, which comes again
        function = _function.__wrapped__(*key)
    return tuple(y.astype(dtype) for y in function(*inputs))


def frozen(value):
    """An option as a key: lists become tuples."""
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=256)
def _function(f, options, dtype, *sizes):
    """A JAX function of ``f`` with these options. JAX compiles a callback once if it is the same object each time.

    The call for no matrices shows what is wrong before JAX runs, and how large the results are.
    """
    f = partial(f, **dict(options))
    try:
        ends = [y.shape[-2:] for y in as_tuple(f(*(numpy.empty((0, *size), dtype) for size in sizes)))]
    except (TypeError, ValueError) as error:
        error.add_note("a batch of 0 stands for yours here, in a trial call that JAX does not see")
        raise
    return _differentiable(Call(f), lambda *arrays: [(*arrays[0].shape[:-2], *end) for end in ends])


def _differentiable(template, results):
    """A JAX function of the arrays of a ``Call``. Its backward is another one, so that every order exists.

    ``keeping`` returns a ticket behind the outputs: integers (...) that say which tape this call has left. A ``Pull``
    takes it in front of its arrays. Under a second derivative JAX differentiates ``keeping``, as a part of ``forward``.
    """
    hosts = [partial(_run, template, keeps) for keeps in (False, True)]
    tickets = int(isinstance(template, Pull))

    def call_back(keeps, operands):
        arrays = operands[tickets:]
        shapes = [jax.ShapeDtypeStruct(shape, arrays[0].dtype) for shape in results(*arrays)]
        shapes += [jax.ShapeDtypeStruct(arrays[0].shape[:-2], "int32")] * keeps
        return tuple(jax.pure_callback(hosts[keeps], shapes, *operands, vmap_method="broadcast_all"))

    @jax.custom_vjp
    def function(*operands):
        return call_back(False, operands)

    @jax.custom_vjp
    def keeping(*operands):
        return call_back(True, operands)

    def forward(*operands):
        *outputs, ticket = keeping(*operands)
        return tuple(outputs), (ticket, operands[tickets:])

    def forward_keeping(*operands):
        outputs = keeping(*operands)
        return outputs, (outputs[-1], operands[tickets:])

    @lru_cache(maxsize=1)
    def pull(n, outputs):
        return _differentiable(Pull(template, range(n), range(outputs)), lambda *arrays: [x.shape for x in arrays[:n]])

    def backward(kept, cotangents):
        ticket, arrays = kept
        return *[None] * tickets, *pull(len(arrays), len(cotangents))(ticket, *arrays, *cotangents)

    function.defvjp(forward, backward)
    keeping.defvjp(forward_keeping, lambda kept, cotangents: backward(kept, cotangents[:-1]))
    return function


def _run(template, keeps, *operands):
    """On the host: the outputs, and, if this call keeps its tape, the ticket for it."""
    tickets, arrays = (operands[0], operands[1:]) if isinstance(template, Pull) else (None, operands)
    values = [numpy.array(x, copy=keeps or None) for x in arrays]  # JAX uses its memory again
    call = template.again(range(len(values)) if keeps else ())
    if isinstance(call, Pull):
        call.call = TAPES.take(numpy.asarray(tickets), values) or call.call
    outputs = call.run(values)
    return (*outputs, numpy.full(values[0].shape[:-2], TAPES.keep(call), "int32")) if keeps else outputs


class Tapes:
    """What calls leave for their pulls: of the last ones, as long as their arguments take at most ``limit`` bytes."""

    def __init__(self, limit):
        self.limit, self.held, self.numbers = limit, OrderedDict(), count(1)

    def keep(self, call) -> int:
        ticket = next(self.numbers) % 2**31
        self.held[ticket] = call
        while self.held and sum(x.nbytes for call in [*self.held.values()] for x in call.leaves) > self.limit:
            self.held.popitem(last=False)
        return ticket

    def take(self, tickets, arrays):
        """The call that has left its tape, if it was made with these arrays: a ticket is no promise."""
        call = self.held.pop(int(tickets.max(initial=0)), None)
        same = call is not None and all(numpy.array_equal(x.data, a) for x, a in zip(call.leaves, arrays))
        return call if same else None


TAPES = Tapes(limit=1 << 28)
