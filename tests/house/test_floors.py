"""Each room of the house imports only from floors below it, in no circles; only arrays/registry knows CuPy.

The floors, from the bottom:

0. `_version`; `float_errors`: how NumPy treats them; `lines`: of source files; `locks`: that a fork can use; `options`:
   numbers as options; `parameters`: of functions; `sole`: whether an array has one owner; `spelling`: PyTorch's names;
   `surroundings`: what must surround a call that runs again; `tree`: nested containers; above them `random`: the
   generator that initial values and masks come from, and `scopes`: names of the places where ops are recorded
1. `arrays`: which array library an array belongs to; above it `cards`: machines with several cards, `precision`: of
   their products, `launches`: products and kernels of one launch, and `world`: the ranks of a job
2. `engine`: Tensor and tape
3. `ops`: the primitives; `dlpack`: arrays of other libraries; above it `stacked`: backward for many cotangents at once
4. `nn`, `optim`, `graph`, `data`, `testing`, `transforms`, `serialization`, `anomaly`, `reference`, `own_primitives`
5. `replay`: record once, run many; `distributed`: several processes; `interop`: inside PyTorch and JAX; `notebook`,
   `rules`; `doctor`: of this machine; `moved`: where old paths lead
6. `tinygrad_ms` itself: the public names; above it `learn`, exercises, and `play`, a playground, which use them as
   everybody does, `api`, the pages of their docstrings, and `__main__`, the command line
"""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = {
    "tinygrad_ms._version": 0,
    "tinygrad_ms.float_errors": 0,
    "tinygrad_ms.lines": 0,
    "tinygrad_ms.locks": 0,
    "tinygrad_ms.options": 0,
    "tinygrad_ms.parameters": 0,
    "tinygrad_ms.random": 0.5,
    "tinygrad_ms.scopes": 0.5,
    "tinygrad_ms.sole": 0,
    "tinygrad_ms.spelling": 0,
    "tinygrad_ms.surroundings": 0,
    "tinygrad_ms.tree": 0,
    "tinygrad_ms.arrays": 1,
    "tinygrad_ms.cards": 1.5,
    "tinygrad_ms.launches": 1.7,
    "tinygrad_ms.precision": 1.6,
    "tinygrad_ms.world": 1.5,
    "tinygrad_ms.engine": 2,
    "tinygrad_ms.dlpack": 3,
    "tinygrad_ms.ops": 3,
    "tinygrad_ms.stacked": 3.5,
    "tinygrad_ms.nn": 4,
    "tinygrad_ms.optim": 4,
    "tinygrad_ms.graph": 4,
    "tinygrad_ms.data": 4,
    "tinygrad_ms.testing": 4,
    "tinygrad_ms.transforms": 4,
    "tinygrad_ms.serialization": 4,
    "tinygrad_ms.anomaly": 4,
    "tinygrad_ms.profiler": 4,
    "tinygrad_ms.reference": 4,
    "tinygrad_ms.own_primitives": 4,
    "tinygrad_ms.interop": 5,
    "tinygrad_ms.replay": 5,
    "tinygrad_ms.distributed": 5,
    "tinygrad_ms.notebook": 5,
    "tinygrad_ms.rules": 5,
    "tinygrad_ms.doctor": 5,
    "tinygrad_ms.moved": 5,
    "tinygrad_ms": 6,
    "tinygrad_ms.learn": 6.5,
    "tinygrad_ms.play": 6.5,
    "tinygrad_ms.api": 6.5,
    "tinygrad_ms.__main__": 7,
}


def library_files():
    """{module name: path} of everything that is installed."""
    files = {}
    for top, name in ((ROOT / "tinygrad_ms", "tinygrad_ms"), (ROOT / "ops", "tinygrad_ms.ops")):
        for path in top.rglob("*.py"):
            parts = path.relative_to(top).with_suffix("").parts
            if parts[0] != "ops":  # the symlink, which some versions of Python follow here
                files[".".join((name, *(part for part in parts if part != "__init__")))] = path
    return files


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def named_in(argument):
    """The module that ``import_module(argument)`` names, as far as the source says: what is computed is ``?``."""
    parts = argument.values if isinstance(argument, ast.JoinedStr) else [argument]
    return "".join(part.value if isinstance(part, ast.Constant) else "?" for part in parts)


