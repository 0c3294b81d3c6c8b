"""Who comes from PyTorch: names that are missing say what to write, ``dim=`` is ``axis=``, the page runs and is whole.

python -m tests.docs.test_from_pytorch      # writes the table of names into docs/from_pytorch.md anew
"""

import ast
import contextlib
import inspect
import io
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.spelling import ARGUMENTS, NAMES

PAGE = Path(__file__).parents[2] / "docs" / "from_pytorch.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCKS = list(re.finditer(r"```python\n(?P<code>.*?)```\n(?:```text\n(?P<shown>.*?)```)?", TEXT, re.S))
PLACE = re.compile(r"(?<=<!-- table of names -->\n).*(?=<!-- end of the table -->)", re.S)
ROOMS = {"torch": tg, "Tensor": tg.Tensor, "torch.nn": tg.nn, "torch.optim": tg.optim}
X = np.arange(6.0).reshape(2, 3)


def table() -> str:
    """The names that are missing here, room by room, and what to write."""
    rows = ["| PyTorch | here |", "|---|---|"]
    for room, names in NAMES.items():
        for name in sorted(names):
            theirs = f"x.{name}" if room == "Tensor" else f"{room}.{name}"
            prose = re.match(r"(not|the|a|an) ", names[name])
            rows.append(f"| `{theirs}` | {names[name]} |" if prose else f"| `{theirs}` | `{names[name]}` |")
    return "\n".join(rows) + "\n"


# --- the page -------------------------------------------------------------------------------------------------------


def test_the_table_of_the_page_is_that_of_the_hints():
    assert PLACE.search(TEXT)[0] == table(), "run python -m tests.docs.test_from_pytorch"


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    tg.set_default_device("cpu")
    names, printed = {"__name__": "__main__"}, []
    with contextlib.chdir(tmp_path_factory.mktemp("page")):
        for block in BLOCKS:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(compile(block["code"], str(PAGE), "exec"), names)
            printed.append(out.getvalue())
    return printed


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_prints_what_the_page_shows(number, session):
    assert session[number] == (BLOCKS[number]["shown"] or "")


def test_every_block_is_among_them():
    assert TEXT.count("```python\n") == len(BLOCKS) > 2


# --- hints ----------------------------------------------------------------------------------------------------------

MISSING = [(room, name) for room, names in NAMES.items() for name in names]


@pytest.mark.parametrize("room, name", MISSING, ids=map(".".join, MISSING))
def test_a_missing_name_says_what_to_write(room, name):
    owner = tg.tensor(X) if room == "Tensor" else ROOMS[room]
    with pytest.raises(AttributeError) as caught:
        getattr(owner, name)
    hint = NAMES[room][name] + ("" if NAMES[room][name].startswith("not here; ") else " here")
    assert str(caught.value).endswith(f" has no attribute {name!r}; PyTorch's {room}.{name} is {hint}")
    assert not hasattr(owner, name)


@pytest.mark.parametrize("room, name", MISSING, ids=map(".".join, MISSING))
def test_what_it_says_exists_here(room, name):
    """Each dotted name of ours in the hint; where it is an expression, that runs."""
    hint = NAMES[room][name]
    for module, path in re.findall(r"\b(tg|nn|optim)\.([\w.]+)", hint):
        owner = tg if module == "tg" else getattr(tg, module)
        for part in path.rstrip(".").split("."):
            owner = getattr(owner, part)
    for method in re.findall(r"\b[xy]\.(\w+)", hint):
        assert hasattr(tg.Tensor, method)
    with contextlib.suppress(SyntaxError):
        x = tg.tensor([[1.0, 2.0], [3.0, 5.0]])
        facts = {
            "tg": tg,
            "x": x,
            "y": x,
            "i": [[0, 1]],
            "indices": [[0, 1]],
            "shape": (2, 2),
            "mask": x > 2,
            "n": 3,
            "k": 1,
            "value": 0.0,
        }
        facts |= {
            "nn": tg.nn,
            "optim": tg.optim,
            "dtype": "int32",
            "array": X,
            "n": 3,
            "numpy": np,
            "start": 0,
            "stop": 1,
        }
        names = {n.id for n in ast.walk(ast.parse(hint, mode="eval")) if isinstance(n, ast.Name)}
        assert names <= facts.keys() | {"isinstance"}
        if "cuda" not in hint:
            eval(hint, facts)


