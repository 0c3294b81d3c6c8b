"""A Graph as DOT text, with HTML-like labels, one look per kind of vertex, and a legend.

Equal graphs give equal text.
"""

import re
from dataclasses import replace

from tinygrad_ms.graph.latex import renamed, to_text
from tinygrad_ms.graph.structure import Array, Edge, Scope, Vertex, shape_text

LONGEST = 48  # the most letters of a name in a label
SYMBOLS = {"add": "+", "subtract": "−", "multiply": "×", "divide": "/"}  # ops whose title is a sign
PAIRS = (("a", "b"), ("x", "y"), ("u", "v"), ("p", "q"))  # names of two operands; the first free pair is taken
SIZE = 12  # points of a title; small lines have 10
FONT = "Helvetica"  # renderers know the widths of its letters; SVG viewers replace it by their own sans serif

# The kinds differ in hue, in lightness (so they differ in grey, too) and in outline. The colours are tints of the
# palette of Okabe and Ito.
LOOKS = {  # kind: (fill, outline, text, more attributes, words of the legend)
    "op": ("#d6e8f7", "#2a6496", "#10202e", 'style="filled,rounded"', "op"),
    "backward": ("#f0b48c", "#a1470b", "#2e1600", 'style="filled,rounded"', "op recorded by a backward pass"),
    "rule": ("#f0b48c", "#a1470b", "#2e1600", 'style="filled,rounded"', "rule of an op, run backwards"),
    "box": ("#a9cbe6", "#1d4567", "#10202e", "style=filled peripheries=2", "folded scope"),
    "output": ("#17324d", "#0b1a29", "#ffffff", 'style="filled,rounded" penwidth=2', "output"),
    "parameter": ("#f0c24b", "#7a5900", "#261c00", "style=filled penwidth=1.6", "parameter"),
    "leaf": ("#fbebc0", "#7a5900", "#261c00", "style=filled penwidth=1.6", "input that wants a gradient"),
    "constant": ("#ffffff", "#777777", "#444444", 'style="filled,dashed"', "constant, off the tape"),
    "sum": ("#ffffff", "#a1470b", "#a1470b", "shape=circle style=filled penwidth=2 margin=0", "sum of gradients"),
    "seed": ("#a1470b", "#5c2600", "#ffffff", "shape=ellipse style=filled", "seed of the backward pass"),
}
EDGES = {  # kind: (colour, more attributes, words of the legend)
    "value": ("#333333", "", "value"),
    "gradient": ("#c2500c", "style=dashed penwidth=1.4", "gradient"),
    "carried": ("#6a3d9a", "style=bold constraint=false", "to the next repetition"),
    "highlight": ("#c2185b", "penwidth=3.2", "highlighted path"),
}
GREY, GRADIENT_TEXT = "#484848", "#762d00"
PORTS = '<table border="0" cellborder="0" cellspacing="0" cellpadding="1">'
CLUSTERS = ("#f7f7f7", "#ededed", "#e2e2e2", "#d8d8d8")
HEAT = ("#fff5eb", "#fdd9b0", "#fdae6b", "#f0772b", "#c8440e", "#7f2704")  # dark is slow
STRIP = ("#0d2a52", "#2f4f7f", "#5d6d84", "#868b85", "#b3a96c", "#dcc74f", "#fdea6b")  # light is large


def write(graph) -> str:
    """The DOT text of a Graph. Node ids are n0, n1, ... in the order of recording."""
    writer = Writer(graph)
    body = [*writer.body(), *writer.arrows(), "}"]  # the legend, in the head, says what is in them
    return sized("\n".join([*writer.head(), *body]) + "\n", writer.size)


def sized(text: str, size: float) -> str:
    """The DOT text with titles of ``size`` points, and small lines as much larger as these."""
    return text if size == SIZE else re.sub(
        r'point-size="(\d+)"', lambda m: f'point-size="{int(m[1]) * size / SIZE:g}"', text
    )  # fmt: skip


