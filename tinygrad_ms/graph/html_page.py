"""A self-contained HTML page. It steps through a computation, forward and backward, one node at a time."""

import functools
import importlib.util
import json
import re
import xml.etree.ElementTree as ElementTree
from html import escape
from pathlib import Path

from tinygrad_ms.graph.builder import build
from tinygrad_ms.graph.dot_text import GRADIENT_TEXT, LOOKS, Writer, sized, small
from tinygrad_ms.graph.latex import renamed, to_text
from tinygrad_ms.graph.renderer import draw, find_renderer
from tinygrad_ms.graph.structure import Edge, Vertex, shape_text
from tinygrad_ms.graph.values import number
from tinygrad_ms.graph.worked import (
    Operand,
    cut,
    forward_line,
    in_place,
    is_sum,
    letters,
    result_letter,
    rule_line,
    rule_of,
    written,
)

LONGEST = 80  # the most letters of a name on the page
MATHML = "{http://www.w3.org/1998/Math/MathML}"
HARMLESS = {
    "display", "displaystyle", "scriptlevel", "movablelimits", "stretchy", "fence", "form", "columnalign",
    "columnspacing", "rowspacing", "width", "accent", "mathvariant", "linethickness", "minsize", "maxsize", "separator",
    "lspace", "rspace",
}  # fmt: skip
VALUE_TEXT = "#47484a"  # colour of values in boxes; the page finds the values by it
MANY = 60  # the most vertices for which two directions are tried; more fit the screen in none
BESIDE, BELOW = (1370, 1010), (1904, 600)  # pixels for the picture, with the panel beside it and below it


class Page(str):
    """The text of a page. A notebook shows it in a frame."""

    def _repr_html_(self):
        return (
            f'<iframe srcdoc="{escape(self)}" style="width:100%;height:40rem;border:1px solid #888" allowfullscreen'
            ' title="steps of a computation"></iframe>'
        )

    def __repr__(self):
        return f"<Page: {len(self) / 1e3:.0f} kB of HTML; a notebook shows it, a path writes it>"


def page(outputs, path=None, *, title="Backprop, step by step", depths=None, gradients=None, **options) -> Page:
    """The page as text; with ``path`` it is also written to that file. The page is one file and needs no network.

    On the page, a click on the title of a scope closes all scopes of that depth. The step of a closed scope opens
    them again. The key ``?`` lists the keys.

    outputs, **options: as in ``build`` (params=, fold=, collapse=, max_nodes=, gradient=, values=recording, rankdir=,
    ...). Without ``rankdir`` the picture runs in the direction that shows it larger. A picture with many vertices runs
    downwards.
    depths: the levels of detail that the page offers, each a ``depth`` of ``build``. The default is all levels.
    gradients: whether the boxes show gradients, too, each from its step on. By default they do if all arrays are small.
    Formulas are MathML if latex2mathml is installed, else text. The picture needs a renderer; without one the page
    shows only the steps.
    """
    options = {"values": True, **options}
    directions = [options.pop("rankdir")] if "rankdir" in options else ["TB", "LR"]
    draft = functools.partial(build, outputs, view="both", gradients=True)
    whole = draft(**{**options, "max_nodes": None})
    if depths is None:
        deepest = max((scope.depth for scope in whole.scopes), default=0)
        depths = [None, *range(deepest - 1, -1, -1)]
    levels, sizes = [], set()
    for depth in depths:
        graph = whole if depth is None else draft(depth=depth, **{**options, "max_nodes": None})
        most = options.get("max_nodes", 200)
        if len(graph) in sizes or (most is not None and len(graph) > most):
            continue
        sizes.add(len(graph))
        if not gradients and (gradients is not None or not all_small(graph)):
            graph.show -= {"gradient"}
        levels.append((depth, graph))
    if not levels:
        build(outputs, view="both", **options)  # raises the error that says how to make the graph smaller
    formulas: dict[str, str] = {}
    data = [level_data(number, depth, graph, formulas) for number, (depth, graph) in enumerate(levels)]
    pictures = "\n".join(picture(number, graph, directions) for number, (_, graph) in enumerate(levels))
    parts = {
        "TITLE": escape(clip(title)), "PICTURES": pictures, "LEGEND": legend(graph for _, graph in levels),
        "DATA": json.dumps({"levels": data, "formulas": formulas}).replace("<", "\\u003c"),
        "VALUE": VALUE_TEXT, "GRADIENT": GRADIENT_TEXT,
    }  # fmt: skip
    template = Path(__file__).with_name("page.html").read_text(encoding="utf-8")
    text = Page(re.sub("@@([A-Z]+)@@", lambda match: parts[match[1]], template))
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def all_small(graph) -> bool:
    known = [array.value for vertex in graph.vertices for array in vertex.arrays if array.value is not None]
    return all(summary.small is not None for summary in known)


