"""Bad input gets a sentence: the op, the argument, shapes, dtypes or devices, and what to do. One case per kind."""

import re
import sys

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.samples.linalg.decompositions import with_singular_values
from tinygrad_ms import nn, optim
from tinygrad_ms.data import DataLoader

tg.testing  # registers the strict device


def ones(*shape, **options):
    return tg.tensor(np.ones(shape, np.float32), **options)


def leaf(*shape):
    return ones(*shape, requires_grad=True)


def backward_twice():
    y = (leaf(2) * 2.0).exp().sum()
    y.backward()
    y.backward()


def backward_under_no_grad():
    with tg.no_grad():
        y = (leaf(2) * 2.0).sum()
    y.backward()


def change_in_place():
    x, c = leaf(2), ones(2)
    y = (x * c).sum()
    c[0] = 3.0
    y.backward()


def gradient(function, array):
    x = tg.tensor(array, requires_grad=True)
    function(x).backward()


def whole(sentence):
    """The pattern that this sentence alone fits."""
    return rf"\A{re.escape(sentence)}\Z"


LOGITS, LABELS = np.random.default_rng(0).standard_normal((5, 3)), np.array([2, 0, 1, 2, 2])
SINGULAR = np.array([[1.0, 2.0], [2.0, 4.0]])


def load_into(model, **changes):
    state = {**model.state_dict(), **changes}
    model.load_state_dict({k: v for k, v in state.items() if v is not None})


