"""tinygrad_ms: reverse-mode autodiff on NumPy and CuPy arrays, with an exact derivative of msign of every order."""

import importlib as _importlib
import os as _os

# In a checkout that lost the symlink tinygrad_ms/ops (a zip, Windows), find the folder ops/ beside this one.
_root = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
if not _os.path.isdir(_os.path.join(__path__[0], "ops")) and all(
    _os.path.isfile(_os.path.join(_root, part)) for part in ("setup.cfg", _os.path.join("ops", "__init__.py"))
):
    __path__.append(_root)

import tinygrad_ms.moved as _moved
import tinygrad_ms.notebook as _notebook
from tinygrad_ms._version import __version__
from tinygrad_ms.anomaly import detect_nan
from tinygrad_ms.arrays.devices import default_device, device_info, set_default_device
from tinygrad_ms.engine.around.constructors import asarray, tensor
from tinygrad_ms.engine.around.modes import enable_grad, hooks, inference_mode, is_grad_enabled, no_grad, scope
from tinygrad_ms.engine.primitive import (
    custom_vjp,
    elementwise,
    linear,
    multilinear,
    no_derivative,
    primitive,
)
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops import *
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

_moved.install()

_ROOMS = ("data", "graph", "nn", "optim", "random", "serialization", "testing", "transforms")
_ELSEWHERE = {  # names at the top level, and their modules
    "manual_seed": "random", "save": "serialization", "load": "serialization", "CheckpointError": "serialization",
    "profile": "profiler", "explain": "graph",
}  # fmt: skip


def __getattr__(name):
    """Submodules, and functions in them, are imported when first used: ``tg.nn``, ``tg.save``, ..."""
    if name in _ROOMS:
        return _importlib.import_module(f"{__name__}.{name}")
    if name in _ELSEWHERE:
        return getattr(_importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_ROOMS, *_ELSEWHERE})
