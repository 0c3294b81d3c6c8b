"""Error messages of calls. They name the op, the arguments, shapes, dtypes and devices, and say what to do."""

from tinygrad_ms.arrays.registry import BACKENDS


def shape_of(value) -> tuple:
    """The shape of an array or Tensor; () of a number."""
    return value.shape if hasattr(value, "shape") else ()


def is_turned(value) -> bool:
    """Whether the matrices of a stack lie in memory column by column, as those of a transposed view do."""
    steps: tuple[int, ...] = getattr(value, "strides", ())
    return len(steps) > 2 and 0 < steps[-2] < steps[-1]


FACTS = {"shape": shape_of, "turned": is_turned}  # of an argument x, which a rule names x_shape, x_turned


def describe(primitive, values) -> str:
    """``a: float32 (2, 3) on cpu, b: 2.0``."""
    parts = []
    for i, value in enumerate(values):
        backend = BACKENDS.get(type(value))
        what = f"{value.dtype} {value.shape} on {backend.device_of(value)}" if backend else repr(value)[:40]
        parts.append(f"{primitive.argument_name(i)}: {what}")
    return ", ".join(parts)


def mixed_devices(primitive, arrays) -> ValueError:
    return ValueError(
        f"{primitive.name}: arguments on different devices ({describe(primitive, arrays)}); move one with .to(device)"
    )


def complaint(primitive, arrays, constants, error) -> Exception:
    """The array library's complaint as a sentence that names the op, the arguments and the fix.

    It is one exception. Its traceback leaves out the frames inside the op, except those of a user's own primitive.
    """
    text = str(error)
    if primitive.checks or text.startswith(primitive.name + ":"):
        return error if primitive.checks else error.with_traceback(None)
    kind = next((k for k in type(error).__mro__ if k in (TypeError, ValueError, IndexError, MemoryError)), ValueError)
    if "broadcast" in text:
        shapes = [f"{primitive.argument_name(i)} has shape {shape_of(a)}" for i, a in enumerate(arrays)]
        text = f"{' and '.join(shapes)}: these do not broadcast (sizes must be equal or 1, aligned at the right)"
        return kind(f"{primitive.name}: {text}")
    keywords = "".join(f", {key}={value!r}" for key, value in constants.items())
    return kind(f"{primitive.name}: {text} ({describe(primitive, arrays)}{keywords})")


def freed_error(node) -> RuntimeError:
    return RuntimeError(
        f"backward: the tape was freed by an earlier backward (at {node.op}, recorded at {node.line});"
        " pass retain_graph=True to the first one to walk it twice"
    )


def in_place_error(node, argument: int) -> RuntimeError:
    what = f"argument {node.plan.primitive.argument_name(argument)}" if argument >= 0 else "the result"
    return RuntimeError(
        f"backward: {what} of {node.op} (recorded at {node.line}) was changed in place after it had been saved for the"
        " gradient; change a copy (.clone()) or change it after backward"
    )


def shape_error(node, gradient, parent) -> RuntimeError:
    return RuntimeError(
        f"the rule of {node.op} returned a gradient of shape {gradient.shape} for an argument of shape {parent.shape}"
        f" (recorded at {node.line}); is a transpose or a sum missing?"
    )


def tangent_error(node, tangent) -> RuntimeError:
    what = f"{tangent.dtype} {tangent.shape}" if hasattr(tangent, "dtype") else type(tangent).__name__
    return RuntimeError(
        f"the JVP rule of {node.op} returned {what} for a result of {node.dtype} {node.shape} (recorded at {node.line})"
    )


def only_leaves_switch(tensor) -> RuntimeError:
    return RuntimeError(
        f"requires_grad: this tensor is the result of {tensor.node.op} ({tensor.node.line}); only leaves can be"
        " switched: use .detach() for a tensor without history"
    )


def cannot_carry_gradients(tensor) -> TypeError:
    return TypeError(
        f"requires_grad: a tensor of dtype {tensor.dtype} cannot carry gradients; use .astype('float32') first"
    )


def no_array(data) -> TypeError:
    return TypeError(f"Tensor: data is {type(data).__name__}, expected an array; tg.tensor(data) makes a tensor of it")
