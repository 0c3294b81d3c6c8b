"""Names of the places where ops are recorded: ``with scope(name):`` and the calls of modules."""

from contextvars import ContextVar

from tinygrad_ms.surroundings import inside

_scopes: ContextVar[tuple[str, ...]] = ContextVar("tinygrad_ms.scopes", default=())
scopes, set_scopes = _scopes.get, _scopes.set  # the names around this call, the outermost first


class Visit(str):
    """The name of a scope. Each visit makes a new object, so that pictures can tell two visits of one scope apart."""

    __slots__ = ()


class scope:
    """Name the ops recorded inside: they become one cluster of the picture. Scopes nest.

    ``with scope(name):``, or as a decorator, as the modes ``no_grad`` and its like.
    """

    def __init__(self, name: str):
        self.name = str(name)

    def __enter__(self):
        set_scopes((*scopes(), Visit(self.name)))
        return self

    def __exit__(self, *exception):
        """Leave the innermost scope of that name. Those inside it stay: a suspended generator may have entered them."""
        names = scopes()
        if self.name in names:
            i = len(names) - names[::-1].index(self.name)
            set_scopes(names[: i - 1] + names[i:])

    def __call__(self, function):
        return inside(self, function)
