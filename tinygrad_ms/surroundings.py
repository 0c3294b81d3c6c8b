"""Context managers around a call. They work as decorators, and ``checkpoint`` enters them again for a second run."""

import inspect
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import update_wrapper

_entered: ContextVar[tuple] = ContextVar("tinygrad_ms.surroundings", default=())

current = _entered.get  # the managers that are entered now, the outermost first


@contextmanager
def surrounded(enter):
    """Run the block inside the context manager ``enter()``. ``checkpoint`` can make it again."""
    token = _entered.set((*_entered.get(), enter))
    try:
        with enter():
            yield
    finally:
        _entered.reset(token)


@contextmanager
def again(entered):
    """Run the block inside all managers that ``current()`` gave."""
    with ExitStack() as stack:
        for enter in entered:
            stack.enter_context(surrounded(enter))
        yield


# --- decorators -----------------------------------------------------------------------------------------------


def inside(mode, function):
    """``function`` (a plain function, a coroutine, or a generator of either kind) with its body inside ``mode``.

    A generator of either kind is inside only while its body runs, not while it is suspended.
    Raises TypeError for a class, because only the making of objects would be inside, and for other values.
    """
    if isinstance(function, type) or not callable(function):
        kind = f"the class {function.__name__}" if isinstance(function, type) else f"a {type(function).__name__}"
        raise TypeError(
            f"{type(mode).__name__}: it decorates functions, and this is {kind}; decorate its methods one by one, below"
            " @classmethod, @property and their like"
        )
    if inspect.isgeneratorfunction(function):
        made = generator_inside(mode, function)
    elif inspect.isasyncgenfunction(function):
        made = async_generator_inside(mode, function)
    elif inspect.iscoroutinefunction(function):
        made = coroutine_inside(mode, function)
    else:
        made = function_inside(mode, function)
    return update_wrapper(made, function)


def function_inside(mode, function):
    def wrapper(*args, **kwargs):
        with mode:
            return function(*args, **kwargs)

    return wrapper


def coroutine_inside(mode, function):
    async def wrapper(*args, **kwargs):
        with mode:
            return await function(*args, **kwargs)

    return wrapper


def generator_inside(mode, function):
    def wrapper(*args, **kwargs):
        generator = function(*args, **kwargs)
        resume, value = generator.send, None
        while True:
            try:
                with mode:
                    item = resume(value)
            except StopIteration as stop:
                return stop.value
            try:
                resume, value = generator.send, (yield item)
            except GeneratorExit:
                with mode:
                    generator.close()
                raise
            except BaseException as error:
                resume, value = generator.throw, error

    return wrapper


def async_generator_inside(mode, function):
    async def wrapper(*args, **kwargs):
        generator = function(*args, **kwargs)
        resume, value = generator.asend, None
        while True:
            try:
                with mode:
                    item = await resume(value)
            except StopAsyncIteration:
                return
            try:
                resume, value = generator.asend, (yield item)
            except GeneratorExit:
                with mode:
                    await generator.aclose()
                raise
            except BaseException as error:
                resume, value = generator.athrow, error

    return wrapper
