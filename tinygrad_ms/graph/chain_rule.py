"""``explain``: the chain rule of a result, worked step by step as in Parr and Howard, section 4.5.

Step 1 names every intermediate variable. Step 2 gives the derivative of each variable with respect to its own
arguments. Step 3 multiplies the derivatives along each path and adds the paths (the total derivative). Step 4 is the
result. Derivatives between small arrays are Jacobians in numerator layout. A Jacobian that has a name, such as I,
diag(x) or 1^T, is shown by its name.
"""

import re

from tinygrad_ms.arrays.registry import host
from tinygrad_ms.cards import there
from tinygrad_ms.engine.backward import make_seed
from tinygrad_ms.engine.tape import Constant, Leaf, Node, Output, tape_of
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.graph.builder import output_name, sent_arguments, show
from tinygrad_ms.graph.jacobians import local_jacobians, name_of, scientific, small, stacked
from tinygrad_ms.graph.latex import renamed, to_text
from tinygrad_ms.graph.outputs import LeafNames, tensors
from tinygrad_ms.graph.structure import shape_text
from tinygrad_ms.graph.values import Summary, find_values, is_freed, number, run_backward, watching
from tinygrad_ms.graph.worked import cut, letters, result_letter

FORMS = ("text", "markdown", "latex")
NUMBERS = 6  # an array with at most so many elements is written out
WRITTEN = 16  # a Jacobian with a name is written out, too, if it has at most so many elements


class Explanation(str):
    """The text of an explanation. Jupyter shows it as Markdown, unless ``form`` names another form."""

    shown = ""

    def _repr_markdown_(self):
        return self.shown

    __repr__ = str.__str__


def explain(output, wrt=None, form: str | None = None, params=None, gradient=None, max_steps: int = 100) -> Explanation:
    """The worked chain rule of d(output)/d(wrt).

    output: a Tensor on a tape that is not freed. It is a scalar, or ``gradient`` weighs its elements, or it has at
        most 6 elements; then the derivatives are Jacobians with one row per element of the output.
    wrt: Tensor(s); by default every leaf that the output was computed from.
    form: "text", "markdown" (formulas between dollar signs) or "latex" (for a document with amsmath). The default is
        text, which a notebook shows as Markdown.
    params: a module or a dict {name: Tensor}: names for the leaves.
    max_steps: more intermediate variables than that raise ValueError.
    The numbers come from the backward pass itself, without hooks. ``.grad`` stays as it is, and the tape is not freed.
    Raises RuntimeError for a freed tape, and ValueError for an unknown form, too many variables, or a ``wrt`` that is
    not on the tape.

    >>> x = tg.tensor(3.0, requires_grad=True, name="x")
    >>> print(str(tg.explain(x * x)).strip().splitlines()[-1].strip())
    ∂L/∂x = 6
    """
    if form not in (None, *FORMS):
        raise ValueError(f"explain: form={form!r} is unknown; the forms are {', '.join(FORMS)}")
    if not isinstance(output, Tensor) or output.node is None:
        raise ValueError("explain: the output is not on the tape: nothing it was computed from had requires_grad=True")
    chain = there(Chain, output)(output, wrt, params, gradient)
    if len(chain.ops) > max_steps:
        raise ValueError(
            f"explain: {len(chain.ops)} intermediate variables are more than max_steps={max_steps};"
            " explain a smaller part, or raise max_steps"
        )
    steps = chain.steps()
    text = Explanation(WRITERS[form or "text"](steps))
    text.shown = write_markdown(steps) if form in (None, "markdown") else f"```{form}\n{text}\n```"
    return text


