"""Jupyter shows a Tensor with its facts, its numbers with a heat strip, and the graph that leads to it."""

from html import escape

from tinygrad_ms.graph.builder import build
from tinygrad_ms.graph.dot_text import strip_colour
from tinygrad_ms.graph.renderer import find_renderer
from tinygrad_ms.graph.structure import shape_text
from tinygrad_ms.graph.values import Summary
from tinygrad_ms.lines import monospaced

MOST = 80  # the most vertices of a graph that is drawn without a request


def tensor_html(tensor) -> str:
    """HTML for Tensor._repr_html_. It copies a device tensor to the host, and runs a renderer if there is one."""
    facts = [escape(tensor.name or "Tensor"), shape_text(tensor.shape) or "scalar", str(tensor.dtype), tensor.device]
    if tensor.requires_grad:
        facts.append("requires_grad" if tensor.is_leaf else f"result of {escape(tensor.node.op)}")
    parts = [f"<p><b>{facts[0]}</b> {', '.join(facts[1:])}</p>", *numbers(Summary(tensor))]
    if tensor.grad is not None:
        parts += ["<p>gradient:</p>", *numbers(Summary(tensor.grad))]
    if not tensor.is_leaf and find_renderer():
        graph = small_graph(tensor)
        if graph is not None:
            svg = graph.svg()
            parts.append(svg[svg.index("<svg") :])
    return f"<div>{''.join(parts)}</div>"


def numbers(summary) -> list[str]:
    parts = [monospaced(summary.text)]
    if levels := summary.levels():
        cell = '<td style="width:12px;height:10px;padding:0;background:{}"></td>'
        rows = ("".join(cell.format(strip_colour(level)) for level in row) for row in levels)
        table = "".join(f"<tr>{row}</tr>" for row in rows)
        parts.append(f'<table style="border-spacing:0" aria-label="heat strip: dark is low">{table}</table>')
        parts.append('<p style="font-size:smaller">block means: dark is low, yellow is high</p>')
    return parts


def small_graph(tensor):
    """The graph of ``tensor`` with as many open scopes as ``MOST`` vertices allow; None if all are too many."""
    for depth in (None, 2, 1, 0):
        try:
            return build(tensor, depth=depth, max_nodes=MOST)
        except ValueError:
            continue
    return None