# --- the picture ------------------------------------------------------------------------------------------------


class PageWriter(Writer):
    """A picture for a projector: one size of text, ops with their numbers, and local derivatives on the edges."""

    def head(self):
        for line in super().head():
            if "labelloc=b" not in line:  # the help of the page shows the legend
                yield line.replace("bgcolor=white", "bgcolor=transparent")

    def title_rows(self, vertex, quiet):
        rows = super().title_rows(vertex, quiet)
        number = f" {small(f'[{vertex.id}]', quiet)}" if vertex.is_op else ""
        return [row + number if row.startswith("<b>") else row for row in rows]

    def array_rows(self, array, colour, quiet):
        """The numbers of a small array, the shape of a large one. The panel of the page shows more."""
        value, gradient = array.value, array.gradient
        if array.name or not (value and value.small is not None and not array.shape):
            yield small(" ".join(filter(None, (array.name, shape_text(array.shape) or "scalar"))), quiet)
        if "value" in self.graph.show and value and value.small is not None:
            yield from self.summary("", value, VALUE_TEXT)
        if "gradient" in self.graph.show and gradient is not None and gradient.small is not None:
            word = "grad" + ("\n" if "\n" in gradient.text else " ")
            yield from self.summary(word, gradient, GRADIENT_TEXT)

    def operands(self, vertex) -> dict[str, str]:
        """The letters of a formula in the picture: names of the user's for operands without a port to say which."""
        names = {e.argument: e.source.title for e in self.graph.edges if e.target is vertex and not vertex.ports}
        return self.letters(vertex) | {letter: name for letter, name in names.items() if len(letter) == 1 == len(name)}

    def arrow(self, edge, number) -> str:
        label, edge.label = edge.label, edge.label or local_text(edge, self.operands(edge.source))
        text = super().arrow(edge, number)
        edge.label = label
        return text

    def dot(self) -> str:
        text = "\n".join([*self.head(), *self.body(), *self.arrows(), "}"]) + "\n"
        return sized(re.sub(r'(point-size="|fontsize=)(9|10|11)\b', r"\g<1>12", text), self.size)


def local_text(edge, letters) -> str:
    """The derivative that multiplies a gradient: its number between scalars, else its formula if that is short."""
    if edge.kind != "gradient" or edge.source.primitive is None or edge.source.count > 1:
        return ""
    if edge.local is not None:
        return f"· {in_place(number(edge.local[()]))}"
    kind, expression = rule_of(edge.source.primitive, edge.argument)
    text = to_text(renamed(f"({expression})" if is_sum(expression) else expression, letters))
    return "" if len(text) > 16 or "_" in text or text == "1" else f"⊙ {text}" if kind == "local" else text


