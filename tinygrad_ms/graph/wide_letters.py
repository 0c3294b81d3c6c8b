"""Chinese, Japanese and Korean text for graphviz-pure, which knows neither its widths nor has a font for it."""

import re
from collections.abc import Callable
from unicodedata import east_asian_width

HALF = "àáâãäåèéêëðñòóôõöøùúûüýþµ¶"  # about half as wide as a Chinese letter in Helvetica, and known to graphviz-pure


def is_wide(letter: str) -> bool:
    return east_asian_width(letter) in "WF"


def wide_letters(text: str) -> list[str]:
    return sorted({letter for letter in text if is_wide(letter)})


def stand_ins(dot: str) -> tuple[str, Callable[[str], str]]:
    """DOT text with two narrow letters for each wide one, so that boxes get their widths; what undoes it in SVG."""
    found, free = wide_letters(dot), [letter for letter in HALF if letter not in dot]
    pairs = [a + b for a in free[: len(free) // 2] for b in free[len(free) // 2 :]]  # no pair ends as another begins
    if not found or len(pairs) < len(found):
        return dot, lambda svg: svg
    there = dict(zip(found, pairs))
    back = {pair: letter for letter, pair in there.items()}
    pattern = re.compile("|".join(map(re.escape, back)))
    return "".join(there.get(c, c) for c in dot), lambda svg: pattern.sub(lambda match: back[match[0]], svg)
