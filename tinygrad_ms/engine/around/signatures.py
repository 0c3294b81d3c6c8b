"""Which parameters of a forward are arrays and which are constants, and how calls are sorted into them."""

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol

from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.parameters import BEFORE_SLASH, PLAIN, parameters_of

if TYPE_CHECKING:
    from tinygrad_ms.engine.primitive import Primitive

P = ParamSpec("P")


class Op(Protocol[P]):
    """The type of the public op that a decorator makes: the forward without its first parameter ``xp``."""

    primitive: "Primitive"
    __name__: str

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Tensor: ...


class Kind(Protocol):
    """A decorator of a forward."""

    def __call__(self, forward: Callable[Concatenate[Any, P], Any], /) -> Op[P]: ...


class Signature:
    """The forward of an op, its name, and how it is called."""

    def __init__(self, forward):
        self.name = forward.__name__.strip("_")  # the forward _concat belongs to the public function concat
        self.forward = forward
        parameters = parameters_of(forward)[1:]
        self.signature = inspect.Signature(parameters)
        slash = any(p.kind is BEFORE_SLASH for p in parameters)
        arrays = [p for p in parameters if p.kind is BEFORE_SLASH or (p.kind is PLAIN and not slash)]
        self.arguments = [p.name for p in arrays if p.default is p.empty]
        self.variadic = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), None)
        constants = [p for p in parameters if p.name not in self.arguments and p.name != self.variadic]
        self.constants = [p.name for p in constants]
        self.positional = [p.name for p in constants if p.kind is PLAIN]
        self.defaults = {p.name: p.default for p in constants if p.default is not p.empty}

    @property
    def doc(self) -> str:
        return inspect.getdoc(self.forward) or ""

    def bind(self, args, kwargs):
        """Sort a call into arrays and constants. Constants may be positional, and arrays may be named."""
        count = len(self.arguments)
        after = dict(zip(self.positional, args[count:]))
        if 0 < len(args) - count == len(after) and after.keys().isdisjoint(kwargs):  # x.sum(0): the quick way
            return args[:count], after | kwargs
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise TypeError(f"{self.name}{self.signature}: {error}") from None
        arrays = bound.get(self.variadic, ()) if self.variadic else [bound[name] for name in self.arguments]
        return arrays, {name: bound[name] for name in self.constants if name in bound}

    def argument_name(self, i: int) -> str:
        return f"{self.variadic}[{i}]" if self.variadic else self.arguments[i]