class Chain:
    """The variables, derivatives and sums of one backward pass in LaTeX. The writers make a document of them."""

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
        self.rows = small(output.shape) if gradient is None else 1  # the rows of each Jacobian of the output
        if self.rows > 1:
            seeds = [row.reshape(output.shape) for row in output.node.backend.xp.eye(self.rows, dtype=output.dtype)]
        else:
            seeds = [there(make_seed, output)(output, gradient, False, "explain")]
        self.received, self.terms = self.run(seeds)
        with watching():
            self.jacobians = {key: matrix for node in self.ops for key, matrix in local_jacobians(node)}
        self.symbols = {}
        self.vectors = False  # whether one of the variables is a product of arrays
        self.name_variables()

    def run(self, seeds):
        """The gradient at every node, and for every node the terms of that gradient: (consumer, argument, array)."""
        runs = [run_backward([(self.root, seed)], keep=lambda gradient: gradient) for seed in seeds]
        received = {n: stacked([run.received.get(n) for run in runs]) for n in self.tape if n in runs[0].received}
        terms: dict[Node, list[tuple]] = {}
        for node in reversed(self.ops):
            sent = [dict(sent_arguments(node, run)) for run in runs]
            for i in sent[0]:
                if node.parents[i] in self.alive:
                    terms.setdefault(node.parents[i], []).append((node, i, stacked([part.get(i) for part in sent])))
        return received, terms

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
        """(title, sentence, rows) for each step. A row is (LaTeX, remark)."""
        shown = "L" if self.received[self.root].size == 1 else "y"
        variables, derivatives = self.variables(shown), self.derivatives()
        first = "One op each, from the inside out."
        if self.vectors:
            first += r" $\odot$ multiplies element by element (Parr and Howard write $\otimes$),"
            first += r" $\cdot$ between vectors is the dot product."
        layout = " Between arrays a derivative is a Jacobian: a row for each element above, a column for each below."
        return [
            ("Given", "", self.givens()),
            ("1. Introduce intermediate variables", first, variables),
            ("2. Differentiate each with respect to its own arguments",
             f"A bar is the gradient of {shown} with respect to what it stands on."
             + layout * any(max(matrix.shape) > 1 for matrix in self.jacobians.values()), derivatives),
            ("3. Combine", "Along a path the derivatives multiply; where paths meet they add (total derivative)."
             + " Hooks are left out." * any(node.hooks for node in self.tape), self.combine(shown)),
            ("4. Result", "", self.results(shown)),
        ]  # fmt: skip

    def givens(self):
        rows = []
        for key in [n for n in self.tape if isinstance(n, Leaf)] + [c for c in self.symbols if isinstance(c, Constant)]:
            (value, remark), name = self.facts(key), self.names.of(key)
            words = [name] if name and short_symbol(name) else []
            rows.append(
                (self.symbols[key] + (f" = {value}" if value else ""), ", ".join([*words, *filter(None, [remark])]))
            )
        return rows

    def facts(self, key) -> tuple[str, str]:
        """(numbers or "", shape in words) of a node or constant."""
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
        shapes = [getattr(parent, "shape", ()) for parent in node.parents]
        product = {"multiply": r"{0} \odot {1}", "matmul": r"{0} \cdot {1}"}.get(node.op)
        if product and all(shapes) and (node.op == "multiply" or set(map(len, shapes)) == {1}):
            pattern, self.vectors = product, True
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
                source = f": {primitive.source}" if primitive.source else ""
                rows.append((formula, primitive.name + source))
            for i, parent in enumerate(node.parents):
                if isinstance(parent, Node) and parent in self.alive:
                    rows.append(self.derivative(node, i, parent))
        return rows

    def derivative(self, node, i, parent):
        """The local derivative: a number or a Jacobian. Between large arrays it is the shapes that the rule maps."""
        if (node, i) in self.jacobians:
            matrix, name = self.jacobians[node, i], self.jacobian_name(node, i)
            numbers = written(matrix, WRITTEN if name else matrix.size)
            told = matrix.size == 1 or re.search(r"diag}\(-?\d", name)  # the name already shows all numbers
            parts = [partial(self.symbols[node], self.symbols[parent]), name, "" if told else numbers]
            remark = "its elements row by row" if len(parent.shape) > 1 and min(parent.shape) > 1 else ""
            return " = ".join(part for part in parts if part), remark
        shapes = [
            shape_text(n.shape) or "a number" if n.shape is not None else "several arrays" for n in (node, parent)
        ]
        flow = rf"{bar(self.symbols[parent])} \leftarrow {bar(self.symbols[node])}"
        return flow, f"the rule takes {shapes[0]} to {shapes[1]}"

    def jacobian_name(self, node, i) -> str:
        """The name of a Jacobian: 1^T, diag(x) or W; its number if it is 1 x 1; "" if it has no name."""
        matrix = self.jacobians[node, i]
        if matrix.size == 1:
            return written(matrix[0, 0])
        known = [
            (self.symbols[p], self.values.get(p, (None,))[0]) for p in (*node.parents, node) if isinstance(p, Node)
        ]
        known += [(self.symbols[p], self.constants.get(p)) for p in node.parents if isinstance(p, Constant)]
        return name_of(matrix, [(symbol, host(raw)) for symbol, raw in known if raw is not None])

    def multiplied(self, user, i) -> str:
        """The gradient that arrives at ``user`` times its Jacobian, in numbers; "" unless both are small rows."""
        matrix, arrives = self.jacobians.get((user, i)), self.received.get(user)
        shapes = [tuple(node.shape or ()) for node in (user, user.parents[i])]
        flat = all(
            shape[-1:] in ((), (small(shape),)) for shape in shapes
        )  # then the arrays are rows, and what is written is a matrix product
        if matrix is None or matrix.size == 1 or arrives is None or not flat:
            return ""
        rows = host(arrives).reshape(-1, matrix.shape[0])
        left = written(rows, WRITTEN) + r" \, " if rows.size > 1 else bracket_negative(written(rows[0, 0])) + r" \cdot "
        right = written(matrix, WRITTEN)
        return left + right if right and rows.size <= WRITTEN else ""

    def combine(self, shown):
        rows = []
        for node in reversed(self.tape):
            outputs = self.outputs_of(node)
            if outputs:  # each output has its own gradient; they are not terms of one sum
                parts = ", ".join(partial(shown, self.symbols[output]) for output in outputs)
                rows.append((f"{partial(shown, self.symbols[node])} = ({parts})", "one for each output that is used"))
            if node not in self.alive or not (node is self.root or node in self.terms):
                continue
            symbol, g = self.symbols[node], self.received.get(node)
            total = "" if g is None or isinstance(g, dict) else self.write(g)
            left, terms = partial(shown, symbol), self.terms.get(node, [])
            if node is self.root:
                rows.append((f"{left} = {total or bar(shown)}", "where the backward pass starts"))
                continue
            products = [
                rf"{partial(shown, self.symbols[user])} \cdot {partial(self.symbols[user], symbol)}"
                for user, _, _ in terms
            ]
            values = [self.write(part) for _, _, part in terms]
            latex = f"{left} = {' + '.join(products)}"
            if len(terms) == 1 and total and (numbers := self.multiplied(*terms[0][:2])):
                latex += f" = {numbers}"
            if len(terms) > 1 and all(values):
                latex += f" = {' + '.join(map(bracket_negative, values))}"
            remarks = [f"{len(terms)} terms meet here"] if len(terms) > 1 else []
            remarks += [f"shape {shape_text(node.shape)}"] if node.shape and self.rows < 2 else []
            rows.append((latex + (f" = {total}" if total else ""), ", ".join(remarks)))
        return rows

    def outputs_of(self, op) -> list[Output]:
        """Those outputs of ``op``, an op with several outputs, that have a gradient."""
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
            latex = left + "".join(f" = {part}" for part in (*self.single_path(node), self.write(g)) if part)
            rows.append((latex, "" if self.write(g) else f"shape {shape_text(g.shape)}, {Summary(g).text}"))
        return rows

    def write(self, raw) -> str:
        return written(raw, NUMBERS if self.rows < 2 else NUMBERS * NUMBERS)

    def single_path(self, node) -> tuple[str, ...]:
        """The product of the derivatives along the only path from the node to the result, and that of their names."""
        factors: list[str] = []
        names: list[str] = []
        here = node
        while here is not self.root:
            terms = self.terms.get(here, [])
            if len(terms) != 1 or len(factors) > 8:
                return ()
            user, i, _ = terms[0]
            names.append(self.jacobian_name(user, i) if (user, i) in self.jacobians else "")
            if outputs := self.outputs_of(user):
                if len(outputs) > 1:
                    return ()
                user = outputs[0]
            factors.append(partial(self.symbols[user], self.symbols[here]))
            here = user
        telling = all(names) and any(not re.fullmatch(r"[-\d.]+", name) for name in names)
        chains = [factors] * (len(factors) > 1) + [names] * telling
        return tuple(r" \cdot ".join(map(bracket_negative, reversed(chain))) for chain in chains)


