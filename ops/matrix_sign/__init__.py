"""The matrix sign as primitives: msign, mcsgn, the equations they solve, and the functions built on them.

From the bottom: ``sylvester``, ``lyapunov`` (equations), ``closed_form``, ``smooth`` (other ways to msign), ``rules``
(its derivatives, to choose from), ``roots`` (of matrices), ``msign`` (the front door). ``iterations`` has the loops.
"""
