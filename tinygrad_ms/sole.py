"""Whether an array has one owner, who may then give it away without a copy."""

from sys import getrefcount


def sole(array) -> bool:
    """Whether nobody but the caller knows this array, which owns its memory and is contiguous.

    The caller is a loop as in ``_count_one``: only there CPython counts as many references as it does here.
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
