"""Where users touch gradients: the seed that starts a walk, the hooks on its way, the rules of their primitives."""

from tinygrad_ms.arrays.dtypes import is_float
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tensor import Tensor, raw


def checked_seed(tensor, gradient, op: str) -> Tensor:
    """The cotangent that a user gave for ``tensor``, in its dtype. Raises where shape or device does not fit."""
    if gradient is None:
        raise RuntimeError(
            f"{op}: the tensor has shape {tensor.shape}; only a tensor of one element has an implicit gradient of 1."
            " Pass gradient=, of the same shape, or reduce to a scalar first"
        )
    seed = asarray(gradient, device=None if hasattr(gradient, "device") else tensor.device)
    if type(seed.data) is not type(tensor.data):
        raise ValueError(f"{op}: gradient is on {seed.device} and the tensor on {tensor.device}; move it with .to()")
    if seed.shape != tensor.shape:
        raise ValueError(f"{op}: gradient has shape {seed.shape} and the tensor {tensor.shape}; they must be equal")
    if seed.dtype == tensor.dtype:
        return seed
    return Tensor(seed.data.astype(tensor.dtype)) if seed.node is None else seed.astype(tensor.dtype)


def run_hooks(node, g):
    """The gradient of a node after its hooks. Each hook gets a copy, and may write into it or return another one."""
    for hook in node.hooks:
        tracked = isinstance(g, Tensor) and g.node is not None
        given = g if tracked else Tensor(as_array(raw(g), node.backend).copy())
        if (answer := hook(given)) is not None:
            fits = isinstance(answer, Tensor) and answer.shape == node.shape and is_float(answer.dtype)
            if not (fits and type(answer.data) is node.backend.array_type):
                raise ValueError(
                    f"a hook on {node.op} must return None or a Tensor of shape {node.shape}, of floats on"
                    f" {node.backend.name}, not {answer!r}"
                )
            given = answer if answer.dtype == node.dtype else answer.astype(node.dtype)
        g = given if isinstance(g, Tensor) else given.data
    return g


def pullbacks(node, g, saved, wanted_by=None) -> list[tuple]:
    """The gradients of a joint rule, or of a user's rules, in the form of ``plan.pullbacks``: as functions."""
    plan = node.plan
    needed = tuple([n and (wanted_by is None or p in wanted_by) for n, p in zip(plan.needed, node.parents)])
    if plan.primitive.checks:
        gradients = plan.primitive.checks.gradients(node, g, saved, needed)
    else:
        gradients = plan.joint.function(needed, g, *plan.pick(plan.joint, saved))
    return [(i, lambda g, d=d: d, ()) for i, (d, wanted) in enumerate(zip(gradients, needed)) if wanted]