def test_a_name_that_is_nearly_right_finds_the_right_one():
    for owner, name, expected in (
        (tg, "sinn", "did you mean sin or sinh or sinc?"),
        (tg, "arctan", "NumPy's np.arctan is tg.atan here"),
        (tg, "concatenate", "NumPy's np.concatenate is tg.concat here"),
        (tg.nn, "Linaer", "did you mean Linear?"),
        (tg.optim, "Adm", "did you mean Adam"),
        (tg, "zzz", "has no attribute 'zzz'"),
    ):
        with pytest.raises(AttributeError, match=re.escape(expected)):
            getattr(owner, name)


def test_a_tensor_does_not_list_what_it_lacks():
    x = tg.tensor(X)
    assert not NAMES["Tensor"].keys() & set(dir(x)) and {"reshape", "numpy", "grad"} <= set(dir(x))
    assert repr(vars(tg.Tensor)["view"]) == "missing; write x.reshape(shape)"


@pytest.mark.oracle
def test_the_names_are_pytorchs():
    torch = pytest.importorskip("torch")
    rooms = {"torch": torch, "Tensor": torch.Tensor, "torch.nn": torch.nn, "torch.optim": torch.optim}
    assert [(room, name) for room, name in MISSING if not hasattr(rooms[room], name)] == []


# --- arguments ------------------------------------------------------------------------------------------------------

ARGUMENT = {  # what each needs besides x
    "concat": lambda f, **k: f([X, X], **k), "stack": lambda f, **k: f([X, X], **k),
    "cross": lambda f, **k: f(X.T, X.T, **k),
    "cross_entropy": lambda f, **k: f(X, [0] * (3 if k else 2), **k),
    "nll": lambda f, **k: f(X, [0] * (3 if k else 2), **k),
    "put_along_axis": lambda f, **k: f(X, [[0, 0, 0]], 1.0, **k),
    "repeat": lambda f, **k: f(X, 2, **k), "roll": lambda f, **k: f(X, 1, **k), "split": lambda f, **k: f(X, 2, **k),
    "sliding_window_view": lambda f, **k: f(X, 2, **k), "take": lambda f, **k: f(X, [0], **k),
    "take_along_axis": lambda f, **k: f(X, np.array([[0, 0, 0]]), **k), "topk": lambda f, **k: f(X, 1, **k),
    "vecdot": lambda f, **k: f(X, X, **k),
}  # fmt: skip
ARGUMENT["softmax_cross_entropy"] = ARGUMENT["cross_entropy"]
TAKING = [n for n in tg.ops.__all__ if "axis" in inspect.signature(getattr(tg, n)).parameters]


def equal(a, b):
    for one, other in zip(*((a, b) if isinstance(a, (tuple, list)) else ([a], [b])), strict=True):
        np.testing.assert_array_equal(tg.asarray(one).numpy(), tg.asarray(other).numpy())


@pytest.mark.parametrize("name", TAKING)
def test_dim_is_axis_in_every_function(name):
    f, call = getattr(tg, name), ARGUMENT.get(name, lambda f, **k: f(X, **k))
    if name == "squeeze":
        call = lambda f, **k: f(X[None], **k)
    equal(call(f, dim=0), call(f, axis=0))
    if "keepdims" in inspect.signature(f).parameters:
        equal(call(f, dim=0, keepdim=True), call(f, axis=0, keepdims=True))
    with pytest.raises(TypeError, match="dim"):
        call(f, dim=0, axis=1)


def test_there_are_many():
    assert len(TAKING) > 40


