"""How many kernels a call of CuPy launches, as far as its sources and a recording of its calls tell.

Clears of fresh memory (``zeros``) and copies from and to the host are not counted.
"""

import numpy as np

NOTHING = frozenset(
    "empty empty_like zeros zeros_like shape ndim size finfo iinfo result_type may_share_memory".split()
)
TOGETHER = 8  # arrays that ``concatenate`` copies one by one; it copies more of them at once


def launches(name, operands, result, out=None) -> int:
    """Of the function ``name`` on the raw arrays ``operands``, lists of arrays among them, with this raw result."""
    if name in NOTHING or not out_of(operands, result, out):
        return 0
    if name == "matmul":
        return of_product(operands[0], operands[1], out)
    if name in ("concatenate", "stack", "vstack", "hstack"):
        count = len(operands[0])
        return count if count <= TOGETHER else 1
    return 1


def out_of(operands, result, out) -> bool:
    """Whether something was computed: the result is neither an operand nor a view of one."""
    if out is not None:
        return True
    flat = [x for o in operands for x in (o if isinstance(o, list) else (o,)) if type(x) is np.ndarray]
    return not all(shows(r, flat) for r in (result if isinstance(result, (tuple, list)) else (result,)))


def shows(r, arrays) -> bool:
    """Whether r is one of the arrays, or a view of one."""
    return type(r) is np.ndarray and any(r is x or (r.base is not None and np.may_share_memory(r, x)) for x in arrays)


def of_product(a, b, out=None) -> int:
    """A product; of stacks, the copies of what is not contiguous, and the pointers to matrices that are broadcast."""
    if max(a.ndim, b.ndim) < 3:
        return 1 + (out is not None and not out.flags.c_contiguous)
    copies = sum(x is not None and not x.flags.c_contiguous for x in (a, b, out))
    batch = max(a.ndim, b.ndim) - 2
    shapes = {(*(1,) * (batch + 2 - x.ndim), *x.shape[:-2]) for x in (a, b) if x.ndim > 1}
    return 1 + copies + (3 * batch if len(shapes) > 1 else 0)


def of_index(arrays: int) -> int:
    """Of reading or writing the places that so many arrays name: two for each of several arrays, and the transfer."""
    return 1 if arrays < 2 else 1 + 2 * arrays
