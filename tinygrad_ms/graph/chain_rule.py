"""``explain``: the chain rule of a result, worked step by step as in Parr and Howard, section 4.5.

Step 1 names every intermediate variable, step 2 gives the derivative of each with respect to its own
arguments, step 3 multiplies along the paths and adds over them (the total derivative), step 4 is the result.
"""

import re

import numpy

from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.engine.around.gradients import pullbacks
from tinygrad_ms.engine.backward import make_seed
from tinygrad_ms.engine.tape import Constant, Leaf, Node, Output, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.graph.builder import output_name, sent_arguments, show
from tinygrad_ms.graph.latex import to_text
from tinygrad_ms.graph.outputs import LeafNames, tensors
from tinygrad_ms.graph.structure import shape_text
from tinygrad_ms.graph.values import Summary, find_values, is_freed, number, run_backward

FORMS = ("text", "markdown", "latex")
NUMBERS = 6  # arrays of up to so many elements are written out


class Explanation(str):
    """The text; Jupyter shows Markdown and LaTeX as mathematics."""

    form = "text"

    def _repr_markdown_(self):
        return f"```\n{self}\n```" if self.form == "text" else str(self)

    __repr__ = str.__str__


def explain(output, wrt=None, form: str = "text", params=None, gradient=None, max_steps: int = 100) -> Explanation:
    """The worked chain rule of d(output)/d(wrt).

    output: a Tensor on an unfreed tape. A scalar, or ``gradient`` weighs its elements.
    wrt: Tensor(s); by default every leaf that the output was computed from.
    form: "text", "markdown" (formulas between dollar signs) or "latex".
    params: a module or a dict {name: Tensor}: names for the leaves.
    max_steps: raise ValueError for a longer tape.
    Numbers are those of the backward pass itself without its hooks; ``.grad`` is not touched, the tape not freed.
    Raises RuntimeError on a freed tape, ValueError for an unknown form, a long tape, or wrt not on the tape.
    """
    if form not in FORMS:
        raise ValueError(f"explain: form={form!r} is unknown; the forms are {', '.join(FORMS)}")
    if not isinstance(output, Tensor) or output.node is None:
        raise ValueError("explain: the output is not on the tape: nothing it was computed from had requires_grad=True")
    chain = Chain(output, wrt, params, gradient)
    if len(chain.ops) > max_steps:
        raise ValueError(
            f"explain: {len(chain.ops)} intermediate variables are more than max_steps={max_steps};"
            " explain a smaller part, or raise max_steps"
        )
    text = Explanation(WRITERS[form](chain.steps()))
    text.form = form
    return text


