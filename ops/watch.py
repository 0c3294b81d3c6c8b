"""Notes where the values of tensors leave the tape, as Python numbers or NumPy arrays, while a transform runs.

If the result of a transform is off the tape, it may be a constant, whose gradient is 0. But if a value left the tape
before, the gradient was lost. Then the transform raises and names that line.
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
    """A list that gets the first line of this block in which the user reads the numbers of a tensor.

    depends: (node) -> whether the tensor depends on the inputs of the transform; others do not count.
    """
    lines: list[str] = []
    token = _watches.set((*_watches.get(), (depends, lines)))
    try:
        yield lines
    finally:
        _watches.reset(token)


def note_read(x) -> None:
    """Tell observers that the values of x are read here, not by an op. x may be no Tensor; then nothing happens."""
    if (hooks := current_state().hooks) and isinstance(x, Tensor):
        notify(hooks, "read", x)


def note_crossing(x) -> None:
    """Note that the numbers of the tensor x leave the tape here. ``item`` and its like call this."""
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
