"""Whether and how ops record. Every call reads the State; a Mode changes it for a while."""

from contextvars import ContextVar
from typing import Any

from tinygrad_ms.surroundings import inside


class State:
    """What an op reads once per call. It is a context variable, so each thread and each async task has its own."""

    __slots__ = ("recording", "forward_mode", "inference", "hooks", "mode", "outer")

    def __init__(self, recording=True, forward_mode=False, inference=False, hooks=()):
        self.recording = recording  # record ops on the tape
        self.forward_mode = forward_mode  # save what the JVP rules need, too
        self.inference = inference  # recording cannot be switched on again
        self.hooks = hooks  # observers called around every op and every rule
        self.mode: Any = None  # the Mode that made this state
        self.outer: Any = None  # the state from which it was entered

    def replace(self, **changes):
        return State(**{name: changes.get(name, getattr(self, name)) for name in self.__slots__[:4]})


_state: ContextVar[State] = ContextVar("tinygrad_ms.state", default=State())  # noqa: B039  (nothing changes a State)
current_state = _state.get


class Mode:
    """A change of state for a ``with`` block, or as a decorator for functions, coroutines and generators of both kinds.

    A decorated generator has the mode only while its body runs, not while it is suspended
    (a bare ``with`` around a ``yield`` would leak into the caller). Several threads and tasks may be inside one mode.
    """

    def __new__(cls, *args, **kwargs):
        mode = super().__new__(cls)
        if args and cls.__init__ is object.__init__:  # @no_grad without parentheses
            return mode(args[0])
        return mode

    def change(self, state: State) -> State:
        return state.replace()

    def __enter__(self):
        outer = _state.get()
        state = self.change(outer)
        state.mode, state.outer = self, outer
        _state.set(state)
        return self

    def __exit__(self, *exception):
        """Leave this mode. Modes entered later stay: a suspended generator may have entered them."""
        state, later = _state.get(), []
        while state.mode is not self:
            if state.outer is None:
                name = type(self).__name__
                raise RuntimeError(f"{name}: it was entered in another thread or task; leave it where it was entered")
            later.append(state.mode)
            state = state.outer
        _state.set(state.outer)
        while later:
            Mode.__enter__(later.pop())

    def __call__(self, function):
        return inside(self, function)


class no_grad(Mode):
    """Ops inside record nothing; their results require no gradient. ``with no_grad():`` or ``@no_grad()``.

    >>> w = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> with tg.no_grad():
    ...     w -= 0.5
    >>> (w * w).requires_grad, w.tolist()
    (True, [0.5, 1.5])
    """

    def change(self, state):
        return state.replace(recording=False)


class enable_grad(Mode):
    """Ops inside record again, within ``no_grad``. Raises RuntimeError within ``inference_mode``."""

    def change(self, state):
        if state.inference:
            raise RuntimeError("enable_grad: nothing can be recorded inside inference_mode; use no_grad there instead")
        return state.replace(recording=True)


class inference_mode(Mode):
    """``no_grad`` that cannot be switched off again inside."""

    def change(self, state):
        return state.replace(recording=False, inference=True)


EVENTS = ("before_op", "after_op", "before_rule", "after_rule", "called", "read")


class hooks(Mode):
    """Call ``observers`` around every op and every rule. Profilers, pictures and NaN detection are made of it.

    An observer may define any of ``called(primitive, args, constants)`` (args as the caller gave them),
    ``read(tensor)`` (its values become a number, an array, an index or a class weight),
    ``before_op(primitive, arrays)``, ``after_op(primitive, arrays, outputs, node)``
    (raw arrays, outputs a tuple; node is None where nothing was recorded), ``before_rule(node, gradient)`` and
    ``after_rule(node, gradient, gradients)`` (gradients: list of (parent node, gradient)), and, when ``backward`` has
    walked and not yet added to ``.grad``, ``walked(tensor, gradient, seed, leaves)``. ``ops/live.py`` has two more.
    A subclass that is its own observer leaves ``observers`` empty; else it would hold a reference to itself.
    """

    observers: tuple = ()

    def __init__(self, *observers):
        for observer in observers:
            if not any(hasattr(observer, event) for event in EVENTS):
                raise TypeError(f"hooks: an observer, {type(observer).__name__}, has none of {', '.join(EVENTS)}")
        self.observers = observers

    def change(self, state):
        return state.replace(hooks=(*state.hooks, *(self.observers or (self,))))


class forward_mode(Mode):
    """Ops inside record, and also save what their JVP rules need."""

    def change(self, state):
        return state.replace(forward_mode=True, recording=True)


def notify(observers, event: str, *args) -> None:
    for observer in observers:
        if (method := getattr(observer, event, None)) is not None:
            method(*args)


def is_grad_enabled() -> bool:
    """Whether ops record on the tape here."""
    return _state.get().recording
