"""Moves the titles of scopes in an SVG of Graphviz to places without arrows. Titles are drawn above the arrows."""

import math
import re

from tinygrad_ms.graph.wide_letters import is_wide

MARGIN, HEIGHT = 8, 0.9  # points from the side of the box; height above the base line, in font sizes
NARROW, BROAD = set(" .,:;'|!/()[]-Ifijlrt"), set("mwMWOQGCDHNRU@×")
CLUSTER = re.compile(
    r'<g id="(scope\d+)" class="cluster.*?<(?:path|polygon)[^>]*?(?:d|points)="([^"]*)".*?(<text .*?</text>)', re.S
)
FILL = re.compile(r'<g id="(scope\d+)" class="cluster.*?<(?:path|polygon)[^>]*? fill="([^"]*)"', re.S)
EDGE = re.compile(r'<g id="e\d+" class="edge.*?<path[^>]* d="([^"]*)"', re.S)
BOXES = "var(--scope,#f4f4f4)"  # the colour of boxes in an HTML page around the SVG
STYLE = f"<style>:root:not(svg) .tg-halo{{fill:{BOXES};stroke:{BOXES};stroke-linejoin:round}}</style>\n"
ROW = '<table border="0" cellborder="0" cellspacing="0" cellpadding="0">'
LABELLED = re.compile(r'<g id="e\d+" class="edge[^>]*>(?:(?!</g>).)*<text (?:(?!</g>).)*</g>\n?', re.S)
NUMBER = re.compile(r"-?\d+\.?\d*")


def clear_titles(svg: str) -> str:
    """Move each title along the top of its box to the first place without an arrow. All titles are drawn last.

    A title or a label of an arrow that an arrow still crosses gets a halo. The halo uses only basic SVG.
    """
    arrows, fills = [points_of(path) for path in EDGE.findall(svg)], dict(FILL.findall(svg))
    points = [point for arrow in arrows for point in arrow]
    titles, above = [], []
    for scope, box, text in CLUSTER.findall(svg):
        title = re.sub(r' x="[^"]*"', f' x="{free_place(box, text, arrows):g}"', text, count=1)
        svg = svg.replace(text, title, 1)
        titles.append(title)
        above += [halo(title, fills[scope])] * crossed(title, points)
    for arrow in LABELLED.findall(svg):
        (label,) = re.findall("<text .*?</text>", arrow)
        if crossed(label, points):  # this arrow is drawn after the others
            svg = svg.replace(arrow, "", 1)
            above.append(arrow.replace(label, f"{halo(label, 'white')}\n{label}").rstrip())
    if not titles and not above:
        return svg
    style = STYLE * bool(above)
    above += ['<g class="titles" aria-hidden="true" style="stroke: none">', *titles, "</g>"] * bool(titles)
    head, start, rest = svg.partition('<g id="graph0"')
    body, _, end = rest.rpartition("</g>")
    return "\n".join([head + style + start + body.rstrip(), *above, "</g>"]) + end


def crossed(text: str, points) -> bool:
    left, top, right, bottom = extent(text)
    return any(left < x < right and top < y < bottom for x, y in points)


def extent(text: str) -> tuple[float, float, float, float]:
    """The approximate box of the letters of a text: left, top, right, bottom."""
    x, y, size = (float(re.findall(rf' {name}="([^"]*)"', text)[0]) for name in ("x", "y", "font-size"))
    words = re.sub(r"&#?\w+;", "x", re.sub("<[^>]*>", "", text))
    return x, y - HEIGHT * size, x + size * sum(map(em, words)), y + 0.3 * size


def halo(text: str, colour: str) -> str:
    """A wide outline of a text, in the colour of its box. It is drawn behind the text."""
    look = f'class="tg-halo" fill="{colour}" stroke="{colour}" stroke-width="4"'
    return re.sub(' fill="[^"]*"', "", text).replace("<text ", f"<text {look} ", 1)


