"""Gradients where users meet them: the seed that starts a walk, the hooks on the way."""

from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tensor import Tensor


def checked_seed(tensor, gradient, op: str) -> Tensor:
    """The cotangent that a user gave for ``tensor``, in its dtype, once shape and device are known to fit."""
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
    for hook in node.hooks:
        given = g if isinstance(g, Tensor) else Tensor(as_array(g, node.backend))
        answer = hook(given)
        if answer is not None:
            if not isinstance(answer, Tensor) or answer.shape != node.shape:
                raise ValueError(
                    f"a hook on {node.op} must return None or a Tensor of shape {node.shape}, not {answer!r}"
                )
            g = answer if isinstance(g, Tensor) else answer.data
    return g
