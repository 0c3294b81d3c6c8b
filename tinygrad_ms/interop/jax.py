"""msign and its family for JAX: functions of ``tinygrad_ms`` on JAX arrays, with reverse derivatives of every order.

    from tinygrad_ms.interop.jax import msign
    jax.jit(jax.grad(lambda W: msign(W, eps=1e-2).sum()))(W)

Each function is a ``jax.custom_vjp`` over ``jax.pure_callback``. It works under ``jit``, ``grad``, ``vjp``, ``jacrev``
and ``vmap``; ``vmap`` passes all matrices at once ("broadcast_all"). NumPy computes on the CPU, so arrays on a GPU or
TPU travel to the host and back. float64 (with ``jax_enable_x64``) and float32 are computed as they are. float16 and
bfloat16 are computed in float32 and rounded once at the end. JAX raises an error for ``jvp``, and so for ``jacfwd`` and
``hessian``, which use it; ``jacrev(jacrev(f))`` is the Hessian. See docs/jax.md.
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

    Raises TypeError for dtypes that are not floats and for unknown options, ValueError for shapes and options that do
    not fit. An error that depends on values is raised in the callback, and JAX reports it.
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
    """Check JAX arrays, and call ``f`` with them."""
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
    except TypeError:  # an option without a hash; or an error of f, which is raised again here
        function = _function.__wrapped__(*key)
    return tuple(y.astype(dtype) for y in function(*inputs))


def frozen(value):
    """An option as a part of a key. Lists become tuples."""
    return tuple(map(frozen, value)) if isinstance(value, (list, tuple)) else value


@lru_cache(maxsize=256)
def _function(f, options, dtype, *sizes):
    """A JAX function of ``f`` with these options. JAX compiles a callback once if it is the same object each time.

    A trial call with no matrices finds errors before JAX runs, and gives the shapes of the results.
    """
    f = partial(f, **dict(options))
    try:
        ends = [y.shape[-2:] for y in as_tuple(f(*(numpy.empty((0, *size), dtype) for size in sizes)))]
    except (TypeError, ValueError) as error:
        error.add_note("a batch of 0 stands for yours here, in a trial call that JAX does not see")
        raise
    return _differentiable(Call(f), lambda *arrays: [(*arrays[0].shape[:-2], *end) for end in ends])


def _differentiable(template, results):
    """A JAX function of the arrays of a ``Call``. Its backward is such a function, too, so that every order exists.

    ``keeping`` returns the outputs and then a ticket: integers (...) that name the tape of this call. A ``Pull`` takes
    the ticket before its arrays. For a second derivative JAX differentiates ``keeping``, which is part of ``forward``.
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
    """Runs on the host. Returns the outputs, and the ticket of the tape if this call keeps it."""
    tickets, arrays = (operands[0], operands[1:]) if isinstance(template, Pull) else (None, operands)
    values = [numpy.array(x, copy=keeps or None) for x in arrays]  # JAX reuses its memory, so kept values are copies
    call = template.again(range(len(values)) if keeps else ())
    if isinstance(call, Pull):
        call.call = TAPES.take(numpy.asarray(tickets), values) or call.call
    outputs = call.run(values)
    return (*outputs, numpy.full(values[0].shape[:-2], TAPES.keep(call), "int32")) if keeps else outputs


class Tapes:
    """The tapes that calls keep for their pulls. The oldest go when the arguments take more than ``limit`` bytes."""

    def __init__(self, limit):
        self.limit, self.held, self.numbers = limit, OrderedDict(), count(1)

    def keep(self, call) -> int:
        ticket = next(self.numbers) % 2**31
        self.held[ticket] = call
        while self.held and sum(x.nbytes for call in [*self.held.values()] for x in call.leaves) > self.limit:
            self.held.popitem(last=False)
        return ticket

    def take(self, tickets, arrays):
        """The call of a ticket, or None if it is gone or had other arrays."""
        call = self.held.pop(int(tickets.max(initial=0)), None)
        same = call is not None and all(numpy.array_equal(x.data, a) for x, a in zip(call.leaves, arrays))
        return call if same else None


TAPES = Tapes(limit=1 << 28)