CASES = {
    "elementwise shapes": (
        lambda: ones(2, 3) + ones(4),
        ValueError,
        r"add: a has shape \(2, 3\) and b has shape \(4,\): these do not broadcast",
    ),
    "matmul shapes": (
        lambda: ones(64, 10) @ ones(12, 3),
        ValueError,
        r"matmul: a has shape \(64, 10\) and b has shape \(12, 3\): the inner dimensions 10 and 12 differ",
    ),
    "reshape": (lambda: ones(2, 3).reshape(4), ValueError, r"reshape: .*\(2, 3\).*\(4,\)|reshape: .*6.*4"),
    "bad axis": (lambda: ones(2, 3).sum(axis=2), (ValueError, IndexError), r"sum: .*axis 2"),
    "no array": (
        lambda: ones(2) * None,
        TypeError,
        r"multiply: b is NoneType; expected a Tensor, an array or a number",
    ),
    "unknown keyword": (
        lambda: tg.sum(ones(2), axes=0),
        TypeError,
        "sum: there is no argument axes; its .* axis, keep",
    ),
    "integers want gradients": (
        lambda: tg.tensor([1, 2], requires_grad=True),
        TypeError,
        r"requires_grad: a tensor of dtype int64 cannot carry gradients; use .astype\('float32'\) first",
    ),
    "labels out of range": (
        lambda: tg.softmax_cross_entropy(ones(2, 3), np.array([0, 3])),
        (ValueError, IndexError),
        r"softmax_cross_entropy: .*target.*3",
    ),
    "labels of the wrong shape": (
        lambda: tg.softmax_cross_entropy(ones(2, 3), np.array([0, 1, 2])),
        ValueError,
        r"softmax_cross_entropy: .*\(3,\)",
    ),
    "one_hot out of range": (lambda: tg.one_hot(tg.tensor([5]), 3), IndexError, r"one_hot: .*5"),
    "index out of range": (lambda: ones(2)[5], IndexError, r"getitem: index 5 is out of bounds"),
    "mixed devices": (
        lambda: ones(2) + ones(2, device="strict"),
        ValueError,
        r"add: arguments on different devices \(a: float32 \(2,\) on cpu, b: float32 \(2,\) on strict\);"
        " move one with .to",
    ),
    "gradient on another device": (
        lambda: (leaf(2) * 2.0).backward(ones(2, device="strict")),
        ValueError,
        r"backward: gradient is on strict and the tensor on cpu",
    ),
    "unknown device": (
        lambda: ones(2, device="tpu"),
        ValueError,
        r"device='tpu' is unknown: the devices are cpu, cuda",
    ),
    "backward twice": (backward_twice, RuntimeError, r"backward: the tape was freed.*retain_graph=True"),
    "backward of a non-scalar": (
        lambda: (leaf(2) * 2.0).backward(),
        RuntimeError,
        r"backward: .*shape \(2,\).*gradient=",
    ),
    "backward under no_grad": (backward_under_no_grad, RuntimeError, r"backward: .*no history.*no_grad\(\)"),
    "in-place change": (
        change_in_place,
        RuntimeError,
        r"backward: argument b of multiply \(recorded at .*test_errors.py:\d+\) was changed",
    ),
    "in-place on the tape": (
        lambda: leaf(2).__setitem__(0, 1.0),
        RuntimeError,
        r"on the tape.*tinygrad_ms.index_update",
    ),
    "requires_grad of a result": (
        lambda: setattr(leaf(2) * 2.0, "requires_grad", False),
        RuntimeError,
        r"only leaves can be switched: use .detach\(\)",
    ),
    "retain_grad off the tape": (lambda: ones(2).retain_grad(), RuntimeError, r"retain_grad: .*not on the tape"),
    "item of several": (lambda: ones(2).item(), ValueError, r"item: a tensor of shape \(2,\) has 2 elements"),
    "shape in pieces": (
        lambda: tg.zeros(2, 3),
        TypeError,
        r"zeros: dtype=3; a shape of several axes is one tuple: zeros\(\(2, 3\)\)",
    ),
    "negative size": (lambda: tg.ones(-1), ValueError, r"ones: negative dimensions are not allowed \(shape=-1\)"),
    "unknown dtype": (
        lambda: ones(2).astype("float31"),
        TypeError,
        r"dtype='float31' is unknown; expected one such as 'float32'",
    ),
    "complex dtype": (lambda: ones(2).astype("complex64"), TypeError, r"dtype='complex64' cannot be that of a tensor"),
    "complex zeros": (lambda: tg.zeros(2, dtype=complex), TypeError, r"zeros: dtype=<class 'complex'> cannot be"),
    "device of no name": (
        lambda: tg.tensor([1.0], device=0),
        ValueError,
        r"device=0 is unknown: the devices are cpu, cuda",
    ),
    "index of text": (lambda: ones(2)["a"], TypeError, r"getitem: an index is 'a' \(str\); expected integers, slices"),
    "hook that is no function": (
        lambda: leaf(2).register_hook(3),
        TypeError,
        r"register_hook: hook is int; expected a function",
    ),
    "einsum without subscripts": (
        lambda: tg.einsum(ones(2), "i"),
        TypeError,
        r"einsum: subscripts is Tensor; expected a string first",
    ),
    "jvp without tuples": (
        lambda: tg.jvp(tg.sin, np.ones(2), np.ones(2)),
        TypeError,
        r"jvp: primals and tangents must be tuples",
    ),
    "learning rate of text": (
        lambda: optim.SGD([leaf(2)], lr="0.1"),
        TypeError,
        r"SGD: lr is '0.1', expected a number",
    ),
    "state before the path": (
        lambda: tg.save({}, "x.npz"),
        TypeError,
        r"save: path is a dict; the path comes first: save\(path, state\)",
    ),
    "observer of nothing": (
        lambda: tg.hooks(3),
        TypeError,
        r"hooks: an observer, int, has none of before_op, after_op",
    ),
    "complex array": (
        lambda: ones(2) + np.array([1j, 2]),
        TypeError,
        r"add: complex numbers are not supported \(a: float32 \(2,\) on cpu, b: complex128 \(2,\) on cpu\)",
    ),
    "complex argument": (lambda: tg.exp(np.array([1j])), TypeError, r"exp: complex numbers are not supported"),
    "complex asarray": (lambda: tg.asarray(np.array([1j])), TypeError, r"complex128'\) cannot be that of a tensor"),
    "shape of text": (lambda: ones(2).reshape("a"), TypeError, r"made of integers; got \('a',\)"),
    "write to a broadcast": (
        lambda: ones(1).broadcast_to((3,)).__setitem__(0, 2.0),
        ValueError,
        r"t\[i\] = v: .*read-only \(t: float32 \(3,\), i: 0\)",
    ),
    "write out of range": (lambda: ones(2).__setitem__(5, 1.0), IndexError, r"t\[i\] = v: index 5 is out of bounds"),
    "parameter replaced": (
        lambda: setattr(nn.Linear(2, 2), "weight", ones(2, 2)),
        TypeError,
        r"Linear.weight is a Parameter, and Tensor would take it from the model; assign Parameter",
    ),
    "not numeric": (lambda: tg.tensor(["a"]), TypeError, r"cannot make a tensor of dtype <U1"),
    "ragged list": (lambda: tg.tensor([[1.0], [1.0, 2.0]]), TypeError, r"cannot make a tensor of list"),
    "missing parameters": (
        lambda: load_into(nn.Linear(3, 2), bias=None),
        (KeyError, ValueError),
        r"(?s)load_state_dict.*missing.*bias",
    ),
    "unexpected parameters": (
        lambda: load_into(nn.Linear(3, 2), extra=np.ones(1)),
        (KeyError, ValueError),
        r"(?s)load_state_dict.*unexpected.*extra",
    ),
    "parameters of the wrong shape": (
        lambda: load_into(nn.Linear(3, 2), weight=np.ones((2, 4), np.float32)),
        ValueError,
        r"(?s)load_state_dict.*weight.*\(2, 4\).*\(2, 3\)|(?s:load_state_dict.*weight.*\(2, 3\).*\(2, 4\))",
    ),
    "layer of the wrong width": (
        lambda: nn.Linear(3, 2)(ones(5, 4)),
        ValueError,
        r"affine: x has shape \(5, 4\) and weight \(2, 3\), which takes \(..., 3\)",
    ),
    "optimizer without parameters": (
        lambda: optim.SGD([], lr=0.1),
        ValueError,
        r"SGD: the list of parameters is empty",
    ),
    "batch size": (lambda: DataLoader(np.ones(3), batch_size=0), ValueError, r"DataLoader: batch_size.*0"),
    "arrays of different lengths": (
        lambda: DataLoader(np.ones(3), np.ones(4), batch_size=1),
        ValueError,
        r"DataLoader: .*3.*4",
    ),
    "unknown checkpoint format": (lambda: tg.save("x.pkl", {}), ValueError, r"save: .*\.pkl.*\.npz"),
    # --- losses: the whole sentence ---------------------------------------------------------------------------------
    "a label too large": (
        lambda: tg.softmax_cross_entropy(LOGITS, np.array([0, 1, 2, 3, 0])), ValueError,
        whole("softmax_cross_entropy: target has the label 3; with 3 classes, labels lie in 0 ... 2 (or are"
        " ignore_index=-100)"),
    ),
    "a negative label": (
        lambda: tg.nll(LOGITS, np.array([0, 1, -2, 0, 0])), ValueError,
        whole("nll: target has the label -2; with 3 classes, labels lie in 0 ... 2 (or are ignore_index=-100)"),
    ),
    "float labels": (
        lambda: tg.softmax_cross_entropy(LOGITS, LABELS.astype(float)), ValueError,
        whole("softmax_cross_entropy: the scores have shape (5, 3) and target has shape (5,) and dtype float64:"
        " probabilities must have the shape of the scores; labels of shape (5,) must be integers, use"
        " .astype('int64')"),
    ),
    "labels of another shape": (
        lambda: tg.softmax_cross_entropy(LOGITS, LABELS[:4]), ValueError,
        whole("softmax_cross_entropy: the scores have shape (5, 3) and target has shape (4,) and dtype int64: with"
        " 3 classes in axis 1, expected integer labels of shape (5,) or float probabilities of shape (5, 3)"),
    ),
    "integer logits": (
        lambda: tg.softmax_cross_entropy(LOGITS.astype(int), LABELS), TypeError,
        whole("softmax_cross_entropy: the scores have dtype int64; they must be floats, use .astype('float32')"),
    ),
    "class weights of another size": (
        lambda: tg.softmax_cross_entropy(LOGITS, LABELS, np.ones(4)), ValueError,
        whole("softmax_cross_entropy: weight has shape (4,); with 3 classes it must be (3,)"),
    ),
    "probabilities for nll": (
        lambda: tg.nll(LOGITS, np.eye(3)[LABELS]), TypeError,
        whole("nll: target must be integer labels; for probabilities use softmax_cross_entropy with logits"),
    ),
    "smoothing beyond one": (
        lambda: tg.softmax_cross_entropy(LOGITS, LABELS, label_smoothing=1.5), ValueError,
        whole("softmax_cross_entropy: label_smoothing is 1.5; it must lie in [0, 1]"),
    ),
    "an unknown reduction": (
        lambda: tg.mse(LOGITS, LOGITS, reduction="average"), ValueError,
        whole("mse: reduction is 'average'; it must be \"mean\", \"sum\" or \"none\""),
    ),
    "shapes that would broadcast": (
        lambda: tg.mse(tg.tensor(LOGITS[:, :1]), LABELS.astype(float)), ValueError,
        whole("mse: input has shape (5, 1) and target has shape (5,): they must be equal; did you mean"
        " target.reshape((5, 1))?"),
    ),
    "delta of zero": (
        lambda: tg.huber(LOGITS, LOGITS, delta=0), ValueError, whole("huber: delta is 0; it must be positive")
    ),
    # --- matrices: the whole sentence -------------------------------------------------------------------------------
    "inv of a singular matrix": (
        lambda: tg.inv(SINGULAR), ValueError,
        whole("inv: x, of shape (2, 2), is singular; use pinv, or add a multiple of the identity"),
    ),
    "solve with a singular matrix": (
        lambda: tg.solve(SINGULAR, np.ones(2)), ValueError,
        whole("solve: a, of shape (2, 2), is singular; use pinv(a) @ b, or regularise a"),
    ),
    "a zero on the diagonal": (
        lambda: tg.solve_triangular(np.diag([1.0, 0.0]), np.ones(2)), ValueError,
        whole("solve_triangular: a, of shape (2, 2), is singular; use pinv(a) @ b, or regularise a"),
    ),
    "gradient of slogdet at a singular matrix": (
        lambda: gradient(lambda x: tg.slogdet(x)[1], SINGULAR), ValueError,
        whole("inv: x, of shape (2, 2), is singular; use pinv, or add a multiple of the identity"),
    ),
    "cholesky of an indefinite matrix": (
        lambda: tg.cholesky(-np.eye(2)), ValueError,
        whole("cholesky: x, of shape (2, 2), is not positive definite; add a small c I"),
    ),
    "sqrtm of an indefinite matrix": (
        lambda: tg.sqrtm(np.array([[1.0, 2.0], [2.0, 1.0]])), np.linalg.LinAlgError,
        whole("sqrtm: A (2, 2) is not positive definite: its Cholesky factor does not exist"),
    ),
    "svd of NaN": (
        lambda: tg.svd(np.full((2, 2), np.nan)), ValueError,
        whole("svd: the iteration of LAPACK did not converge; does x hold inf or NaN?"),
    ),
    "vectors of equal eigenvalues": (
        lambda: gradient(lambda x: tg.eigh(x)[1].sum(), np.eye(2)), ValueError,
        whole("inverse_gaps: two eigenvalues or singular values coincide, so their vectors have no derivative; use"
        " the values alone (eigvalsh, svdvals), or separate them by a small perturbation"),
    ),
    "vectors of a rectangular matrix with a zero singular value": (
        lambda: gradient(lambda x: tg.svd(x)[0].sum(), with_singular_values(1.0, 0.0, rows=3, columns=2)),
        ValueError,
        whole("inverse_singular_values: a singular value is zero, so the singular vectors of a rectangular matrix"
        " have no derivative; use the values alone (svdvals)"),
    ),
    "a matrix that is not square": (
        lambda: tg.det(np.ones((2, 3))), ValueError,
        whole("det: x has shape (2, 3); expected square matrices (..., n, n)"),
    ),
    "a vector": (
        lambda: tg.svd(np.ones(3)), ValueError, whole("svd: x has shape (3,); expected matrices (..., n, m)"),
    ),
    "a right-hand side of another size": (
        lambda: tg.solve(np.eye(3), np.ones((2, 2))), ValueError,
        whole("solve: a has shape (3, 3) and b has shape (2, 2): the numbers of rows, 3 and 2, differ"),
    ),
    "batches that do not broadcast": (
        lambda: tg.solve(np.ones((2, 3, 3)), np.ones((4, 3, 1))), ValueError,
        whole("solve: the batches of a (2, 3, 3) and b (4, 3, 1) do not broadcast"),
    ),
    "float16": (
        lambda: tg.inv(np.eye(2, dtype=np.float16)), TypeError,
        whole("inv: x is float16; LAPACK needs float32 or float64, use .astype('float32')"),
    ),
    "a broken exponent": (
        lambda: tg.matrix_power(np.eye(2), 0.5), TypeError, whole("matrix_power: n is 0.5; it must be an integer"),
    ),
    "a list as the data of a Tensor": (
        lambda: tg.Tensor([1.0]), TypeError,
        whole("Tensor: data is list, expected an array; tg.tensor(data) makes a tensor of it"),
    ),
    "a Tensor as the data of a Tensor": (
        lambda: tg.Tensor(tg.tensor([1.0])), TypeError,
        whole("Tensor: data is Tensor, expected an array; tg.tensor(data) makes a tensor of it"),
    ),
    "trace of a vector": (
        lambda: tg.trace(np.ones(3)), ValueError,
        whole("diagonal: x has shape (3,); expected a matrix or a batch of matrices"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_sentence(case):
    call, kind, pattern = CASES[case]
    with pytest.raises(kind) as caught:
        call()
    text = caught.value.args[0] if isinstance(caught.value, KeyError) else str(caught.value)
    assert re.search(pattern, text), text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x80\x04\x95 a pickle"])
def test_damaged_checkpoints(tmp_path, content):
    path = tmp_path / "state.npz"
    path.write_bytes(content)
    with pytest.raises(tg.CheckpointError, match=r"state\.npz"):
        tg.load(path)


def test_a_pickled_member_is_not_executed(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    np.savez(tmp_path / "state.npz", evil=np.array([Hostile()], dtype=object))
    with pytest.raises(tg.CheckpointError):
        tg.load(tmp_path / "state.npz")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("package, use", [
    ("safetensors", lambda folder: tg.save(folder / "x.safetensors", {"a": np.ones(1)})),
])  # fmt: skip
def test_missing_packages(monkeypatch, tmp_path, package, use):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        use(tmp_path)


def test_nothing_is_half_loaded():
    model = nn.Linear(3, 2)
    before = model.weight.numpy().copy()
    with pytest.raises(ValueError):
        load_into(model, weight=np.zeros((2, 3), np.float32), bias=np.ones(5, np.float32))
    np.testing.assert_array_equal(model.weight.numpy(), before)