class Writer:
    def __init__(self, graph):
        self.graph = graph
        self.hottest = max((v.seconds or 0.0 for v in graph.vertices), default=0.0)
        used = {name for v in graph.vertices for name in (v.name, "" if v.is_op else v.title)}
        pair = next((pair for pair in PAIRS if not used & {*pair}), ("a", "b"))
        self.others = {"a": pair[0], "b": pair[1]} | ({"y": "z"} if "y" in pair else {})
        self.size = graph.font_size
        self.strips = False  # whether a heat strip has been drawn

    def head(self):
        graph = self.graph
        yield "digraph tape {"
        yield f"  rankdir={graph.rankdir} fontname={FONT} fontsize={self.size:g} bgcolor=white nodesep=0.3 ranksep=0.4"
        yield f"  labelloc=b label=<{self.legend()}>"
        yield f'  node [shape=box fontname={FONT} fontsize={self.size:g} margin="0.10,0.05" height=0.3]'
        yield f'  edge [fontname={FONT} fontsize={self.size * 10 / SIZE:g} arrowsize=0.7 color="{EDGES["value"][0]}"]'

    def letters(self, vertex) -> dict[str, str]:
        """Other letters for the operands a and b of an op, and for its result, where they are names of the user's."""
        of_two = vertex.primitive is not None and {*"ab"} <= {*vertex.primitive.arguments}
        return self.others if of_two and self.others["a"] != "a" else {}

    # --- clusters and vertices ------------------------------------------------------------------------------

    def body(self):
        """The vertices in their clusters, outer clusters before inner ones. A cluster stands at its first vertex."""
        children: dict[Scope, list[Scope | Vertex]] = {self.graph.root: []}
        seen = {self.graph.root}
        for vertex in self.graph.vertices:
            for scope in vertex.scope.ancestors:
                if scope not in seen:
                    seen.add(scope)
                    children[scope] = []
                    children[scope.parent].append(scope)
            children[vertex.scope].append(vertex)
        places = {"leaf": 0, "constant": 2 if self.graph.rankdir in ("LR", "RL") else 0}  # data below its layers
        children[self.graph.root].sort(key=lambda item: places.get(getattr(item, "kind", ""), 1))
        number = 0
        stack: list[tuple[str, Scope | Vertex | str]] = [("  ", item) for item in reversed(children[self.graph.root])]
        while stack:
            indent, item = stack.pop()
            if isinstance(item, str):
                yield indent + item
            elif isinstance(item, Vertex):
                yield indent + self.vertex(item)
            else:
                yield f"{indent}subgraph cluster_{number} {{"
                yield f"{indent}  {self.cluster(item, number)}"
                number += 1
                stack.append((indent, "}"))
                stack += [(indent + "  ", inner) for inner in reversed(children[item])]

    def cluster(self, scope: Scope, number) -> str:
        fill = CLUSTERS[min(scope.depth - (not scope.virtual), len(CLUSTERS) - 1)]
        style = "filled,rounded,dashed" if scope.virtual else "filled,rounded"
        title = bold(escape(scope.name) + times(scope.count))
        return (
            f'label=<{title}> labelloc=t labeljust=l style="{style}" margin=8 color="#999999" fillcolor="{fill}"'
            f' fontsize={self.size:g} id="scope{number}" class="depth{0 if scope.virtual else scope.depth}"'
            f' tooltip="{quote(scope.path)}"'
        )

    def look(self, vertex) -> str:
        if vertex.is_output and vertex.kind == "op" and self.graph.view != "backward":
            return "output"
        if vertex.kind == "op":
            return "rule" if self.graph.view == "backward" else "backward" if vertex.order else "op"
        return vertex.kind

    def vertex(self, vertex: Vertex) -> str:
        fill, outline, text, more, _ = LOOKS[self.look(vertex)]
        if "time" in self.graph.show and vertex.is_op and self.hottest:
            level = min(int((vertex.seconds or 0.0) / self.hottest * len(HEAT)), len(HEAT) - 1)
            fill, text = HEAT[level], "#ffffff" if level > 3 else "#10202e"
        if vertex.ports:
            more += ' margin="0.06,0.01"'
        if vertex.highlighted:
            outline, more = (
                EDGES["highlight"][0],
                more.replace("penwidth=1.6", "").replace("penwidth=2", "") + " penwidth=3",
            )
        kind = self.look(vertex)
        return (
            f'n{vertex.id} [label=<{self.label(vertex, text)}> {more} fillcolor="{fill}" color="{outline}"'
            f' fontcolor="{text}" id="n{vertex.id}" class="{kind}" tooltip="{quote(self.tooltip(vertex))}"]'
        )

    def label(self, vertex: Vertex, colour: str) -> str:
        """A small table: the title of the vertex, then one line per fact."""
        if vertex.kind == "sum":
            return bold("+" if vertex.contributions == 2 else f"{vertex.contributions} +")
        if vertex.kind == "seed":
            return escape(vertex.title)
        quiet = colour if self.look(vertex) == "output" or colour == "#ffffff" else GREY
        rows = self.title_rows(vertex, quiet)
        if vertex.kind == "box":
            rows += self.box_rows(vertex, quiet)
        for array in self.arrays(vertex):
            rows += self.array_rows(array, colour, quiet)
        letters = self.letters(vertex)
        return self.table(rows + self.cost_rows(vertex, quiet), [letters.get(p, p) for p in vertex.ports], quiet)

    def title_rows(self, vertex, quiet):
        title = vertex.title or vertex.kind
        name = [small(escape(vertex.name), quiet, 11)] if vertex.name and vertex.name != vertex.title else []
        arguments = dict(vertex.arguments)
        if symbol := SYMBOLS.get(title) if vertex.kind == "op" else None:
            left, right = (in_brackets(arguments.pop(key, "")) for key in "ab")
            title = small(escape(f"{left} {symbol} {right}".strip()), "", 15)
            title += small(f", {vertex.count} times", quiet) if vertex.count > 1 else ""
        else:
            title = escape(title) + times(vertex.count)
        letters = self.letters(vertex)
        words = [f"{letters.get(key, key)}={value}" for key, value in arguments.items()]
        return [*name, bold(title), *(small(line, quiet) for line in wrap(words))]

    def box_rows(self, vertex, quiet):
        each = " each" if vertex.count > 1 else ""
        yield small(f"{vertex.ops} op{'s' * (vertex.ops != 1)}{each}", quiet)
        if vertex.parameters:
            yield small(f"{vertex.parameters:,} parameters{' in all' if each else ''}", quiet)

    def array_rows(self, array, colour, quiet):
        """Shape and dtype, then the numbers that ``graph.show`` asks for."""
        yield small(escape(self.array_text(array)), quiet)
        if "value" in self.graph.show and array.value is not None:
            yield from self.summary("", array.value, quiet)
        if "gradient" in self.graph.show and array.gradient is not None:
            light = colour if colour == "#ffffff" else GRADIENT_TEXT
            word = "gradient" + ("\n" if "\n" in array.gradient.text else " ")
            yield from self.summary(word, array.gradient, light)

    def cost_rows(self, vertex, quiet):
        """The formula of the derivative, and the cost of the op in bytes and time."""
        show, rows = self.graph.show, []
        if "formula" in show and vertex.formula:
            rows.append(small(escape(to_text(renamed(vertex.formula, self.letters(vertex))), 90), quiet))
        if "saved" in show and vertex.is_op and vertex.saved_bytes:
            shapes = vertex.saved_shapes if vertex.count == 1 else ()  # the bytes are those of all
            first, *others = map(shape_text, shapes or [()])
            words = [f"saves {bytes_text(vertex.saved_bytes)}{': ' * bool(first)}{first}", *others]
            rows += [small(line, quiet) for line in wrap(words)]
        if "time" in show and vertex.seconds is not None:
            rows.append(small(seconds_text(vertex.seconds), quiet))
        return rows

    def arrays(self, vertex) -> list[Array]:
        """The outputs of a vertex. If there are four or more and no numbers are shown, equal ones share a line: 0…7."""
        if len(vertex.arrays) < 4 or self.graph.show & {"value", "gradient"}:
            return vertex.arrays
        alike: dict[tuple, list[Array]] = {}
        for array in vertex.arrays:
            alike.setdefault((array.shape, array.dtype), []).append(array)
        return [
            replace(
                group[0],
                name=", ".join(a.name for a in group) if len(group) < 4 else f"{group[0].name}…{group[-1].name}",
            )
            for group in alike.values()
        ]

    def array_text(self, array) -> str:
        words = [array.name, shape_text(array.shape), array.dtype]
        if "device" in self.graph.show and array.device:
            words.append(f"on {array.device}")
        return " ".join(word for word in words if word)

    def summary(self, word, summary, colour):
        lines = [small(escape(part, 100), colour) for part in broken((word + summary.text).rstrip())]
        if levels := summary.levels():
            self.strips = True
            cell = '<td width="9" height="7" fixedsize="true" bgcolor="{}"></td>'
            cells = "".join(f"<tr>{''.join(cell.format(strip_colour(v)) for v in row)}</tr>" for row in levels)
            wide, high = 9 * len(levels[0]), 7 * len(levels)
            lines.append(
                f'<table border="0" cellborder="0" cellspacing="0" cellpadding="0" fixedsize="true" width="{wide}"'
                f' height="{high}">{cells}</table>'
            )
        return lines

    def table(self, rows, ports, colour) -> str:
        """One row per fact. If the order of the operands matters, each has a port on the side where it arrives."""
        head = '<table border="0" cellborder="0" cellspacing="0" cellpadding="1">'
        if len(rows) == 1 and not ports:
            return rows[0] if not rows[0].startswith("<table") else f"{head}<tr><td>{rows[0]}</td></tr></table>"
        facts = "".join(f"<tr><td>{row}</td></tr>" for row in rows)
        if not ports:
            return f"{head}{facts}</table>"
        cells = [f'<td port="p{i}">{small(escape(name, 20), colour, 9)}</td>' for i, name in enumerate(ports)]
        inner = f"<td>{head}{facts}</table></td>"
        if self.graph.rankdir in ("TB", "BT"):
            row = f"<tr><td>{PORTS}<tr>{''.join(cells)}</tr></table></td></tr>"
            body = f"<tr>{inner}</tr>"
            return f"{head}{row + body if self.graph.rankdir == 'TB' else body + row}</table>"
        upwards = "weight" in ports  # a layer before it lies lower, its parameters above
        column = "".join(f"<tr>{cell}</tr>" for cell in (cells[::-1] if upwards else cells))
        column = f"<td>{PORTS}{column}</table></td>"
        return f"{head}<tr>{column + inner if self.graph.rankdir == 'LR' else inner + column}</tr></table>"

    def tooltip(self, vertex) -> str:
        lines = [vertex.scope.path + "/" + vertex.title if vertex.scope.path else vertex.title]
        lines += [array.text for array in vertex.arrays]
        if vertex.line:
            path, _, line = vertex.line.rpartition(":")
            lines.append("recorded at " + path.replace("\\", "/").rpartition("/")[2] + ":" + line)
        if vertex.formula:
            lines.append(to_text(renamed(vertex.formula, self.letters(vertex))))
        if vertex.source:
            lines.append(f"source: {vertex.source}")
        if vertex.is_op and vertex.saved_bytes:
            lines.append(f"saves {bytes_text(vertex.saved_bytes)} for the gradient")
        return "\n".join(lines)

    # --- edges ----------------------------------------------------------------------------------------------

    def arrows(self):
        for i, edge in enumerate(self.graph.edges):
            yield "  " + self.arrow(edge, i)

    def arrow(self, edge: Edge, number: int) -> str:
        kind = "carried" if edge.carried and edge.kind == "value" else edge.kind
        colour, more, _ = EDGES[kind]
        attributes = [f'id="e{number}" class="{edge.kind}"', more]
        tail, head = edge.source, edge.target
        if tail.is_op and head.is_op and not edge.carried:
            attributes.append("weight=3")  # keeps the main path straight; parameters stand beside it
        if edge.kind == "gradient":  # laid out against its direction, so that the inputs stay on their side
            tail, head = head, tail
            attributes.append("dir=back")
            if edge.carried:
                attributes.append("constraint=false")
        if edge.highlighted:
            colour = EDGES["highlight"][0]
            attributes.append(EDGES["highlight"][1])
        label = " ".join(word for word in (edge.output, edge.label) if word)
        if edge.carried and edge.kind == "value":
            label = f"{label} next".strip()
        if label:
            attributes.append(f"label=<{small(escape(f' {label} '), colour)}> ")
        attributes.append(f'color="{colour}"')
        port = ""
        if head.ports and edge.argument in head.ports:
            side = {"TB": "n", "BT": "s", "LR": "w", "RL": "e"}[self.graph.rankdir]
            port = f":p{head.ports.index(edge.argument)}:{side}"
        return f"n{tail.id} -> n{head.id}{port} [{' '.join(a for a in attributes if a)}]"

    # --- legend ---------------------------------------------------------------------------------------------

    def legend(self) -> str:
        """A table below the picture, with a swatch for each kind that occurs."""
        looks = dict.fromkeys(self.look(vertex) for vertex in self.graph.vertices)
        cells, ramps = [], []
        for kind in (kind for kind in LOOKS if kind in looks):
            fill, outline, _, more, words = LOOKS[kind]
            if "time" in self.graph.show and kind in ("op", "box", "backward", "rule"):
                continue
            style = ' style="dashed"' if "dashed" in more else ' style="rounded"' if "rounded" in more else ""
            mark = small("+", outline) if kind == "sum" else ""
            swatch = f'<td border="1" width="22" height="12" bgcolor="{fill}" color="{outline}"{style}>{mark}</td>'
            cells.append(f'{swatch}<td align="left">{small(words, GREY)}</td>')
        kinds = dict.fromkeys("carried" if e.carried and e.kind == "value" else e.kind for e in self.graph.edges)
        if any(edge.highlighted for edge in self.graph.edges):
            kinds["highlight"] = None
        for kind in (kind for kind in EDGES if kind in kinds and (kind != "value" or len(kinds) > 1)):
            colour, _, words = EDGES[kind]
            arrow = "- - &gt;" if kind == "gradient" else "&#8212;&gt;"
            cells.append(f'<td><font color="{colour}" point-size="11"><b>{arrow}</b></font></td>'
                         f'<td align="left">{small(words, GREY)}</td>')  # fmt: skip
        if "time" in self.graph.show and self.hottest:
            ramps.append(ramp(HEAT, f"time, up to {seconds_text(self.hottest)}"))
        if self.strips:
            ramps.append(ramp(STRIP, "block means, low to high in each array"))
        wide = 4
        rows = ["".join(cells[i : i + wide]) for i in range(0, len(cells), wide)] + ramps
        table = '<table border="0" cellborder="0" cellspacing="5" cellpadding="0">'
        table += "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"
        lines = [bold(escape(self.graph.title))] if self.graph.title else []
        lines += [small(escape(note, 120), GREY) for note in self.graph.notes]
        lines.append(table)
        body = "".join(f"<tr><td>{line}</td></tr>" for line in lines)
        return f'<table border="0" cellborder="0" cellspacing="2" cellpadding="0">{body}</table>'


