"""A tensor on the tape that comes in by any door is recorded or refused with a sentence: its gradient is never lost."""

import gc
import math
import re
import traceback
import weakref
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.samples import all_samples
from tinygrad_ms.engine.primitive import REGISTRY

X = np.array([-1.0, 0.5, 3.0])
A = np.array([[1.0, 2.0], [3.0, 4.0]])


def leaf(value=2.0, dtype="float64"):
    return tg.tensor(value, dtype=dtype, requires_grad=True)


LISTS = {
    "multiply": lambda w: tg.tensor(X) * [w, 1.0, w],
    "from the left": lambda w: [w, 1.0, w] * tg.tensor(X),
    "exp": lambda w: tg.exp([w, w]),
    "nested": lambda w: tg.exp([[w, 1.0], [1.0, w]]),
    "tuple": lambda w: tg.exp((w, w)),
    "where": lambda w: tg.where([True, False, True], X, [w, w, w]),
    "matmul": lambda w: tg.tensor(X) @ [w, w, w],
    "einsum": lambda w: tg.einsum("i,i->", X, [w, w, w]),
    "concat": lambda w: tg.concat([[w, w], tg.tensor(X)]),
    "stack of lists": lambda w: tg.stack([[w, w], [1.0, 1.0]]),
    "reduction": lambda w: tg.sum([w, w]),
    "mse": lambda w: tg.mse(tg.tensor(X), 0 * tg.tensor(X), weight=[w, w, w]),
    "norm": lambda w: tg.norm([w, w]),
    "svd": lambda w: tg.svd([[w, w], [w, 1.0]])[1],
    "outer": lambda w: tg.outer([w, w], [1.0, 2.0]),
    "class weights": lambda w: tg.softmax_cross_entropy(tg.tensor(A), [0, 1], weight=[w, w]),
    "class weights as a tensor": lambda w: tg.softmax_cross_entropy(tg.tensor(A), [0, 1], weight=tg.stack([w, w])),
    "class weights of nll": lambda w: tg.nll(tg.log_softmax(tg.tensor(A)), [0, 1], weight=tg.stack([w, w])),
    "initial values": lambda w: tg.nn.init.normal((3,), w),
    "index_update": lambda w: tg.index_update(tg.tensor(X), [0, 1], [w, w]),
    "index_add": lambda w: tg.index_add(tg.tensor(X), [0, 1], [w, w]),
    "asarray": lambda w: tg.asarray([w, w]),
    "tensor": lambda w: tg.tensor([w, [w]]),
    "tensor of a tensor": lambda w: tg.tensor(w),
    "full": lambda w: tg.full((3,), w),
    "full_like": lambda w: tg.full_like(tg.tensor(X), w),
    "linspace": lambda w: tg.linspace(0, w, 3),
    "arange": lambda w: tg.arange(0, 3, w),
}


@pytest.mark.parametrize("door", LISTS)
@pytest.mark.parametrize("device", ["cpu", "strict"])
def test_lists_of_tensors_and_constructors_refuse(door, device):
    tg.testing  # registers the strict device
    with pytest.raises(TypeError, match="on the tape .*its gradient would be lost: .*(tg.|x.clone|.detach)"):
        LISTS[door](leaf().to(device) * 1.0)


def test_without_a_tape_lists_hold_tensors():
    w = leaf()
    with tg.no_grad():
        assert tg.exp([w, w]).shape == (2,) and tg.full((3,), w).tolist() == [2, 2, 2]
    assert tg.tensor([w.detach(), 1.0]).tolist() == [2, 1]


def test_a_new_leaf_may_be_a_copy_of_a_tensor_on_the_tape():
    w = leaf()
    assert tg.tensor(w, requires_grad=True).is_leaf and tg.nn.Parameter(w).item() == 2.0


def test_asarray_with_a_dtype_or_device_records():
    w = leaf()
    (tg.asarray(w * 3, dtype="float32") * 1.0).backward()
    assert w.grad.item() == 3.0 and w.grad.dtype == np.float64
    (tg.asarray(w * 3, device="strict") * 1.0).backward()
    assert w.grad.item() == 6.0