def free_place(box, text, arrows) -> float:
    """The x where a title fits between the arrows; its present x if it fits nowhere."""
    _, right, x, width, crossings = band(box, text, arrows)
    free = next((a for a, b in gaps(box, text, arrows) if b - a >= width), x)
    return max(free, x) if max(free, x) + width <= right - 2 and crossings else x


def gaps(box, text, arrows) -> list[tuple[float, float]]:
    """(from, to) of each gap between the arrows that cross the line of a title."""
    left, right, *_, crossings = band(box, text, arrows)
    stops = [c for c in crossings if left < c < right]
    return list(zip([left + MARGIN, *(c + 4 for c in stops)], [*stops, right - 2]))


def without_room(svg: str) -> dict[str, int]:
    """{scope: points}. The label of the box needs so many more points, so that its title fits between the arrows."""
    arrows, found = [points_of(path) for path in EDGE.findall(svg)], {}
    for scope, box, text in CLUSTER.findall(svg):
        left, right, _, width, _ = band(box, text, arrows)
        missing = width - max(b - a for a, b in gaps(box, text, arrows))
        if missing > 0:  # Graphviz adds half of the width on each side of the contents
            found[scope] = math.ceil(right - left - width + 2 * (missing + MARGIN))
    return found


def widened(dot: str, points: dict[str, int]) -> str:
    """DOT text in which the titles of some scopes take more room."""

    def label(match):
        if match[3] not in points:
            return match[0]
        room = f'<td width="{points[match[3]]}" height="1" fixedsize="true"></td>'
        return f"label=<{ROW}<tr><td>{match[1]}</td>{room}</tr></table>> labelloc=t labeljust=l{match[2]}"

    return re.sub(r'label=<(<b>.*?</b>)> labelloc=t labeljust=l( style=[^\n]*? id="(scope\d+)")', label, dot)


def justified(dot: str, svg: str) -> str:
    """DOT text with each title on the left, on the right or in the middle: the first that the arrows leave free."""
    arrows, sides = [points_of(path) for path in EDGE.findall(svg)], {}
    for match in CLUSTER.finditer(svg):
        left, right, _, width, crossings = band(match[2], match[3], arrows)
        starts = {"l": left + MARGIN, "r": right - MARGIN - width, "c": (left + right - width) / 2}
        free = (side for side, x in starts.items() if not any(x - 2 < c < x + width + 2 for c in crossings))
        sides[match[1]] = next(free, "l")
    pattern = r'> labelloc=t labeljust=l( style=[^\n]*? id="(scope\d+)")'
    return re.sub(pattern, lambda m: f"> labelloc=t labeljust={sides.get(m[2], 'l')}{m[1]}", dot)


def band(box, text, arrows) -> tuple:
    """(left and right of a box, left and width of its title, x of each arrow that crosses the line of the title)."""
    xs = [float(x) for x in NUMBER.findall(box)[0::2]]
    left, top, right, bottom = extent(text)
    crossings = sorted(x for points in arrows for x, y in points if top <= y <= bottom)
    return min(xs), max(xs), left, right - left, crossings


def em(letter: str) -> float:
    """The approximate width of a bold letter, in font sizes."""
    return 1.0 if is_wide(letter) else 0.36 if letter in NARROW else 0.86 if letter in BROAD else 0.6


def points_of(path: str, each: int = 24) -> list[tuple[float, float]]:
    """Points along an arrow. Its path is a start M and cubic Bézier curves."""
    numbers = [float(number) for number in NUMBER.findall(path)]
    corners = list(zip(numbers[0::2], numbers[1::2]))
    points = corners[:1]
    for k in range(0, len(corners) - 3, 3):
        a, b, c, d = corners[k : k + 4]
        for step in range(1, each + 1):
            t = step / each
            weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            x, y = (sum(w * p[axis] for w, p in zip(weights, (a, b, c, d))) for axis in (0, 1))
            points.append((x, y))
    return points