# --- text ---------------------------------------------------------------------------------------------------


def escape(text: str, longest: int = LONGEST) -> str:
    """Any text for an HTML-like label: shortened, on one line, and escaped for DOT and XML."""
    return entities(clean(text, longest)) or " "


def quote(text: str, longest: int = 400) -> str:
    """Any text for a quoted attribute. Newlines stay newlines."""
    lines = [clean(line, longest) for line in text.split("\n")]
    return "&#10;".join(entities(line).replace("\\", "\\\\") for line in lines)


def entities(text: str) -> str:
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(letter, entity)
    return text


def clean(text: str, longest: int) -> str:
    """At most ``longest`` printable letters on one line. Line ends and control letters become ``\\n``, ``\\x00``."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def bold(html: str) -> str:
    return f"<b>{html}</b>"


def small(html: str, colour: str = "", size: int = 10) -> str:
    ink = f' color="{colour}"' if colour else ""
    return f'<font point-size="{size}"{ink}>{html}</font>'


def in_brackets(number: str) -> str:
    """An operand beside a sign. A negative one is in brackets."""
    return f"({number})" if number.startswith("-") else number


def ramp(colours, words: str) -> str:
    """A scale of colours for the legend."""
    cell = '<td width="9" height="12" fixedsize="true" bgcolor="{}"></td>'
    head = '<table border="0" cellborder="0" cellspacing="0" cellpadding="0" fixedsize="true"'
    bar = f'{head} width="{9 * len(colours)}" height="12"><tr>{"".join(map(cell.format, colours))}</tr></table>'
    return f'<td colspan="2" align="right">{bar}</td><td colspan="6" align="left">{small(words, GREY)}</td>'


def times(count: int) -> str:
    return f" ×{count}" if count > 1 else ""


def wrap(words, wide: int = 30):
    """Lines of words separated by commas."""
    line = ""
    for word in words:
        if line and len(line) + len(word) > wide:
            yield escape(line + ",")
            line = ""
        line = f"{line}, {word}" if line else word
    if line:
        yield escape(line)


def broken(text: str, wide: int = 34):
    """Lines of ``text``, the long ones cut after commas."""
    for line in text.split("\n"):
        kept = ""
        for part in line.split(", "):
            if kept and len(kept) + len(part) > wide:
                yield kept + ","
                kept = ""
            kept = f"{kept}, {part}" if kept else part
        yield kept


def bytes_text(n: int) -> str:
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if n >= scale:
            return f"{n / scale:.3g} {unit}"
    return f"{n} bytes"


def seconds_text(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns" if seconds else "0 s"


def strip_colour(level: float) -> str:
    if level != level:
        return "#ff00ff"
    return STRIP[min(int(level * len(STRIP)), len(STRIP) - 1)]