DOCUMENT = (Path(__file__).parents[2] / "docs" / "doors.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code, expected", re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", DOCUMENT, re.S))
def test_the_page_prints_what_it_shows(code, expected, capsys):
    exec(compile(code, "doors.md", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == expected


def nested(array):
    """The array as nested lists of tensors on the tape."""
    return [nested(item) for item in array] if array.ndim else leaf(float(array))


SMALL = [
    (name, i)
    for name, samples in sorted(all_samples().items())
    for i, value in enumerate(samples[0].args)
    if isinstance(value, np.ndarray) and value.dtype.kind == "f" and value.ndim and 0 < value.size <= 64
]


@pytest.mark.parametrize("name, i", SMALL)
def test_every_argument_of_every_primitive_refuses_a_list_of_tensors_on_the_tape(name, i):
    sample = all_samples()[name][0]
    args = [nested(a) if i == k else a for k, a in enumerate(sample.args)]
    with pytest.raises(TypeError, match="its gradient would be lost"):
        REGISTRY[name].op(*args, **sample.kwargs)


WRITES = {
    "t[i] = v": lambda t, v: t.__setitem__(0, v),
    "t[i] = list": lambda t, v: t.__setitem__(slice(0, 2), [v, v]),
    "copy_": lambda t, v: t.copy_(v),
    "t[i] += v": lambda t, v: t.__setitem__(0, t[0] + v),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_value_on_the_tape_is_not_written_into_a_buffer(write):
    def f(w):
        buffer = tg.zeros(3, dtype="float64")
        WRITES[write](buffer, w * w)
        return (buffer + w).sum()

    with pytest.raises(TypeError, match="its gradient would be lost"):
        f(leaf())
    for transform in (tg.grad, tg.jacobian, tg.hessian, lambda f: lambda x: tg.jvp(f, (x,), (x,))):
        with pytest.raises(TypeError, match="its gradient would be lost"):
            transform(f)(tg.tensor(2.0, dtype="float64"))
    with tg.no_grad():
        f(leaf())


SAMPLES = [
    (name, number, constant)
    for name, samples in sorted(all_samples().items())
    for number, sample in enumerate(samples[:2])
    for constant, value in sample.kwargs.items()
    if type(value) in (int, float)
]


@pytest.mark.parametrize("name, number, constant", SAMPLES)
def test_constants_on_the_tape_refuse_and_scalars_of_numpy_are_python_numbers(name, number, constant):
    sample = all_samples()[name][number]
    op, value = REGISTRY[name].op, sample.kwargs[constant]
    args = [tg.tensor(a) if isinstance(a, np.ndarray) else a for a in sample.args]
    with pytest.raises(TypeError, match=f"{name}: {constant}: .*on the tape.*it has no derivative here"):
        op(*args, **{**sample.kwargs, constant: leaf(value)})
    scalar = np.float64(value) if type(value) is float else np.int64(value)
    plain, given = op(*args, **sample.kwargs), op(*args, **{**sample.kwargs, constant: scalar})
    for p, g in zip(*(y if isinstance(y, tuple) else (y,) for y in (plain, given))):
        assert g.dtype == p.dtype
        np.testing.assert_array_equal(g.numpy(), p.numpy())


NUMPY = {
    "np.dot": (lambda w: np.dot(A, w), "use tg.matmul"),
    "A.dot": (lambda w: A.dot(w), "use tg's functions|use tinygrad_ms's functions"),
    "np.concatenate": (lambda w: np.concatenate([w, w]), "use tg.concat"),
    "np.stack": (lambda w: np.stack([w, w]), "use tg.stack"),
    "np.where": (lambda w: np.where([True, False], w, 0.0), "use tg.where"),
    "np.einsum": (lambda w: np.einsum("ij,j->i", A, w), "use tg.einsum"),
    "np.clip": (lambda w: np.clip(w, 0.0, 1.0), "use tg.clip"),
    "np.reshape": (lambda w: np.reshape(w, (2, 1)), "use tg.reshape"),
    "np.linalg.norm": (lambda w: np.linalg.norm(w), "np.linalg.norm: .*use tg.norm"),
    "np.linalg.inv": (lambda w: np.linalg.inv(w), "use tg.inv"),
    "np.cumsum": (lambda w: np.cumsum(w), "use tg.cumsum"),
    "np.cross": (lambda w: np.cross(w, A), "use tg.cross"),
    "np.vstack": (lambda w: np.vstack([w, w]), "use tg.vstack"),
    "np.linalg.vector_norm": (lambda w: np.linalg.vector_norm(w), "use tg.vector_norm"),
    "np.linalg.lstsq": (lambda w: np.linalg.lstsq(A, w), "use tg.lstsq"),
    "np.fft.fft": (lambda w: np.fft.fft(w), "use tg's functions|use tinygrad_ms's functions"),
    "np.asarray": (lambda w: np.asarray(w), "x.detach()"),
    "np.array of a list": (lambda w: np.array([w, w]), "x.detach()"),
    "np.copyto": (lambda w: np.copyto(np.zeros(2), w), "use tg.index_update"),
    "a[...] = w": (lambda w: np.zeros(2).__setitem__(slice(None), w), "x.detach()"),
}


@pytest.mark.parametrize("case", NUMPY)
def test_numpy_functions_refuse_tensors_on_the_tape(case):
    function, sentence = NUMPY[case]
    with pytest.raises(TypeError, match=f"on the tape.*its gradient would be lost: .*|{sentence}") as caught:
        function(leaf([0.5, 2.0]))
    assert re.search(sentence, str(caught.value))
    with pytest.raises(TypeError):
        tg.grad(lambda w: tg.sum(function(w)) + w.sum())(np.array([0.5, 2.0]))


def test_numpy_functions_see_the_values_of_tensors_off_the_tape():
    w = tg.tensor([0.5, 2.0])
    assert type(np.dot(A, w)) is np.ndarray
    np.testing.assert_array_equal(np.concatenate([w, {"a": w}["a"]]), [0.5, 2, 0.5, 2])
    np.testing.assert_array_equal(np.where([True, False], w, 0.0), [0.5, 0])
    tracked = leaf([0.5, 2.0])
    assert np.argmax(tracked) == 1 and np.shape(tracked) == (2,) and np.allclose(tracked, w)
    with tg.no_grad():
        np.testing.assert_array_equal(np.stack([tracked, tracked]), [[0.5, 2]] * 2)


def test_numpy_does_not_write_into_a_tensor_without_being_counted():
    t = tg.tensor([0.5, 2.0])
    for write in (lambda: np.copyto(t, 0.0), lambda: np.add.reduce(A, out=t), lambda: np.sum(A, 0, out=t)):
        with pytest.raises(TypeError):
            write()
    assert t.tolist() == [0.5, 2.0]


def test_dlpack_refuses_tensors_on_the_tape():
    with pytest.raises(BufferError, match="lose its gradient"):
        np.from_dlpack(leaf([1.0]))
    assert np.from_dlpack(leaf([1.0]).detach()).tolist() == [1.0]


class TestInPlaceOperators:
    def test_a_leaf_changes_in_place_under_no_grad(self):
        p = leaf([1.0, 2.0])
        array = p.data
        (p * p).sum().backward()
        with tg.no_grad():
            same = p
            p -= 0.5 * p.grad
        assert p is same and p.data is array and p.is_leaf and p.tolist() == [0, 0]
        with tg.no_grad():
            p += 1
            p *= [2.0, 3.0]
            p /= 2
            p **= 2
        assert p is same and p.tolist() == [1, 2.25]

    def test_the_change_is_counted(self):
        p = leaf([1.0, 2.0])
        y = (p * p).sum()
        with tg.no_grad():
            p -= 1.0
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()

    def test_a_leaf_is_refused_while_ops_record(self):
        p = leaf([1.0, 2.0])
        with pytest.raises(RuntimeError, match="in-place change of a tensor that is on the tape"):
            p -= 1.0
        assert p.tolist() == [1, 2]

    def test_elsewhere_the_name_is_bound_anew(self):
        p = leaf([1.0, 2.0])
        y = p * 2
        kept = y
        y += p
        assert y is not kept and kept.tolist() == [2, 4]
        y.sum().backward()
        assert p.grad.tolist() == [3, 3]
        t = before = tg.tensor([1.0])
        t *= 3
        assert before.item() == 1 and t.item() == 3

    def test_the_input_of_a_transform_is_bound_anew(self):
        def f(x):
            x *= x
            return x.sum()

        x = np.array([1.0, 3.0])
        np.testing.assert_array_equal(tg.grad(f)(x).numpy(), [2, 6])
        np.testing.assert_array_equal(tg.hessian(f, x).numpy(), 2 * np.eye(2))
        assert x.tolist() == [1, 3]


class TestNumbersInsideTransforms:
    """A value that becomes a Python number loses its gradient: where the result is a constant, the line is named."""

    @pytest.mark.parametrize("read", [
        float, lambda x: x.item(), lambda x: x.numpy(), lambda x: x.tolist(), lambda x: math.sin(x),
    ])  # fmt: skip
    @pytest.mark.parametrize("transform", [
        tg.grad, tg.jacobian, lambda f: lambda x: tg.vjp(f, x), lambda f: lambda x: tg.jvp(f, (x,), (x,)),
    ])  # fmt: skip
    def test_a_result_off_the_tape_names_the_line(self, read, transform):
        def f(x):
            s = (x * x).sum()
            return read(s) * 2.0  # marked

        if read(tg.tensor(1.0)).__class__ is list:
            return
        with pytest.raises(RuntimeError, match=r"a result is off the tape, .* at .*test_doors.py:\d+") as caught:
            transform(f)(np.array(2.0))
        line = int(str(caught.value).split("test_doors.py:")[1].split(" ")[0])
        text = Path(__file__).read_text(encoding="utf-8").splitlines()[line - 1]
        assert "read(s)" in text or "lambda x: " in text

    def test_a_number_beside_a_result_on_the_tape_is_fine(self):
        def f(x):
            scale = float(x.max())  # a constant on purpose
            return (x / scale).sum()

        np.testing.assert_allclose(tg.grad(f)(np.array([1.0, 4.0])).numpy(), [0.25, 0.25])

    def test_a_result_that_does_not_depend_stays_zero(self):
        x = np.array([1.0, 2.0])
        np.testing.assert_array_equal(tg.grad(lambda x: tg.tensor(3.0))(x).numpy(), [0, 0])
        np.testing.assert_array_equal(tg.grad(lambda x: 3.0)(x).numpy(), [0, 0])
        np.testing.assert_array_equal(tg.hessian(lambda x: (2 * x).sum(), x).numpy(), np.zeros((2, 2)))
        c = leaf(5.0)
        np.testing.assert_array_equal(tg.grad(lambda x: tg.tensor(float(c)))(x).numpy(), [0, 0])

    def test_a_branch_that_depends_on_a_value(self):
        f = lambda x: x * x if float(x) > 1 else 3 * x
        assert tg.grad(f)(2.0).item() == 4 and tg.grad(f)(0.5).item() == 3
        g = lambda x: x * x if x > 1 else tg.tensor(0.0)
        assert tg.grad(g)(0.5).item() == 0

    def test_detach_says_that_no_gradient_is_meant(self):
        assert tg.grad(lambda x: float(x.detach()))(2.0).item() == 0

        def f(x):
            with tg.no_grad():
                return float(x)

        assert tg.grad(f)(2.0).item() == 0

    def test_truth_and_text_are_no_results(self):
        assert tg.grad(lambda x: tg.tensor(1.0 if x else 0.0))(2.0).item() == 0
        assert tg.grad(lambda x: tg.tensor(float(len(f"{x:.3f}"))))(2.0).item() == 0

    def test_a_checkpointed_function_may_report_a_number(self):
        x = leaf(3.0)
        y, seen = tg.checkpoint(lambda x: (x * x, float(x)))(x)
        y.backward()
        assert x.grad.item() == 6 and seen.item() == 3

    def test_of_an_outer_transform(self):
        with pytest.raises(RuntimeError, match="grad: a result is off the tape"):
            tg.grad(lambda x: tg.grad(lambda y: x * y * y)(2.0).item())(np.array(3.0))

    def test_a_python_float_beside_float64_is_not_rounded(self):
        x = np.array([1.0, 2.0])
        g = tg.grad(lambda a, x: (a * a * x).sum())(0.1, x)
        assert g.dtype == np.float64 and g.item() == pytest.approx(0.6, abs=1e-15)
        assert tg.grad(lambda a: a * a)(0.1).dtype == np.float32


class TestScalarsOfNumPy:
    def test_they_are_weak_beside_a_tensor(self):
        x = leaf([1.0, 2.0], "float32")
        for y in (x / np.sqrt(64), np.sqrt(64) / x, np.float64(2) - x, x**np.int64(2), tg.maximum(x, np.float64(0)),
                  tg.where(x > 0, x, np.float64(0)), tg.clip(x, np.float64(0), np.float64(1))):  # fmt: skip
            assert y.dtype == np.float32
        assert (tg.tensor([1.0], dtype="float16") * np.float32(2)).dtype == np.float16
        assert (tg.tensor([1, 2]) * np.float64(0.5)).dtype == np.float32

    def test_arrays_are_not(self):
        x = leaf([1.0, 2.0], "float32")
        assert (x * np.array(2.0)).dtype == np.float64 and (x * np.array([2.0])).dtype == np.float64


class TestOneException:
    @pytest.mark.parametrize("call", [
        lambda: tg.tensor(X) + np.ones(4),
        lambda: tg.tensor(X).reshape((7,)),
        lambda: tg.tensor(X)[9],
        lambda: tg.tensor(X)["a"],
        lambda: tg.log_softmax(tg.tensor(X), axis=4),
        lambda: tg.solve(tg.tensor(A), tg.ones((3, 2), dtype="float64")),
        lambda: tg.inv(tg.tensor(X)),
        lambda: tg.tensor(X).__setitem__(9, 1.0),
        lambda: tg.sum(X, axis=3),
    ])  # fmt: skip
    def test_one_traceback_that_ends_close_to_the_users_line(self, call):
        with pytest.raises(Exception) as caught:
            call()
        error = caught.value
        assert error.__cause__ is None and (error.__context__ is None or error.__suppress_context__)
        text = "".join(traceback.format_exception(error))
        assert text.count("Traceback") == 1
        frames = [f.filename for f in traceback.extract_tb(error.__traceback__)]
        last = max(i for i, name in enumerate(frames) if name == __file__)
        assert len(frames) - 1 - last <= 4
        assert not any("numpy" in name for name in frames[last:])

    def test_in_a_users_primitive_the_users_line_is_the_last_of_ours_and_theirs(self):
        @tg.custom_vjp(lambda g: g)
        def mine(a):
            raise KeyError("theirs")

        with pytest.raises(KeyError, match="theirs") as caught:
            mine(leaf())
        assert caught.value.__cause__ is None
        assert traceback.extract_tb(caught.value.__traceback__)[-1].filename == __file__
        assert caught.value.__notes__ == ["the forward of mine was called with a: float64 () on cpu"]

    def test_it_is_freed_without_the_collector(self):
        gc.collect()
        gc.disable()
        try:
            x = leaf([1.0, 2.0])
            alive = weakref.ref(x)
            with pytest.raises(ValueError):
                x.exp() + np.ones(3)
            with pytest.raises(ValueError):
                tg.inv(x)
            del x
            assert alive() is None
        finally:
            gc.enable()


@pytest.mark.parametrize("call", [tg.layer_norm, tg.rms_norm])
def test_the_eps_of_a_normalisation_is_a_constant(call):
    with pytest.raises(TypeError, match="_norm: eps: a tensor .* on the tape .*it has no derivative here"):
        call(tg.tensor(A), eps=leaf(0.5))
    np.testing.assert_array_equal(call(tg.tensor(A), eps=tg.tensor(0.5)).numpy(), call(tg.tensor(A), eps=0.5).numpy())


def test_a_change_in_place_keeps_the_shape():
    p = leaf([1.0, 2.0])
    with tg.no_grad():
        for change, shapes in (
            (
                lambda p: p.__iadd__(tg.ones((3, 2))),
                r"add in place: the result has shape \(3, 2\) and the tensor \(2,\)",
            ),
            (lambda p: p.__imatmul__(tg.ones(2)), r"matmul in place: the result has shape \(\) and the tensor \(2,\)"),
            (
                lambda p: p.copy_(tg.ones((3, 2))),
                r"copy_: the source has shape \(3, 2\), which does not broadcast to \(2,",
            ),
            (
                lambda p: p.copy_([1.0, 2.0, 3.0]),
                r"copy_: the source has shape \(3,\), which does not broadcast to \(2,\)",
            ),
        ):
            with pytest.raises(ValueError, match=shapes):
                change(p)
    assert p.tolist() == [1, 2] and p.version_counter() == [0]


MASKED = np.ma.masked_array([1.0, 2.0], [False, True])
MASKS = {
    "tensor": lambda m: tg.tensor(m),
    "asarray": lambda m: tg.asarray(m),
    "op": lambda m: tg.exp(m),
    "beside a tensor": lambda m: tg.ones(2) * m,
    "from the left": lambda m: m * tg.ones(2),
    "t[i] = m": lambda m: tg.ones(2).__setitem__(slice(None), m),
    "copy_": lambda m: tg.ones(2).copy_(m),
    "grad": lambda m: tg.grad(lambda x: x.sum())(m),
    "target": lambda m: tg.softmax_cross_entropy(tg.ones((2, 2)), m.astype("int64")),
    "weight": lambda m: tg.softmax_cross_entropy(tg.ones((2, 2)), [0, 1], weight=m),
    "Parameter": lambda m: tg.nn.Parameter(m),
    "index": lambda m: tg.ones(2)[m.astype("int64")],
    "data": lambda m: next(iter(tg.data.DataLoader(m, batch_size=1))),
}


@pytest.mark.parametrize("door", MASKS)
def test_the_mask_of_a_masked_array_is_not_lost(door):
    with pytest.raises(TypeError, match="mask would be lost|MaskedArray.*expected"):
        MASKS[door](MASKED)
