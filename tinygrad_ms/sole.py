"""Whether an array has one owner, who may then give it away without a copy."""

from sys import getrefcount


def sole(array) -> bool:
    """Whether the caller alone holds this array, or all of the memory that it shows. The array must be contiguous.

    The count of references is right only in a loop like that of ``_count_one``.
    """
    if getrefcount(array) != ONE or not hasattr(array, "flags"):
        return False
    base = array.base
    if base is not None and not (type(base) is type(array) and base.base is None and base.size == array.size):
        return False
    return (base is None or getrefcount(base) == OF_BASE) and array.flags.c_contiguous


def _count_one() -> tuple[int, int]:
    for place, array in [(0, _View(object()))]:
        count = _third(place, array, getrefcount_of(array))
    return count, _of_base(array)


class _View:
    def __init__(self, base):
        self.base = base


def _of_base(array):
    base = array.base
    return getrefcount(base)


def getrefcount_of(array):
    return getrefcount(array)


def _third(place, array, count):
    return count


ONE, OF_BASE = _count_one()
