"""Whether an array has one owner, who may then give it away without a copy."""

from sys import getrefcount


def sole(array) -> bool:
    """Whether the caller alone holds this array. The array must own its memory and be contiguous.

    The count of references is right only in a loop like that of ``_count_one``.
    """
    return getrefcount(array) == ONE and getattr(array, "base", array) is None and array.flags.c_contiguous


def _count_one() -> int:
    for place, array in [(0, object())]:
        count = _third(place, array, getrefcount_of(array))
    return count


def getrefcount_of(array):
    return getrefcount(array)


def _third(place, array, count):
    return count


ONE = _count_one()
