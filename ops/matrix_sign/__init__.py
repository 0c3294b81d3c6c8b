"""The matrix sign as primitives: msign, mcsgn, the equations they solve, and the functions built on them.

From the bottom: ``sylvester`` and ``definite``, ``lyapunov`` (equations), ``closed_form`` and ``smooth`` (other
derivatives of msign), ``roots`` (of matrices), ``msign`` (the front door). The iterations that they run are in
``iterations``.
"""
