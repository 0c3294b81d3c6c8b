"""Functions of this library inside other frameworks, with their derivatives: ``interop.torch`` and ``interop.jax``.

Each is imported by its own name and needs its framework; this library does not.
"""
