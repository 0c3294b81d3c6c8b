"""Functions of this library for other frameworks, with their derivatives: ``interop.torch`` and ``interop.jax``.

Import each by its own name; it needs its framework. The rest of this library does not need it.
"""
