"""DOT text to SVG, PNG or PDF by a program: TINYGRAD_MS_DOT, else ``dot``, else graphviz-pure."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

FORMATS = ("svg", "png", "pdf")
SECONDS = 120  # a layout that takes longer is no picture anybody can read


def find_renderer() -> str | None:
    """The command that draws: the environment variable, ``dot``, ``graphviz-pure`` on the path or beside
    Python."""
    if named := os.environ.get("TINYGRAD_MS_DOT"):
        return shutil.which(named)
    beside = os.pathsep.join((os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.executable))))
    return shutil.which("dot") or shutil.which("graphviz-pure") or shutil.which("graphviz-pure", path=beside)


def draw(dot: str, form: str = "svg", timeout: float = SECONDS, dpi: int | None = None) -> bytes:
    """The picture of DOT text. Raises RuntimeError where no renderer is there, or where it fails."""
    if form not in FORMATS:
        raise ValueError(f"render: {form!r} is unknown; the formats are dot, {', '.join(FORMATS)}")
    program = find_renderer()
    if program is None:
        named = os.environ.get("TINYGRAD_MS_DOT")
        where = f"TINYGRAD_MS_DOT={named!r} is no program" if named else "no Graphviz renderer was found"
        raise RuntimeError(
            f"render: {where}; `pip install graphviz-pure` (svg, png) or `apt-get install graphviz` (also pdf) brings"
            " one, and a path that ends in .dot needs none"
        )
    if form == "pdf" and Path(program).stem == "graphviz-pure":
        raise RuntimeError(
            "render: graphviz-pure writes svg and png but no pdf; `apt-get install graphviz` brings dot, which does"
        )
    options = [f"-Gdpi={dpi}"] if dpi else []
    if form == "pdf":
        options.append("-Gmargin=0")  # else dot adds half an inch on every side, to pdf alone
    try:
        done = subprocess.run(
            [program, f"-T{form}", *options], input=dot.encode(), capture_output=True, timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"render: {program} was stopped after {timeout:g} s; fold the graph with depth= or collapse="
        ) from None
    if done.returncode or not done.stdout:
        raise RuntimeError(f"render: {program} failed: {done.stderr.decode(errors='replace').strip()[-500:]}")
    if form == "svg":  # viewers without Helvetica shall take another sans serif
        svg = done.stdout.replace(b'font-family="Helvetica"', b'font-family="Helvetica,Arial,sans-serif"')
        return titles_on_top(svg)
    return done.stdout


def titles_on_top(svg: bytes) -> bytes:
    """The titles of clusters a second time, with a halo, above the arrows that cross them."""
    titles = re.findall(rb'<g id="scope\d+" class="cluster[^>]*>.*?(<text .*?</text>)', svg, re.DOTALL)
    body, _, end = svg.rpartition(b"</g>")
    halo = b'<g class="titles" aria-hidden="true" stroke="#efefef" stroke-width="4" stroke-linejoin="round"'
    above = halo + b' paint-order="stroke">\n' + b"\n".join(titles) + b"\n</g>\n"
    return body + above + b"</g>" + end if titles else svg


def render(dot: str, path, **options) -> Path:
    """Write DOT text to ``path``, as the suffix says. The file is written whole or not at all."""
    path = Path(path)
    form = path.suffix[1:].lower()
    if form not in ("dot", "gv", *FORMATS):
        raise ValueError(f"render: the path {str(path)!r} must end in .dot, .svg, .png or .pdf")
    data = dot.encode() if form in ("dot", "gv") else draw(dot, form, **options)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_bytes(data)
    unfinished.replace(path)
    return path
