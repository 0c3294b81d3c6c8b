"""The package works from a wheel, an editable install and a bare checkout, and needs NumPy alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.house.test_types import check_user
from tinygrad_ms._version import __version__

ROOT = Path(__file__).parents[2]
# Everything but the symlink tinygrad_ms/ops and what tools leave behind.
LITTER = shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "*.egg-info", "runs")

IMPORT_EVERYTHING = """
import importlib, json, pkgutil, sys
import tinygrad_ms
names = [module.name for module in pkgutil.walk_packages(tinygrad_ms.__path__, "tinygrad_ms.")]
left_out = ("tinygrad_ms.__main__", "tinygrad_ms.interop.torch", "tinygrad_ms.interop.jax")  # these need torch, JAX
names = [name for name in names if name not in left_out]
for name in names:
    importlib.import_module(name)
from tinygrad_ms.data import load_digits
assert len(load_digits()) == 1797
try:
    import ops
except ModuleNotFoundError:
    pass
except ImportError as error:  # editable_mode=compat puts the checkout on the path
    assert "import tinygrad_ms.ops, not the source folder" in str(error)
else:
    raise AssertionError("the folder ops was installed under a name of its own")
print(json.dumps([tinygrad_ms.__file__, tinygrad_ms.ops.__file__, names]))
"""


def run(*command, cwd, check=True):
    """The output of a command that sees neither this checkout nor pip's questions."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert not check or done.returncode == 0, done.stdout
    return done.stdout


def pip(*arguments, cwd):
    output = run(sys.executable, "-m", "pip", *arguments, cwd=cwd, check=False)
    if re.search("connection broken|No module named pip", output):
        pytest.skip("pip is missing or reaches no package index, so that nothing can be built or installed")
    assert "Successfully" in output, output


def copy_checkout(folder, symlink=True):
    shutil.copytree(ROOT, folder, symlinks=True, ignore=LITTER)
    if not symlink:
        (folder / "tinygrad_ms" / "ops").unlink()
    return folder


def modules():
    """{path in the wheel: path in the checkout} of all Python files of the library."""
    found = {}
    for top, target in ((ROOT / "tinygrad_ms", "tinygrad_ms"), (ROOT / "ops", "tinygrad_ms/ops")):
        for path in top.rglob("*.py"):
            inner = path.relative_to(top).as_posix()
            if not inner.startswith("ops/"):
                found[f"{target}/{inner}"] = path
    return found


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy to build in, so that the build leaves nothing in the real one."""
    return copy_checkout(tmp_path_factory.mktemp("source") / "checkout")


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--wheel-dir", folder, checkout, cwd=folder)
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture
def fresh_python(tmp_path):
    """The Python of a new, empty virtual environment."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=os.name != "nt")
    return tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def imported_from(python, folder):
    """(file of tinygrad_ms, file of tinygrad_ms.ops) after every module was imported from `folder`."""
    package, ops, names = json.loads(run(python, "-c", IMPORT_EVERYTHING, cwd=folder).splitlines()[-1])
    expected = {re.sub(r"(/__init__)?\.py$", "", path).replace("/", ".") for path in modules()}
    bridges = {"tinygrad_ms.interop.torch", "tinygrad_ms.interop.jax"}
    assert set(names) == expected - {"tinygrad_ms", "tinygrad_ms.__main__"} - bridges
    return Path(package), Path(ops)


@pytest.mark.slow
def test_wheel_holds_each_file_once_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [metadata] = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    library = [name for name in names if ".dist-info/" not in name]
    data = ["tinygrad_ms/py.typed", "tinygrad_ms/data/digits.npz", "tinygrad_ms/data/NOTICE"]
    data += ["tinygrad_ms/graph/page.html", "tinygrad_ms/play/page.html"]
    assert sorted(library) == sorted([*modules(), *data])
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert any(name.endswith("/licenses/tinygrad_ms/data/NOTICE") for name in names)
    required = re.findall("^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    assert [line for line in required if "extra ==" not in line] == ["numpy>=2.0"]


@pytest.mark.slow
def test_wheel_in_a_fresh_environment_imports_every_module(wheel, fresh_python, tmp_path):
    pip("--python", fresh_python, "install", wheel, cwd=tmp_path)
    for path in imported_from(fresh_python, tmp_path):
        assert (tmp_path / "venv") in path.parents


def readme_command(name):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [command] = re.findall(rf"^<!-- command: {name} -->\n```sh\n(.*)\n```$", text, re.MULTILINE)
    return command


@pytest.mark.slow
@pytest.mark.parametrize("way", ["plain", "readme"])
def test_editable_install_is_found_from_another_folder(checkout, fresh_python, tmp_path, way):
    """With the options of the README type checkers see it, too: mypy checks a user's file."""
    options = readme_command("test").partition(']" ')[2].partition(" &&")[0].split()
    assert options == ["--config-settings", "editable_mode=compat"]
    pip("--python", fresh_python, "install", "-e", checkout, *(options if way == "readme" else ()), cwd=tmp_path)
    package, ops = imported_from(fresh_python, tmp_path)
    assert package == checkout / "tinygrad_ms" / "__init__.py"
    assert ops.resolve() == checkout / "ops" / "__init__.py"
    if way == "readme":
        check_user(tmp_path, "--python-executable", fresh_python)


BARE = "import tinygrad_ms as tg, tinygrad_ms.ops as o; print(tg.__file__, o.__file__, o.__name__, sep='\\n')"


@pytest.mark.parametrize("link", ["symlink", "nothing", "text"])
def test_bare_checkout_finds_ops(tmp_path, link):
    """With the symlink; without it, as in a zip; with the text file that git makes of it on Windows."""
    folder = copy_checkout(tmp_path / "checkout", symlink=link == "symlink")
    if link == "text":
        (folder / "tinygrad_ms" / "ops").write_text("../ops")
    package, ops, name = run(sys.executable, "-c", BARE, cwd=folder).splitlines()
    assert Path(package) == folder / "tinygrad_ms" / "__init__.py"
    assert Path(ops).resolve() == folder / "ops" / "__init__.py" and name == "tinygrad_ms.ops"


def test_the_folder_ops_is_not_imported_by_its_own_name():
    output = run(sys.executable, "-c", "import ops", cwd=ROOT, check=False)
    assert "ImportError: import tinygrad_ms.ops, not the source folder 'ops' directly" in output


def test_import_needs_numpy_alone():
    code = (
        "import sys, numpy; before = set(sys.modules); import tinygrad_ms; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    new = set(run(sys.executable, "-c", code, cwd=ROOT).split())
    assert new <= {"numpy", "tinygrad_ms", *sys.stdlib_module_names}, new - sys.stdlib_module_names


@pytest.mark.parametrize("name, words", [("train", "examples/train_mlp.py"), ("test", "-m pytest")])
def test_readme_commands_are_one_line_each(name, words):
    command = readme_command(name)
    assert words in command and command.startswith("python3 -m venv .venv && .venv/bin/pip install ")


def test_continuous_integration_takes_the_test_command_from_the_readme():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    command = run(script, "--print", cwd=ROOT).strip()
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() and "pytest" in command


def test_the_citation_names_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert text.startswith("cff-version: 1.2.0\n") and f"\nversion: {__version__}\n" in text