def imports(path, modules):
    """(name of what is imported, line, whether it happens when the file is imported) for each import in a file."""

    def walk(node, at_once):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, at_once
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{module}.{alias.name}"
                yield (whole if whole in modules else module), node.lineno, at_once
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield named_in(node.args[0]), node.lineno, at_once
        inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        children = node.orelse if is_type_checking(node) else ast.iter_child_nodes(node)
        for child in children:
            yield from walk(child, at_once and not inside)

    return list(walk(ast.parse(path.read_text(encoding="utf-8"), str(path)), True))


FILES = library_files()
IMPORTS = {module: imports(path, FILES) for module, path in FILES.items()}


def room(module):
    """The longest name in FLOORS that `module` lies in; the top package holds nothing but itself."""
    names = [name for name in FLOORS if module == name or module.startswith(name + ".") and name != "tinygrad_ms"]
    assert names, f"{module} is in no room: add it to FLOORS (and to design and setup.cfg if it is a new package)"
    return max(names, key=len)


def is_ours(name):
    return name == "tinygrad_ms" or name.startswith("tinygrad_ms.")


def test_the_walk_sees_the_library():
    assert {"tinygrad_ms", "tinygrad_ms.ops.elementwise", "tinygrad_ms.engine.tensor"} <= FILES.keys()
    assert any(name == "tinygrad_ms.arrays.registry" for name, _, _ in IMPORTS["tinygrad_ms.engine.tensor"])


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_run_downstairs(module):
    here = room(module)
    for name, line, _ in IMPORTS[module]:
        assert not name.startswith("."), f"{FILES[module]}:{line}: import by the full path, not {name}"
        if is_ours(name) and room(name) != here:
            assert FLOORS[room(name)] < FLOORS[here], (
                f"{FILES[module]}:{line}: {here} (floor {FLOORS[here]}) imports {name} (floor {FLOORS[room(name)]})"
            )


def test_no_circles():
    graph = {
        module: {name for name, _, _ in found if name in FILES and name != module} for module, found in IMPORTS.items()
    }
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail("modules import each other in a circle: " + " <- ".join(error.args[1]))
    assert set(order) >= FILES.keys()


def test_only_two_modules_import_cupy():
    users = {
        module
        for module, found in IMPORTS.items()
        for name, _, _ in found
        if name.split(".")[0] in ("cupy", "cupyx", "cupy_backends")
    }
    assert users <= {"tinygrad_ms.arrays.registry", "tinygrad_ms.launches.cuda"}


BRIDGES = {"tinygrad_ms.interop.torch": "torch", "tinygrad_ms.interop.jax": "jax"}  # imported by their users alone


@pytest.mark.parametrize("module", sorted(FILES))
def test_at_import_nothing_but_numpy_and_the_standard_library(module):
    for name, line, at_once in IMPORTS[module]:
        top = name.split(".")[0]
        known = ("numpy", "tinygrad_ms", BRIDGES.get(module))
        assert not at_once or top in sys.stdlib_module_names or top in known, (
            f"{FILES[module]}:{line}: import {name} inside the function that needs it"
        )


def test_nothing_imports_the_bridges():
    users = {module: {name for name, _, _ in found} & BRIDGES.keys() for module, found in IMPORTS.items()}
    assert not any(users.values()), users


def test_no_room_below_the_top_computes_what_it_imports():
    """The walk above could not see where such an import leads.

    ``reference`` lists the files of ``ops``, below it; ``moved`` lists old paths and new ones.
    """
    computed = {module for module, found in IMPORTS.items() for name, _, _ in found if "?" in name}
    assert computed <= {"tinygrad_ms", "tinygrad_ms.reference", "tinygrad_ms.moved"}
