"""The strict device behaves as CuPy does where CuPy and NumPy differ: it catches bugs that NumPy hides."""

import copy
import gc
import pickle
import warnings
import weakref

import numpy as np
import pytest

from tinygrad_ms.testing import strict
from tinygrad_ms.testing.strict import STATS, SyncForbidden, asnumpy, forbid_sync, xp


def device(*shape, dtype="float64"):
    """Distinct numbers 0, 1, 2, ... on the strict device."""
    return xp.asarray(np.arange(np.prod(shape, dtype=int), dtype=dtype).reshape(shape))


def same(strict_array, expected):
    assert type(strict_array) is strict.ndarray
    expected = np.asarray(expected)
    assert strict_array.dtype == expected.dtype and strict_array.shape == expected.shape
    np.testing.assert_array_equal(asnumpy(strict_array), expected)


# Operators, methods and functions that are alike ------------------------------------------------------------

BINARY = [
    "a + b",
    "a - b",
    "a * b",
    "a / b",
    "a // b",
    "a % b",
    "a ** b",
    "a < b",
    "a <= b",
    "a == b",
    "a != b",
    "a > b",
    "a >= b",
    "a + 2",
    "2 - a",
    "2 / a",
    "3 // a",
    "7 % a",
    "2 ** a",
    "a * np.float32(3)",
    "np.float32(3) * a",
    "np.float64(3) * a",
    "a @ b.T",
    "-a",
    "+a",
    "abs(a - 3)",
    "~(a > 2)",
    "(a > 1) & (b > 2)",
    "(a > 1) | True",
    "(a > 1) ^ (b > 2)",
    "a.astype('i4') << 1",
    "8 >> a.astype('i4')",
    "divmod(a, b)[1]",
]
METHODS = [
    "a.sum()",
    "a.sum(axis=0)",
    "a.sum(1, keepdims=True)",
    "a.mean()",
    "a.max(axis=1)",
    "a.min()",
    "a.prod()",
    "a.argmax()",
    "a.argmin(axis=0)",
    "(a > 2).any()",
    "(a > 2).all(axis=0)",
    "a.copy()",
    "a.ravel()",
    "a.flatten()",
    "a.squeeze()",
    "a.swapaxes(0, 1)",
    "a.reshape(3, 2)",
    "a.reshape((3, -1))",
    "a.transpose()",
    "a.transpose(1, 0)",
    "a.T",
    "a.mT",
    "a.cumsum(axis=1)",
    "a.clip(2, 4)",
    "a.round(1)",
    "a.take([0, 2], axis=1)",
    "a.dot(b.T)",
    "a.var(axis=0, ddof=1)",
    "a.std()",
    "a.trace()",
    "a.diagonal()",
    "a.repeat(2, axis=0)",
    "a.view('i4')",
    "a.astype('f8')",
    "a.real",
    "a[1]",
    "a[:, 1:]",
    "a[..., None]",
    "a[0, 0]",
    "a[-1, ::-1]",
]
FUNCTIONS = [
    "xp.exp(a)",
    "xp.add(a, b, dtype='f8')",
    "xp.maximum(a, 2)",
    "xp.where(a > 2, a, 0.0)",
    "xp.concatenate([a, b])",
    "xp.stack((a, b), axis=1)",
    "xp.einsum('ij,kj->ik', a, b)",
    "xp.tensordot(a, b, axes=([1], [1]))",
    "xp.broadcast_to(a[0], (2, 3))",
    "xp.zeros((2, 3), dtype='f4')",
    "xp.ones_like(a)",
    "xp.full((2,), 3.0)",
    "xp.arange(3)",
    "xp.eye(3)",
    "xp.linspace(0, 1, 5)",
    "xp.tril(a)",
    "xp.moveaxis(a, 0, 1)",
    "xp.pad(a, 1)",
    "xp.linalg.norm(a)",
    "xp.linalg.inv(b @ b.T)",
    "xp.linalg.solve(b @ b.T, a)",
    "xp.linalg.svd(a)[1]",
    "xp.split(a, [1], axis=1)[1]",
    "xp.meshgrid(a[0], b[0])[0]",
    "xp.take_along_axis(a, a.argmax(1)[:, None], 1)",
    "xp.add.reduce(a)",
    "xp.multiply.accumulate(a)",
    "xp.add.outer(a[0], b[0])",
    "xp.clip(a, None, 2)",
    "xp.array(1.0)",
    "xp.asarray([[1, 2], [3, 4]])",
    "np.sum(a)",
    "np.exp(a)",
    "np.concatenate([a, b])",
]


