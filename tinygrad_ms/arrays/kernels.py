"""Kernels for devices, one launch each: the text of a scalar body in C beside the same in array functions.

    @elementwise("T x, float64 a", "T y", "y = (T)a * x")
    def scaled(xp, x, a, y):
        xp.multiply(x, a, out=y)

    scaled(x, 2.0, y)        # CuPy compiles the text; other libraries run the array functions

The arrays to write come last and are given. ``T`` is the dtype of the arrays, ``i`` the number of the element.
"""

from tinygrad_ms.arrays.registry import BACKENDS


class Kernel:
    """A kernel and its reference. ``texts``: the body, or what a reduction makes of an element, of two, of the sum."""

    def __init__(self, rule, inputs, outputs, texts, identity=None):
        self.rule, self.name, self.inputs, self.outputs = rule, rule.__name__, inputs, outputs
        self.texts, self.identity = texts, identity
        self.made = None  # what CuPy has made of the text
        KERNELS[self.name] = self

    def __call__(self, *given) -> None:
        backend = BACKENDS[type(given[-1])]
        if backend.launch is None:
            self.rule(backend.xp, *given)
        else:
            backend.launch(self, given)


KERNELS: dict[str, Kernel] = {}


def elementwise(inputs, outputs, text):
    """A kernel for each element of arrays that broadcast."""
    return lambda rule: Kernel(rule, inputs, outputs, (text,))


def per_matrix_reduction(inputs, outputs, each, both, last, identity="0"):
    """A kernel that reduces the last two axes of (batch, n, m) to (batch,)."""
    return lambda rule: Kernel(rule, inputs, outputs, (each, both, last), identity)