class Chain:
    """The variables, derivatives and sums of one backward pass, in LaTeX; the writers turn them into a
    document."""

    def __init__(self, output, wrt, params, gradient):
        tape = tape_of([output.node])
        if is_freed(tape):
            raise RuntimeError(
                "explain: the tape was freed by an earlier backward; explain before it, or retain_graph=True"
            )
        leaves = [node for node in tape if isinstance(node, Leaf)]
        self.targets = leaves if wrt is None else [tensor.node for tensor in tensors(wrt, "wrt", "explain")]
        if any(node is None or node not in tape for node in self.targets):
            raise ValueError("explain: wrt= names a tensor that the output was not computed from")
        self.root, self.names = output.node, LeafNames(params)
        alive = set(self.targets)
        for node in tape:
            if any(isinstance(parent, Node) and parent in alive for parent in node.parents):
                alive.add(node)
        self.ops = [n for n in tape if n in alive and not isinstance(n, Leaf | Output)]
        self.tape, self.alive = tape, alive
        self.values, self.constants = find_values(tape, {output.node: output.data})
        self.seed = make_seed(output, gradient, False, "explain")
        self.received, self.terms = self.run()
        self.symbols = {}
        self.name_variables()

    def run(self):
        """The gradient at every node, and for every node the terms that add up to it: (consumer, array)."""
        watched = run_backward([(self.root, self.seed)], keep=lambda gradient: gradient)
        terms: dict[Node, list[tuple]] = {}
        for node in reversed(self.ops):
            for i, part in sent_arguments(node, watched):
                if node.parents[i] in self.alive:
                    terms.setdefault(node.parents[i], []).append((node, part))
        return watched.received, terms

    # --- names ----------------------------------------------------------------------------------------------

    def name_variables(self):
        taken: set[str] = set()
        count = 0
        for node in self.tape:
            if isinstance(node, Leaf):
                self.symbols[node] = self.leaf_symbol(self.names.of(node), taken)
            elif isinstance(node, Output):
                op = node.parents[0]
                self.symbols[node] = f"{self.symbols[op]}[{output_name(op, node.constants['index'])}]"
            else:
                count += 1
                self.symbols[node] = f"u_{{{count}}}" if count > 9 else f"u_{count}"
        for node in self.tape:
            for parent in node.parents:
                if isinstance(parent, Constant) and parent not in self.symbols:
                    name = self.names.of(parent) or f"c_{len(self.symbols)}"
                    self.symbols[parent] = self.leaf_symbol(name, taken)

    @staticmethod
    def leaf_symbol(name, taken):
        symbol = as_symbol(name) if name else "x"
        while symbol in taken:
            symbol += "'"
        taken.add(symbol)
        return symbol

    def symbol(self, parent):
        return self.symbols[parent] if isinstance(parent, (Node, Constant)) else scientific(show(parent))

    # --- the four steps -------------------------------------------------------------------------------------

    def steps(self):
        """(title, sentence, rows) per step; a row is (LaTeX, remark)."""
        shown = "L" if self.received[self.root].size == 1 else "y"
        known = [(self.symbols[n], self.facts(n)) for n in self.tape if isinstance(n, Leaf)]
        known += [(self.symbols[c], self.facts(c)) for c in self.symbols if isinstance(c, Constant)]
        return [
            ("Given", "", [(f"{symbol} = {value}" if value else symbol, remark) for symbol, (value, remark) in known]),
            ("1. Introduce intermediate variables", "One op each, from the inside out.", self.variables(shown)),
            ("2. Differentiate each with respect to its own arguments",
             f"A bar is the gradient of {shown} with respect to what it stands on.", self.derivatives()),
            ("3. Combine", "Along a path the derivatives multiply; where paths meet they add (total derivative)."
             + " Hooks are left out." * any(node.hooks for node in self.tape), self.combine(shown)),
            ("4. Result", "", self.results(shown)),
        ]  # fmt: skip

    def facts(self, key) -> tuple[str, str]:
        """(number or "", shape in words) of a node or constant."""
        raw = self.constants.get(key) if isinstance(key, Constant) else self.values.get(key, (None,))[0]
        shape = key.shape if key.shape is not None else None
        remark = f"shape {shape_text(shape)}" if shape else ""
        return (written(raw) if raw is not None else ""), remark

    def variables(self, shown):
        rows = []
        for node in self.ops:
            value, remark = self.facts(node) if node.shape is not None else ("", "several outputs")
            latex = f"{self.symbols[node]} = {self.expression(node)}" + (f" = {value}" if value else "")
            if node is self.root:
                latex += rf" \quad ({shown} = {self.symbols[node]})"
            rows.append((latex, remark))
        return rows

    def expression(self, node):
        parts, pattern = [self.symbol(parent) for parent in node.parents], node.plan.primitive.notation
        if pattern and not node.constants and len(set(re.findall(r"\{(\d)\}", pattern))) == len(parts):
            return pattern.format(*map(bracket_negative, parts))
        keywords = [rf"\mathrm{{{plain_name(f'{k}={show(v)}')}}}" for k, v in node.constants.items() if v is not None]
        return rf"\operatorname{{{plain_name(node.op)}}}({', '.join([*parts, *keywords])})"

    def derivatives(self):
        rows = []
        for node in self.ops:
            primitive = node.plan.primitive
            fixed = [
                a for a, p in zip(primitive.arguments, node.parents) if not (isinstance(p, Node) and p in self.alive)
            ]
            formula = substituted(primitive, [self.symbol(p) for p in node.parents], self.symbols[node], fixed)
            if formula:
                rows.append((formula, f"{primitive.name}: {primitive.source}" if primitive.source else primitive.name))
            for i, parent in enumerate(node.parents):
                if isinstance(parent, Node) and parent in self.alive:
                    rows.append(self.derivative(node, i, parent))
        return rows

    def derivative(self, node, i, parent):
        """The local derivative: a number between scalars, else what the rule does with shapes."""
        if node.shape == () and parent.shape == ():
            ones = dict(local_products(node, node.backend.xp.ones((), node.dtype)))
            if i in ones:
                return f"{partial(self.symbols[node], self.symbols[parent])} = {written(ones[i])}", ""
        shapes = [
            shape_text(n.shape) or "a number" if n.shape is not None else "several arrays" for n in (node, parent)
        ]
        flow = rf"{bar(self.symbols[parent])} \leftarrow {bar(self.symbols[node])}"
        return flow, f"the rule takes {shapes[0]} to {shapes[1]}"

    def combine(self, shown):
        rows = []
        for node in reversed(self.tape):
            outputs = self.outputs_of(node)
            if outputs:  # one gradient for each output: they are no terms of a sum
                parts = ", ".join(partial(shown, self.symbols[output]) for output in outputs)
                rows.append((f"{partial(shown, self.symbols[node])} = ({parts})", "one for each output that is used"))
            if node not in self.alive or not (node is self.root or node in self.terms):
                continue
            symbol, g = self.symbols[node], self.received.get(node)
            total = "" if g is None or isinstance(g, dict) else written(g)
            left, terms = partial(shown, symbol), self.terms.get(node, [])
            if node is self.root:
                rows.append((f"{left} = {total or bar(shown)}", "where the backward pass starts"))
                continue
            products = [
                rf"{partial(shown, self.symbols[user])} \cdot {partial(self.symbols[user], symbol)}"
                for user, _ in terms
            ]
            values = [written(part) for _, part in terms]
            latex = f"{left} = {' + '.join(products)}"
            if len(terms) > 1 and all(values):
                latex += f" = {' + '.join(map(bracket_negative, values))}"
            remarks = [f"{len(terms)} terms meet here"] if len(terms) > 1 else []
            remarks += [f"shape {shape_text(node.shape)}"] if node.shape else []
            rows.append((latex + (f" = {total}" if total else ""), ", ".join(remarks)))
        return rows

    def outputs_of(self, op) -> list[Output]:
        """The outputs of an op with several that a gradient comes from."""
        known = self.received if isinstance(self.received.get(op), dict) else ()
        outputs = [node for node in known if isinstance(node, Output) and node.parents[0] is op]
        return sorted(outputs, key=lambda node: node.constants["index"])

    def results(self, shown):
        rows = []
        for node in self.targets:
            g, left = self.received.get(node), partial(shown, self.symbols[node])
            if g is None:
                rows.append((f"{left} = 0", "no path leads there"))
                continue
            latex = left + "".join(f" = {part}" for part in (self.single_path(node), written(g)) if part)
            rows.append((latex, "" if written(g) else f"shape {shape_text(g.shape)}, {Summary(g).text}"))
        return rows

    def single_path(self, node) -> str:
        """The product of all derivatives where one path alone leads from the node to the result."""
        factors: list[str] = []
        here = node
        while here is not self.root:
            terms = self.terms.get(here, [])
            if len(terms) != 1 or len(factors) > 8:
                return ""
            user = terms[0][0]
            if outputs := self.outputs_of(user):
                if len(outputs) > 1:
                    return ""
                user = outputs[0]
            factors.append(partial(self.symbols[user], self.symbols[here]))
            here = user
        return r" \cdot ".join(reversed(factors)) if len(factors) > 1 else ""