def picture(number, graph, directions) -> str:
    """The SVG of one level, with ids that are unique on the page. Without a renderer it is a sentence."""
    if find_renderer() is None:
        inside = "<p>No picture: no Graphviz renderer was found (pip install graphviz-pure).</p>"
    else:
        drawn = []
        for direction in directions[: 1 if len(graph) > MANY else 2]:
            graph.rankdir = direction
            svg = draw(PageWriter(graph).dot()).decode()
            wide, high = map(float, re.findall(r'viewBox="\S+ \S+ (\S+) (\S+)"', svg)[0])
            drawn.append((max(min(w / wide, h / high) for w, h in (BESIDE, BELOW)), svg))
        svg = max(drawn, key=lambda pair: pair[0])[1]
        needless = r' (xml:space="preserve"|text-anchor="start"|font-family="[^"]*")|<!-- .*? -->\n'
        inside = re.sub(needless, "", svg[svg.index("<svg") :])
        for kind in ("n", "e", "scope", "graph", "node", "edge", "clust", "a_node", "a_edge", "a_clust"):
            inside = inside.replace(f'id="{kind}', f'id="L{number}-{kind}')
    return f'<div class="level" data-level="{number}" hidden>{inside}</div>'


def legend(graphs) -> str:
    """A swatch and a word for each kind of vertex that occurs."""
    looks = {Writer(graph).look(vertex) for graph in graphs for vertex in graph.vertices}
    return " &ensp; ".join(
        f'<span class="look {kind}" style="background:{fill};border-color:{rim}"></span> {words}'
        for kind, (fill, rim, _, _, words) in LOOKS.items()
        if kind in looks
    )


# --- steps ------------------------------------------------------------------------------------------------------


def level_data(number, depth, graph, formulas) -> dict:
    words = "all open" if depth is None else f"depth {depth}" if depth else "all closed"
    deep = 10**6 if depth is None else depth
    return {"id": number, "depth": deep, "words": f"{words}: {len(graph)} nodes", "steps": list(Steps(graph, formulas))}