# --- LaTeX --------------------------------------------------------------------------------------------------


def partial(above: str, below: str) -> str:
    return rf"\frac{{\partial {above}}}{{\partial {below}}}"


def bar(symbol: str) -> str:
    return rf"\bar{{{symbol}}}"


def short_symbol(name: str) -> str:
    """W or b with an index for a parameter of a layer; "" for other names."""
    match = re.fullmatch(r"([\w.]+)\.(weight|bias)", name)
    if not match:
        return ""
    index = match[1] if len(match[1]) == 1 else rf"{{\mathrm{{{plain_name(match[1])}}}}}"
    return ("W_" if match[2] == "weight" else "b_") + index


def as_symbol(name: str) -> str:
    """A name in LaTeX: x and W1 as mathematics, fc1.weight as W with an index, other names as words."""
    if short := short_symbol(name):
        return short
    if match := re.fullmatch(r"([A-Za-z])(\d*)", name):
        letter, digits = match.groups()
        return f"{letter}_{{{digits}}}" if len(digits) > 1 else f"{letter}_{digits}" if digits else letter
    return rf"\mathrm{{{plain_name(name)}}}"


def plain_name(name: str, longest: int = 40) -> str:
    """A name without letters that have a meaning in LaTeX, Markdown or HTML."""
    kept = re.sub(r"[^\w .,:;=()\-/\[\]]", "·", name[:longest]).replace("_", r"\_")
    return kept if len(name) <= longest else kept + r"\ldots"


