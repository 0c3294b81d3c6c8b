"""``check_grads``: checks derivatives of every order, in forward mode, in reverse mode, and in all their mixtures."""

from collections.abc import Callable

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.forward import push_forward
from tinygrad_ms.engine.around.modes import forward_mode
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.options import as_int
from tinygrad_ms.testing.differences import as_outputs, check_jvp, differentiated, gradcheck, leaf, name_of, read


def check_grads(f, inputs, order: int = 2, modes=("forward", "reverse"), **tolerances) -> bool:
    """True if the derivatives of ``f`` up to ``order`` agree with central differences; else GradcheckError.

    inputs: a Tensor or a tuple, as in ``gradcheck``. Those with ``requires_grad`` are varied, and must be float64.
    modes: "forward" (as ``check_jvp``), "reverse" (as ``gradcheck``), or both. Each derivative is taken in each mode.
    So order 2 in both modes makes six checks: forward, reverse, forward over forward, reverse over forward, forward
    over reverse, and reverse over reverse. Order k makes 2^(k+1) - 2 checks.
    tolerances: ``eps``, ``atol`` and ``rtol`` of ``gradcheck``.
    Raises ValueError for an order below 1 and for unknown modes, and what ``gradcheck`` raises.

    >>> x = tg.tensor([0.5, 1.0], dtype="float64", requires_grad=True)
    >>> tg.testing.check_grads(tg.sin, (x,), order=2)
    True
    """
    order, modes = as_int(order, "check_grads: order", least=1), (modes,) if isinstance(modes, str) else tuple(modes)
    if not modes or not {*modes} <= MODES.keys():
        raise ValueError(f"check_grads: modes={modes!r}; expected 'forward', 'reverse', or both")
    for mode in modes:
        MODES[mode][0](f, inputs, **tolerances)
    for mode in modes if order > 1 else ():
        derivative, arguments = MODES[mode][1](f, inputs)
        check_grads(derivative, arguments, order - 1, modes, **tolerances)
    return True


def pushed(f, inputs):
    """The function (inputs, u) -> J u of ``f`` by forward mode, and arguments for its check."""
    inputs, wanted = read(inputs, "check_grads")
    count = len(inputs)

    def tangents(*arguments):
        with forward_mode():
            outputs = as_outputs(f, f(*arguments[:count]))
            given = {arguments[i].node: u for i, u in zip(wanted, arguments[count:])}
            found = iter(push_forward([y.node for y in outputs if y.node is not None], given, create_graph=True))
        along = [next(found) if y.node is not None else None for y in outputs]
        zeros = (Tensor(BACKENDS[type(y.data)].xp.zeros_like(y.data)) for y in outputs)
        return tuple(zero if t is None else t for t, zero in zip(along, zeros))

    tangents.__name__ = f"the JVP of {name_of(f)}"
    random = numpy.random.default_rng(4)
    return tangents, (*inputs, *(leaf(random.standard_normal(inputs[i].shape), inputs[i].device) for i in wanted))


MODES: dict[str, tuple[Callable, Callable]] = {"forward": (check_jvp, pushed), "reverse": (gradcheck, differentiated)}
