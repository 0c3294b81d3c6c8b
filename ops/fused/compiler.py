"""From a scalar body in restricted Python to a compiled loop: the text of a module, kept on disk with its machine code.

A body is a plain function of floats: arithmetic, comparisons, ``x if c else y``, calls of other such functions, float
constants of its module. Python can run it. numba compiles a text with the body, all that it calls, and the loop around
it. The hash of this one string names the file in the cache, so nothing stale is found there.
"""

import ast
import hashlib
import inspect
import math
import os
import sys
import textwrap
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType

from tinygrad_ms.ops.fused import machine, tiles

__all__: list[str] = []

MODULES = (machine.__name__, tiles.__name__)  # whose functions numba knows by their names


# --- the text -------------------------------------------------------------------------------------------------------


class Text(ast.NodeTransformer):
    """The text of a module with an entry and all that it calls. ``real``: the dtype of its float constants.

    Without that dtype numba would compute in float64.
    """

    def __init__(self, real: str):
        self.real = real
        self.parts: dict[str, str] = {}  # by name; a function comes after those that it calls
        self.names: dict = {}  # meanings of the names in the function that is being written

    def add(self, function) -> str:
        """Write a function, after all functions that it calls. Returns its name in the text."""
        name = f"{function.__module__.rpartition('.')[2]}_{function.__name__}"
        if isinstance(function, BuiltinFunctionType):
            self.parts[name] = f"from {function.__module__} import {function.__name__} as {name}"
        elif name not in self.parts:
            tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
            assert isinstance(tree, ast.FunctionDef)
            tree.name, tree.decorator_list, tree.returns = name, [], None
            tree.args.args[:0], tree.args.posonlyargs = tree.args.posonlyargs, []
            for argument in tree.args.args:
                argument.annotation = None
            if ast.get_docstring(tree):
                del tree.body[0]
            outer, self.names = self.names, function.__globals__
            mark = "looping" if holds_a_loop(tree) else "scalar"
            self.parts[name] = f"@{mark}\n{ast.unparse(ast.fix_missing_locations(self.visit(tree)))}"
            self.names = outer
        return name

    def visit_Constant(self, node):
        if not isinstance(node.value, float):
            return node
        text = repr(node.value) if math.isfinite(node.value) else f"float('{node.value}')"
        return ast.parse(text if self.real == "float64" else f"{self.real}({text})", mode="eval").body

    def visit_Name(self, node):
        return self.named(node, self.names.get(node.id))

    def visit_Attribute(self, node):
        module = self.names.get(node.value.id) if isinstance(node.value, ast.Name) else None
        return self.named(self.generic_visit(node), getattr(module, node.attr, None))

    def named(self, node, value):
        """The text for a name that means a function or a number of a module."""
        if isinstance(value, (FunctionType, BuiltinFunctionType)) and value.__module__ not in MODULES:
            return ast.Name(self.add(value), ast.Load())
        return self.visit_Constant(ast.Constant(value)) if type(value) in (int, float) else node

    def whole(self, entry: str, loop: str = "") -> str:
        """The module; ``entry``: the name of the function that is called from outside; ``loop``: its text if new."""
        if loop:
            self.parts[entry] = loop
        self.parts[entry] = "@entry\n" + self.parts[entry].removeprefix("@looping\n")
        tree = Loops().visit(ast.parse("\n\n".join(self.parts.values())))
        return ast.unparse(ast.fix_missing_locations(tree))


class Loops(ast.NodeTransformer):
    """Writes ``wide_loop(0)`` behind each innermost loop."""

    def visit_For(self, node):
        self.generic_visit(node)
        return node if any(map(holds_a_loop, node.body)) else [node, *ast.parse("wide_loop(0)").body]


def holds_a_loop(node) -> bool:
    return any(isinstance(part, ast.For) for part in ast.walk(node))


# --- the machine code -----------------------------------------------------------------------------------------------


def cache_folder() -> Path:
    """The folder of texts and machine code: $TINYGRAD_MS_CACHE, or a folder in the user's cache."""
    given = os.environ.get("TINYGRAD_MS_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "tinygrad_ms"


def compiled(name: str, text: str, flags: set[str], more=None, **names):
    """The function ``name`` of the text, compiled when it is first called, or found on disk.

    flags: what LLVM may do with float arithmetic: "contract" a product and a sum to one instruction with one rounding,
    "reassoc" add up in any sequence, as vectors have to; this only in functions with a loop. NaN and infinity stay.
    more: a module with further ``intrinsics``. names: what else the text may use.
    """
    import numba
    from numpy import float32, float64

    sources = inspect.getsource(machine) + inspect.getsource(tiles) + inspect.getsource(compiled)
    sources += inspect.getsource(more) if more else ""
    facts = f"# numba {numba.__version__}, {sorted(flags)}\n{sources}"
    key = hashlib.sha256((facts + text).encode()).hexdigest()[:20]
    module = ModuleType(f"tinygrad_ms_{name}_{key}")
    path = stored(cache_folder() / f"{name}_{key}.py", text)
    counts = "empty(" in text  # references, which takes time at every row; without it nothing can be allocated
    common = {"nogil": True, "error_model": "numpy", "_nrt": counts}
    for instructions in (machine, tiles, *([more] if more else [])):
        vars(module).update(instructions.intrinsics())
    vars(module).update(
        float32=float32, float64=float64, __file__=str(path),
        scalar=numba.njit(fastmath=flags - {"reassoc"}, forceinline=True, **common),
        as_written=numba.njit(fastmath=False, forceinline=True, **common),
        looping=numba.njit(fastmath=flags, forceinline=True, **common),
        entry=numba.njit(fastmath=flags, cache=path is not None, **common),
        job=numba.cfunc("void(CPointer(int64))", cache=path is not None, **common), **names,
    )  # fmt: skip
    sys.modules[module.__name__] = module  # numba looks for its cached code under this name
    exec(compile(text, str(path), "exec"), vars(module))
    return vars(module)[name]


def stored(path: Path, text: str) -> Path | None:
    """Write the text to the path and return it; None if nothing can be written."""
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = path.with_suffix(f".{os.getpid()}")
            part.write_text(text, encoding="utf-8")
            part.replace(path)
    except OSError:
        return None
    return path