def bracket_negative(text: str) -> str:
    return f"({text})" if text.startswith("-") else text


def written(raw, most: int = NUMBERS) -> str:
    """A small array in LaTeX; "" for a large one."""
    array = host(raw)
    if array.size > most or not array.size or array.ndim > 2:
        return ""
    if not array.ndim:
        return scientific(number(array[()]))
    rows = array.reshape(1, -1) if array.ndim == 1 else array
    body = r" \\ ".join(" & ".join(scientific(number(value)) for value in row) for row in rows)
    return rf"\begin{{bmatrix}} {body} \end{{bmatrix}}"


def without(total: str, name: str) -> str:
    """A sum of differentials without the terms in that of ``name``, where others are left."""
    if found := re.fullmatch(r"\\frac\{([^{}]*)\}(\{[^{}]*\})", total):
        return rf"\frac{{{without(found[1], name)}}}{found[2]}"
    kept = ""
    for part in cut(total, " + ") if "cases" not in total else ():
        for j, term in enumerate(cut(part, " - ")):
            if not re.search(rf"\bd{name}\b", term):
                kept += (" - " if j else " + " if kept else "") + term
    return kept.replace(" - ", "-", 1) if kept.startswith(" - ") else kept or total


def substituted(primitive, arguments, result, constant=()) -> str:
    """The formula of an op, with the variables of this call instead of its arguments and y.

    constant: the arguments that have no differential. The terms with their differentials are left out.
    """
    given, own = dict(zip(primitive.arguments, arguments)), result_letter(primitive)
    symbols = {letter: given[name] for letter, name in letters(primitive).items() if name in given}
    symbols |= {own.lower(): result, own.upper(): result}
    left, equals, right = primitive.formula.rpartition(" = ")
    for name in constant if len(arguments) > 1 else ():
        right = without(right, name)
    formula = left + equals + right
    out = renamed(formula, symbols)
    out = re.sub(r"\{(\d+)\}-1\b", lambda match: str(int(match[1]) - 1), out)
    return out.replace("^{1}", "")


# --- documents ----------------------------------------------------------------------------------------------


def write_text(steps) -> str:
    lines = []
    for title, sentence, rows in steps:
        sentence = re.sub(r"\$(.+?)\$", lambda match: to_text(match[1]), sentence)
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
