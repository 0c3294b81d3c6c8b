"""msign and its family for PyTorch: the functions of ``tinygrad_ms`` on torch tensors, in torch's own graph.

    from tinygrad_ms.interop.torch import msign
    msign(W, eps=1e-2).sum().backward()

DLPack shares the memory. Nothing is copied, and torch's memory is never written. Gradients have every order
(``create_graph=True``), and matrices may be batched. float64 and float32 are computed as they are. float16 and bfloat16
are computed in float32 and rounded once at the end. NumPy computes on the CPU. CuPy computes on CUDA, on torch's
current stream; this path has not been run on a GPU yet. ``torch.func.grad``, ``vmap`` and ``jacrev`` work; forward mode
does not. ``torch.compile`` does not compile the functions (a graph break). See docs/pytorch.md.
"""

from contextlib import ExitStack, nullcontext
from functools import partial

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.dlpack import array_from_dlpack
from tinygrad_ms.interop.calls import Call, Pull
from tinygrad_ms.ops.iterations.report import passed_through
from tinygrad_ms.ops.matrix_sign import msign as polar_factors
from tinygrad_ms.ops.matrix_sign import roots, sylvester
from tinygrad_ms.own_primitives import owner

try:
    import torch
except ImportError as error:
    raise ImportError("tinygrad_ms.interop.torch needs PyTorch: pip install torch") from error

__all__ = ["msign", "polar", "solve_sylvester", "sqrtm"]

HALF = (torch.float16, torch.bfloat16)
DTYPES = (torch.float32, torch.float64, *HALF)
OWN_MEMORY = torch.Tensor.__torch_dispatch__  # a tensor with another one may have no memory of its own
NOWHERE = nullcontext()
transformed = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)  # whether torch.func is active


@torch.compiler.disable
def msign(M, **options):
    """``tg.msign`` of M (..., n, m); options: ``eps``, ``method``, ``steps`` and the others of ``tg.msign``.

    Raises TypeError if M is not a torch tensor or its dtype is not a float, ValueError for devices other than the CPU
    and CUDA, and the errors of ``tg.msign``.
    """
    return _call("msign", partial(polar_factors.msign, **options), M=M)


@torch.compiler.disable
def polar(M, side="right", **options):
    """``tg.polar`` of M (..., n, m): (U, H) with M = U H, or M = H U for ``side="left"``. Errors as in ``msign``."""
    return _call("polar", partial(polar_factors.polar, side=side, **options), M=M)


@torch.compiler.disable
def solve_sylvester(A, B, C, **options):
    """``tg.solve_sylvester``: the X with A X + X B = C. Batches broadcast. Errors as in ``msign``."""
    return _call("solve_sylvester", partial(sylvester.solve_sylvester, **options), A=A, B=B, C=C)


@torch.compiler.disable
def sqrtm(A, **options):
    """``tg.sqrtm``: the square root of symmetric positive definite A (..., n, n). Errors as in ``msign``."""
    return _call("sqrtm", partial(roots.sqrtm, **options), A=A)


# --- torch's side of a call ----------------------------------------------------------------------------------------


def _call(op, f, **tensors):
    """Check torch tensors, and call ``f`` with them."""
    _check(op, tensors)
    values = list(tensors.values())
    if len({x.shape[:-2] for x in values}) > 1 and all(x.ndim > 1 for x in values):  # vmap would mix up batches
        lead = torch.broadcast_shapes(*(x.shape[:-2] for x in values))
        values = [x.expand(*lead, *x.shape[-2:]) for x in values]
    dtype = values[0].dtype
    if dtype in HALF:
        outputs = tuple(y.to(dtype) for y in _apply(Call(f), [x.float() for x in values]))
    else:
        outputs = _apply(Call(f), values)
    return outputs if len(outputs) > 1 else outputs[0]