@pytest.mark.parametrize("name", [n for n in TAKING if hasattr(tg.Tensor, n)])
def test_dim_is_axis_in_every_method(name):
    x = tg.tensor(X[None], requires_grad=True)
    give = {"take": ([0],), "repeat": (2,), "roll": (1,), "split": (1,)}.get(name, ())
    equal(getattr(x, name)(*give, dim=0), getattr(x, name)(*give, axis=0))


def test_the_other_names_and_the_layers():
    x = tg.tensor(X[None])
    assert x.flatten(start_dim=1).shape == (1, 6) and tg.flatten(x, start_dim=0, end_dim=1).shape == (2, 3)
    equal(tg.flip(x, dims=(1,)), tg.flip(x, axis=1))
    equal(tg.permute_dims(x, dims=(2, 0, 1)), tg.permute_dims(x, (2, 0, 1)))
    for layer in (tg.nn.Softmax, tg.nn.LogSoftmax):
        assert layer(dim=1).axis == layer(axis=1).axis == layer(1).axis == 1
        with pytest.raises(TypeError, match="there is no argument dmi; its arguments are axis"):
            layer(dmi=1)
    assert {ours for names in ARGUMENTS.values() for ours in names} <= {
        "axis",
        "axes",
        "keepdims",
        "start_axis",
        "end_axis",
    }


def test_gradients_flow_and_a_compiled_step_takes_it():
    x = tg.tensor(X, requires_grad=True)
    (x.sum(dim=0, keepdim=True) * tg.softmax(x, dim=0)).sum().backward()
    y = tg.tensor(X, requires_grad=True)
    (y.sum(axis=0, keepdims=True) * tg.softmax(y, axis=0)).sum().backward()
    equal(x.grad, y.grad)
    step = tg.compile(lambda a: a.mean(dim=1).sum() + tg.stack([a, a], dim=1).sum())
    for _ in range(4):
        assert step(X.astype("float32")).item() == X.mean(1).sum() + 2 * X.sum()


def test_raw_arrays_and_own_primitives_take_it_too():
    @tg.rules.linear(transpose=lambda g, x_shape, axis: tg.broadcast_to(tg.expand_dims(g, axis), x_shape))
    def total(xp, x, axis=None):
        return x.sum(axis=axis)

    @tg.rules.linear(transpose=lambda g: g)
    def anything(xp, x, **options):
        raise ValueError(f"theirs, {options}")

    with pytest.raises(ValueError, match="theirs, {'dim': 1}"):
        anything(tg.tensor(X), dim=1)
    assert isinstance(tg.sum(X, dim=0), np.ndarray)
    equal(total(tg.tensor(X), dim=1), X.sum(1))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: x.var(unbiased=False), "var: there is no argument unbiased; its arguments are axis, correction, "),
        (lambda x: tg.stack([x, x], dmi=0), "stack: there is no argument dmi; its arguments are"),
        (lambda x: x.sum(dim=0, axis=0), "sum: dim, axis: one argument is there under two names"),
        (lambda x: tg.stack([x, x], 1, dim=0), "stack: axis is there twice, as dim, too"),
        (lambda x: tg.optim.AdamW([x], learning_rate=0.1), "AdamW: there is no argument learning_rate; .* params, lr"),
        (lambda x: tg.nn.Linear(3, 2, use_bias=False), "Linear: there is no argument use_bias; its arguments are in_"),
        (lambda x: tg.exp(x, dim=0), "exp: there is no argument dim; its arguments are"),
    ],
)  # fmt: skip
def test_an_argument_that_is_not_there_is_named_with_those_that_are(call, words):
    with pytest.raises(TypeError, match=words) as caught:
        call(tg.tensor(X))
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)


def test_wrapped_functions_are_still_themselves():
    for name in ("stack", "softmax", "cross_entropy"):
        f = getattr(tg, name)
        assert pickle.loads(pickle.dumps(f)) is f
        assert "axis" in inspect.signature(f).parameters and "def " in inspect.getsource(f)
    assert tg.cross_entropy is tg.softmax_cross_entropy


if __name__ == "__main__":
    PAGE.write_text(PLACE.sub(lambda _: table(), TEXT), encoding="utf-8")
