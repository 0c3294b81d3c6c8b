"""NumPy's integers and reals are integers and reals wherever an option is one: they come out of configurations."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.options import as_axes, as_int, is_int, is_real

I, F = np.int64, np.float64
X = np.random.default_rng(0).standard_normal((4, 6))
SQUARE = np.eye(3) + 0.1


def layer(kind, sizes, number):
    """The output of a layer whose sizes and rates are of one kind of number."""
    return kind(*map(number, sizes), rng=number(0))(tg.tensor(X.astype("float32"))[None])


CALLS = {  # the same call by Python's numbers and by NumPy's
    "sum": lambda i, f: tg.tensor(X).sum(axis=(i(0), i(1))),
    "reshape": lambda i, f: tg.tensor(X).reshape((i(2), i(12))),
    "split": lambda i, f: tg.split(tg.tensor(X), i(2), axis=i(1))[1],
    "roll": lambda i, f: tg.roll(tg.tensor(X), i(1), axis=i(0)),
    "layer_norm": lambda i, f: tg.layer_norm(tg.tensor(X), axes=i(-1), eps=f(1e-3)),
    "rms_norm": lambda i, f: tg.rms_norm(tg.tensor(X), axes=(i(0), i(1))),
    "tensordot": lambda i, f: tg.tensordot(tg.tensor(X), X.T, i(1)),
    "tensordot of axes": lambda i, f: tg.tensordot(tg.tensor(X), X, (i(1), i(1))),
    "matrix_power": lambda i, f: tg.matrix_power(tg.tensor(SQUARE), i(-3)),
    "msign": lambda i, f: tg.msign(tg.tensor(SQUARE), steps=i(8)),
    "smooth msign": lambda i, f: tg.msign(tg.tensor(SQUARE), eps=f(0.01), steps=i(8)),
    "msign_unrolled": lambda i, f: tg.msign_unrolled(tg.tensor(SQUARE), steps=i(5)),
    "mcsgn": lambda i, f: tg.mcsgn(tg.tensor(SQUARE), steps=i(9)),
    "solve_lyapunov": lambda i, f: tg.solve_lyapunov(tg.tensor(SQUARE), SQUARE, steps=i(9), parity=i(1)),
    "solve_sylvester": lambda i, f: tg.solve_sylvester(tg.tensor(SQUARE), SQUARE, SQUARE, steps=i(9)),
    "sqrtm": lambda i, f: tg.sqrtm(tg.tensor(SQUARE), steps=i(9)),
    "minimax_coefficients": lambda i, f: tg.tensor(tg.minimax_coefficients(f(0.01), steps=i(5))),
    "grad": lambda i, f: tg.grad(lambda a, b: (a * a * b).sum(), argnums=i(1))(X, X),
    "grads": lambda i, f: tg.grad(lambda a, b: (a * a * b).sum(), argnums=(i(1),))(X, X)[0],
    "Linear": lambda i, f: layer(tg.nn.Linear, (6, 3), i),
    "RNN": lambda i, f: layer(tg.nn.RNN, (6, 3), i)[0],
    "LayerNorm": lambda i, f: tg.nn.LayerNorm(i(6), eps=f(1e-3))(tg.tensor(X.astype("float32"))),
    "TTTMuon": lambda i, f: tg.nn.TTTMuon(
        i(6), i(2), chunk=i(2), hidden=i(4), rng=i(0), base_lr=f(0.2), eps=f(0.02), inner_step=f(0.2)
    )(tg.tensor(X.astype("float32"))[None]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_numpy_scalars_are_numbers(name):
    plain, numpys = CALLS[name](int, float), CALLS[name](I, F)
    assert plain.dtype == numpys.dtype
    np.testing.assert_array_equal(plain.numpy(), numpys.numpy())


def test_muon_takes_numpys_numbers_as_options():
    steps = []
    for i, f in ((int, float), (I, np.float32)):
        p = tg.tensor(np.ones((3, 2), "float32"), requires_grad=True)
        p.grad = tg.tensor(X[:3, :2].astype("float32"))
        tg.optim.Muon([p], lr=f(0.5), momentum=f(0.5), steps=i(5)).step()
        assert p.dtype == "float32"
        steps.append(p.numpy())
    np.testing.assert_array_equal(*steps)


def test_a_summary_takes_shapes_of_numpys_integers():
    assert str(tg.nn.Linear(3, 2).summary((I(1), I(3)))) == str(tg.nn.Linear(3, 2).summary((1, 3)))


@pytest.mark.parametrize("value", [True, np.True_, 1.0, F(2.0), "1", None, np.array([1, 2])])
def test_what_is_no_integer(value):
    assert not is_int(value)
    with pytest.raises(ValueError, match="op: n is .* expected an integer"):
        as_int(value, "op: n")


def test_integers_reals_and_axes():
    assert all(map(is_int, (3, I(3), np.uint8(3), np.array(3)))) and type(as_int(I(3), "op: n", least=3)) is int
    assert all(map(is_real, (3, 0.5, F(0.5), np.float16(0.5), I(3)))) and not any(map(is_real, (True, 1j, "1", None)))
    assert as_axes(I(1)) == (1,) and as_axes([I(0), -1]) == (0, -1)
    with pytest.raises(ValueError, match="op: n is .*0.*, expected an integer of at least 1"):
        as_int(I(0), "op: n", least=1)


@pytest.mark.parametrize(
    "options",
    [{"base_lr": float("nan")}, {"base_lr": float("inf")}, {"inner_step": float("nan")}, {"eps": float("nan")}],
    ids=str,
)
def test_nonsense_options_of_ttt_muon_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        tg.nn.TTTMuon(8, 2, **options)


@pytest.mark.parametrize("row", [(float("nan"), -1.0, 0.5), (1.0, float("inf"), 0.5)])
def test_coefficients_are_finite(row):
    with pytest.raises(ValueError, match="finite"):
        tg.msign(SQUARE, coefficients=(row,))


PRODUCTS = {  # sizes 1 and n of axes that are summed over are different sizes
    "tensordot": lambda: tg.tensordot(np.ones((2, 1)), np.ones((3, 4)), 1),
    "tensordot of axes": lambda: tg.tensordot(np.ones((2, 3)), np.ones((1, 4)), ((1,), (0,))),
    "tensordot of too many": lambda: tg.tensordot(np.ones((2, 3)), np.ones((3, 4)), 3),
    "tensordot of fewer than none": lambda: tg.tensordot(np.ones((2, 3)), np.ones((3, 4)), -1),
    "tensordot of one twice": lambda: tg.tensordot(np.ones((2, 2)), np.ones((2, 2)), ((0, 0), (0, 1))),
    "inner": lambda: tg.inner(np.ones((2, 1)), np.ones((2, 3))),
    "dot": lambda: tg.dot(np.ones((2, 2, 1)), np.ones((2, 3, 4))),
    "vecdot": lambda: tg.vecdot(np.ones((2, 1)), np.ones((2, 3))),
    "vecdot of a number": lambda: tg.vecdot(2.0, np.ones(3)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_do_not_broadcast_what_they_sum_over(name):
    with pytest.raises(ValueError, match=r"has shape \("):
        PRODUCTS[name]()


def test_vecdot_broadcasts_the_other_axes_and_kron_of_numbers_is_a_number():
    a, b = X[:, None], X[None]
    np.testing.assert_allclose(tg.vecdot(tg.tensor(a), b).numpy(), X @ X.T)
    np.testing.assert_allclose(tg.vecdot(tg.tensor(X), X, axis=0).numpy(), (X * X).sum(0))
    product = tg.kron(tg.tensor(2.0), 3.0)
    assert product.shape == np.kron(2.0, 3.0).shape and product.item() == 6


NUMBERS = {
    "elu": lambda c: tg.elu(tg.tensor(X), alpha=c(0.5)),
    "softplus": lambda c: tg.softplus(tg.tensor(X), beta=c(2.0)),
    "leaky_relu": lambda c: tg.leaky_relu(tg.tensor(X), negative_slope=c(0.25)),
    "huber": lambda c: tg.huber(tg.tensor(X), tg.tensor(X[::-1]), delta=c(0.5)),
    "label smoothing": lambda c: tg.softmax_cross_entropy(tg.tensor(X), [0, 1, 2, 3], label_smoothing=c(0.125)),
    "axis": lambda c: tg.tensor(X).sum(axis=c(1)),
}


@pytest.mark.parametrize("call", NUMBERS)
def test_a_tensor_of_one_number_is_that_number_as_an_option(call):
    np.testing.assert_array_equal(NUMBERS[call](tg.tensor).numpy(), NUMBERS[call](lambda c: c).numpy())
    slope, x = tg.tensor(0.25), tg.tensor([-1.0, 2.0], requires_grad=True)
    y = tg.leaky_relu(x, negative_slope=slope).sum()
    slope[...] = 9.0
    y.backward()
    assert x.grad.tolist() == [0.25, 1.0]
