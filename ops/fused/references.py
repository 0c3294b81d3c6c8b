"""The kernels in NumPy of which those for devices are made, by name; ``ops/blocks.py`` marks them."""

__all__: list[str] = []

REFERENCES: dict[str, tuple] = {}  # (kernel, how many arrays it takes, sample constants, whether in float64)