def local_products(node, g):
    """(argument, what the rule of ``node`` sends it) for the cotangent ``g`` of its output."""
    saved = node.saved
    for i, rule, positions in node.plan.pullbacks or pullbacks(node, g, saved):
        d = rule(g, *[saved[p] for p in positions])
        if d is not None:
            yield i, d


# --- LaTeX --------------------------------------------------------------------------------------------------


def partial(above: str, below: str) -> str:
    return rf"\frac{{\partial {above}}}{{\partial {below}}}"


def bar(symbol: str) -> str:
    return rf"\bar{{{symbol}}}"


def as_symbol(name: str) -> str:
    """x and W1 are mathematics, fc1.weight is a word."""
    if match := re.fullmatch(r"([A-Za-z])(\d*)", name):
        letter, digits = match.groups()
        return f"{letter}_{{{digits}}}" if len(digits) > 1 else f"{letter}_{digits}" if digits else letter
    return rf"\mathrm{{{plain_name(name)}}}"


def plain_name(name: str, longest: int = 40) -> str:
    """A name with nothing in it that LaTeX, Markdown or HTML would read."""
    kept = re.sub(r"[^\w .,:;=()\-/\[\]]", "·", name[:longest]).replace("_", r"\_")
    return kept if len(name) <= longest else kept + r"\ldots"


