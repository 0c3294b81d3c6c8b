"""The autodiff engine. Read the core in this order: ``tensor``, ``tape``, ``primitive``, ``call``, ``backward``.

``around`` holds what surrounds it: modes, odd arguments, error sentences, forward mode, constructors.
"""