def _check(op, tensors):
    first, leader = next(iter(tensors.items()))
    for name, x in tensors.items():
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"{op}: {name} is {type(x).__name__}, expected a torch.Tensor; tg.{op} takes arrays")
        if type(x).__torch_dispatch__ is not OWN_MEMORY:
            raise TypeError(f"{op}: {name} is {type(x).__name__}, which has no memory of its own; pass a plain tensor")
        if x.dtype not in DTYPES:
            raise TypeError(f"{op}: {name} is {x.dtype}, expected a float; use {name}.float()")
        if x.layout is not torch.strided:
            raise TypeError(f"{op}: {name} is {x.layout}; use {name}.to_dense()")
        if not (x.is_cpu or x.is_cuda):
            raise ValueError(f"{op}: {name} is on {x.device}; the bridge knows cpu and cuda: use {name}.cpu()")
        if x is not leader and x.device != leader.device:
            raise ValueError(f"{op}: {first} is on {leader.device} and {name} on {x.device}; move one with .to()")
        if x.dtype is not leader.dtype:
            raise TypeError(f"{op}: {first} is {leader.dtype} and {name} {x.dtype}; convert one with .to()")


def _apply(call, tensors) -> tuple:
    """The outputs of a ``Call``. They are in torch's graph if somebody could ask for a gradient."""
    if torch.is_grad_enabled():
        call.wanted = tuple(i for i, x in enumerate(tensors) if x.requires_grad)
    if transformed() or getattr(torch.autograd.forward_ad, "_current_level", 0) >= 0:
        return _Function.apply(call, *tensors)
    return _Reverse.apply(call, *tensors) if call.wanted else _run(call, *tensors)


def _run(call, *tensors) -> tuple:
    with _on_stream_of(tensors[0]):
        arrays = [_to_array(x.detach()) for x in tensors]
        outputs = call.run(arrays, [(x.data_ptr(), x.shape, x.stride()) for x in tensors])
        return tuple(_to_torch(y, arrays) for y in outputs)


def _save(ctx, inputs, outputs):
    call, *tensors = inputs
    ctx.call, ctx.count = call, len(tensors)
    ctx.save_for_backward(*tensors, *outputs)  # outputs, too: torch then sees in-place changes of them
    ctx.set_materialize_grads(False)


def _backward(ctx, *cotangents):
    """The gradients of a ``Call``. They are a ``Call``, too, so derivatives of every order exist."""
    tensors = ctx.saved_tensors[: ctx.count]
    needed = [i for i in range(ctx.count) if ctx.needs_input_grad[i + 1]]
    given = [k for k, g in enumerate(cotangents) if g is not None]
    gradients = [None] * (ctx.count + 1)
    if given and needed:
        found = _apply(Pull(ctx.call, needed, given), [*tensors, *(cotangents[k] for k in given)])
        for i, g in zip(needed, found):
            gradients[i + 1] = g
    return tuple(gradients)


class _Reverse(torch.autograd.Function):
    """A ``Call`` in torch's graph."""

    @staticmethod
    def forward(ctx, call, *tensors):
        outputs = _run(call, *tensors)
        _save(ctx, (call, *tensors), outputs)
        return outputs

    backward = staticmethod(_backward)


class _Function(torch.autograd.Function):
    """A ``Call`` in the form that ``torch.func`` needs. Each call takes three times as long as with ``_Reverse``."""

    forward, setup_context, backward = staticmethod(_run), staticmethod(_save), staticmethod(_backward)

    @staticmethod
    def vmap(info, in_dims, call, *tensors):
        """Call once for all matrices of the batch, with the batch as a new first axis."""
        moved = [
            x.expand(info.batch_size, *x.shape) if axis is None else x.movedim(axis, 0)
            for x, axis in zip(tensors, in_dims[1:])
        ]
        outputs = _Function.apply(call, *moved)
        return outputs, (0,) * len(outputs)


def _to_array(x):
    """The NumPy or CuPy array that shows the memory of x."""
    return numpy.from_dlpack(x) if x.is_cpu and not x.is_neg() else array_from_dlpack(x)


def _to_torch(array, inputs):
    """A torch tensor of one of our arrays. torch may write it, so an array that shows an input is copied."""
    if any(owner(array) is owner(x) for x in inputs) or not getattr(array.flags, "writeable", True):
        array = array.copy()
    return torch.from_dlpack(array)


def _on_stream_of(tensor):
    """A context for the computation. For a tensor on a GPU, CuPy uses that GPU and torch's current stream."""
    if tensor.is_cpu:
        return NOWHERE
    stack, index = ExitStack(), tensor.device.index
    cuda = parse_device(f"cuda:{index}")[0].xp.cuda
    stack.enter_context(cuda.Device(index))
    stack.enter_context(cuda.ExternalStream(torch.cuda.current_stream(index).cuda_stream, index))
    return stack


passed_through.update((torch.autograd.function.__file__, torch._dynamo.eval_frame.__file__))
