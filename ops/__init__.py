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
    decompositions,
    elementwise,
    indexing,
    linear_algebra,
    losses,
    matrix_equations,
    matrix_functions,
    matrix_parts,
    msign_alternatives,
    normalization,
    products,
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
from tinygrad_ms.ops.decompositions import *
from tinygrad_ms.ops.elementwise import *
from tinygrad_ms.ops.indexing import *
from tinygrad_ms.ops.linear_algebra import *
from tinygrad_ms.ops.losses import *
from tinygrad_ms.ops.matrix_equations import *
from tinygrad_ms.ops.matrix_functions import *
from tinygrad_ms.ops.matrix_parts import *
from tinygrad_ms.ops.methods import attach
from tinygrad_ms.ops.msign_alternatives import *
from tinygrad_ms.ops.normalization import *
from tinygrad_ms.ops.products import *
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
__all__ += decompositions.__all__
__all__ += elementwise.__all__
__all__ += indexing.__all__
__all__ += linear_algebra.__all__
__all__ += losses.__all__
__all__ += matrix_equations.__all__
__all__ += matrix_functions.__all__
__all__ += matrix_parts.__all__
__all__ += msign_alternatives.__all__
__all__ += normalization.__all__
__all__ += products.__all__
__all__ += reductions.__all__
__all__ += shapes.__all__
__all__ += special.__all__
__all__ += trigonometric.__all__

attach({**vars(creation), **vars(conversions), **vars(indexing), **globals()})
