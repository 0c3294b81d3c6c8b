"""Graph: vertices, edges and scopes, and the methods that show them."""

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
    font_size: float = 12  # points of the titles
    show: frozenset = frozenset()  # some of "value", "gradient", "saved", "device", "time", "formula"

    def __len__(self) -> int:
        return len(self.vertices)

    @property
    def scopes(self) -> list[Scope]:
        """The scopes that hold a vertex. Outer scopes come before inner ones."""
        seen: dict[Scope, None] = {}
        for vertex in self.vertices:
            for scope in vertex.scope.ancestors:
                seen.setdefault(scope)
        return list(seen)

    def find(self, title: str) -> list[Vertex]:
        """The vertices with that title. A title is the name of an op, tensor or scope."""
        return [vertex for vertex in self.vertices if vertex.title == title]

    def edges_into(self, vertex: Vertex) -> Iterator[Edge]:
        return (edge for edge in self.edges if edge.target is vertex)

    def dot(self) -> str:
        """The picture as DOT text. Equal graphs give equal text, and no other program is needed."""
        return write(self)

    def render(self, path, **options):
        """Write the picture. The suffix of ``path`` gives the format: .dot, .svg, .png or .pdf. Returns the path.

        scale: factor of the size (svg, png). dpi: dots per inch of a PNG. timeout: seconds that the renderer may take.
        Raises RuntimeError with the two install lines if the format needs a renderer and none is found.
        """
        return render(self.dot(), path, **options)

    def svg(self) -> str:
        """The picture as SVG text. Raises RuntimeError if there is no renderer."""
        return draw(self.dot(), "svg").decode()

    def _repr_mimebundle_(self, include=None, exclude=None):
        """For Jupyter: the SVG if there is a renderer, else the DOT text."""
        svg = self._repr_svg_()
        return {"image/svg+xml": svg, "text/plain": repr(self)} if svg else {"text/plain": self.dot()}

    def _repr_svg_(self) -> str | None:
        return self.svg() if find_renderer() else None

    def __repr__(self):
        return f"<Graph: {len(self.vertices)} nodes, {len(self.edges)} edges, view {self.view!r}>"