@pytest.mark.parametrize("expression", BINARY + METHODS + FUNCTIONS)
def test_the_same_value_and_dtype_as_numpy(expression):
    a, b = np.arange(1, 7, dtype="f4").reshape(2, 3), np.array([[2, 1, 3], [1, 5, 2]], "f4")
    same(
        eval(expression, {"xp": xp, "np": np, "a": xp.asarray(a), "b": xp.asarray(b)}),
        eval(expression, {"xp": np, "np": np, "a": a, "b": b}),
    )


@pytest.mark.parametrize(
    "statement",
    [
        "a += b",
        "a -= 1",
        "a *= b",
        "a /= b",
        "a //= 2",
        "a %= b",
        "a **= 2",
        "a[0] = b[1]",
        "a[:, 1] = 7",
        "a.fill(3)",
        "a[[0, 1], [2, 0]] = b[0, :2]",
        "a[a > 2] = 0",
    ],
)
def test_in_place_statements_change_the_array_itself(statement):
    a, b = np.arange(1, 7, dtype="f4").reshape(2, 3), np.array([[2, 1, 3], [1, 5, 2]], "f4")
    names = {"a": xp.asarray(a), "b": xp.asarray(b)}
    before = names["a"]
    exec(statement, names)
    exec(statement, {"a": a, "b": b})
    assert names["a"] is before
    same(before, a)


def test_attributes():
    x = device(2, 3, dtype="f4")
    assert (x.shape, x.ndim, x.size, x.nbytes, x.itemsize, x.strides) == ((2, 3), 2, 6, 24, 4, (12, 4))
    assert x.dtype == np.float32 and x.device.id == 0 and len(x) == 2
    assert x.flags.c_contiguous and not x.T.flags.c_contiguous
    assert xp.float32 is np.float32 and xp.newaxis is None and xp.pi == np.pi and xp.ndarray is strict.ndarray
    assert xp.result_type(x, np.float64) == np.float64 and xp.ndim(x) == 2 and xp.shape(x) == (2, 3)
    assert xp.get_array_module(x) is xp and xp.get_array_module(np.ones(1)) is np


def test_views_share_memory_and_know_their_owner():
    x = device(2, 3)
    views = [
        x[0],
        x[0, 0],
        x.T,
        x.mT,
        x.T[1:],
        x.reshape(6),
        x.ravel(),
        x[None],
        x.view(),
        x.diagonal(),
        xp.broadcast_to(x, (4, 2, 3)),
        xp.swapaxes(x, 0, 1),
        xp.split(x, 2)[1],
        xp.expand_dims(x, 0),
    ]
    assert x.base is None and all(view.base is x for view in views)
    owners = [
        x.copy(),
        x + 1,
        x.T.reshape(6),
        x[[0, 1]],
        x[x > 1],
        x[xp.asarray(1)],
        x.flatten(),
        x.sum(0),
        x.astype("f4"),
    ]
    assert all(owner.base is None for owner in owners)
    x[0, 0] = 9
    assert float(views[1]) == 9
    views[5][5] = -1
    assert float(x[1, 2]) == -1


def test_out_returns_the_array_given():
    x, out = device(3), xp.empty(3)
    assert xp.add(x, x, out=out) is out and xp.add(x, x, out) is out and xp.add(x, 1, out=x) is x
    assert xp.sum(x, axis=0, out=out[:1].reshape(())).base is out
    y = device(3)
    assert xp.matmul(xp.eye(3), y, out=out) is out and y.cumsum(out=out) is out
    same(out, np.cumsum(np.arange(3.0)))


def test_what_needs_no_copy_is_the_same_object():
    x = device(3)
    assert xp.asarray(x) is x and x.astype("f8", copy=False) is x and xp.atleast_1d(x) is x
    assert xp.array(x) is not x and xp.asarray(x, dtype="f4") is not x


def test_pickle_and_copies():
    x = device(2, 2)
    for y in (pickle.loads(pickle.dumps(x)), copy.copy(x), copy.deepcopy(x)):
        same(y, asnumpy(x))
        y[0, 0] = 5
    assert float(x[0, 0]) == 0


def test_arrays_are_freed_without_the_garbage_collector():
    gc.disable()
    try:
        x = device(3)
        alive = weakref.ref(x)
        del x
        assert alive() is None
    finally:
        gc.enable()