class Steps:
    """One dict per step of the page: the inputs, each op forwards, the seed, each op backwards, and the leaves."""

    def __init__(self, graph, formulas):
        self.graph, self.formulas, self.letters = graph, formulas, Writer(graph).letters
        self.into: dict[tuple[Vertex, str], list[tuple[Edge, str]]] = {}  # (vertex, kind) -> (edge, its id)
        self.out: dict[tuple[Vertex, str], list[tuple[Edge, str]]] = {}
        for i, edge in enumerate(graph.edges):
            self.into.setdefault((edge.target, edge.kind), []).append((edge, f"e{i}"))
            self.out.setdefault((edge.source, edge.kind), []).append((edge, f"e{i}"))

    def __iter__(self):
        vertices = self.graph.vertices
        given = [v for v in vertices if v.kind in ("leaf", "parameter", "constant")]
        ops = [v for v in vertices if v.is_op]
        yield self.given(given)
        yield from map(self.forward, ops)
        yield from (self.seed(v) for v in vertices if v.kind == "seed")
        for vertex in [*reversed(ops), *(v for v in given if v.kind != "constant")]:
            if (vertex, "gradient") in self.into:
                yield self.backward(vertex)

    def given(self, vertices) -> dict:
        return {
            "phase": "given", "nodes": [f"n{v.id}" for v in vertices], "edges": [], "title": "What is given",
            "text": "Parameters, inputs and constants: where the computation starts.",
            "rows": [row(label(v), array, array.value) for v in vertices for array in v.arrays],
        }  # fmt: skip

    def formula(self, vertex) -> dict:
        """The formula in the letters of the picture, what these letters are, and what is kept for it."""
        letters = self.letters(vertex)
        return {
            "formula": formula_key(renamed(vertex.formula, letters), self.formulas),
            "letters": letters_text(vertex, letters), "saved": saved_rows(vertex, letters),
            "anew": anew(vertex, {edge.argument for edge, _ in self.out.get((vertex, "gradient"), [])}),
        }  # fmt: skip

    def argument(self, edge, vertex) -> str:
        return self.letters(vertex).get(edge.argument, edge.argument)

    def forward(self, vertex) -> dict:
        edges = self.into.get((vertex, "value"), [])
        return {
            "phase": "forward", "nodes": [f"n{vertex.id}"], "edges": [name for _, name in edges],
            "title": label(vertex), "scope": clip(vertex.scope.path), "box": box_name(vertex),
            "text": sentence(vertex, self.letters(vertex)), "line": place(vertex), **self.formula(vertex),
            "rows": [row(" = ".join(filter(None, (self.argument(edge, vertex), label(edge.source)))),
                         source_array(edge), source_array(edge).value) for edge, _ in edges],
            "results": [row(f"= {array.name or 'result'}", array, array.value) for array in vertex.arrays],
            "worked": self.lines({"": forward_line(vertex.primitive, *operands(vertex, edges))}
                                 if is_single(vertex) else {}),
        }  # fmt: skip

    def lines(self, worked) -> list[dict]:
        """For each line in LaTeX that is not empty: its heading, and its key in ``formulas``."""
        for latex in worked.values():
            if latex and latex not in self.formulas:
                signed = re.sub(r"-(\d[\d.]*)", r"{-\1}", latex)  # a sign, without the room around a minus
                self.formulas[latex] = " ".join(map(formula_html, lines_of(signed)))
        return [{"name": name, "line": latex} for name, latex in worked.items() if latex]

    def rule_lines(self, vertex, sent) -> dict[str, str]:
        if not is_single(vertex):
            return {}
        values, constants, result = operands(vertex, self.into.get((vertex, "value"), []))
        g = Operand.of(vertex.arrays[0].gradient)
        return {
            f"to {self.target(edge)}": rule_line(
                vertex.primitive, edge.argument, values, constants, result, g, Operand.of(edge.gradient)
            )
            for edge, _ in sent
        }

    def seed(self, seed) -> dict:
        edges = self.out[seed, "gradient"]
        return {
            "phase": "backward", "nodes": [f"n{seed.id}"], "edges": [name for _, name in edges], "title": "seed",
            "text": "The backward pass starts with the derivative of the result by itself.",
            "rows": [row("gradient", array, array.gradient or array.value, seed.title) for array in seed.arrays],
        }  # fmt: skip

    def backward(self, vertex) -> dict:
        arriving, edges, sums = self.arrivals(vertex)
        sent = self.out.get((vertex, "gradient"), [])
        outputs = len({edge.output for edge in arriving}) > 1
        terms = [
            row(f"from {label(edge.source)}" + f" to {edge.output}" * outputs, None, edge.gradient, several(edge))
            for edge in arriving
        ]
        return {
            "phase": "backward", "nodes": [f"n{v.id}" for v in (vertex, *sums)],
            "edges": [*edges, *(name for _, name in sent)], "title": label(vertex), "scope": clip(vertex.scope.path),
            "text": backward_sentence(vertex, arriving), **self.formula(vertex),
            "box": box_name(vertex), "rows": terms if len(arriving) > 1 else [], "sums": sum_rows(vertex),
            "adds": sum_line(vertex, arriving, self.lines), "worked": self.lines(self.rule_lines(vertex, sent)),
            "results": [row(f"to {self.target(edge)}", None, edge.gradient, several(edge)) for edge, _ in sent],
        }  # fmt: skip

    def arrivals(self, vertex):
        """The gradient edges that end at a vertex, directly or through a sum; the ids of all these edges; the sums."""
        found, names, sums = [], [], []
        for edge, name in self.into[vertex, "gradient"]:
            names.append(name)
            if edge.source.kind == "sum":
                sums.append(edge.source)
                for inner, inner_name in self.into.get((edge.source, "gradient"), []):
                    found.append(inner)
                    names.append(inner_name)
            else:
                found.append(edge)
        return found, names, sums

    def target(self, edge) -> str:
        target = edge.target
        if target.kind == "sum":
            target = self.out[target, "gradient"][0][0].target
        words = label(target)
        return f"{words} (argument {self.argument(edge, edge.source)})" if edge.argument else words


def is_single(vertex) -> bool:
    """Whether a step is one call of one op with one result. A line with numbers can show only such a call."""
    return vertex.primitive is not None and vertex.count == 1 and len(vertex.arrays) == 1


