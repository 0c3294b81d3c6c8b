"""Graph: vertices, edges and scopes together, with the ways to show them."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tinygrad_ms.graph.dot_text import write
from tinygrad_ms.graph.renderer import draw, find_renderer, render
from tinygrad_ms.graph.structure import Edge, Scope, Vertex


@dataclass(eq=False)
class Graph:
    """The tape as a plain data structure; ``build`` makes one. ``dot()`` is its text, ``render(path)`` its
    picture."""

    vertices: list[Vertex]
    edges: list[Edge]
    root: Scope
    view: str = "forward"
    rankdir: str = "TB"
    title: str = ""
    notes: list[str] = field(default_factory=list)
    font_size: float = 12  # of titles, in points
    show: frozenset = frozenset()  # of "value", "gradient", "saved", "device", "time", "formula"

    def __len__(self) -> int:
        return len(self.vertices)

    @property
    def scopes(self) -> list[Scope]:
        """The scopes that hold something, outer before inner."""
        seen: dict[Scope, None] = {}
        for vertex in self.vertices:
            for scope in vertex.scope.ancestors:
                seen.setdefault(scope)
        return list(seen)

    def find(self, title: str) -> list[Vertex]:
        """The vertices of that title (name of op, tensor or scope)."""
        return [vertex for vertex in self.vertices if vertex.title == title]

    def edges_into(self, vertex: Vertex) -> Iterator[Edge]:
        return (edge for edge in self.edges if edge.target is vertex)

    def dot(self) -> str:
        """The picture as DOT text: the same text for the same graph, and no other program needed."""
        return write(self)

    def render(self, path, **options):
        """Write the picture; the suffix of ``path`` says how: .dot, .svg, .png or .pdf. Returns the path.

        scale: how many times as large (svg, png). dpi: dots per inch of a PNG. timeout: of the renderer, in seconds.
        Raises RuntimeError with the two install lines where the format needs a renderer and none is found.
        """
        return render(self.dot(), path, **options)

    def svg(self) -> str:
        """The picture as SVG text. Raises RuntimeError where there is no renderer."""
        return draw(self.dot(), "svg").decode()

    def _repr_mimebundle_(self, include=None, exclude=None):
        """Jupyter: the SVG where a renderer is, else the DOT text."""
        svg = self._repr_svg_()
        return {"image/svg+xml": svg, "text/plain": repr(self)} if svg else {"text/plain": self.dot()}

    def _repr_svg_(self) -> str | None:
        return self.svg() if find_renderer() else None

    def __repr__(self):
        return f"<Graph: {len(self.vertices)} nodes, {len(self.edges)} edges, view {self.view!r}>"
