"""Keep gradients small between backward and the step of the optimizer."""

from math import inf

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.constructors import tensor
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.scale import homogeneous


def clip_grad_norm(parameters, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False) -> Tensor:
    r"""Scale all gradients, in place, by one factor, so that their common norm is at most ``max_norm``.

    $g \leftarrow g \min(1, c / (\lVert g\rVert + 10^{-6}))$; norm_type: 2, the Euclidean norm, or inf, the
    largest element.
    Returns the norm before, a 0-d Tensor on the device of the gradients: nothing waits for it,
    ``float(norm)`` does. Where the norm is not finite the gradients stay as they are: test the result before
    ``optimizer.step()``, or pass ``error_if_nonfinite``, which raises RuntimeError that names the parameters
    (and waits for the device). Squares are summed in float64, those of float64 after a power of two is taken out: the
    norm of finite gradients is finite. Half precision is multiplied in float32.
    Source: Pascanu et al. 2013, arXiv:1211.5063, algorithm 1.
    """
    check_positive("clip_grad_norm", "max_norm", max_norm)
    if norm_type not in (2, inf):
        raise ValueError(f"clip_grad_norm: norm_type is {norm_type}, expected 2 or inf")
    parameters = with_gradients(parameters)
    if not parameters:
        return tensor(0.0)
    xp = BACKENDS[type(parameters[0].grad.data)].xp
    norms = [norm_of(p.grad.data, norm_type) for p in parameters]
    norm = norms[0] if len(norms) == 1 else norm_of(xp.stack(norms), norm_type)
    if error_if_nonfinite and not xp.isfinite(norm):
        raise RuntimeError(f"clip_grad_norm: the norm of the gradients is {float(norm)}: {nonfinite(parameters)}")
    factor = xp.where(xp.isfinite(norm), xp.minimum(max_norm / (norm + 1e-6), 1.0), 1.0)
    for p in parameters:
        g = p.grad.data
        if g.dtype.char in HALF:
            g[...] = (wide(g) * factor.astype("float32")).astype(g.dtype)
        else:
            xp.multiply(g, factor.astype(g.dtype), out=g)
        p.grad.touch()
    return Tensor(norm)


def norm_of(g, norm_type):
    """The norm of all elements of a raw array, as a 0-d array: in float64; for inf in float32 at least."""
    xp = BACKENDS[type(g)].xp
    if not g.size:
        return xp.zeros((), "float64")
    if norm_type == inf:
        return wide(xp.asarray(xp.abs(g).max()))
    flat = g.astype("float64", copy=False).reshape(-1)
    if g.dtype == "float64":
        return homogeneous(xp, flat, None, False, lambda z: xp.sqrt(z @ z).reshape(1))
    return xp.asarray(xp.sqrt(flat @ flat))


def clip_grad_value(parameters, clip_value: float) -> None:
    """Clip every element of the gradients, in place, to [-clip_value, clip_value]. NaN stays NaN."""
    check_positive("clip_grad_value", "clip_value", clip_value)
    for p in with_gradients(parameters):
        g = p.grad.data
        BACKENDS[type(g)].xp.clip(g, -clip_value, clip_value, out=g)
        p.grad.touch()


def with_gradients(parameters):
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p for p in parameters if p.grad is not None]


def check_positive(caller, name, value):
    if not value > 0:
        raise ValueError(f"{caller}: {name} is {value}, expected a number above 0")


def nonfinite(parameters) -> str:
    """Which gradients hold NaN or infinity."""
    bad = []
    for i, p in enumerate(parameters):
        g = p.grad.data
        if not BACKENDS[type(g)].xp.isfinite(g).all():
            bad.append(p.name or f"parameter {i} of shape {p.shape}")
    return f"NaN or infinity in the gradient of {', '.join(bad)}"
