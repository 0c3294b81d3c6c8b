"""Nested dicts, lists and tuples of tensors (trees): they become a flat list, and a tree again."""

from typing import Any


def flatten(tree) -> tuple[list, Any]:
    """The leaves of a tree in order, and its structure for ``unflatten``.

    A dict has the order of insertion. None has no leaves.
    """
    kind: type
    keys: tuple | None
    if isinstance(tree, dict):
        kind, keys, children = dict, tuple(tree), list(tree.values())
    elif isinstance(tree, (list, tuple)):
        kind, keys, children = type(tree), None, list(tree)
    elif tree is None:
        return [], None
    else:
        return [tree], Slot
    leaves, structures = [], []
    for child in children:
        found, structure = flatten(child)
        leaves += found
        structures.append(structure)
    return leaves, (kind, keys, structures)


class Slot:
    """Marks the place of one leaf in a structure."""


def unflatten(structure, leaves):
    """The tree of ``structure`` with ``leaves`` in order."""
    return _build(structure, iter(leaves))


def _build(structure, leaves):
    if structure is Slot:
        return next(leaves)
    if structure is None:
        return None
    kind, keys, structures = structure
    children = [_build(child, leaves) for child in structures]
    if kind is dict:
        return dict(zip(keys, children))
    return kind(*children) if hasattr(kind, "_fields") else kind(children)


def tree_map(function, tree, *others):
    """Apply ``function`` to the leaves of one tree, or of several trees with the same structure."""
    leaves, structure = flatten(tree)
    columns = [flatten(other) for other in others]
    for other in columns:
        if other[1] != structure:
            raise ValueError("tree_map: the trees have different structures")
    return unflatten(structure, [function(*row) for row in zip(leaves, *(column[0] for column in columns))])