def operands(vertex, edges) -> tuple[dict, dict, Operand]:
    """The arguments of a call by their names, its keywords as text, and its result."""
    arrays = {edge.argument: Operand.of(source_array(edge).value) for edge, _ in edges}
    names = vertex.primitive.arguments or list(arrays)
    given = {name: arrays.get(name) or Operand.plain(vertex.arguments.get(name, "")) for name in names}
    keywords = {name: text for name, text in vertex.arguments.items() if name not in names}
    return given, keywords, Operand.of(vertex.arrays[0].value)


def letters_text(vertex, renames) -> str:
    """Says which letter of the formula stands for which argument, if the names differ."""
    if vertex.primitive is None or not vertex.formula:
        return ""
    bound = {name: to_text(letter) for letter, name in reversed(letters(vertex.primitive).items())}
    words = [f"{letter} is {name}" for name, letter in reversed(bound.items()) if name != letter]
    letter = result_letter(vertex.primitive)
    own = renames.get(letter, letter) if letter in re.findall(r"\\[A-Za-z]+|[A-Za-z]", vertex.formula) else "y"
    return ", ".join([*words, f"{own} is the result"]) if words or own not in "yY" else ""


def saved_rows(vertex, letters) -> list[dict]:
    if vertex.count > 1:
        return []
    return [row(letters.get(name, name), None, summary) for name, summary in vertex.saved]


def anew(vertex, arguments) -> str:
    """A word where the result stands in the rule that is shown, for one of the arguments, and is not kept."""
    kept = {name for name, _ in vertex.saved}
    own = result_letter(vertex.primitive) if kept else ""
    rules = [re.sub(r"\\bar \w", "", rule_of(vertex.primitive, name)[1]) for name in arguments if kept]
    if own in kept or not any(re.search(rf"(?<![a-z\\]){own}(?![a-z])", rule) for rule in rules):
        return ""
    return f"{own} is not kept: the op computes its derivative from what is."


def sum_line(vertex, arriving, lines) -> str:
    """``0.4845 + 0.4845 = 0.9689`` for gradients that meet: the key of its HTML."""
    terms = [written(Operand.of(edge.gradient)) for edge in arriving]
    total = written(Operand.of(vertex.arrays[0].gradient)) if len(vertex.arrays) == 1 else ""
    if len(terms) < 2 or not all(terms) or not total or vertex.count > 1 or any(edge.count > 1 for edge in arriving):
        return ""
    return lines({"": f"{' + '.join([terms[0], *map(in_place, terms[1:])])} = {total}"})[0]["line"]


def sum_rows(vertex) -> list[dict]:
    """The sums of the gradients that arrive. A closed scope has such rows only if one of its gradients is known."""
    if vertex.kind == "box" and all(array.gradient is None for array in vertex.arrays):
        return []
    last = vertex.kind in ("leaf", "parameter")
    return [
        row("gradient of this leaf" if last else f"gradient of {array.name or 'its result'}", array, array.gradient)
        for array in vertex.arrays
    ]


def box_name(vertex) -> str:
    return clip(vertex.title) if vertex.kind == "box" else ""


def several(edge) -> str | None:
    return f"{edge.count} gradients" if edge.count > 1 else None


def source_array(edge):
    arrays = edge.source.arrays
    return next((array for array in arrays if array.name == edge.output), arrays[0])


def label(vertex) -> str:
    times = f" ×{vertex.count}" if vertex.count > 1 else ""
    return clip(vertex.title or vertex.kind) + times + (f" [{vertex.id}]" if vertex.is_op else "")


def row(name, array, summary, text=None) -> dict:
    """A line of the table: name, shape and dtype, numbers as text, heat strip."""
    shape = "" if array is None else f"{shape_text(array.shape) or 'scalar'} {array.dtype}"
    if array is None and summary is not None:
        shape = shape_text(summary.shape) or "scalar"
    numbers = text or (summary.text if summary is not None else "")
    strip = [] if summary is None else ["".join(map(shade, line)) for line in summary.levels()]
    return {"name": name, "shape": shape, "numbers": numbers, "strip": strip}


def shade(level: float) -> str:
    """The number of a colour of the heat strip, or x for a value that is not finite."""
    return str(min(int(level * 7), 6)) if level == level else "x"


