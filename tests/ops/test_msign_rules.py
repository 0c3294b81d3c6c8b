"""One knob for the derivative of msign: every rule against 80-bit arithmetic, over every forward that it fits."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.msign_oracle import error, matrix, msign_and_gradient
from tests.ops.test_msign import gradient, pushed, smooth_of_any_rank
from tinygrad_ms.ops.iterations.coefficients import TABLES, fixed_rows
from tinygrad_ms.ops.matrix_sign.rules import FIT, RULES
from tinygrad_ms.ops.matrix_sign.sylvester import msign_dense_vjp
from tinygrad_ms.testing import forbid_sync

ROOT = Path(__file__).parents[2]
SHAPES = [(5, 5), (4, 7), (7, 4), (12, 40)]
PAIRS = [(method, eps, vjp) for (method, smooth), fit in FIT.items() for eps in [0.05 * smooth] for vjp in fit]


def gaussian(n, m, dtype="float64", seed=0):
    return matrix("gaussian", n, m, 1, dtype, seed=n + seed), matrix("gaussian", n, m, 1, dtype, seed=n + seed + 1)


# --- accuracy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype, bar", [("float64", 2e-14), ("float32", 1e-5)])
@pytest.mark.parametrize("vjp", [rule for rule in RULES if rule != "dense"])
def test_the_exact_rules_agree_with_80_bit_arithmetic(vjp, dtype, bar):
    for n, m in SHAPES:
        M, G = gaussian(n, m, dtype)
        expected = msign_and_gradient(M, G)[1]
        f = lambda x: tg.msign(x, steps=12, vjp=vjp)
        assert error(gradient(f, M, G), expected) < bar, (n, m)
        assert error(pushed(f, M, G), expected) < bar, (n, m)


@pytest.mark.parametrize("shape", [(16, 16), (16, 64)])
def test_after_unconverged_rows_the_closed_forms_are_exact_and_the_solve_is_not(shape):
    M, G = matrix("geometric", *shape, 20, "float64", seed=1), gaussian(*shape)[1]
    expected = msign_and_gradient(M, G)[1]
    off = {
        rule: error(gradient(lambda x: tg.msign(x, coefficients="muon", vjp=rule), M, G), expected)
        for rule in ("svd", "eigh", "solve", "unrolled")
    }
    assert max(off["svd"], off["eigh"]) < 1e-13 and 0.2 < off["solve"] < 0.4 and off["unrolled"] > 0.2, off


@pytest.mark.parametrize("n, m", [(5, 5), (4, 7)])
def test_the_literal_block_of_the_source_errs_by_its_epsilon(n, m):
    M, G = gaussian(n, m)
    s = np.linalg.svd(M / np.linalg.norm(M), compute_uv=False)
    expected = msign_and_gradient(M, G)[1]
    for steps in (14, None):
        found = gradient(lambda x: tg.msign(x, steps=steps, vjp="dense"), M, G)
        assert 1e-4 < error(found, expected) < min(2e-2, 2e-3 / s[-1])
    by_hand = msign_dense_vjp(M, G, steps=14)
    np.testing.assert_allclose(gradient(lambda x: tg.msign(x, steps=14, vjp="dense"), M, G), by_hand, rtol=1e-12)
    for scale in (1e-6, 1e6):  # neither a small M nor a large G changes the error
        found = gradient(lambda x: tg.msign(x, steps=14, vjp="dense"), M * scale, G / scale)
        np.testing.assert_allclose(found * scale**2, by_hand, rtol=1e-9)


@pytest.mark.parametrize("method, eps, vjp", PAIRS)
def test_every_pair_has_the_value_of_its_method_bit_for_bit_and_the_derivative_of_its_rule(method, eps, vjp):
    for n, m in SHAPES:
        M, G = gaussian(n, m)
        f = lambda x, **options: tg.msign(x, eps=eps, method=method, steps=11, **options)
        np.testing.assert_array_equal(f(tg.tensor(M), vjp=vjp).numpy(), f(tg.tensor(M)).numpy())
        _, expected, forward = smooth_of_any_rank(M, G, eps)
        bar = 3e-2 if vjp == "dense" else 3e-14
        assert error(gradient(lambda x: f(x, vjp=vjp), M, G), expected) < bar
        assert error(pushed(lambda x: f(x, vjp=vjp), M, G), forward) < bar


@pytest.mark.parametrize("method, eps, vjp", PAIRS)
def test_batches_are_their_matrices(method, eps, vjp):
    M, G = (np.random.default_rng(i).standard_normal((2, 3, 4, 6)) for i in range(2))
    f = lambda x: tg.msign(x, eps=eps, method=method, steps=11, vjp=vjp)
    whole = gradient(f, M, G)
    for i in np.ndindex(2, 3):
        np.testing.assert_allclose(whole[i], gradient(f, M[i], G[i]), rtol=1e-9, atol=1e-12)
    assert gradient(f, np.zeros((0, 3, 4)), np.zeros((0, 3, 4))).shape == (0, 3, 4)


@pytest.mark.parametrize("method, eps, vjp", PAIRS)
def test_second_derivatives_are_those_of_the_rule(method, eps, vjp):
    """By central differences of the gradient. "dense" meets dO/dM on the way, which it takes by itself, 1 % off."""
    bar = 2e-2 if vjp == "dense" else 1e-7
    for n, m in [(3, 3), (3, 5)]:
        M, G = gaussian(n, m)
        E = np.random.default_rng(7).standard_normal((n, m))
        f = lambda x: tg.msign(x, eps=eps, method=method, steps=14, vjp=vjp)
        x, w = (tg.tensor(v, requires_grad=True) for v in (M, G))
        (g,) = tg.gradients((f(x) * w).sum(), [x], create_graph=True)
        by_x, by_w = tg.gradients((g * tg.tensor(E)).sum(), [x, w])
        h = 1e-5
        along = lambda M, G: (gradient(f, M, G) * E).sum()
        for found, ends in (
            (by_x.numpy(), (along(M + h * E, G), along(M - h * E, G))),
            (by_w.numpy(), (along(M, G + h * E), along(M, G - h * E))),
        ):
            off = (found * E).sum() - (ends[0] - ends[1]) / (2 * h)
            assert abs(off) < bar * np.linalg.norm(found) * np.linalg.norm(E)


# --- the steps that ran ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table, steps", [(name, None) for name in TABLES] + [("su", 3), ("muon", 2)])
def test_unrolled_is_what_autodiff_finds_through_the_same_steps(table, steps):
    """The Jacobian of the iteration is symmetric: so no step has to be kept."""
    for n, m in [(6, 6), (3, 8), (8, 3)]:
        M, G = gaussian(n, m)
        ours = lambda x: tg.msign(x, steps=steps, coefficients=table, vjp="unrolled")
        theirs = lambda x: tg.msign_unrolled(x, steps=steps, coefficients=table)
        assert error(ours(tg.tensor(M)).numpy(), theirs(tg.tensor(M)).numpy()) < 1e-12
        assert error(gradient(ours, M, G), gradient(theirs, M, G)) < 1e-12
        assert error(pushed(ours, M, G), pushed(theirs, M, G)) < 1e-12
    if steps or table == "muon":  # which is another function than the exact derivative
        assert error(gradient(ours, M, G), msign_and_gradient(M, G)[1]) > 1e-2


def test_unrolled_of_the_smooth_msign_and_of_zero():
    M, G = gaussian(4, 6)
    rows = [(1.5, -0.5, 0.0)] * 4

    def by_autodiff(x):
        unit = x / (x * x).sum() ** 0.5
        X = tg.concat([unit, tg.tensor(0.05 * np.eye(4))], axis=1) / (1 + 4 * 0.05**2) ** 0.5
        for a, b, _ in rows:
            X = a * X + b * (X @ X.mT) @ X
        return X[:, :6]

    ours = lambda x: tg.msign(x, eps=0.05, coefficients=rows, vjp="unrolled")
    assert error(ours(tg.tensor(M)).numpy(), by_autodiff(tg.tensor(M)).numpy()) < 1e-14
    assert error(gradient(ours, M, G), gradient(by_autodiff, M, G)) < 1e-13
    for eps in (0, 0.1):
        f = lambda x: tg.msign(x, eps=eps, steps=5, vjp="unrolled")
        assert not gradient(f, np.zeros((3, 4)), np.ones((3, 4))).any()


@pytest.mark.parametrize("vjp", RULES)
@pytest.mark.parametrize("dtype, scale", [("float32", 1e-30), ("float32", 1e25), ("float64", 1e-200)])
def test_every_rule_works_at_every_scale(vjp, dtype, scale):
    M, G = gaussian(4, 6, dtype)
    f = lambda x: tg.msign(x, steps=10, vjp=vjp)
    found = gradient(f, M * np.array(scale, dtype), G)
    assert error(found * np.array(scale, dtype).astype("longdouble"), gradient(f, M, G)) < 1e-4


@pytest.mark.parametrize("method, eps, vjp", PAIRS)
def test_zero_gets_no_gradient_and_nan_stays_in_its_matrix(method, eps, vjp):
    M, G = (np.random.default_rng(i).standard_normal((3, 4, 6)) for i in range(2))
    f = lambda x: tg.msign(x, eps=eps, method=method, steps=11, vjp=vjp)
    expected = gradient(f, M, G)
    M[0], M[2, 1, 1] = 0, np.nan
    found = gradient(f, M, G)
    assert not found[0].any() and np.isnan(found[2]).all()
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-9, atol=1e-12)


# --- a rule of one's own ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method, eps", [("newton_schulz", 0), ("newton_schulz", 0.1), ("svd", 0), ("eigh", 0.1)])
@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 4, 4)])
def test_a_rule_of_ones_own_gets_cotangent_argument_and_result(method, eps, shape):
    M, G = (np.random.default_rng(i).standard_normal(shape) for i in range(2))
    seen = []

    def straight_through(G, M, O):
        seen.append((G, M, O))
        return G - O @ (G.mT @ O)

    f = lambda x: tg.msign(x, eps=eps, method=method, steps=9, vjp=straight_through)
    found = gradient(f, M, G)
    assert len(seen) == 1 and all(type(x) is np.ndarray for x in seen[0])
    O = tg.msign(tg.tensor(M), eps=eps, method=method, steps=9).numpy()
    for value, expected in zip(seen[0], (G, M, O)):
        np.testing.assert_array_equal(value, expected)
    np.testing.assert_allclose(found, G - O @ (G.mT @ O), rtol=1e-13)
    x = tg.tensor(M, requires_grad=True)  # its second derivative is its own
    (g,) = tg.gradients((f(x) * tg.tensor(G)).sum(), [x], create_graph=True)
    assert np.isfinite(tg.gradients((g * g).sum(), [x])[0].numpy()).all()


def test_a_rule_of_ones_own_is_held_to_the_shape_and_has_no_forward_mode():
    M, G = gaussian(3, 5)
    for wrong, message in (
        (lambda G, M, O: G.mT, r"returned float64 of shape \(5, 3\)"),
        (lambda G, M, O: G.astype("float32"), r"returned float32 of shape \(3, 5\)"),
        (lambda G, M, O: 1.0, "returned float"),
    ):
        with pytest.raises(ValueError, match=message):
            gradient(lambda x: tg.msign(x, vjp=wrong), M, G)
    with pytest.raises(TypeError, match="reverse mode alone"):
        pushed(lambda x: tg.msign(x, vjp=lambda G, M, O: G), M, G)


# --- what is refused, seen and waited for ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(vjp="dens"), "vjp='dens'; expected 'solve', 'dense', 'svd', 'eigh', 'unrolled' or a function"),
        (dict(vjp=3), "vjp=3; expected 'solve'"),
        (dict(vjp="unrolled"), "vjp='unrolled' is the derivative of a number of steps; pass steps=k"),
        (dict(vjp="unrolled", method="svd", steps=5), "vjp='unrolled' does not fit method='svd'; there it is 'svd' or"),
        (dict(vjp="dense", eps=0.1), "vjp='dense' does not fit method='newton_schulz' and eps > 0"),
        (dict(vjp="solve", method="eigh", eps=0.1), "vjp='solve' does not fit method='eigh' and eps > 0"),
        (dict(vjp="svd", eps=0.1, recompute=True), "recompute=True is for the smooth msign with its own rule"),
        (dict(vjp="eigh", method="svd", steps=0), "steps=0: expected a positive integer"),
        (dict(vjp="svd", coefficients="nobody"), "coefficients='nobody' is unknown"),
    ],
)
def test_pairs_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tg.msign(tg.tensor(np.eye(3)), **options)


def test_the_default_rule_by_its_name_is_the_default():
    M, G = gaussian(4, 6)
    for method, eps in FIT:
        default = FIT[method, eps][0]
        f = lambda x, **rule: tg.msign(x, method=method, eps=0.1 * eps, **rule)
        np.testing.assert_array_equal(gradient(lambda x: f(x, vjp=default), M, G), gradient(f, M, G))


def test_the_tape_shows_one_msign_with_its_rule():
    x = tg.tensor(gaussian(3, 5)[0], requires_grad=True)
    y = tg.msign(x, steps=6, vjp="dense").sum()
    assert [node.op for node in y.tape()] == ["leaf", "msign", "sum"]
    assert [v.arguments["vjp"] for v in tg.graph.build(y).vertices if v.title == "msign"] == ["'dense'"]


@pytest.mark.parametrize("vjp, eps", [("solve", 0), ("dense", 0), ("unrolled", 0), ("unrolled", 0.1)])
def test_rules_of_products_do_not_wait_for_the_device(vjp, eps):
    M, G = gaussian(4, 6, "float32")
    f = lambda x: tg.msign(x, eps=eps, steps=9, vjp=vjp)
    x, w = (tg.tensor(v, device="strict") for v in (M, G))
    x.requires_grad = True
    with forbid_sync():
        f(x).backward(w)
    np.testing.assert_allclose(x.grad.numpy(), gradient(f, M, G), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("vjp", ["svd", "eigh"])
def test_closed_forms_run_on_the_strict_device(vjp):
    M, G = gaussian(4, 6)
    f = lambda x: tg.msign(x, steps=9, vjp=vjp)
    x = tg.tensor(M, device="strict")
    x.requires_grad = True
    f(x).backward(tg.tensor(G, device="strict"))
    np.testing.assert_allclose(x.grad.numpy(), gradient(f, M, G), rtol=1e-9)


# --- the source's normalisation, and its pseudo-inverse --------------------------------------------------------------


def block(n=3, m=4, seed=0):
    """A block triangular matrix as Su Jianlin, equation 22 has it, not normal: real eigenvalues of both signs."""
    random = np.random.default_rng(seed)
    spd = lambda k: (x := random.standard_normal((k, k))) @ x.T / k + 0.3 * np.eye(k)
    return np.block([[spd(n), random.standard_normal((n, m))], [np.zeros((m, n)), -spd(m)]])


@pytest.mark.parametrize("steps", [1, 3, 12])
@pytest.mark.parametrize("table", ["su", "polar_express", "lact"])
def test_mcsgn_from_the_trace_is_the_iteration_of_the_source(steps, table):
    X = A = np.stack([block(), 100 * block(seed=1)])
    X = X / np.sqrt(np.trace(X @ X, axis1=1, axis2=2))[:, None, None]
    for a, b, c in fixed_rows(steps, table):
        X = a * X + b * X @ X @ X + c * X @ X @ X @ X @ X
    found = tg.mcsgn(A, steps=steps, normalise="trace", coefficients=table)
    np.testing.assert_allclose(found, X, rtol=1e-8, atol=1e-9)


def test_mcsgn_from_the_trace_converges_and_has_its_derivative():
    A, E = block(), np.random.default_rng(3).standard_normal((7, 7))
    np.testing.assert_allclose(tg.mcsgn(A, normalise="trace"), tg.mcsgn(A), atol=1e-12)
    found, expected = (gradient(lambda x: tg.mcsgn(x, **o), A, E) for o in ({"normalise": "trace"}, {}))
    np.testing.assert_allclose(found, expected, atol=1e-10)
    rotation = np.array([[0.0, 1.0], [-1.0, 0.0]])  # imaginary eigenvalues: tr x^2 < 0
    assert np.isnan(tg.mcsgn(rotation, normalise="trace", steps=5)).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(normalise="max"), "normalise='max'; expected 'norm'"),
        (dict(normalise="trace", spectrum="complex"), "are of the quintics; pass spectrum='real'"),
        (dict(coefficients="su"), "are of the quintics; pass spectrum='real'"),
        (dict(spectrum="imaginary"), "spectrum='imaginary'; expected 'real' or 'complex'"),
        (dict(spectrum="real", coefficients="x"), "coefficients='x' is unknown"),
    ],
)
def test_mcsgn_refuses_what_does_not_fit(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        tg.mcsgn(np.eye(2), **options)


@pytest.mark.parametrize("rank", [1, 3, 4])
def test_the_pseudo_inverse_root_makes_msign_of_every_rank(rank):
    """Su Jianlin, equation 2: msign(M) = (M M^T)^{-1/2} M, with its derivatives along matrices of that rank."""
    random = np.random.default_rng(rank)
    L, R, E = random.standard_normal((4, rank)), random.standard_normal((rank, 6)), random.standard_normal((4, 6))

    def by_root(L, R):
        M = L @ R
        return tg.inv_sqrtm(M @ M.mT, pseudo=True) @ M

    np.testing.assert_allclose(by_root(L, R), tg.msign(L @ R, method="svd"), atol=1e-12)
    x, y = (tg.tensor(v, requires_grad=True) for v in (L, R))
    both = [tg.gradients((f(x, y) * E).sum(), [x, y]) for f in (by_root, lambda x, y: tg.msign(x @ y, method="svd"))]
    for ours, theirs in zip(*both):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=1e-9)
    symmetric_root = lambda L: tg.inv_sqrtm(L @ L.mT, pseudo=True)
    assert tg.testing.gradcheck(symmetric_root, (x,)) and tg.testing.gradgradcheck(symmetric_root, (x,))


def test_the_pseudo_inverse_root_of_definite_zero_and_negative_matrices():
    A = block()[:3, :3]
    ours, theirs = (gradient(lambda x: tg.inv_sqrtm(x, pseudo=p), A, A @ A) for p in (True, False))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    assert not tg.inv_sqrtm(np.zeros((2, 2)), pseudo=True).any()
    assert np.isnan(tg.inv_sqrtm(np.stack([np.eye(2), np.full((2, 2), np.nan)]), pseudo=True)[1]).all()
    with pytest.raises(ValueError, match=re.escape("has the eigenvalue -2: with pseudo=True it may be singular, but")):
        tg.inv_sqrtm(np.diag([1.0, -2.0]), pseudo=True)
    with pytest.raises(TypeError, match="pseudo='yes'; expected True or False"):
        tg.inv_sqrtm(np.eye(2), pseudo="yes")


# --- the texts -------------------------------------------------------------------------------------------------------


def derivation(capsys):
    """The exit status of examples/msign_derivation.py, and what it prints."""
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / "examples" / "msign_derivation.py"), run_name="__main__")
    return stop.value.code, capsys.readouterr().out


def test_every_equation_of_the_source_holds(capsys):
    status, out = derivation(capsys)
    assert status == 0 and out.endswith("all equations hold\n")
    assert re.findall(r"^ *\((\d+)\) .*bar", out, re.MULTILINE) == [str(n) for n in range(1, 24)]
    assert "becomes a matrix of norm 6e+07" in out and "the gradient is wrong by 81%" in out


def test_the_derivation_fails_where_an_equation_does_not_hold(capsys, monkeypatch):
    solve = tg.solve_sylvester
    monkeypatch.setattr(tg, "solve_sylvester", lambda *args: 1.001 * solve(*args))
    status, out = derivation(capsys)
    assert status == 1 and "these do not hold: (19), (21), (22)" in out


def test_the_code_of_the_page_runs():
    page = (ROOT / "docs" / "msign.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/msign.md", "exec"), {})