# Differences: refused mixtures ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "x + h",
        "h + x",
        "x @ h",
        "h @ x",
        "x == h",
        "x + [1.0, 2.0]",
        "x + None",
        "xp.add(x, h)",
        "xp.exp(h)",
        "xp.exp([1.0])",
        "np.add(x, h)",
        "np.multiply(h, x)",
        "xp.sum(h)",
        "xp.sum([1.0])",
        "xp.sum(2.0)",
        "xp.where(x > 0, x, h)",
        "xp.stack([x, h])",
        "xp.matmul(x, [1.0, 2.0])",
        "x.dot(h)",
        "xp.where(True, x, x)",
        "xp.zeros_like(h)",
        "xp.clip(x, h, 3)",
        "xp.maximum(x, h)",
        "xp.full((2,), h)",
        "xp.einsum('i,i', x, h)",
        "xp.stack([[1.0], [2.0]])",
        "np.concatenate([h, x])",
        "x.__iadd__(h)",
        "x.__setitem__(0, [1.0, 2.0])",
        "xp.mean(a=h)",
        "xp.reshape(h, (2, 1))",
        "xp.add(x, x, out=h)",
    ],
)
def test_host_arrays_and_lists_are_refused(expression):
    with pytest.raises(TypeError, match="Unsupported type"):
        eval(expression, {"x": device(2), "h": np.ones(2), "xp": xp, "np": np})


def test_host_array_as_a_value_is_refused_by_plain_and_taken_by_advanced_indices():
    x = device(3)
    with pytest.raises(ValueError, match="non-scalar numpy.ndarray cannot be used for fill"):
        x[:] = np.ones(3)
    strict.reset_stats()
    x[[0, 2]] = np.array([7.0, 8.0])
    assert STATS.h2d == 2  # the indices and the values
    same(x, [7.0, 1.0, 8.0])


@pytest.mark.parametrize(
    "expression",
    [
        "np.asarray(x)",
        "np.array([x, x])",
        "np.testing.assert_allclose(x, x)",
        "np.ones(3)[x.astype(int)]",
        "np.isin([1], x)",
    ],
)
def test_no_implicit_conversion_to_numpy(expression):
    with pytest.raises(TypeError):
        eval(expression, {"x": device(2), "np": np})
    with pytest.raises(TypeError, match=r"Implicit conversion to a NumPy array is not allowed.*`.get\(\)`"):
        np.asarray(device(2))


@pytest.mark.parametrize(
    "expression",
    [
        "range(n)",
        "[1, 2, 3][n]",
        "xp.zeros(n)",
        "xp.zeros((n, 2))",
        "x.reshape(n, 1)",
        "x.sum(axis=n)",
        "xp.sum(x, axis=n)",
        "x[n:]",
        "'a' * n",
        "hash(n)",
        "{n}",
    ],
)
def test_no_index_and_no_hash(expression):
    with pytest.raises(TypeError):
        eval(expression, {"x": device(2), "n": device(3).argmax(), "xp": xp})


def test_reductions_and_elements_stay_arrays():
    x = device(2, 2)
    results = [
        x.sum(),
        x.mean(),
        x[0, 0],
        x.max(),
        xp.linalg.norm(x),
        xp.dot(x[0], x[1]),
        xp.trace(x),
        xp.array_equal(x, x),
        xp.allclose(x, x),
        xp.count_nonzero(x),
        x.argmax(),
        xp.exp(1.0),
        x.all(),
    ]
    assert all(type(r) is strict.ndarray and r.shape == () for r in results)


def test_operators_yield_to_a_foreign_type_that_asks_for_it():
    class Tensor:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "reflected"

        __rmatmul__ = __radd__

    assert device(2) + Tensor() == "reflected" and device(2) @ Tensor() == "reflected"


def test_matmul_in_place_rebinds_as_on_cupy():
    x = before = device(2, 2)
    x @= xp.eye(2)
    assert x is not before


# Differences: names and keywords ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "insert",
        "block",
        "geomspace",
        "unstack",
        "vecdot",
        "errstate",
        "seterr",
        "einsum_path",
        "frompyfunc",
        "spacing",
        "nanquantile",
        "object_",
        "linalg.multi_dot",
        "linalg.svdvals",
        "linalg.vector_norm",
        "linalg.matrix_norm",
        "linalg.trace",
        "linalg.diagonal",
        "random.get_state",
        "testing",
        "no_such_name",
    ],
)
def test_names_that_cupy_lacks(name):
    module = xp
    *parents, last = name.split(".")
    for parent in parents:
        module = getattr(module, parent)
    assert not hasattr(module, last)