def sentence(vertex, letters) -> str:
    arguments = ", ".join(f"{letters.get(key, key)}={value}" for key, value in vertex.arguments.items())
    if vertex.kind == "box":
        text = f"A closed scope with {vertex.ops} op{'s' * (vertex.ops != 1)}" + (
            f" and {vertex.parameters:,} parameters" if vertex.parameters else ""
        )
    else:
        text = f"{vertex.title}({clip(arguments)})" if arguments else ""
    return text + (
        f" It stands for {vertex.count} repetitions; their numbers are not shown." if vertex.count > 1 else ""
    )


def backward_sentence(vertex, arriving) -> str:
    terms = len(arriving)
    met = f"{terms} gradients meet here and are added. " if terms > 1 else ""
    if len(outputs := {edge.output for edge in arriving}) > 1:
        met = f"{terms} gradients arrive, at {len(outputs)} outputs; those of one output are added. "
    elif vertex.kind == "box" and terms > 1 and not vertex.contributions:
        met = f"{terms} gradients arrive. "  # they arrive at different values inside the box
    if vertex.kind in ("leaf", "parameter"):
        return f"{met}Nothing flows on: this is what .grad receives."
    if vertex.kind == "box":
        return f"{met}The gradient flows through the {vertex.ops} op{'s' * (vertex.ops != 1)} of the closed scope."
    kinds = {rule_of(vertex.primitive, name) for name in vertex.primitive.arguments}
    if kinds and kinds <= {("local", "1"), ("", "")} and ("local", "1") in kinds:
        return f"{met}What arrives is handed on as it is: the derivative is 1."
    if any(kind == "local" for kind, _ in kinds):
        return f"{met}What arrives is multiplied by the derivative of {vertex.title}, by the chain rule."
    return f"{met}The rule of {vertex.title} turns the gradient of its result into gradients of its arguments."


def place(vertex) -> str:
    file, _, line = vertex.line.rpartition(":")
    return f"{file.replace(chr(92), '/').rpartition('/')[2]}:{line}" if vertex.line else ""


def clip(text: str) -> str:
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: LONGEST + 1])
    return shown if len(shown) <= LONGEST else shown[: LONGEST - 1] + "…"


# --- formulas ---------------------------------------------------------------------------------------------------


def formula_key(formula, formulas) -> str:
    """The LaTeX of the formula. It is the key of its HTML in ``formulas``."""
    if formula and formula not in formulas:
        parts = re.split(r"(?<=[:,;])\s*\\quad", formula)  # a line may break between them
        formulas[formula] = " ".join(map(formula_html, parts))
    return formula


def lines_of(latex: str) -> list[str]:
    """A long line in pieces, between which it may break: at signs and matrix products outside of brackets."""
    latex = re.sub(r"(?<=[\]}]) (?=\[|\{\\begin)", r" \\, ", latex)
    pieces = [latex]
    for sign in (" = ", r" \odot ", " + ", r" \, "):
        pieces = [("{}" + sign) * (i > 0) + part for piece in pieces for i, part in enumerate(cut(piece, sign))]
    return pieces


def formula_html(latex: str) -> str:
    """MathML where latex2mathml is installed and understands the formula, else text."""
    if importlib.util.find_spec("latex2mathml") is not None:
        from latex2mathml.converter import convert

        try:
            made = convert(re.sub(r"\\[td]?frac(\w)(\w)", r"\\frac{\1}{\2}", latex))
            if is_plain_mathml(made):
                return made
        except Exception:  # if the converter fails, the text below says the same
            pass
    return f"<code>{escape(to_text(latex))}</code>"


def is_plain_mathml(text: str) -> bool:
    """Whether the text has only MathML elements with harmless attributes. Such text may go into the page unchanged."""
    root = ElementTree.fromstring(text)
    return all(
        e.tag.startswith(MATHML + "m") and e.tag != MATHML + "maction" and set(e.attrib) <= HARMLESS
        for e in root.iter()
    )
