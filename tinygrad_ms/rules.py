"""The decorators that make primitives, together: ``@tg.rules.linear(...)``, where ``tg.linear`` is the affine op."""

from tinygrad_ms.engine.around.black_box import custom_vjp
from tinygrad_ms.engine.primitive import elementwise, linear, multilinear, no_derivative, primitive

__all__ = ["custom_vjp", "elementwise", "linear", "multilinear", "no_derivative", "primitive"]
