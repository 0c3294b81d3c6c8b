"""Values as they lie in memory, and small questions about entries."""

from math import prod

from tinygrad_ms.replay.trace import Value


def values_in(x):
    """The Values in an argument, or among what an entry makes."""
    if type(x) is Value:
        yield x
    elif type(x) is tuple or type(x) is list:
        for item in x:
            yield from values_in(item)
    elif type(x) is dict:
        for item in x.values():
            yield from values_in(item)


def name_of(function) -> str:
    return function if isinstance(function, str) else getattr(function, "__name__", "")


def dense(v) -> bool:
    """Whether the array fills its memory, in some order of its axes."""
    expected = v.dtype.itemsize
    for i in order_of(v):
        if v.shape[i] != 1 and v.strides[i] != expected:
            return False
        expected *= v.shape[i]
    return prod(v.shape) > 0


def order_of(v):
    """The axes from the fastest to the slowest."""
    return sorted(range(len(v.shape)), key=lambda i: (v.strides[i], v.shape[i] != 1, -i))


def buffer_of(block, offset, v):
    """The array of a Value in a block of bytes."""
    order = order_of(v)[::-1]  # from the slowest axis
    shape = [v.shape[i] for i in order]
    flat = block[offset : offset + prod(v.shape) * v.dtype.itemsize].view(v.dtype)
    back = [order.index(i) for i in range(len(order))]
    return flat.reshape(tuple(shape)).transpose(back) if shape else flat.reshape(())
