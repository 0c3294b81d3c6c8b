"""Every primitive of the framework: forward, derivative rule and formula, one topic per file."""

if __name__ != "tinygrad_ms.ops":
    raise ImportError("import tinygrad_ms.ops, not the source folder 'ops' directly")


from tinygrad_ms.ops.activations import *
from tinygrad_ms.ops.affine import *
from tinygrad_ms.ops.aliases import *
from tinygrad_ms.ops.comparisons import *
from tinygrad_ms.ops.conversions import *
from tinygrad_ms.ops.creation import *
from tinygrad_ms.ops.elementwise import *
from tinygrad_ms.ops.indexing import *
from tinygrad_ms.ops.linalg.decompositions import *
from tinygrad_ms.ops.linalg.einsum import *
from tinygrad_ms.ops.linalg.functions import *
from tinygrad_ms.ops.linalg.norms import *
from tinygrad_ms.ops.linalg.parts import *
from tinygrad_ms.ops.linalg.products import *
from tinygrad_ms.ops.linalg.solve import *
from tinygrad_ms.ops.losses import *
from tinygrad_ms.ops.matrix_sign.coefficients import *
from tinygrad_ms.ops.matrix_sign.lyapunov import *
from tinygrad_ms.ops.matrix_sign.msign import *
from tinygrad_ms.ops.matrix_sign.polar_iteration import *
from tinygrad_ms.ops.matrix_sign.sylvester import *
from tinygrad_ms.ops.normalization import *
from tinygrad_ms.ops.reductions import *
from tinygrad_ms.ops.shapes import *
from tinygrad_ms.ops.special import *
from tinygrad_ms.ops.trigonometric import *

__all__ = [  # the functions defined in this room, without the modules and what they import
    name for name, value in list(globals().items()) if getattr(value, "__module__", "").startswith(__name__ + ".")
]
