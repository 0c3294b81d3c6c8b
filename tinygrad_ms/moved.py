"""Modules and names that have moved. Their old paths work for one minor version, with a DeprecationWarning.

The warning names the new path. The names in a pickle of a Tensor work for ever, without a warning.
"""

import sys
import warnings
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec

MOVED = {  # old module -> the modules that have its names now
    "engine.autodiff": "engine.backward engine.around.forward engine.around.sentences engine.tape engine.call",
    "engine.backend": "arrays.registry arrays.devices arrays.dtypes arrays.memory arrays.sums",
    "engine.rules": "engine.primitive engine.around.rules engine.around.sentences",
    "ops.aliases": "ops.identity",
    "ops.decompositions": "ops.linalg.decompositions ops.linalg.norms",
    "ops.linear_algebra": "ops.linalg.solve ops.linalg.least_squares ops.linalg.functions ops.linalg.parts",
    "ops.matrix_equations": "ops.matrix_sign.lyapunov ops.matrix_sign.roots ops.matrix_sign.sylvester ops.linalg.parts",
    "ops.matrix_functions": "ops.matrix_sign.msign ops.matrix_sign.smooth ops.matrix_sign.lyapunov"
    " ops.matrix_sign.roots ops.iterations.coefficients",
    "ops.matrix_parts": "ops.linalg.parts",
    "ops.msign_alternatives": "ops.matrix_sign.msign ops.matrix_sign.sylvester",
    "ops.newton_schulz": "ops.iterations.driver ops.iterations.polar ops.iterations.block_solve"
    " ops.iterations.coefficients ops.linalg.parts",
    "ops.newton_sign": "ops.iterations.newton",
    "ops.products": "ops.linalg.products ops.linalg.einsum",
    "ops.quintics": "ops.iterations.coefficients",
}
LEFT = {  # module that still exists -> the modules that have the names that left it
    "engine.call": "engine.around.arguments engine.around.sentences",
    "engine.primitive": "engine.around.rules rules",
    "engine.tape": "engine.around.modes scopes",
    "engine.tensor": "engine.around.constructors ops.crossings ops.on_tape",
    "ops.losses": "ops.classification ops.targets",
    "ops.reductions": "ops.linalg.norms",
}
RENAMED = {  # old name -> new name, for names that changed when they moved
    "KnownInverse": "InverseOf", "Plan": "Schedule", "_unpickle": "unpickle", "alias": "identity",
    "column": "per_matrix", "drive": "iterate", "fit": "unbroadcast", "leading_to": "nodes_reaching",
    "least": "noise_floor", "make_plan": "make_schedule", "matrices": "check_matrices", "newton_sign": "newton",
    "parts": "cache_slices", "plan_for": "schedule_for", "prepare": "convert_arguments", "rewrap": "saved_as_tensors",
    "sign": "newton_mcsgn", "sylvester": "newton_sylvester", "to_range": "scale_by_power_of_two",
}  # fmt: skip
HOME = "tinygrad_ms."


def look_up(old: str, name: str):
    """The present value of ``name`` in the module ``old``. It is the ``__getattr__`` of that module."""
    if f"{old}.{name}" in MOVED:  # a module, reached through its package
        return import_module(f"{HOME}{old}.{name}")
    if not name.startswith("__"):
        modules = [import_module(HOME + new) for new in (MOVED | LEFT).get(old, "").split()]
        for known in (name, RENAMED.get(name)):
            for module in modules:
                if known in vars(module):
                    if name != "_unpickle":  # nobody can mend the path in a pickle
                        what = f"{HOME}{old}.{name} has moved and will go: it is {module.__name__}.{known} now"
                        warnings.warn(what, DeprecationWarning, stacklevel=2)
                    return vars(module)[known]
    raise AttributeError(f"module {HOME + old!r} has no attribute {name!r}")


class MovedModules:
    """Makes a module for an old path that no file has. It has no base class: importlib.abc is slow to import."""

    def find_spec(self, fullname, path=None, target=None):
        return ModuleSpec(fullname, self) if fullname.removeprefix(HOME) in MOVED else None  # type: ignore[arg-type]

    def create_module(self, spec):
        """None: Python makes the usual module."""

    def exec_module(self, module):
        old = module.__name__.removeprefix(HOME)
        new = [import_module(HOME + name) for name in MOVED[old].split()]
        names = {name for one in new for name in getattr(one, "__all__", ())}
        vars(module).update(__getattr__=partial(look_up, old), __all__=sorted(names))
        where = ", ".join(one.__name__ for one in new)
        warnings.warn(f"{HOME}{old} has moved and will go: see {where}", DeprecationWarning, stacklevel=2)


FINDER = MovedModules()


def install() -> None:
    """Make the old paths work."""
    if FINDER not in sys.meta_path:
        sys.meta_path.append(FINDER)
    for old in ("engine", "ops", *LEFT):
        vars(import_module(HOME + old)).setdefault("__getattr__", partial(look_up, old))
