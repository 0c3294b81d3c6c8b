"""Products, decompositions and functions of matrices: what is made of primitives, gauges, hard cases, errors.

Every primitive is checked at its samples by test_derivatives.py.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.linalg

import tinygrad_ms as tg
from tests.samples.linalg.decompositions import SPREAD, SQUARE, TALL, WIDE, positive_definite
from tests.samples.linalg.solve import by_minors, by_minors_of_minors, leibniz, regular
from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.engine.around.modes import hooks
from tinygrad_ms.testing import check_jvp, gradcheck, gradgradcheck

RANDOM = np.random.default_rng(0)


def normal(*shape):
    return RANDOM.standard_normal(shape)


def leaf(array):
    return tg.tensor(array, requires_grad=True)


def check(function, *arrays, order=2):
    """All derivatives of a composition against differences."""
    inputs = [leaf(a) for a in arrays]
    assert gradcheck(function, inputs) and check_jvp(function, inputs)
    assert order < 2 or gradgradcheck(function, inputs)


def gradient(function, *arrays):
    inputs = [leaf(a) for a in arrays]
    function(*inputs).backward()
    return inputs[0].grad.data if len(inputs) == 1 else [x.grad.data for x in inputs]


# --- products -----------------------------------------------------------------------------------------------

EINSUMS = {
    "ij,jk": [(2, 3), (3, 4)],
    "...ij,...jk->...ik": [(2, 2, 3), (3, 4)],
    "bi...,i...->b...": [(2, 3, 2), (3, 2)],
    "ii": [(3, 3)],
    "ii->i": [(3, 3)],
    "iij->ji": [(2, 2, 3)],
    "iii->": [(2, 2, 2)],
    "ij->": [(2, 3)],
    "ij->ji": [(2, 3)],
    "ba": [(2, 3)],
    "i->i": [(3,)],
    "...->...": [(2, 3)],
    "ij,kl->jl": [(2, 3), (2, 2)],
    "iij,jk->ik": [(2, 2, 3), (3, 2)],
    "ij,ij->ij": [(1, 3), (2, 3)],
    "ij,jk->ik ": [(2, 1), (3, 2)],
    "i,i,i->": [(3,), (3,), (3,)],
    "ij,jk,kl,lm->im": [(2, 3), (3, 2), (2, 3), (3, 2)],
    "ab,c,dcb->ad": [(2, 3), (2,), (3, 2, 3)],
    ",i->i": [(), (3,)],
}


@pytest.mark.parametrize("subscripts", EINSUMS)
def test_einsum(subscripts):
    arrays = [normal(*shape) for shape in EINSUMS[subscripts]]
    value = tg.einsum(subscripts, *map(tg.tensor, arrays)).data
    np.testing.assert_allclose(value, np.einsum(subscripts, *arrays), rtol=1e-12, atol=1e-12)
    check(lambda *x: tg.einsum(subscripts, *x), *arrays)


@pytest.mark.parametrize("subscripts, shapes, reason", [
    ("ij,jk->ik", [(2, 3), (4, 2)], "axis 'j' has sizes 3 and 4"),
    ("ij->ij", [(2, 3), (4, 2)], "1 operands are named and 2 given"),
    ("ijk->i", [(2, 3)], "'ijk' names 3 axes of an operand with 2"),
    ("ij->ik", [(2, 3)], "the result must name each of its axes once, by a letter of an operand"),
    ("i1->i", [(2, 3)], "'i1' must be letters and at most one '...'"),
])  # fmt: skip
def test_einsum_errors_are_sentences(subscripts, shapes, reason):
    with pytest.raises(ValueError, match="^einsum: subscripts") as caught:
        tg.einsum(subscripts, *[np.ones(shape) for shape in shapes])
    assert str(caught.value).endswith(": " + reason)
    assert ", ".join(map(str, shapes)) in str(caught.value)


@pytest.mark.parametrize("a, b, sentence", [
    ((64, 10), (12, 3), "the inner dimensions 10 and 12 differ"),
    ((64, 10), (12, 10), "the inner dimensions 10 and 12 differ; did you mean a @ b.T?"),
    ((10, 64), (10, 3), "the inner dimensions 64 and 10 differ; did you mean a.T @ b?"),
    ((5, 4, 10), (5, 12, 10), "the inner dimensions 10 and 12 differ; did you mean a @ b.mT?"),
    ((3,), (4,), "the inner dimensions 3 and 4 differ"),
    ((2, 3, 4), (3, 4, 5), "the batch dimensions (2,) and (3,) do not broadcast"),
    ((3, 3), (), "a number is no matrix; multiply by it with *"),
])  # fmt: skip
def test_matmul_errors_are_sentences(a, b, sentence):
    with pytest.raises(ValueError) as caught:
        tg.tensor(np.ones(a)) @ np.ones(b)
    assert str(caught.value) == f"matmul: a has shape {a} and b has shape {b}: {sentence}"


def test_matmul_meets_arrays_and_lists_on_either_side():
    a, b = normal(2, 3), normal(3, 2)
    for product in (tg.tensor(a) @ b, a @ tg.tensor(b), tg.tensor(a) @ b.tolist()):
        assert isinstance(product, tg.Tensor)
        np.testing.assert_allclose(product.data, a @ b)


@pytest.mark.parametrize("name, shapes", [
    ("dot", [(3,), (3,)]), ("dot", [(2, 3), (3,)]), ("dot", [(2, 2, 3), (2, 3, 2)]), ("dot", [(), (3,)]),
    ("inner", [(3,), (3,)]), ("inner", [(2, 3), (4, 3)]), ("inner", [(2, 2, 3), (2, 3)]),
    ("outer", [(3,), (2,)]), ("tensordot", [(2, 3, 2), (3, 2, 2)]),
    ("kron", [(2, 3), (2, 2)]), ("kron", [(3,), (2,)]), ("kron", [(2, 1), (3,)]), ("vecdot", [(2, 3), (3,)]),
])  # fmt: skip
def test_products_are_those_of_numpy(name, shapes):
    arrays = [normal(*shape) for shape in shapes]
    function = getattr(tg, name)
    np.testing.assert_allclose(function(*map(tg.tensor, arrays)).data, getattr(np, name)(*arrays), rtol=1e-12)
    check(function, *arrays)


@pytest.mark.parametrize("turned", [(True, False), (False, True), (True, True)])
def test_gradients_of_transposed_stacks_lie_in_memory_as_the_stacks_do(turned):
    def product(x, y):
        a, b = (z.mT if t else z for z, t in zip((x, y), turned))
        return a @ b

    shapes = [(2, 3, n, m) if t else (2, 3, m, n) for (m, n), t in zip(((4, 5), (5, 6)), turned)]
    rng = np.random.default_rng(0)
    x, y = (tg.tensor(rng.normal(size=shape), requires_grad=True) for shape in shapes)
    seen = []
    observer = SimpleNamespace(after_rule=lambda node, g, found: seen.extend((p.shape, d) for p, d in found))
    with hooks(observer):
        product(x * 1.0, y * 1.0).sum().backward()
    kept = [d for shape, d in seen if shape in shapes and d.shape == shape]
    assert len(kept) >= 4 and all(d.flags.c_contiguous for d in kept)
    gradcheck(product, [x, y])
    gradgradcheck(product, [x, y])


def test_tensordot_over_named_axes():
    a, b = normal(2, 3, 4), normal(4, 2, 3)
    value = tg.tensordot(a, b, axes=([1, 2], [2, 0]))
    np.testing.assert_allclose(value, np.tensordot(a, b, axes=([1, 2], [2, 0])))
    with pytest.raises(ValueError, match="name 2 axes of a and 1 of b"):
        tg.tensordot(a, b, axes=([1, 2], [2]))


def test_kron_works_on_batches():
    a, b = normal(2, 2, 3), normal(2, 2)
    np.testing.assert_allclose(tg.kron(a, b), [np.kron(m, b) for m in a])


# --- parts --------------------------------------------------------------------------------------------------


def test_vec_stacks_columns_and_turns_products_into_kronecker_products():
    a, x, b = normal(2, 3), normal(3, 4), normal(4, 2)
    np.testing.assert_array_equal(tg.vec(np.array([[1, 2], [3, 4]])), [1, 3, 2, 4])
    np.testing.assert_allclose(tg.kron(b.T, a) @ tg.vec(x), tg.vec(a @ x @ b), rtol=1e-12)


def test_diag_and_trace():
    x = normal(3, 4)
    np.testing.assert_array_equal(tg.diag(x, 1), np.diag(x, 1))
    np.testing.assert_array_equal(tg.diag(x[0], -1), np.diag(x[0], -1))
    np.testing.assert_allclose(tg.trace(np.stack([x, 2 * x])), [np.trace(x), 2 * np.trace(x)])
    check(lambda x: tg.diag(tg.diag(x)), x[:3, :3])


def test_matrix_derivatives_of_the_source_table():
    """AIDIY, section 3; the shapes of its quadratic form and of X A X^T are those in which the product
    exists."""
    a, x, m = normal(3, 2), normal(2, 3), normal(3, 3)
    np.testing.assert_allclose(gradient(lambda x: tg.trace(tg.tensor(a) @ x), x), a.T)
    np.testing.assert_allclose(gradient(lambda x: tg.trace(x @ m @ x.T), x), x @ (m + m.T))
    square = regular(3, 3)
    inverse = np.linalg.inv(square)
    np.testing.assert_allclose(gradient(tg.det, square), np.linalg.det(square) * inverse.T)
    jacobian = tg.jacobian(lambda x: tg.vec(tg.inv(x)), tg.tensor(square))
    by_table = -np.kron(inverse.T, inverse)  # of vec(X^{-1}) by vec(X)
    np.testing.assert_allclose(tg.vec(jacobian).data, by_table, rtol=1e-10)


# --- equations ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"lower": True}, {"unit_diagonal": True}])
def test_solve_triangular_is_that_of_scipy(options):
    for n in (5, 100, 200):
        a, b = normal(n, n) / n + np.eye(n), normal(n, 3)
        expected = scipy.linalg.solve_triangular(a, b, **options)
        np.testing.assert_allclose(tg.solve_triangular(a, b, **options), expected, rtol=1e-10, atol=1e-12)


def test_triangles_with_a_huge_spread_are_solved_by_substitution_without_exchanging_rows():
    a = np.array([[1e-12, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(tg.solve_triangular(a, np.array([1e-12, 3.0]), lower=True), [1, 2])


@pytest.mark.parametrize("solver", [tg.solve, tg.solve_triangular])
def test_solvers_take_vectors(solver):
    a, b = regular(3, 3), normal(3)
    np.testing.assert_allclose(solver(a, b), solver(a, b[:, None])[:, 0])
    np.testing.assert_allclose(solver(np.stack([a, a]), b), [solver(a, b)] * 2)
    check(solver, a, b)


@pytest.mark.parametrize("n", [-2, -1, 0, 1, 2, 3, 7])
def test_matrix_power(n):
    x = regular(2, 2, 2)
    np.testing.assert_allclose(tg.matrix_power(x, n), np.linalg.matrix_power(x, n), rtol=1e-10)
    check(lambda x: tg.matrix_power(x, n), x)


def test_pinv_of_a_matrix_of_lower_rank_and_its_derivative_along_that_rank():
    left, right = normal(4, 2), normal(2, 3)
    np.testing.assert_allclose(tg.pinv(left @ right), np.linalg.pinv(left @ right, rcond=1e-10), rtol=1e-9)
    check(lambda a, b: tg.pinv(a @ b), left, right)


LSTSQ_SHAPES = [((5, 3), (5, 2)), ((3, 5), (3, 2)), ((4, 4), (4, 1)), ((5, 3), (5,)), ((3, 5), (3,))]


@pytest.mark.parametrize("of_a, of_b", LSTSQ_SHAPES)
def test_lstsq_is_that_of_numpy(of_a, of_b):
    a, b = normal(*of_a), normal(*of_b)
    found, right = tg.lstsq(a, b), np.linalg.lstsq(a, b)
    for k in (0, 2, 3):
        np.testing.assert_allclose(found[k], right[k], rtol=1e-10)
    rest = ((b - a @ right[0]) ** 2).sum(axis=0)
    np.testing.assert_allclose(found.residuals, rest, atol=1e-14)
    assert found.rank == 3 + (of_a == (4, 4)) and type(found.solution) is np.ndarray
    check(lambda a, b: tg.lstsq(a, b).solution, a, b)
    if len(a) > a.shape[1]:  # else they are 0
        check(lambda a, b: tg.lstsq(a, b).residuals, a, b)


def test_lstsq_of_a_matrix_of_lower_rank_and_its_derivative_along_that_rank():
    left, right, b = normal(4, 2), normal(2, 3), normal(4, 2)
    expected = np.linalg.pinv(left @ right, rcond=1e-10) @ b
    found = tg.lstsq(left @ right, b)
    np.testing.assert_allclose(found.solution, expected, rtol=1e-9)
    assert found.rank == 2
    check(lambda a, c, b: tg.lstsq(a @ c, b).solution, left, right, b)


def test_rtol_of_lstsq_says_which_singular_values_count():
    a, b = np.diag([1.0, 1e-3, 1e-9]), np.ones(3)
    assert [tg.lstsq(a, b, rtol=rtol).rank.item() for rtol in (None, 1e-6, 0.1)] == [3, 2, 1]
    np.testing.assert_array_equal(tg.lstsq(a, b, rtol=1e-6).solution, [1, 1000, 0])


def test_errors_of_lstsq_are_sentences():
    for a, b, message in [
        ((3, 2), (2, 2), r"lstsq: a has shape \(3, 2\) and b has shape \(2, 2\): the numbers of rows, 3 and 2, differ"),
        ((2, 3, 2), (4, 3, 1), "lstsq: the batches of a .* do not broadcast"),
        ((3,), (3, 1), "lstsq: a has shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            tg.lstsq(np.ones(a), np.ones(b))
    with pytest.raises(TypeError, match="lstsq: a is float16"):
        tg.lstsq(np.ones((2, 2), "float16"), np.ones(2, "float16"))


# --- determinants -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [np.zeros((2, 2)), np.diag([1.0, 2, 0]), np.ones((3, 3)), np.diag([1.0, 0, 0])])
def test_gradient_of_det_at_singular_matrices_is_the_matrix_of_cofactors(x):
    np.testing.assert_allclose(gradient(tg.det, x), by_minors(x), atol=1e-15)
    assert gradcheck(tg.det, [leaf(x)])


def singular_matrices():
    """Of every size to 4 and every rank below it."""
    for n in range(1, 5):
        for rank in range(n):
            yield pytest.param(normal(n, rank) @ normal(rank, n), id=f"{n}-{rank}")


@pytest.mark.parametrize("x", list(singular_matrices()))
def test_derivatives_of_det_to_second_order_at_singular_matrices(x):
    """det(X + a E + b F) is a polynomial, whose coefficient of a b is the second derivative."""
    n = len(x)
    e, f = normal(n, n), normal(n, n)
    nodes = np.arange(n + 1) - n / 2
    table = [[leibniz(x + a * e + b * f) for b in nodes] for a in nodes]
    powers = np.linalg.inv(np.vander(nodes, increasing=True))
    right = (powers @ table @ powers.T)[1, 1] if n > 1 else 0
    leaf_x = leaf(x)
    (g,) = tg.gradients(tg.det(leaf_x), [leaf_x], create_graph=True)
    (second,) = tg.gradients((g * tg.tensor(e)).sum(), [leaf_x])
    np.testing.assert_allclose((second.data * f).sum(), right, atol=1e-11)
    _, pushed = tg.jvp(tg.cofactors, (tg.tensor(x),), (tg.tensor(e),))
    np.testing.assert_allclose(pushed.data, second.data, atol=1e-11)
    np.testing.assert_allclose(second.data, by_minors_of_minors(x, e), atol=1e-11)
    assert gradgradcheck(tg.det, [leaf(x)])


def test_the_third_derivative_of_det_needs_an_invertible_matrix():
    def third(x):
        hessian = tg.hessian(tg.det)
        return tg.jvp(hessian, (tg.tensor(x),), (tg.tensor(np.eye(3)),))[1].data

    x = regular(3, 3)
    h = 1e-3
    by_differences = tg.hessian(tg.det)(tg.tensor(x + h * np.eye(3))) - tg.hessian(tg.det)(tg.tensor(x - h * np.eye(3)))
    np.testing.assert_allclose(third(x), by_differences.data / (2 * h), atol=1e-9)
    with pytest.raises(ValueError, match="is singular"):
        third(np.zeros((3, 3)))


def test_slogdet_where_det_overflows():
    x = 1e5 * (normal(100, 100) + 20 * np.eye(100))
    sign, logarithm = tg.slogdet(leaf(x))
    np.testing.assert_allclose(logarithm.data, np.log(np.abs(np.linalg.eigvals(x))).sum(), rtol=1e-12)
    logarithm.backward()
    assert np.isfinite(logarithm.data) and sign.item() in (-1, 1)
    np.testing.assert_allclose(gradient(lambda x: tg.slogdet(x)[1], x), np.linalg.inv(x).T)


def test_the_sign_of_slogdet_has_gradient_zero():
    assert not gradient(lambda x: tg.slogdet(x)[0], regular(3, 3)).any()


# --- decompositions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [SQUARE, TALL, WIDE, np.stack([WIDE, -WIDE])])
def test_qr_of_any_shape(x):
    q, r = tg.qr(x)
    k = min(x.shape[-2:])
    np.testing.assert_allclose(q @ r, x, atol=1e-14)
    np.testing.assert_allclose(
        np.swapaxes(q, -1, -2) @ q, np.broadcast_to(np.eye(k), (*x.shape[:-2], k, k)), atol=1e-14
    )
    np.testing.assert_array_equal(r, np.triu(r))
    check(tg.qr, x)


@pytest.mark.parametrize("x", [SQUARE, TALL, WIDE])
def test_svd_gives_gauge_invariant_functions_the_right_derivatives(x):
    """sum f(s_i) u_i v_i^T with f(s) = s^3 is X X^T X; and the polar factor U V^T is X (X^T X)^{-1/2}."""

    def cubed(x):
        u, s, vh = tg.svd(x)
        return u * s**3 @ vh

    check(cubed, x)
    v = tg.tensor(normal(*x.shape))
    np.testing.assert_allclose(
        gradient(lambda x: (cubed(x) * v).sum(), x), gradient(lambda x: (x @ x.T @ x * v).sum(), x), rtol=1e-10
    )
    check(lambda x: tg.svd(x)[0] @ tg.svd(x)[2], x)


@pytest.mark.parametrize("x", [SQUARE, TALL, WIDE, np.stack([WIDE, -WIDE]), np.zeros((3, 0))])
def test_svd_with_full_matrices(x):
    u, s, vh = tg.svd(x, full_matrices=True)
    for found, right in zip((u, s, vh), np.linalg.svd(x, full_matrices=True)):
        np.testing.assert_array_equal(found, right)

    def cubed(x):
        u, s, vh = tg.svd(x, full_matrices=True)
        k = s.shape[-1]
        return u[..., :k] * s[..., None, :] ** 3 @ vh[..., :k, :]

    np.testing.assert_allclose(cubed(x), x @ np.swapaxes(x, -1, -2) @ x, atol=1e-12)
    if x.size:
        check(cubed, x)


@pytest.mark.parametrize("x, which", [(TALL, 0), (WIDE, 2)])
def test_vectors_of_the_null_space_have_no_derivative(x, which, device):
    def loss(x):
        return (tg.svd(x, full_matrices=True)[which] ** 3).sum()

    given = tg.Tensor(to_device(x.copy(), device))
    given.requires_grad = True
    if device == "cpu":
        with pytest.raises(ValueError, match="svd: a gradient reaches the vectors of the null space"):
            loss(given).backward()
    else:
        loss(given).backward()
        assert np.isnan(given.grad.numpy()).all()
    tangent = tg.jvp(lambda x: tg.svd(x, full_matrices=True)[which], (given,), (given,))[1].numpy()
    k = min(x.shape)
    assert np.isnan(tangent if which == 0 else tangent.T)[:, k:].all()
    assert np.isfinite(tangent if which == 0 else tangent.T)[:, :k].all()


def test_eigh_gives_functions_of_symmetric_matrices_the_right_derivatives():
    def exponential(x):
        w, v = tg.eigh(x)
        return v * tg.exp(w) @ v.T

    t = tg.tensor(normal(3, 3))
    by_eigh = gradient(lambda x: (exponential(x) * t).sum(), SPREAD)
    by_expm = gradient(lambda x: (tg.expm((x + x.T) / 2) * t).sum(), SPREAD)
    np.testing.assert_allclose(by_eigh, by_expm, rtol=1e-9)
    np.testing.assert_array_equal(by_eigh, by_eigh.T)


@pytest.mark.parametrize("function", [tg.cholesky, tg.eigvalsh, lambda x: tg.eigh(x)[1]])
def test_functions_of_symmetric_matrices_symmetrise_input_and_gradient(function):
    x = positive_definite(3, 3)
    skew = np.triu(normal(3, 3), 1)
    np.testing.assert_allclose(function(x + skew - skew.T), function(x), atol=1e-12)
    g = gradient(lambda x: (function(x) * tg.tensor(RANDOM.random(function(x).shape))).sum(), x)
    np.testing.assert_array_equal(g, g.T)


def test_where_values_coincide_symmetric_functions_of_them_have_the_right_gradient():
    np.testing.assert_allclose(gradient(lambda x: tg.exp(tg.eigvalsh(x)).sum(), np.eye(3)), np.e * np.eye(3))
    np.testing.assert_allclose(gradient(lambda x: tg.svdvals(x).sum(), 2 * np.eye(3)), np.eye(3), atol=1e-15)
    check(lambda x: (tg.eigvalsh(x) ** 2).sum(), np.eye(3), order=1)
    check(lambda x: (tg.svdvals(x) ** 2).sum(), np.zeros((3, 2)), order=1)


def test_close_eigenvalues_are_not_taken_for_equal_ones():
    x = np.diag([1.0, 1.0 + 1e-9])
    v = np.array([[0.0, 1.0], [0.0, 0.0]])
    g = gradient(lambda x: (tg.eigh(x)[1] * v).sum(), x)
    np.testing.assert_allclose(abs(g[0, 1]), 0.5e9, rtol=1e-6)


@pytest.mark.parametrize("ord", ["fro", "nuc", 2, -2, 1, np.inf])
def test_matrix_norms(ord):
    x = np.stack([TALL, 2 * TALL[::-1]])
    expected = [np.linalg.norm(m, ord) for m in x]
    np.testing.assert_allclose(tg.matrix_norm(x, ord), expected, rtol=1e-12)
    assert tg.matrix_norm(x, ord, keepdims=True).shape == (2, 1, 1)
    moved = tg.norm(np.moveaxis(x, 0, 1), ord, axis=(0, 2), keepdims=True)
    np.testing.assert_allclose(moved[0, :, 0], expected, rtol=1e-12)
    check(lambda x: tg.matrix_norm(x, ord), x)


def test_gradient_of_the_spectral_norm_is_the_leading_dyad_and_of_the_nuclear_norm_the_polar_factor():
    u, _, vh = np.linalg.svd(TALL, full_matrices=False)
    np.testing.assert_allclose(gradient(lambda x: tg.matrix_norm(x, 2), TALL), np.outer(u[:, 0], vh[0]), atol=1e-14)
    np.testing.assert_allclose(gradient(lambda x: tg.matrix_norm(x, "nuc"), TALL), u @ vh, atol=1e-14)


# --- the exponential ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-8, 0.1, 1, 10, 100])
def test_expm_is_that_of_scipy(size):
    x, e = size * normal(2, 4, 4) / 2, normal(2, 4, 4)
    expected = [scipy.linalg.expm(m) for m in x]
    np.testing.assert_allclose(tg.expm(x), expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())
    _, tangent = tg.jvp(tg.expm, (tg.tensor(x),), (tg.tensor(e),))
    expected = np.stack([scipy.linalg.expm_frechet(m, d)[1] for m, d in zip(x, e)])
    np.testing.assert_allclose(tangent.data, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_expm_of_a_batch_is_that_of_each():
    x = np.stack([normal(3, 3) * size for size in (1e-3, 1, 50)])
    np.testing.assert_array_equal(tg.expm(x), [tg.expm(m) for m in x])


def test_the_size_of_the_cotangent_costs_expm_no_accuracy():
    x, g = normal(3, 3), normal(3, 3)
    small = gradient(lambda x: (tg.expm(x) * g).sum(), x)
    large = gradient(lambda x: (tg.expm(x) * (1e12 * g)).sum(), x)
    np.testing.assert_allclose(large, 1e12 * small, rtol=1e-14, atol=1e-2)


def test_expm_of_what_is_not_finite_is_not_a_number():
    assert np.isnan(tg.expm(np.array([[np.nan, 0.0], [0.0, 1.0]]))).any()


# --- errors -------------------------------------------------------------------------------------------------

SINGULAR = np.array([[1.0, 2.0], [2.0, 4.0]])


@pytest.mark.parametrize("call", [
    lambda x: tg.inv(x(SINGULAR)),
    lambda x: tg.solve(x(SINGULAR), x(np.ones(2))),
    lambda x: tg.cholesky(x(np.stack([-np.eye(2), SINGULAR - 1]))),
    lambda x: tg.grad(lambda x: tg.eigh(x)[1].sum())(x(np.eye(2))),
    lambda x: tg.grad(lambda x: tg.svd(x)[2].sum())(x(np.eye(2))),
])  # fmt: skip
def test_on_a_device_the_same_is_not_a_number_and_never_a_silent_one(call):
    value = call(lambda array: tg.tensor(array, device="strict"))
    assert not np.isfinite(value.numpy()).any()


def test_one_bad_matrix_on_a_device_spoils_no_other():
    x = tg.tensor(np.stack([positive_definite(3, 3), -np.eye(3)]), device="strict")
    assert np.isfinite(tg.cholesky(x).numpy()).all(axis=(1, 2)).tolist() == [True, False]


def test_integer_matrices_are_computed_in_floats():
    x = np.array([[2, 1], [1, 3]])
    assert tg.det(x).dtype == np.float32 and tg.inv(x).dtype == np.float32
    assert tg.matrix_power(x, 2).tolist() == (x @ x).tolist()


@pytest.mark.parametrize("dtype, scales", [("float32", (2.0**-100, 2.0**100)), ("float64", (2.0**-900, 2.0**900))])
def test_derivatives_of_svd_at_every_scale(dtype, scales):
    random = np.random.default_rng(0)
    x, t = (random.standard_normal((4, 3)).astype(dtype) for _ in range(2))

    def value(m):  # of the vectors and of ratios of the values: it does not depend on the scale of m
        u, s, vh = tg.svd(m)
        return ((u * (s / s.sum())) @ vh * t).sum() + (u * u * t).sum() + (vh.mT**2 * t[:3]).sum()

    right = tg.grad(value)(x).numpy()
    pushed = tg.jvp(value, (x,), (t,))[1].item()
    for scale in np.array(scales, dtype):
        np.testing.assert_allclose(
            tg.grad(value)(x * scale).numpy() * scale, right, rtol=0, atol=abs(right).max() * 1e-5
        )
        np.testing.assert_allclose(tg.jvp(value, (x * scale,), (t * scale,))[1].item(), pushed, rtol=1e-4)
