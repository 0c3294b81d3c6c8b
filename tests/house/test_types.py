"""What type checkers and editors know of the package, and that every public name means one thing."""

import ast
import importlib.util
import os
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine import primitive

ROOT = Path(__file__).parents[2]
INIT = ast.parse((ROOT / "tinygrad_ms" / "__init__.py").read_text(encoding="utf-8"))

USER = """\
import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.data import DataLoader, load_digits


@tg.rules.linear(transpose=lambda g: 2 * g)
def double(xp, x):
    return 2 * x


x = tg.tensor([[1.0, 2.0]], requires_grad=True)
layer = tg.nn.Linear(2, 3)
model = nn.Sequential(layer, nn.Tanh())
optimizer = optim.SGD(model.parameters(), lr=0.1)
loss = tg.softmax_cross_entropy(tg.linear(x, layer.weight, layer.bias), tg.tensor([0]))
loss.backward()
optimizer.step()
tg.save("model.npz", model.state_dict())
tg.keep_freed_memory()
reveal_type(tg.exp)
reveal_type(tg.msign)
reveal_type(tg.linear)
reveal_type(tg.matmul)
reveal_type(tg.grad)
reveal_type(tg.save)
reveal_type(tg.tensor)
reveal_type(x)
reveal_type(layer)
reveal_type(layer.weight)
reveal_type(tg.nn.functional_call)
"""
WRONG = {  # what a checker must not let pass
    "tg.exq(x)": 'Module has no attribute "exq"',
    "tg.nn.Linaer(2, 3)": 'Module has no attribute "Linaer"',
    "x.tanj()": '"Tensor" has no attribute "tanj"',
    "tg.linear(transpose=None)": 'for "linear"',
    "tg.getitem(x, 0)": 'Module has no attribute "getitem"',
}


def mypy(folder, text, *options, environment=None):
    """The lines that mypy prints of a user's file in ``folder``."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed (pip install -e '.[dev]')")
    (folder / "user.py").write_text(text)
    command = [sys.executable, "-m", "mypy", "--cache-dir", folder / "cache", *options, "user.py"]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True)
    assert done.returncode in (0, 1) and not done.stderr, done.stdout + done.stderr
    return done.stdout.splitlines()


def check_user(folder, *options, environment=None):
    """mypy knows the good names, and finds the wrong ones."""
    lines = mypy(folder, USER, *options, environment=environment)
    assert not [line for line in lines if ": error:" in line], lines
    revealed = [line.partition('Revealed type is "')[2].rstrip('"') for line in lines if "Revealed type" in line]
    assert len(revealed) == USER.count("reveal_type") and "Any" not in revealed, lines
    assert revealed[-4:-1] == [
        "tinygrad_ms.engine.tensor.Tensor", "tinygrad_ms.nn.layers.Linear", "tinygrad_ms.nn.module.Parameter",
    ]  # fmt: skip
    text = "import tinygrad_ms as tg\nx = tg.tensor(1.0)\n" + "\n".join(WRONG) + "\n"
    lines = mypy(folder, text, *options, environment=environment)
    for number, expected in enumerate(WRONG.values(), 3):
        assert any(line.startswith(f"user.py:{number}: error:") and expected in line for line in lines), lines


def test_a_type_checker_knows_the_names(tmp_path):
    check_user(tmp_path, "--follow-imports=silent", environment={**os.environ, "MYPYPATH": str(ROOT)})


def test_names_count_as_exported_for_a_strict_checker(tmp_path):
    options = ("--follow-imports=silent", "--strict", "--allow-untyped-calls")
    lines = mypy(tmp_path, USER, *options, environment={**os.environ, "MYPYPATH": str(ROOT)})
    assert not [line for line in lines if "explicitly export" in line or "no attribute" in line], lines


# --- names -------------------------------------------------------------------------------------------------------


def bound_names():
    """Each public name as often as ``tinygrad_ms/__init__.py`` binds it, star imports counted by ``__all__``."""
    for node in INIT.body:
        if isinstance(node, ast.ImportFrom):
            for name in node.names:
                whole = importlib.import_module(node.module)
                yield from whole.__all__ if name.name == "*" else [name.asname or name.name]
        elif isinstance(node, ast.Import):
            yield from (name.asname or name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.FunctionDef):
            yield node.name
    yield from tg._ROOMS
    yield from tg._ELSEWHERE


def test_ops_names_all_that_its_files_list():
    modules = [module for name, module in sys.modules.items() if name.startswith("tinygrad_ms.ops.")]
    listed = [name for m in modules if getattr(m, "__file__", None) for name in getattr(m, "__all__", ())]
    assert sorted(listed) == sorted(tg.ops.__all__)


def test_no_public_name_overwrites_another():
    names = [name for name in bound_names() if not name.startswith("_") or name == "__version__"]
    assert not {name: n for name, n in Counter(names).items() if n > 1}
    assert sorted(tg.__all__) == sorted(names)


def test_type_checkers_read_what_is_loaded_when_first_used():
    [branch] = [node for node in INIT.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    read = {name.name: node.module.removeprefix("tinygrad_ms.") for node in branch.body for name in node.names}
    assert read == {**dict.fromkeys(tg._ROOMS, "tinygrad_ms"), **tg._ELSEWHERE}


def test_every_public_name_is_there_and_ops_are_the_functions_of_their_files():
    for name in tg.__all__:
        assert getattr(tg, name) is not None and name in dir(tg)
    for name in tg.ops.__all__:
        assert getattr(tg, name) is getattr(tg.ops, name)


def test_linear_is_the_affine_op_and_rules_linear_the_decorator():
    assert tg.linear is tg.ops.affine.linear
    assert tg.rules.linear.__wrapped__ is primitive.linear
    for name in ("elementwise", "multilinear", "no_derivative", "primitive"):
        assert getattr(tg.rules, name) is getattr(tg, name)
        assert getattr(tg, name).__wrapped__ is getattr(primitive, name)
    assert tg.custom_vjp is tg.rules.custom_vjp
    assert tg.signm is tg.mcsgn


@pytest.mark.parametrize("name", tg._INTERNAL)
def test_a_name_that_was_public_by_accident_still_works_and_says_where_it_is(name):
    with pytest.warns(DeprecationWarning, match=rf"tinygrad_ms\.{name} goes in 0\.3; it is tinygrad_ms\.ops\.") as seen:
        function = getattr(tg, name)
    assert seen[0].filename == __file__
    where = str(seen[0].message).rpartition(" ")[2].rpartition(".")
    assert getattr(importlib.import_module(where[0]), where[2]) is function
    assert name not in dir(tg) and name not in tg.__all__


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'tinygrad_ms' has no attribute 'exq'"):
        tg.exq
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not hasattr(tg, "__wrapped__")
