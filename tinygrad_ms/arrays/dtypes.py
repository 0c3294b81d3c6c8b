"""dtypes: which carry gradients, which NumPy array a Python number or list becomes, how values are printed."""

import numpy

DEFAULT_FLOAT = numpy.dtype("float32")
NumpyScalar = numpy.generic  # such as numpy.float64(2); beside a Tensor it is weak, like a Python number


def host_array(value, dtype=None) -> numpy.ndarray:
    """A NumPy array of a Python number, a list or a NumPy value. Raises TypeError where that is not numeric."""
    if isinstance(value, numpy.ma.MaskedArray):
        raise TypeError("cannot make a tensor of a masked array, whose mask would be lost; use its .filled(...)")
    try:
        array = numpy.asarray(value, dtype=dtype)
    except (ValueError, TypeError) as error:
        raise TypeError(f"cannot make a tensor of {type(value).__name__}: {error}") from None
    if not is_number_dtype(array.dtype):
        raise TypeError(
            f"cannot make a tensor of dtype {array.dtype} ({type(value).__name__}): numbers and booleans only"
        )
    return array


def is_number_dtype(dtype) -> bool:
    return dtype.kind in "fiub" or dtype.name == "bfloat16"


def is_float(dtype) -> bool:
    """Whether a dtype carries gradients: float16, bfloat16 (a void dtype for NumPy), float32, float64."""
    return dtype.kind == "f" or (dtype.kind == "V" and dtype.name == "bfloat16")


def is_host_value(value) -> bool:
    """Whether it is a NumPy array or scalar, which brings its own dtype. Masked arrays are not."""
    return isinstance(value, (numpy.ndarray, numpy.generic)) and not isinstance(value, numpy.ma.MaskedArray)


def as_dtype(dtype) -> numpy.dtype:
    """The NumPy dtype of a name or type. Raises TypeError for what is unknown, and for no number (complex, text)."""
    try:
        result = numpy.dtype(dtype)
    except TypeError:
        raise TypeError(f"dtype={dtype!r} is unknown; expected one such as 'float32', 'int64' or 'bool'") from None
    if not is_number_dtype(result):
        raise TypeError(f"dtype={dtype!r} cannot be that of a tensor: it holds floats, integers or booleans")
    return result
