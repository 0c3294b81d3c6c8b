"""Every primitive of the framework: forward, derivative rule and formula, one topic per file."""

if __name__ != "tinygrad_ms.ops":
    raise ImportError("import tinygrad_ms.ops, not the source folder 'ops' directly")

from tinygrad_ms.ops import conversions, creation, indexing
from tinygrad_ms.ops.activations import *
from tinygrad_ms.ops.affine import *
from tinygrad_ms.ops.classification import *
from tinygrad_ms.ops.collectives import *
from tinygrad_ms.ops.comparisons import *
from tinygrad_ms.ops.conversions import *
from tinygrad_ms.ops.creation import *
from tinygrad_ms.ops.elementwise import *
from tinygrad_ms.ops.elu import *
from tinygrad_ms.ops.extremes import *
from tinygrad_ms.ops.gelu import *
from tinygrad_ms.ops.hyperbolic import *
from tinygrad_ms.ops.indexing import *
from tinygrad_ms.ops.iterations.coefficients import *
from tinygrad_ms.ops.joining import *
from tinygrad_ms.ops.linalg.decompositions import *
from tinygrad_ms.ops.linalg.einsum import *
from tinygrad_ms.ops.linalg.functions import *
from tinygrad_ms.ops.linalg.least_squares import *
from tinygrad_ms.ops.linalg.norms import *
from tinygrad_ms.ops.linalg.parts import *
from tinygrad_ms.ops.linalg.products import *
from tinygrad_ms.ops.linalg.solve import *
from tinygrad_ms.ops.losses import *
from tinygrad_ms.ops.matrix_sign.lyapunov import *
from tinygrad_ms.ops.matrix_sign.msign import *
from tinygrad_ms.ops.matrix_sign.roots import *
from tinygrad_ms.ops.matrix_sign.sylvester import *
from tinygrad_ms.ops.methods import attach
from tinygrad_ms.ops.mish import *
from tinygrad_ms.ops.normalization import *
from tinygrad_ms.ops.ordering import *
from tinygrad_ms.ops.reductions import *
from tinygrad_ms.ops.shapes import *
from tinygrad_ms.ops.smooth_activations import *
from tinygrad_ms.ops.special import *
from tinygrad_ms.ops.trigonometric import *
from tinygrad_ms.ops.windows import *
from tinygrad_ms.spelling import spelled

__all__ = [  # written out, because type checkers cannot read a sum of lists
    "abs", "acos", "acosh", "acot", "add", "all", "any", "arange", "argmax", "argmin", "argsort", "asin", "asinh",
    "astype", "atan", "atan2", "atanh", "binary_cross_entropy_with_logits", "bitwise_and", "bitwise_invert",
    "bitwise_left_shift", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "broadcast_to", "cbrt", "ceil",
    "cholesky", "clip", "clone", "cofactors", "concat", "cos", "cosh", "cot", "coth", "count_nonzero", "cross",
    "cross_entropy", "csc", "csch", "cummax", "cummin", "cumprod", "cumsum", "det", "diag", "diagonal", "diff",
    "divide", "dot", "eigh", "eigvalsh", "einsum", "elu", "embedding", "equal", "erf", "erfc", "exp", "exp2",
    "expand_dims", "expm", "expm1", "eye", "flatten", "flip", "floor", "floor_divide", "full", "full_like", "gelu",
    "greater", "greater_equal", "hardtanh", "hstack", "huber", "hypot", "index_add", "index_update", "inner", "inv",
    "inv_sqrtm", "isclose", "isfinite", "isinf", "isnan", "kron", "l1", "layer_norm", "leaky_relu", "less",
    "less_equal", "linear", "linspace", "log", "log10", "log1p", "log2", "log_base", "log_sigmoid", "log_softmax",
    "logaddexp", "logical_and", "logical_not", "logical_or", "logical_xor", "logit", "logsumexp", "lstsq", "matmul",
    "matrix_norm", "matrix_power", "matrix_transpose", "max", "maximum", "mcsgn", "mean", "median", "meshgrid", "min",
    "minimax_coefficients", "minimum", "mish", "moveaxis", "mse", "msign", "msign_unrolled", "multiply", "nan_to_num",
    "negative", "nll", "nonzero", "norm", "not_equal", "nuclear_norm", "one_hot", "ones", "ones_like", "outer", "pad",
    "permute_dims", "pinv", "polar", "power", "prod", "put_along_axis", "qr", "rand", "randn", "ravel", "reciprocal",
    "relu", "relu6", "remainder", "repeat", "reshape", "rms_norm", "roll", "round", "sec", "sech", "selu", "sigmoid",
    "sign", "silu", "sin", "sinc", "sinh", "sliding_window_view", "slogdet", "softmax", "softmax_cross_entropy",
    "softplus", "solve", "solve_lyapunov", "solve_sylvester", "solve_triangular", "sort", "split", "sqrt", "sqrtm",
    "square", "squeeze", "stack", "std", "subtract", "sum", "svd", "svdvals", "swapaxes", "take", "take_along_axis",
    "tan", "tanh", "tensordot", "tile", "to", "topk", "trace", "transpose", "tril", "triu", "trunc", "unstack", "var",
    "vec",
    "vecdot", "vector_norm", "vstack", "where", "zeros", "zeros_like",
]  # fmt: skip

globals().update(spelled({name: globals()[name] for name in __all__}))
attach({**vars(creation), **vars(conversions), **vars(indexing), **globals()})
