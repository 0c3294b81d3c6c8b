"""Where the values of tensors leave the tape as Python numbers or NumPy arrays while a transform runs.

A transform whose result is off the tape cannot know whether that is right: a constant has the gradient 0. But where a
value left the tape before, the gradient was lost: the transform names that line.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from sys import _getframe

from tinygrad_ms.engine.around.modes import current_state, notify
from tinygrad_ms.engine.call import ours
from tinygrad_ms.engine.tensor import Tensor

_watches: ContextVar[tuple] = ContextVar("tinygrad_ms.watches", default=())


@contextmanager
def watched(depends):
    """The list in which the first line stands where, inside this block, a user read the numbers of a tensor.

    depends: (node) -> whether that tensor matters: whether it depends on the inputs of the transform.
    """
    lines: list[str] = []
    token = _watches.set((*_watches.get(), (depends, lines)))
    try:
        yield lines
    finally:
        _watches.reset(token)


def note_read(x) -> None:
    """Tell observers that the values of x are read here, if x is a Tensor, in another way than by an op."""
    if (hooks := current_state().hooks) and isinstance(x, Tensor):
        notify(hooks, "read", x)


def note_crossing(x) -> None:
    """Say that the numbers of the tensor x leave the tape here; ``item`` and its kind do so."""
    note_read(x)
    if x.node is None or not _watches.get() or not current_state().recording:
        return
    frame = _getframe(2)
    while frame.f_globals.get("__name__") == "tinygrad_ms.ops.crossings" and frame.f_back is not None:
        frame = frame.f_back
    if not ours(frame):
        for depends, lines in _watches.get():
            if not lines and depends(x.node):
                lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
