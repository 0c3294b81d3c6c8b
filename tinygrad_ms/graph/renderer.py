"""Draws DOT text as SVG, PNG or PDF with a program: TINYGRAD_MS_DOT, else ``dot``, else graphviz-pure."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

from tinygrad_ms.graph.titles import clear_titles, justified, widened, without_room
from tinygrad_ms.graph.wide_letters import stand_ins, wide_letters

FORMATS = ("svg", "png", "pdf")
DPI = 96  # dots per inch of a PNG at scale 1
SECONDS = 120  # nobody could read a picture whose layout takes longer


def find_renderer() -> str | None:
    """The command that draws: TINYGRAD_MS_DOT, else ``dot``, else ``graphviz-pure`` on the path or beside Python."""
    if named := os.environ.get("TINYGRAD_MS_DOT"):
        return shutil.which(named)
    beside = os.pathsep.join((os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.executable))))
    return shutil.which("dot") or shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=beside)


def draw(dot: str, form: str = "svg", timeout: float = SECONDS, dpi: int | None = None, scale: float = 1) -> bytes:
    """The picture of DOT text, ``scale`` times as large. Raises RuntimeError if there is no renderer, or if it fails.

    A PNG with Chinese text needs dot, or one of rsvg-convert, inkscape, cairosvg; without these it warns.
    """
    if form not in FORMATS:
        raise ValueError(f"render: {form!r} is unknown; the formats are dot, {', '.join(FORMATS)}")
    if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not 0 < scale <= 100:
        raise ValueError(f"render: scale={scale!r}; expected a number above 0, at most 100")
    program = find_renderer()
    if program is None:
        named = os.environ.get("TINYGRAD_MS_DOT")
        where = f"TINYGRAD_MS_DOT={named!r} is no program" if named else "no Graphviz renderer was found"
        raise RuntimeError(
            f"render: {where}; `pip install graphviz-pure` (svg, png) or `apt-get install graphviz` (also pdf) brings"
            " one, and a path that ends in .dot needs none"
        )
    pure = Path(program).stem == "graphviz-pure"
    if form == "pdf" and pure:
        raise RuntimeError(
            "render: graphviz-pure writes svg and png but no pdf; `apt-get install graphviz` brings dot, which does"
        )
    if form == "png" and pure and (letters := wide_letters(dot)):
        if png := converted(draw(dot, "svg", timeout), (dpi or DPI) / DPI * scale):
            return png
        warnings.warn(
            f"render: graphviz-pure has no font for {letters[0]!r} and leaves boxes in a PNG; write .svg, or install"
            " rsvg-convert (apt-get install librsvg2-bin), or dot, and a font",
            stacklevel=4,
        )
    dot, back = stand_ins(dot) if form == "svg" and pure else (dot, str)
    options = [f"-Gdpi={(dpi or DPI) * scale:g}"] if form == "png" and (dpi or scale != 1) else []
    if form == "pdf":
        options.append("-Gmargin=0")  # for pdf alone, dot would add half an inch on every side
    svg = b""
    if form == "svg" or "subgraph cluster_" in dot:
        dot, svg = with_room(dot, lambda text: run([program, "-Tsvg"], text.encode(), timeout))
    if form == "svg":
        return finished(back(svg.decode()), scale).encode()
    return run([program, f"-T{form}", *options], justified(dot, svg.decode()).encode(), timeout)


def with_room(dot: str, lay_out) -> tuple[str, bytes]:
    """The DOT text and its SVG. Boxes are widened if that gives their titles room between the arrows."""
    svg = lay_out(dot)
    if missing := without_room(svg.decode()):
        wider = widened(dot, missing)
        drawn = lay_out(wider)
        if 3 * sum(without_room(drawn.decode()).values()) < sum(missing.values()):
            return wider, drawn
    return dot, svg


def run(command, data: bytes, timeout: float) -> bytes:
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"render: {command[0]} was stopped after {timeout:g} s; fold the graph with depth= or collapse="
        ) from None
    if done.returncode or not done.stdout:
        raise RuntimeError(f"render: {command[0]} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    return done.stdout


def finished(svg: str, scale: float) -> str:
    """The SVG with fonts that every viewer has, with titles that no arrow hides, and in the size asked for."""
    svg = svg.replace('font-family="Helvetica"', 'font-family="Helvetica,Arial,sans-serif"')
    if scale != 1:
        larger = lambda match: f'{match[1]}="{float(match[2]) * scale:g}pt"'
        svg = re.sub(r'(?<=[ \n])(width|height)="([\d.]+)pt"', larger, svg, count=2)
    return clear_titles(svg)


def converted(svg: bytes, scale: float) -> bytes | None:
    """The SVG as PNG, drawn by a program that knows the fonts of this machine; None if there is no such program."""
    if program := shutil.which("rsvg-convert"):
        return run([program, "--zoom", f"{scale:g}", "--format", "png"], svg, SECONDS)
    if program := shutil.which("inkscape"):
        size = f"--export-dpi={DPI * scale:g}"
        return run([program, "--pipe", "--export-type=png", size, "--export-filename=-"], svg, SECONDS)
    try:
        import cairosvg
    except (ImportError, OSError):  # OSError: the library cairo is missing
        return None
    return cairosvg.svg2png(svg, scale=scale)


def render(dot: str, path, **options) -> Path:
    """Write DOT text to ``path`` in the format of its suffix. The file is written whole or not at all."""
    path = Path(path)
    form = path.suffix[1:].lower()
    if form not in ("dot", "gv", *FORMATS):
        raise ValueError(f"render: the path {str(path)!r} must end in .dot, .svg, .png or .pdf")
    data = dot.encode() if form in ("dot", "gv") else draw(dot, form, **options)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return path
