"""The parameters of functions. Those of a plain one are read from its code: ``inspect`` took a fifth of the import."""

import inspect
from functools import lru_cache
from types import FunctionType

PLAIN, BEFORE_SLASH = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY
_made = lru_cache(None, typed=True)(inspect.Parameter)


def _code(function):
    """The code of a function whose parameters are all there by name, and may be positional; else None."""
    if isinstance(function, FunctionType) and not vars(function):
        code, odd = function.__code__, inspect.CO_VARARGS | inspect.CO_VARKEYWORDS
        return None if code.co_flags & odd or code.co_kwonlyargcount else code
    return None


def names_of(function) -> list[str]:
    code = _code(function)
    return list(code.co_varnames[: code.co_argcount] if code else inspect.signature(function).parameters)


def parameters_of(function) -> list[inspect.Parameter]:
    code = None if getattr(function, "__annotations__", True) else _code(function)
    if code is None:
        return list(inspect.signature(function).parameters.values())
    names, defaults = code.co_varnames[: code.co_argcount], function.__defaults__ or ()
    kinds = [BEFORE_SLASH] * code.co_posonlyargcount + [PLAIN] * len(names)
    given = [inspect.Parameter.empty] * (len(names) - len(defaults)) + list(defaults)
    return [_made(name, kind, default=value) for name, kind, value in zip(names, kinds, given)]
