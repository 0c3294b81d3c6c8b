"""Gradients where users meet them: the seed that starts a walk, the hooks on the way."""

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.engine.call import as_array
from tinygrad_ms.engine.tensor import Tensor


def make_seed(tensor, gradient, create_graph, op):
    """The cotangent of ``tensor`` as a raw array, or as a Tensor under ``create_graph``."""
    raw = tensor.data
    if gradient is None:
        if tensor.size != 1:
            raise RuntimeError(
                f"{op}: the tensor has shape {tensor.shape}; only a tensor of one element has an implicit gradient of"
                " 1. Pass gradient=, of the same shape, or reduce to a scalar first"
            )
        seed = Tensor(BACKENDS[type(raw)].xp.ones_like(raw))
    else:
        seed = asarray(gradient, device=None if hasattr(gradient, "device") else tensor.device)
        if type(seed.data) is not type(raw):
            raise ValueError(
                f"{op}: gradient is on {seed.device} and the tensor on {tensor.device}; move it with .to()"
            )
        if seed.shape != tensor.shape:
            raise ValueError(f"{op}: gradient has shape {seed.shape} and the tensor {tensor.shape}; they must be equal")
        if seed.dtype != raw.dtype:
            seed = Tensor(seed.data.astype(raw.dtype)) if seed.node is None else seed.astype(raw.dtype)
    return seed if create_graph else seed.data


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