@pytest.mark.parametrize(
    "name",
    [
        "__index__",
        "__contains__",
        "__imatmul__",
        "__array_namespace__",
        "__array_interface__",
        "resize",
        "setflags",
        "ctypes",
        "to_device",
    ],
)
def test_attributes_that_cupy_arrays_lack(name):
    assert not hasattr(device(2), name)


@pytest.mark.parametrize(
    "call",
    [
        "x.sum(where=x > 0)",
        "xp.max(x, initial=0)",
        "xp.add(x, x, where=x > 0)",
        "xp.take(x, 0, mode='clip')",
        "xp.zeros(2, device='cpu')",
        "xp.std(x, correction=1)",
        "xp.clip(x, min=0, max=1)",
        "xp.sort(x, stable=True)",
        "xp.einsum('i->i', x, out=x)",
        "xp.linalg.svd(x, hermitian=True)",
        "xp.linalg.pinv(x, rtol=0.1)",
    ],
)
def test_keywords_that_cupy_lacks(call):
    with pytest.raises(TypeError):
        eval(call, {"x": device(2), "xp": xp})


@pytest.mark.parametrize(
    "call", ["xp.maximum.reduce(x)", "xp.logaddexp.reduce(x)", "xp.minimum.accumulate(x)", "xp.multiply.at(x, 0, 2.0)"]
)
def test_ufunc_methods_that_cupy_lacks(call):
    with pytest.raises(NotImplementedError, match="is not supported yet"):
        eval(call, {"x": device(2), "xp": xp})


@pytest.mark.parametrize(
    "name, supported, refused",
    [
        ("add", ["f2", "f4", "f8", "i4", "i8"], ["i2", "?"]),
        ("subtract", ["i4", "u4"], ["f4", "f8", "i8"]),
        ("maximum", ["f4", "f8", "i4"], ["f2"]),
        ("minimum", ["f4", "f8", "i4"], ["f2"]),
    ],
)
def test_ufunc_at_works_for_the_dtypes_with_atomics(name, supported, refused):
    index = xp.asarray([0, 0, 4])  # 4 wraps to 1
    for dtype in supported:
        x, expected = device(3, dtype=dtype), np.arange(3, dtype=dtype)
        getattr(xp, name).at(x, index, xp.asarray(np.array([5, 6, 7], dtype)))
        getattr(np, name).at(expected, [0, 0, 1], np.array([5, 6, 7], dtype))
        same(x, expected)
    for dtype in refused:
        with pytest.raises(TypeError, match=f"cupy.{name}.at supports"):
            getattr(xp, name).at(xp.zeros(3, dtype), index, 1)


def test_names_agree_with_cupy_itself():
    cupy = pytest.importorskip("cupy")
    modules = ((xp, cupy, np), (xp.linalg, cupy.linalg, np.linalg), (xp.fft, cupy.fft, np.fft))
    for here, there, source in modules:
        assert [n for n in dir(source) if hasattr(here, n) and not hasattr(there, n) and n[0] != "_"] == []
    assert [n for n in dir(strict.ndarray) if n[0] != "_" and not hasattr(cupy.ndarray, n)] == []


# Differences: values ----------------------------------------------------------------------------------------


def test_host_data_is_copied_never_aliased():
    h = np.zeros(3)
    x = xp.asarray(h)
    h[0] = 1
    assert float(x[0]) == 0
    y = asnumpy(x)
    y[1] = 1
    assert float(x[1]) == 0


def test_unsupported_dtypes_are_refused():
    hosts = [np.array(["a"]), np.array([None]), np.zeros(2, "datetime64[s]"), np.zeros(2, np.clongdouble)]
    for convert in [*(lambda h=h: xp.asarray(h) for h in hosts), lambda: xp.zeros(2).astype(object)]:
        with pytest.raises(ValueError, match="Unsupported dtype"):
            convert()


def test_fresh_memory_is_poisoned():
    assert np.isnan(xp.empty((2, 3), "f4").get()).all() and np.isnan(xp.empty_like(device(2)).get()).all()
    assert np.isnan(strict.ndarray((2,)).get()).all()
    assert int(xp.empty((), "i4")) == 2**31 - 1 and bool(xp.empty((), "?"))


