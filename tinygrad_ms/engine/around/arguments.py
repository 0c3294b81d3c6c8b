"""Odd arguments of ops (numbers alone, lists, integers, mixed devices) are converted here, or refused."""

from tinygrad_ms.arrays.devices import default_device, parse_device, to_device
from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT, NumpyScalar, host_array, is_float, is_host_value
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import of_card, there
from tinygrad_ms.engine.around.modes import current_state
from tinygrad_ms.engine.around.sentences import describe, mixed_devices
from tinygrad_ms.engine.tape import NUMBERS
from tinygrad_ms.engine.tensor import Tensor


def refuse_tracked(op: str, value, instead: str) -> None:
    """Raise TypeError for a tensor on the tape, also inside lists and tuples: its gradient would be lost here."""
    if isinstance(value, Tensor):
        if value.node is not None and current_state().recording:
            where = "requires_grad=True" if value.is_leaf else f"recorded at {value.node.line}"
            raise TypeError(
                f"{op}: a tensor of shape {value.shape} is on the tape ({where}); its gradient would be lost: {instead}"
            )
    elif isinstance(value, (list, tuple)):
        for item in value:
            if type(item) not in NUMBERS:
                refuse_tracked(op, item, instead)


def convert_arguments(primitive, arrays, wants_tensor):
    """The less usual arguments of a call, converted: (raw arrays and numbers, their backend, whether to give tensors).

    Python numbers stay weak scalars; so do NumPy's scalars beside tensors. Lists become arrays. Integers become floats
    where the op asks for floats.
    """
    refuse_what_is_no_number(primitive, arrays)
    arrays = [a.item() if wants_tensor and isinstance(a, NumpyScalar) else a for a in arrays]
    arrays = next((b.recorder.lift(arrays) for b in map(BACKENDS.get, map(type, arrays)) if b and b.recorder), arrays)
    backend = common_backend(primitive, arrays)
    if backend is None:
        arrays, backend, made = from_host_alone(arrays)
        wants_tensor = wants_tensor or made
    own = [a for a in arrays if type(a) is backend.array_type]
    floating = next((a.dtype for a in own if is_float(a.dtype)), None)
    where = backend.device_of(own[0])
    arrays = [list_to_array(a, floating, where) if isinstance(a, (list, tuple)) else a for a in arrays]
    if floating is None and (primitive.floats or any(type(a) is float for a in arrays)):
        arrays = [there(a.astype, a)(DEFAULT_FLOAT) if type(a) is backend.array_type else a for a in arrays]
    return arrays, of_card(backend, own[0]), wants_tensor


def refuse_what_is_no_number(primitive, arrays):
    """Complex numbers, None, text, dicts and objects are refused by name."""
    for i, value in enumerate(arrays):
        if getattr(value, "dtype", DEFAULT_FLOAT).kind == "c":
            raise TypeError(f"{primitive.name}: complex numbers are not supported ({describe(primitive, arrays)})")
        what = f"{primitive.name}: {primitive.argument_name(i)}"
        if isinstance(value, (list, tuple)):
            refuse_tracked(what, value, "join tensors with tg.stack")
        elif not (type(value) in BACKENDS or type(value) in NUMBERS or is_host_value(value)):
            raise TypeError(f"{what} is {type(value).__name__}; expected a Tensor, an array or a number")


def common_backend(primitive, arrays):
    """The one backend of the arrays; None without arrays. Raises if there are two backends or two devices."""
    kinds = {type(value) for value in arrays if type(value) in BACKENDS}
    if not kinds:
        return None
    backend = BACKENDS[kinds.pop()]
    indices = {backend.index_of(a) for a in arrays if type(a) is backend.array_type} if backend.multi_device else ()
    if kinds or len(indices) > 1:
        raise mixed_devices(primitive, arrays)
    return backend


def from_host_alone(arrays):
    """Numbers and lists make tensors on the default device; NumPy scalars, also with numbers, stay NumPy."""
    host = [is_host_value(value) for value in arrays]
    if any(host) and all(own or type(value) in NUMBERS for own, value in zip(host, arrays)):
        return [host_array(v) if own else v for own, v in zip(host, arrays)], parse_device("cpu")[0], False
    backend, index = parse_device(default_device())
    return [backend.from_host(default_floats(value), index) for value in arrays], backend, True


def list_to_array(value, floating, device):
    """A list beside float arrays gets their dtype. Beside integers it keeps its own; its floats become float32."""
    return to_device(default_floats(value) if floating is None else host_array(value, floating), device)


def default_floats(value):
    host = host_array(value)
    return host if is_host_value(value) or host.dtype.kind != "f" else host.astype(DEFAULT_FLOAT)
