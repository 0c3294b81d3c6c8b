"""In-place changes of tensors: allowed off the tape, counted everywhere, refused where a gradient would be wrong."""

from tinygrad_ms.engine.around.crossings import Crossings, raw_index, raw_like
from tinygrad_ms.engine.around.modes import current_state


class InPlace(Crossings):
    """The methods of a Tensor that write into its array."""

    __slots__ = ()

    def copy_(self, source) -> "InPlace":
        """Overwrite the values (broadcast from ``source``); allowed on a leaf only under ``no_grad``."""
        self._check_writable("copy_", "make a new tensor instead")
        source = raw_like(source, self, "copy_")
        self.data[...] = source.astype(self.dtype, copy=False) if type(source) is type(self.data) else source
        self.touch()
        return self

    def __setitem__(self, index, value):
        self._check_writable("t[i] = v", "use tinygrad_ms.index_update(t, i, v), which returns a new tensor")
        value = raw_like(value, self, "t[i] = v")
        try:
            self.data[raw_index(index)] = value
        except (IndexError, TypeError, ValueError) as error:
            raise type(error)(f"t[i] = v: {error} (t: {self.dtype} {self.shape}, i: {index!r})") from error
        self.touch()

    def _check_writable(self, what, instead):
        if self.node is not None and (not self.is_leaf or current_state().recording):
            origin = "requires_grad=True" if self.is_leaf else f"result of {self.node.op}, {self.node.line}"
            raise RuntimeError(
                f"{what}: in-place change of a tensor that is on the tape (shape {self.shape}, {origin}); {instead},"
                " or change a leaf inside no_grad()"
            )