def test_out_of_bounds_integer_arrays_wrap_but_integers_raise():
    x = device(3)
    same(x[xp.asarray([3, 7, -4])], [0.0, 1.0, 2.0])
    same(x[[5]], [2.0])
    same(xp.take(x, xp.asarray([3, -1])), [0.0, 2.0])
    same(x.take(4), 1.0)
    same(xp.take_along_axis(x, xp.asarray([4]), 0), [1.0])
    same(device(2, 3)[xp.asarray([2]), ..., xp.asarray([3])], [0.0])
    x[xp.asarray([3])] = 9.0
    same(x, [9.0, 1.0, 2.0])
    with pytest.raises(IndexError):
        x[3]


def test_of_several_assignments_to_one_place_not_the_last_wins():
    x = device(3)
    x[xp.asarray([1, 1])] = xp.asarray([5.0, 6.0])
    assert float(x[1]) == 5
    y = device(2, 2)
    y.T[[0, 0], [1, 1]] = xp.asarray([5.0, 6.0])
    same(y, [[0.0, 1.0], [5.0, 3.0]])
    z = device(3)
    z[[1, 1]] += 1
    assert float(z[1]) == 2


@pytest.mark.parametrize(
    "source, value, target, expected",
    [
        ("f4", -1.5, "u4", 0),
        ("f4", -1.5, "u8", 0),
        ("f4", np.inf, "i4", 2**31 - 1),
        ("f8", -np.inf, "i4", -(2**31)),
        ("f8", 1e30, "i8", 2**63 - 1),
        ("f8", 1e30, "u8", 2**64 - 1),
        ("f4", np.nan, "i4", 0),
        ("f4", np.nan, "i8", -(2**63)),
        ("f4", 3.9, "i4", 3),
        ("f4", -3.9, "i4", -3),
        ("f8", 300.0, "u1", 44),
        ("f2", np.inf, "i4", 2**31 - 1),
    ],
)
def test_casts_saturate(source, value, target, expected):
    x = xp.asarray([value], dtype=source)
    assert int(x.astype(target)[0]) == expected
    y = xp.zeros(1, target)
    y[:] = x
    assert int(y[0]) == expected


def test_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x = xp.zeros(2)
        for r in (x / x, 1 / x, xp.log(x), xp.log(x - 1), xp.exp(x + 1e4), (x + 1e200) ** 2, (x / 0).sum()):
            assert not np.isfinite(r.get()).all()


def test_linear_algebra_gives_nan_instead_of_an_error():
    singular, indefinite = xp.stack([xp.eye(2), xp.zeros((2, 2))]), xp.stack([xp.eye(2), -xp.eye(2)])
    for r in (
        xp.linalg.inv(singular),
        xp.linalg.solve(singular, xp.ones((2, 2, 1))),
        xp.linalg.solve(singular, xp.ones(2)),
        xp.linalg.cholesky(indefinite),
    ):
        assert np.isfinite(r.get()[0]).all() and np.isnan(r.get()[1]).any()
    assert np.isnan(xp.linalg.inv(xp.ones((2, 2))).get()).all()
    nan = xp.full((2, 2), np.nan)
    assert all(np.isnan(part.get()).all() for part in xp.linalg.svd(nan))
    with pytest.raises(np.linalg.LinAlgError):
        xp.linalg.inv(xp.ones((2, 3)))


def test_linear_algebra_refuses_float16_and_broadcasting_in_solve():
    for f in (xp.linalg.inv, xp.linalg.svd, xp.linalg.qr, xp.linalg.cholesky, xp.linalg.det):
        with pytest.raises(TypeError, match="float16 is unsupported"):
            f(xp.eye(2, dtype="f2"))
    with pytest.raises(ValueError, match="CuPy does not broadcast"):
        xp.linalg.solve(xp.stack([xp.eye(2)] * 3), xp.ones((2, 1)))
    same(xp.linalg.solve(xp.eye(2), xp.ones(2)), [1.0, 1.0])


def test_random_numbers_differ_from_numpy_and_repeat_for_a_seed():
    a, b = (xp.random.default_rng(0).random(4, dtype="f4") for _ in range(2))
    same(a, b.get())
    assert a.dtype == np.float32 and not np.allclose(a.get(), np.random.default_rng(0).random(4))
    xp.random.seed(0)
    c = xp.random.normal(size=(2, 2))
    xp.random.seed(0)
    same(xp.random.normal(size=(2, 2)), c.get())
    for name in ("normal", "choice", "permutation", "shuffle", "spawn", "bit_generator"):
        assert not hasattr(xp.random.default_rng(0), name)


# Synchronisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        "bool(s)",
        "int(s)",
        "float(s)",
        "complex(s)",
        "s.item()",
        "x.get()",
        "x.tolist()",
        "x.tobytes()",
        "repr(x)",
        "str(x)",
        "f'{s:.3f}'",
        "x[x > 1]",
        "x.__setitem__(x > 1, 0.0)",
        "xp.nonzero(x)",
        "x.nonzero()",
        "xp.where(x > 1)",
        "xp.unique(x)",
        "xp.argwhere(x)",
        "xp.asnumpy(x)",
        "max(x)",
        "1.0 in x",
        "s if s > 0 else 0",
        "xp.bincount(x.astype(int))",
        "xp.compress(x > 1, x)",
        "__import__('pickle').dumps(x)",
        "strict.asnumpy(x)",
    ],
)
def test_reading_a_value_is_a_synchronisation(expression):
    names = {"x": device(3), "s": device(3).sum(), "xp": xp, "strict": strict}
    with forbid_sync(), pytest.raises(SyncForbidden, match="forbid_sync"):
        eval(expression, names)
    strict.reset_stats()
    eval(expression, names)
    assert STATS.sync >= 1


def test_working_on_the_device_is_no_synchronisation():
    strict.reset_stats()
    with forbid_sync():
        x = device(4, 3)
        labels = xp.asarray([0, 2, 1, 0])
        logits = x - x.max(axis=1, keepdims=True)
        p = xp.exp(logits) / xp.exp(logits).sum(axis=1, keepdims=True)
        loss = -xp.log(p[xp.arange(4), labels]).mean()
        g = p.copy()
        xp.add.at(g, (xp.arange(4), labels), -1.0)
        total = sum(iter(g.sum(axis=1)))
        copy.deepcopy(loss)
    assert (STATS.sync, STATS.d2h, STATS.h2d) == (0, 0, 2) and STATS.calls > 10
    assert abs(float(total)) < 1e-12
    assert (STATS.sync, STATS.d2h) == (1, 1)


def test_forbid_sync_ends_with_its_block():
    with pytest.raises(SyncForbidden), forbid_sync():
        device(1).get()
    assert float(device(1)[0]) == 0


# Planted bugs: each statement runs on NumPy and fails on a GPU ----------------------------------------------

PLANTED = {
    "mask made on the host": "x * (np.arange(4) < 2)",
    "noise from the host generator": "x + np.random.default_rng(0).standard_normal(4)",
    "gradient buffer of the wrong library": "np.zeros(4).__iadd__(x)",
    "identity of the wrong library": "xp.linalg.solve(w, np.eye(4))",
    "stack of both libraries": "xp.stack([x, np.zeros(4)])",
    "product with a list": "xp.matmul(w, [1.0, 2.0, 3.0, 4.0])",
    "host assertion": "np.testing.assert_allclose(x, x)",
    "branch on the loss": "'small' if x.sum() < 100 else 'large'",
    "normal of the new generator": "xp.random.default_rng(0).normal(size=4)",
    "insert": "xp.insert(x, 0, 1.0)",
    "universal function of a list": "xp.exp([0.0, 1.0])",
    "assignment of a list": "w.__setitem__(0, [1.0, 2.0, 3.0, 4.0])",
    "count from the device": "list(range(x.argmax()))",
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_bug_runs_on_numpy_and_is_caught_here(bug):
    names = {"np": np, "x": np.arange(4.0), "w": np.eye(4)}
    eval(PLANTED[bug], {**names, "xp": np})
    with forbid_sync(), pytest.raises((TypeError, AttributeError, SyncForbidden)):
        eval(PLANTED[bug], {"np": np, "xp": xp, "x": xp.asarray(names["x"]), "w": xp.asarray(names["w"])})


def test_planted_bug_reusing_a_host_buffer_is_caught_by_its_value():
    buffer = np.zeros(2)
    batches = {}
    for library in (np, xp):
        batch = library.asarray(buffer)
        buffer[:] = 1  # "refill the batch", which a device copy does not see
        batches[library] = float(batch.sum())
        buffer[:] = 0
    assert batches == {np: 2.0, xp: 0.0}
