"""Every primitive of the framework: forward, derivative rule and formula, one topic per file."""

if __name__ != "tinygrad_ms.ops":
    raise ImportError("import tinygrad_ms.ops, not the source folder 'ops' directly")

from tinygrad_ms.ops import (
    activations,
    affine,
    classification,
    comparisons,
    conversions,
    creation,
    elementwise,
    indexing,
    losses,
    normalization,
    reductions,
    shapes,
    special,
    trigonometric,
)
from tinygrad_ms.ops.activations import *
from tinygrad_ms.ops.affine import *
from tinygrad_ms.ops.classification import *
from tinygrad_ms.ops.comparisons import *
from tinygrad_ms.ops.conversions import *
from tinygrad_ms.ops.creation import *
from tinygrad_ms.ops.elementwise import *
from tinygrad_ms.ops.indexing import *
from tinygrad_ms.ops.linalg import decompositions as _decompositions
from tinygrad_ms.ops.linalg import einsum as _einsum
from tinygrad_ms.ops.linalg import functions as _functions
from tinygrad_ms.ops.linalg import norms as _norms
from tinygrad_ms.ops.linalg import parts as _parts
from tinygrad_ms.ops.linalg import products as _products
from tinygrad_ms.ops.linalg import solve as _solve
from tinygrad_ms.ops.linalg.decompositions import *
from tinygrad_ms.ops.linalg.einsum import *
from tinygrad_ms.ops.linalg.functions import *
from tinygrad_ms.ops.linalg.norms import *
from tinygrad_ms.ops.linalg.parts import *
from tinygrad_ms.ops.linalg.products import *
from tinygrad_ms.ops.linalg.solve import *
from tinygrad_ms.ops.losses import *
from tinygrad_ms.ops.matrix_sign import coefficients as _coefficients
from tinygrad_ms.ops.matrix_sign import lyapunov as _lyapunov
from tinygrad_ms.ops.matrix_sign import msign as _msign
from tinygrad_ms.ops.matrix_sign import polar_iteration as _polar_iteration
from tinygrad_ms.ops.matrix_sign import sylvester as _sylvester
from tinygrad_ms.ops.matrix_sign.coefficients import *
from tinygrad_ms.ops.matrix_sign.lyapunov import *
from tinygrad_ms.ops.matrix_sign.msign import *
from tinygrad_ms.ops.matrix_sign.polar_iteration import *
from tinygrad_ms.ops.matrix_sign.sylvester import *
from tinygrad_ms.ops.methods import attach
from tinygrad_ms.ops.normalization import *
from tinygrad_ms.ops.reductions import *
from tinygrad_ms.ops.shapes import *
from tinygrad_ms.ops.special import *
from tinygrad_ms.ops.trigonometric import *

__all__: list[str] = []
__all__ += activations.__all__
__all__ += affine.__all__
__all__ += classification.__all__
__all__ += comparisons.__all__
__all__ += conversions.__all__
__all__ += creation.__all__
__all__ += elementwise.__all__
__all__ += indexing.__all__
__all__ += losses.__all__
__all__ += normalization.__all__
__all__ += reductions.__all__
__all__ += shapes.__all__
__all__ += special.__all__
__all__ += trigonometric.__all__
__all__ += _decompositions.__all__
__all__ += _einsum.__all__
__all__ += _functions.__all__
__all__ += _norms.__all__
__all__ += _parts.__all__
__all__ += _products.__all__
__all__ += _solve.__all__
__all__ += _coefficients.__all__
__all__ += _lyapunov.__all__
__all__ += _msign.__all__
__all__ += _polar_iteration.__all__
__all__ += _sylvester.__all__

attach({**vars(creation), **vars(conversions), **vars(indexing), **globals()})
