"""The reference page: every op with its formula and the source of its rule. It is made from the registry.

``python -m tinygrad_ms ops`` prints the page; docs/reference.md is a copy.
"""

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
import textwrap
from typing import Any

import tinygrad_ms.ops as ops
from tinygrad_ms.engine.primitive import REGISTRY

HEAD = r"""# Reference of all ops

Made from the registry by `python -m tinygrad_ms ops > docs/reference.md`; do not edit it here.

Every public function, `tg.name`, and behind them the primitives that the tape records (in parentheses in
the list). A function without a formula here is made of other ops, and its derivative of theirs. In the
formulas a bar is the gradient of the loss with respect to a variable, d a small change, a bracket [a > b]
is 1 where the condition holds and else 0, a circle the elementwise product. The rules are shown as the
source has them: `g` is the gradient with respect to the result (of several results a tuple), `y` the
result, `x_shape` the shape of the argument x, and `needed` says which arguments want a gradient. The engine
sums over axes that were broadcast. The JVP rules stand beside them in the source.

Sources: The source is Su Jianlin, [The derivative of msign](https://spaces.ac.cn/archives/11025); Parr and
Howard, [The Matrix Calculus You Need For Deep Learning](https://arxiv.org/abs/1802.01528); Microsoft
ai-edu, Derivatives of basic functions; AIDIY, Matrix derivatives; Giles 2008, [Collected matrix derivative
results for forward and reverse mode algorithmic
differentiation](https://people.maths.ox.ac.uk/gilesm/files/NA-08-01.pdf). The other works are named in full
in the files.
"""


def as_math(formula: str) -> str:
    """A formula as Markdown."""
    return f"```math\n{formula}\n```"


def page() -> str:
    """The page of all ops, in Markdown."""
    topics = [topic for topic in map(_Topic, _modules()) if topic.entries]
    contents = [f"- [{topic.file}](#{_anchor(topic.file)}): {', '.join(topic.links)}" for topic in topics]
    parts = [HEAD, "\n".join(contents) + "\n"]
    for topic in topics:
        parts.append(f"## {topic.file}\n\n{topic.about}\n")
        parts += [text + "\n" for text in topic.entries.values()]
    return "\n".join(parts).rstrip() + "\n"


def entry(name: str, show=as_math) -> str:
    """The part of the page about one op, in Markdown: the public function, or else the primitive of that name.

    show: makes Markdown of a formula in LaTeX. Raises ValueError for an unknown name.
    """
    function = getattr(ops, name, None) if name in ops.__all__ else None
    primitive: Any = getattr(function, "primitive", None) or REGISTRY.get(name)
    if function is None and primitive is None:
        raise ValueError(f"ops: there is no op named {name!r}; `python -m tinygrad_ms ops` shows them all")
    if function is not None and function.__name__ != name:
        return f"### {name}\n\nAnother name of `{function.__name__}`."
    what = function or primitive.op
    about = [_first_paragraph(what)]
    if primitive is not None:
        about.append(show(primitive.formula))
        facts = [_rule(primitive)] if primitive.differentiable else ["No derivative."]
        facts += [f"Source: {primitive.source}."] if primitive.source else []
        facts += [f"Notes: {primitive.notes.rstrip('.')}."] if primitive.notes else []
        if function is None:
            module = primitive.forward.__module__
            facts.append(f"Not public: behind the functions of {_file(module)}." if _public(module) else "Not public.")
        about.append("\n".join(f"- {fact}" for fact in facts))
    signature = f"```python\n{name}{plain_signature(what)}\n```"
    return "\n\n".join([f"### {name}", signature, *about])


# --- topics -----------------------------------------------------------------------------------------------


def _modules():
    names = sorted(module.name for module in pkgutil.walk_packages(ops.__path__, f"{ops.__name__}."))
    return [importlib.import_module(name) for name in names]


class _Topic:
    """One file of ops/: its public functions in alphabetical order, then its primitives that are not public."""

    def __init__(self, module):
        self.file = _file(module.__name__)
        self.about = _first_paragraph(module)
        public = _public(module.__name__)
        primitives = [name for name, p in REGISTRY.items() if p.forward.__module__ == module.__name__]
        behind = [name for name in primitives if name not in ops.__all__]
        self.entries = {name: entry(name) for name in (*public, *behind)}
        self.links = [f"[{name}](#{name})" for name in public] + [f"([{name}](#{name}))" for name in behind]


def _public(module: str) -> list[str]:
    """The public functions of a file in alphabetical order."""
    return sorted(name for name in ops.__all__ if getattr(ops, name).__module__ == module)


def _file(module: str) -> str:
    return f"{module.removeprefix('tinygrad_ms.').replace('.', '/')}.py"


def _anchor(heading):
    """The anchor that GitHub gives to a heading."""
    return "".join(c for c in heading.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def _first_paragraph(documented) -> str:
    """The first paragraph of a docstring in one line, with single backquotes instead of double ones."""
    paragraph = (inspect.getdoc(documented) or "").split("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`")


def plain_signature(function) -> inspect.Signature:
    """The signature without annotations."""
    signature = inspect.signature(function)
    parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=parameters, return_annotation=signature.empty)


# --- rules as the source has them -------------------------------------------------------------------------

_RULES = ("derivative", "rule", "transpose", "vjp")  # the parameters of decorators and rows that hold a VJP rule


def _rule(primitive) -> str:
    """The VJP rule: an expression for each argument. If a rule is a function, its source follows."""
    module = sys.modules[primitive.forward.__module__]
    keyword = _rule_keyword(_definitions(module)[primitive.forward.__name__], module)
    rules: list[Any] = keyword.value.elts if isinstance(keyword.value, ast.Tuple) else [keyword.value]
    arguments = primitive.arguments or [primitive.variadic]
    expressions, sources = [], []
    for argument, rule in zip(arguments, rules):
        if isinstance(rule, ast.Lambda):
            parameters, expression = [p.arg for p in rule.args.args], ast.unparse(rule.body)
        elif isinstance(rule, ast.Constant):  # None: no gradient
            continue
        else:
            function = vars(module)[rule.id]
            parameters = list(inspect.signature(function).parameters)
            expression = f"{rule.id}({', '.join(parameters)})"
            sources.append(inspect.getsource(function).rstrip())
        which = arguments if parameters[:1] == ["needed"] else [argument]
        alone = len(which) == len(arguments) == 1
        expressions.append(f"`{expression}`" if alone else f"for {', '.join(which)} `{expression}`")
    kind = "Derivative" if keyword.arg == "derivative" else "VJP"
    code = [textwrap.indent(f"\n```python\n{source}\n```", "  ") for source in dict.fromkeys(sources)]
    return "\n".join([f"{kind}: {'; '.join(expressions)}", *code])


@functools.cache
def _definitions(module) -> dict[str, ast.AST]:
    """Name -> definition of each function of a file: the decorator above a function, or the call of a table row."""
    found: dict[str, ast.AST] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node.decorator_list[0] if node.decorator_list else node
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            found[ast.unparse(target)] = node.value
    return found


def _rule_keyword(definition, module) -> ast.keyword:
    """The argument that holds the rule. If a function of the file makes the decorator, it is found inside it."""
    for keyword in definition.keywords:
        if keyword.arg in _RULES:
            return keyword
    body = ast.walk(_definitions(module)[definition.func.id])
    return next(k for node in body if isinstance(node, ast.Call) for k in node.keywords if k.arg in _RULES)
