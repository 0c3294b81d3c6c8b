"""tinygrad_ms: reverse-mode autodiff on NumPy and CuPy arrays, with an exact derivative of msign of every order."""

import importlib as _importlib
import os as _os
import typing as _typing
import warnings as _warnings

# In a checkout that lost the symlink tinygrad_ms/ops (a zip, Windows), find the folder ops/ beside this one.
_root = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if not _os.path.isdir(_os.path.join(__path__[0], "ops")) and all(
    _os.path.isfile(_os.path.join(_root, part)) for part in ("setup.cfg", _os.path.join("ops", "__init__.py"))
):
    __path__.append(_root)

import tinygrad_ms.moved as _moved
import tinygrad_ms.notebook as _notebook
from tinygrad_ms import ops, rules
from tinygrad_ms._version import __version__
from tinygrad_ms.anomaly import detect_nan, guard_saved
from tinygrad_ms.arrays.devices import default_device, device_info, set_default_device
from tinygrad_ms.arrays.memory import keep_freed_memory
from tinygrad_ms.dlpack import from_dlpack
from tinygrad_ms.engine.around.constructors import asarray, tensor
from tinygrad_ms.engine.around.modes import enable_grad, hooks, inference_mode, is_grad_enabled, no_grad
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops import *
from tinygrad_ms.ops import mcsgn as signm  # SciPy's name of the matrix sign function
from tinygrad_ms.ops.fused import set_fused
from tinygrad_ms.ops.numpy_functions import NAMES as _NAMES
from tinygrad_ms.precision import matmul_precision
from tinygrad_ms.rules import custom_vjp, elementwise, multilinear, no_derivative, primitive
from tinygrad_ms.scopes import scope
from tinygrad_ms.spelling import missing as _missing
from tinygrad_ms.transforms import (
    checkpoint,
    grad,
    gradients,
    hessian,
    hvp,
    jacobian,
    jvp,
    linearize,
    value_and_grad,
    vjp,
)

__all__ = [  # every name stands once in this list or in that of ops: none may overwrite another
    "Tensor", "__version__", "asarray", "checkpoint", "custom_vjp", "default_device", "detect_nan", "device_info",
    "elementwise", "enable_grad", "from_dlpack", "grad", "gradients", "guard_saved", "hessian", "hooks", "hvp",
    "inference_mode", "is_grad_enabled", "jacobian", "jvp", "keep_freed_memory", "linearize", "matmul_precision",
    "multilinear", "no_derivative", "no_grad", "ops", "primitive", "rules", "scope", "set_default_device", "set_fused",
    "signm", "tensor", "value_and_grad", "vjp",
    # loaded when first used: rooms, and what stands in some of them
    "data", "distributed", "graph", "nn", "optim", "random", "replay", "serialization", "testing", "transforms",
    "CheckpointError", "compile", "explain", "get_num_threads", "load", "manual_seed", "profile", "save",
    "set_num_threads",
]  # fmt: skip
__all__ += ops.__all__
_moved.install()

_ROOMS = (
    "data", "distributed", "graph", "nn", "optim", "random", "replay", "serialization", "testing", "transforms",
)  # fmt: skip
_ELSEWHERE = {  # names at the top level, and their modules
    "manual_seed": "random", "save": "serialization", "load": "serialization", "CheckpointError": "serialization",
    "profile": "profiler", "explain": "graph", "compile": "replay",
    "get_num_threads": "ops.fused.threads", "set_num_threads": "ops.fused.threads",
}  # fmt: skip
_INTERNAL = {  # parts of the rules of other ops. They were public by mistake; until 0.3 they work here with a warning
    "alias": "ops.identity.identity", "getitem": "ops.indexing.getitem",
    "embed_diagonal": "ops.linalg.parts.embed_diagonal",
    "msign_dense_vjp": "ops.matrix_sign.sylvester.msign_dense_vjp", "sinc_derivative": "ops.special.sinc_derivative",
}  # fmt: skip

# Type checkers read the imports. They must not see __getattr__, because with it they would accept any name.
if _typing.TYPE_CHECKING:
    from tinygrad_ms import data, distributed, graph, nn, optim, random, replay, serialization, testing, transforms
    from tinygrad_ms.graph import explain
    from tinygrad_ms.ops.fused.threads import get_num_threads, set_num_threads
    from tinygrad_ms.profiler import profile
    from tinygrad_ms.random import manual_seed
    from tinygrad_ms.replay import compile
    from tinygrad_ms.serialization import CheckpointError, load, save
else:

    def __getattr__(name):
        """Submodules, and functions in them, are imported when first used: ``tg.nn``, ``tg.save``, ..."""
        if name in _ROOMS:
            return _importlib.import_module(f"{__name__}.{name}")
        if name in _ELSEWHERE:
            return getattr(_importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
        if name in _INTERNAL:
            module, _, now = f"{__name__}.{_INTERNAL[name]}".rpartition(".")
            _warnings.warn(f"{__name__}.{name} goes in 0.3; it is {module}.{now}", DeprecationWarning, stacklevel=2)
            return getattr(_importlib.import_module(module), now)
        raise _missing(f"module {__name__!r}", "torch", name, __all__, _NAMES)


def __dir__():
    return sorted({*globals(), *__all__})
