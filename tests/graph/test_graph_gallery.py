"""The gallery: every picture can be drawn, nothing overlaps or is cut off, and its colours are told apart."""

import importlib.util
import subprocess
from pathlib import Path

import pytest

from tests.graph.test_graph import check_dot
from tinygrad_ms.graph.dot_text import EDGES, GRADIENT_TEXT, GREY, HEAT, LOOKS, STRIP
from tinygrad_ms.graph.renderer import find_renderer
from tinygrad_ms.graph.titles import CLUSTER, EDGE, band, points_of

GALLERY = Path(__file__).parents[2] / "docs" / "gallery"
spec = importlib.util.spec_from_file_location("gallery", GALLERY / "draw.py")
gallery = importlib.util.module_from_spec(spec)
spec.loader.exec_module(gallery)


def layout(dot):
    """(width, height) of the picture and {node: (x, y, width, height)}, in inches."""
    plain = subprocess.run([find_renderer(), "-Tplain"], input=dot.encode(), capture_output=True).stdout.decode()
    lines = [line.split(" ") for line in plain.splitlines()]
    size = next(tuple(map(float, words[2:4])) for words in lines if words[0] == "graph")
    return size, {words[1]: tuple(map(float, words[2:6])) for words in lines if words[0] == "node"}


@pytest.mark.parametrize("picture", gallery.PICTURES, ids=lambda picture: picture.__name__)
def test_pictures(picture):
    graph = picture()
    dot = graph.dot()
    nodes = check_dot(dot)
    assert f"({picture.__name__}.svg)" in (GALLERY / "README.md").read_text(encoding="utf-8")
    if not find_renderer():
        pytest.skip("no renderer: pip install graphviz-pure")
    (width, height), places = layout(dot)
    assert set(places) == nodes
    boxes = list(places.values())
    for i, (x, y, w, h) in enumerate(boxes):
        assert min(x - w / 2, width - x - w / 2, y - h / 2, height - y - h / 2) > -0.01
        for X, Y, W, H in boxes[:i]:
            assert abs(x - X) >= (w + W) / 2 - 0.01 or abs(y - Y) >= (h + H) / 2 - 0.01


@pytest.mark.parametrize("path", sorted(GALLERY.glob("*.svg")), ids=lambda path: path.stem)
def test_no_arrow_crosses_a_title(path):
    svg = path.read_text(encoding="utf-8")
    arrows = [points_of(arrow) for arrow in EDGE.findall(svg)]
    found = CLUSTER.findall(svg)
    assert len(found) == svg.count('class="cluster')
    for _, box, text in found:
        _, right, x, width, crossings = band(box, text, arrows)
        assert x + width <= right and not [c for c in crossings if x < c < x + width], text


def test_the_page_of_the_gallery(tmp_path):
    gallery.PICTURES, pictures = (), gallery.PICTURES
    try:
        gallery.main(tmp_path)
    finally:
        gallery.PICTURES = pictures
    assert (tmp_path / "mlp_step.html").stat().st_size < 300_000


# --- colours --------------------------------------------------------------------------------------------------------


def linear(colour):
    """Linear-light red, green, blue of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def luminance(colour):
    """Relative luminance (WCAG 2.2)."""
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(a, b):
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("kind", LOOKS)
def test_text_is_readable(kind):
    fill, outline, text, *_ = LOOKS[kind]
    assert contrast(fill, text) >= 4.5
    if text != "#ffffff":
        assert contrast(fill, outline) >= 3
        assert contrast(fill, GREY) >= 4.5 and contrast(fill, GRADIENT_TEXT) >= 4.5  # the small lines


def test_kinds_are_told_apart_in_grey():
    """By lightness, or where that is close by another outline (dashes, corners, double line, shape)."""
    for a in LOOKS:
        for b in LOOKS:
            if a < b and contrast(LOOKS[a][0], LOOKS[b][0]) < 1.15 and {a, b} != {"backward", "rule"}:
                assert LOOKS[a][3].split() != LOOKS[b][3].split(), (a, b)
    for ramp in (HEAT, STRIP):
        steps = [luminance(colour) for colour in ramp]
        assert steps == sorted(steps) or steps == sorted(steps, reverse=True)
    assert len({more for _, more, _ in EDGES.values()}) == len(EDGES)  # lines differ in style, too
