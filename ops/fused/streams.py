"""Stores past the caches. A store into an array that is in no cache reads the line first, which costs time.

A kernel computes a piece of a large result in memory that stays in the first cache, and sends it from there. Lines that
are written in part would cost the most. So what does not fill a line is kept for the next piece.
"""

from tinygrad_ms.ops.fused.machine import line, put_line, settle, skew

__all__: list[str] = []

STREAMED = 6 << 20  # bytes of a result that is written so: several times the second cache


def send(near, count, whole, stop):
    """Send the lines of near[:count], whose place in ``whole`` ends at ``stop``.

    The rest moves to the begin of ``near``. Its size is returned. ``settle()`` has to follow before the kernel ends.
    """
    to = whole[stop - count : stop]
    first = min((line(to) - skew(to)) % line(to), count)
    last = count - (count - first) % line(to)
    for j in range(first):
        to[j] = near[j]
    for j in range(first, last, line(to)):
        put_line(near, to, j)
    for j in range(last, count):
        near[j - last] = near[j]
    return count - last


def send_rest(near, count, whole):
    """The last numbers of ``whole`` are those of near[:count]."""
    to = whole[whole.size - count :]
    for j in range(count):
        to[j] = near[j]
    settle()
