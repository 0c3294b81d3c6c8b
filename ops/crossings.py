# mypy: disable-error-code="attr-defined, arg-type, return-value"
"""Where tensors meet Python and NumPy: numbers, arrays, text, containers, copies, pickles, writes in place.

``methods`` attaches what ``Crossings`` defines to Tensor, which inherits it when types are checked.
"""

import numpy

from tinygrad_ms.arrays.devices import parse_device
from tinygrad_ms.arrays.dtypes import as_dtype
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.arrays.sums import may_sum_to
from tinygrad_ms.cards import on_card, on_its_card
from tinygrad_ms.engine.around.arguments import refuse_tracked
from tinygrad_ms.engine.around.constructors import shared_counter
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.around.sentences import shape_of
from tinygrad_ms.engine.tape import Output
from tinygrad_ms.engine.tensor import Tensor, raw
from tinygrad_ms.ops import numpy_functions
from tinygrad_ms.ops.operands import raw_like
from tinygrad_ms.ops.watch import note_crossing, note_read
from tinygrad_ms.spelling import NAMES

__all__: list[str] = []


class Crossings:
    """The methods of Tensor that are no ops."""

    # --- what Python and NumPy ask for -----------------------------------------------------------------------------

    def numpy(self):
        """The values as a NumPy array. On the CPU it shares the memory; the tape does not see writes to it."""
        note_crossing(self)
        host = BACKENDS[type(self.data)].to_host(self.data)
        if host is self.data:
            shared_counter(host, self.version_counter())  # an ``asarray`` of it shares the change counter
        return host

    def __array__(self, dtype=None, copy=None):
        """A tensor on the tape becomes an array only under ``no_grad``: NumPy would lose its gradient in silence."""
        refuse_tracked("conversion to a NumPy array", self, "use tg's functions (tg.stack for a list), or x.detach()")
        if BACKENDS[type(self.data)].name != "cpu":
            raise TypeError(f"a tensor on {self.device} is not converted to NumPy silently: call .numpy() or .cpu()")
        note_read(self)
        if dtype is not None and as_dtype(dtype) != self.dtype:
            return self.data.astype(dtype)
        host = BACKENDS[type(self.data)].to_host(self.data)
        return host.copy() if copy else host

    def __array_function__(self, function, types, args, kwargs):
        return numpy_functions.call(function, args, kwargs)

    def __dlpack__(self, **options):
        return self._hand_over("__dlpack__").__dlpack__(**options)

    def __dlpack_device__(self):
        return self.data.__dlpack_device__()

    @property
    def __cuda_array_interface__(self):
        """For CUDA libraries without DLPack (numba, mpi4py): where the values lie. AttributeError off a GPU."""
        if not hasattr(self.data, "__cuda_array_interface__"):
            raise AttributeError(f"__cuda_array_interface__: a tensor on {self.device} is on no GPU; use x.cuda()")
        return self._hand_over("__cuda_array_interface__").__cuda_array_interface__

    def _hand_over(self, door):
        note_read(self)
        if self.node is not None and current_state().recording:
            raise BufferError(f"{door}: a tensor on the tape would lose its gradient there; use x.detach()")
        return self.data

    def item(self):
        """The Python number of a tensor of one element."""
        if self.size != 1:
            raise ValueError(f"item: a tensor of shape {self.shape} has {self.size} elements; it must have one")
        note_crossing(self)
        return self.data.item()

    def tolist(self):
        note_crossing(self)
        return self.data.tolist()

    def __float__(self):
        return float(self.item())

    def __int__(self):
        return int(self.item())

    def __index__(self):
        if self.dtype.kind not in "iu":
            raise TypeError(f"only an integer tensor can be an index, this one is {self.dtype}")
        return int(self.item())

    def __bool__(self):
        if self.size != 1:
            raise ValueError(f"the truth of a tensor of shape {self.shape} is ambiguous; use .any() or .all()")
        note_read(self)
        return bool(self.data.item())

    def __len__(self):
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self):
        if not self.shape:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unstack())

    @on_its_card
    def __contains__(self, value):
        note_read(self)
        return bool((self.data == raw_like(value, self, "in")).any().item())

    __hash__ = object.__hash__  # == compares elements, but as a dict key a tensor is equal to itself alone

    def __format__(self, spec):
        if spec and self.size != 1:
            raise TypeError(f"format: a tensor of shape {self.shape} has {self.size} elements; {spec!r} needs one")
        return format(self.data.item(), spec) if spec else str(self)

    def __repr__(self):
        facts = [f"dtype={self.dtype}"]
        if 0 in self.shape:
            facts.insert(0, f"shape={self.shape}")
        if self.device != "cpu":
            facts.append(f"device={self.device!r}")
        if self.name:
            facts.append(f"name={self.name!r}")
        if self.node is not None:
            called = self.node.parents[0] if isinstance(self.node, Output) else self.node
            facts.append("requires_grad=True" if self.is_leaf else f"op={called.op}")
        return f"Tensor({format_array(self.data, len('Tensor('))}, {', '.join(facts)})"

    def __dir__(self):
        return sorted({*object.__dir__(self)} - NAMES["Tensor"].keys())

    # --- copies ----------------------------------------------------------------------------------------------------

    @on_its_card
    def __deepcopy__(self, memo):
        self._check_no_history()
        result = memo[id(self)] = self._of(self.data.copy(), self.name, self.requires_grad)
        if self.grad is not None:
            result.grad = self.grad._of(self.grad.data.copy())
        return result

    def __copy__(self):
        return self.__deepcopy__({})

    def __reduce__(self):
        self._check_no_history()
        return unpickle, (type(self), self.numpy(), self.device, self.requires_grad, self.name)

    def _check_no_history(self):
        if not self.is_leaf:
            raise RuntimeError(
                f"copy or pickle of a tensor with history (result of {self.node.op}, {self.node.line});"
                " use .detach() to copy the values, .clone() to stay on the tape"
            )

    # --- in-place changes: off the tape alone, and counted ---------------------------------------------------------

    def copy_(self, source) -> Tensor:
        """Overwrite the values (broadcast from ``source``); allowed on a leaf only under ``no_grad``."""
        self._check_writable("copy_", "make a new tensor instead")
        refuse_tracked("copy_", source, "make a new tensor instead, or copy from source.detach()")
        source = raw_like(source, self, "copy_")
        if not may_sum_to(self.shape, shape_of(source)):
            raise ValueError(
                f"copy_: the source has shape {shape_of(source)}, which does not broadcast to {self.shape}"
            )
        with on_card(self):
            self.data[...] = source.astype(self.dtype, copy=False) if type(source) is type(self.data) else source
        self.touch()
        return self

    def __setitem__(self, index, value):
        instead = "use tinygrad_ms.index_update(t, i, v), which returns a new tensor"
        self._check_writable("t[i] = v", instead)
        refuse_tracked("t[i] = v", value, f"{instead}, or v.detach()")
        value = raw_like(value, self, "t[i] = v")
        try:
            with on_card(self):
                self.data[raw_index(index)] = value
        except (IndexError, TypeError, ValueError) as error:
            raise type(error)(f"t[i] = v: {error} (t: {self.dtype} {self.shape}, i: {index!r})") from None
        self.touch()

    def _check_writable(self, what, instead):
        if self.node is not None and (not self.is_leaf or current_state().recording):
            origin = "requires_grad=True" if self.is_leaf else f"result of {self.node.op}, {self.node.line}"
            raise RuntimeError(
                f"{what}: in-place change of a tensor that is on the tape (shape {self.shape}, {origin}); {instead},"
                " or change a leaf inside no_grad()"
            )


def unpickle(cls, host, device, requires_grad, name):
    """A tensor of the class ``cls`` from what ``__reduce__`` kept."""
    backend, index = parse_device(device)
    return cls._of(backend.from_host(host, index), name, requires_grad)


def raw_index(index):
    """An index with the raw arrays of the tensors in it."""
    return tuple(map(raw_index, index)) if isinstance(index, tuple) else raw(index)


def format_array(array, indent: int = 0, **options) -> str:
    """The values as NumPy prints them (this copies a device array to the host)."""
    host = BACKENDS[type(array)].to_host(array)
    return numpy.array2string(host, separator=", ", prefix=" " * indent, threshold=100, **options)
