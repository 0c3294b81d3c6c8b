"""The iterations behind the matrix sign, on raw arrays: no primitive, no tape.

From the bottom: ``coefficients`` (rows of quintics, and which rows to run), ``report`` (warnings), ``driver`` (scaling,
buffers, the loop), ``polar`` and ``block_solve`` (Newton-Schulz for msign and for an equation), ``newton`` (scaled
Newton, for any spectrum). The primitives that run them are in ``matrix_sign``.
"""