def bracket_negative(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def written(raw) -> str:
    """A small array in LaTeX; the empty text for a large one."""
    host = BACKENDS[type(raw)].to_host(raw) if type(raw) in BACKENDS else numpy.asarray(raw)
    if host.size > NUMBERS or not host.size or host.ndim > 2:
        return ""
    if not host.ndim:
        return scientific(number(host[()]))
    rows = host.reshape(1, -1) if host.ndim == 1 else host
    body = r" \\ ".join(" & ".join(scientific(number(value)) for value in row) for row in rows)
    return rf"\begin{{bmatrix}} {body} \end{{bmatrix}}"


def scientific(text: str) -> str:
    mantissa, e, exponent = text.partition("e")
    return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if e and exponent else text


def substituted(primitive, arguments, result, constant=()) -> str:
    """The formula of an op with the variables of this call in the place of its arguments and of y.

    constant: the arguments without a differential; the terms of a sum that hold one are left out.
    """
    symbols = {name: symbol for name, symbol in zip(primitive.arguments, arguments) if len(name) == 1}
    symbols["y"] = result
    symbols |= {name.upper(): symbol for name, symbol in symbols.items()}
    formula = primitive.formula
    for name in constant if len(arguments) > 1 else ():
        if len(name) == 1:
            formula = re.sub(rf" [+-] (?:(?! [+-] |=).)*\bd{name}\b", "", formula)
            formula = re.sub(rf"= (?:(?! [+-] |=).)*\bd{name}\b \+ ", "= ", formula)
    tokens, out, verbatim = re.findall(r"\\[A-Za-z]+|\\.|[A-Za-z]|.", formula), "", False
    for token, following in zip(tokens, [*tokens[1:], ""]):
        if verbatim and token == "}":
            verbatim = False
        elif token in (r"\operatorname", r"\mathrm", r"\text"):
            verbatim = True
        elif not verbatim and token in symbols:
            symbol = symbols[token]
            token = f"{{({symbol})}}" if following == "_" and "_" in symbol else f"{{{symbol}}}"
        out += token
    out = re.sub(r"\{(\d+)\}-1\b", lambda match: str(int(match[1]) - 1), out)
    return out.replace("^{1}", "")


# --- documents ----------------------------------------------------------------------------------------------


def write_text(steps) -> str:
    lines = []
    for title, sentence, rows in steps:
        lines += [title, *([f"  {sentence}"] if sentence else [])]
        for latex, remark in rows:
            lines.append(f"    {to_text(latex)}" + (f"    ({remark})" if remark else ""))
        lines.append("")
    return "\n".join(lines)


def write_markdown(steps) -> str:
    lines = []
    for title, sentence, rows in steps:
        lines += [f"### {title}", "", *([sentence, ""] if sentence else [])]
        lines += [f"- ${latex}$" + (f" ({plain_name(remark, 100)})" if remark else "") for latex, remark in rows]
        lines.append("")
    return "\n".join(lines)


def write_latex(steps) -> str:
    """Sections for a document with amsmath."""
    lines = []
    for title, sentence, rows in steps:
        lines += [rf"\subsection*{{{title}}}", *([sentence] if sentence else []), r"\begin{align*}"]
        body = [f"& {latex}" + (rf" && \text{{{plain_name(remark, 100)}}}" if remark else "") for latex, remark in rows]
        lines += [" \\\\\n".join(body), r"\end{align*}", ""]
    return "\n".join(lines)


WRITERS = {"text": write_text, "markdown": write_markdown, "latex": write_latex}
