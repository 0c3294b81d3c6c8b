"""The matrix sign: msign, mcsgn, the equations they solve, and the functions built on them.

From the bottom: ``coefficients`` (rows of quintics), ``iteration`` (buffers and the driver), ``polar_iteration`` and
``block_solve`` (Newton-Schulz on raw arrays), ``sylvester`` and ``lyapunov`` (equations as primitives), ``smooth``,
``msign`` (the front door).
"""
