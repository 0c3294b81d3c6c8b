"""The decorators that make primitives, together: ``@tg.rules.linear(...)``, where ``tg.linear`` is the affine op."""

from tinygrad_ms.engine.primitive import custom_vjp, elementwise, linear, multilinear, no_derivative, primitive

__all__ = ["custom_vjp", "elementwise", "linear", "multilinear", "no_derivative", "primitive"]
