"""Chinese, Japanese and Korean text for graphviz-pure, which knows no widths of these letters and has no font."""

import re
from collections.abc import Callable
from unicodedata import east_asian_width

HALF = "àáâãäåèéêëðñòóôõöøùúûüýþµ¶"  # graphviz-pure knows them; each is about half as wide as a Chinese letter


def is_wide(letter: str) -> bool:
    return east_asian_width(letter) in "WF"


def wide_letters(text: str) -> list[str]:
    return sorted({letter for letter in text if is_wide(letter)})


def stand_ins(dot: str) -> tuple[str, Callable[[str], str]]:
    """DOT text with two narrow letters instead of each wide one, and a function that puts the wide ones into the SVG.

    So Graphviz gives the boxes the right widths.
    """
    found, free = wide_letters(dot), [letter for letter in HALF if letter not in dot]
    pairs = [a + b for a in free[: len(free) // 2] for b in free[len(free) // 2 :]]  # no pairs overlap
    if not found or len(pairs) < len(found):
        return dot, lambda svg: svg
    there = dict(zip(found, pairs))
    back = {pair: letter for letter, pair in there.items()}
    pattern = re.compile("|".join(map(re.escape, back)))
    return "".join(there.get(c, c) for c in dot), lambda svg: pattern.sub(lambda match: back[match[0]], svg)
