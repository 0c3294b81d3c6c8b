"""msign and its family inside JAX: values, derivatives of both orders, transformations, errors."""

import re
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg

jax = pytest.importorskip("jax", reason="the bridge to JAX: pip install jax")
import jax.numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

from tinygrad_ms.interop import jax as bridge  # noqa: E402
from tinygrad_ms.interop.jax import msign, polar, solve_sylvester, sqrtm  # noqa: E402

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("x64")]
PAGE = (Path(__file__).parents[2] / "docs" / "jax.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SHAPES = [(4, 4), (5, 3), (3, 5), (2, 3, 3)]
check = {"order": 2, "modes": ["rev"]}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def normal(*shape, seed=0, dtype="float64"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def sylvester(A, B, C):
    return solve_sylvester(A / 3 + 2 * jnp.eye(A.shape[-1]), B / 3 + 2 * jnp.eye(B.shape[-1]), C)


class TestDerivatives:
    @pytest.mark.parametrize("way", [lambda f: f, jax.jit], ids=["plain", "jit"])
    @pytest.mark.parametrize("eps", [0, 1e-2])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_msign(self, shape, eps, way):
        check_grads(way(lambda M: msign(M, eps=eps)), (normal(*shape),), **check)

    @pytest.mark.parametrize(
        "options", [{"method": "svd"}, {"steps": 12, "coefficients": [[1.875, -1.25, 0.375]]}], ids=str
    )
    def test_options_of_msign(self, options):
        check_grads(lambda M: msign(M + 2 * jnp.eye(4, 3), **options), (normal(4, 3) / 3,), **check)

    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_polar(self, shape, side):
        check_grads(lambda M: polar(M, side), (normal(*shape),), **check)

    @pytest.mark.parametrize("lead", [((), (), ()), ((2, 1), (), (3,))], ids=str)
    def test_solve_sylvester(self, lead):
        inputs = [normal(*a, *b, seed=i) for i, (a, b) in enumerate(zip(lead, [(3, 3), (2, 2), (3, 2)]))]
        check_grads(sylvester, inputs, **check)

    def test_sqrtm(self):
        check_grads(lambda X: sqrtm(X @ X.mT + jnp.eye(3)), (normal(2, 3, 3),), **check)

    def test_third_order(self):
        M = normal(3, 2)
        f = jax.grad(lambda M: (msign(M) ** 3).sum())
        check_grads(jax.grad(lambda M: (f(M) ** 2).sum()), (M,), order=1, modes=["rev"])

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    @pytest.mark.parametrize("eps", [0, 1e-2])
    def test_the_numbers_are_those_of_our_own_call(self, eps, dtype):
        M, G = normal(2, 5, 3, dtype=dtype), normal(2, 5, 3, seed=1, dtype=dtype)
        y, pull = jax.vjp(lambda M: msign(M, eps=eps), M)
        x = tg.tensor(np.asarray(M), requires_grad=True)
        ours = tg.msign(x, eps=eps)
        ours.backward(tg.tensor(np.asarray(G)))
        np.testing.assert_array_equal(y, ours.numpy())
        np.testing.assert_array_equal(pull(G)[0], x.grad.numpy())
        np.testing.assert_array_equal(pull(2 * G)[0], 2 * x.grad.numpy())  # with a tape of its own


class TestTransformations:
    M, G = np.random.default_rng(0).standard_normal((2, 4, 5, 3))

    def loss(self, M, G):
        return (msign(M, eps=1e-2) * G).sum()

    def test_vmap_in_any_order(self):
        expected = jax.grad(self.loss)(self.M, self.G)
        f = jax.grad(self.loss)
        for found in (
            jax.jit(f)(self.M, self.G),
            jax.vmap(f)(self.M, self.G),
            jax.jit(jax.vmap(f))(self.M, self.G),
            jax.grad(lambda M: jax.vmap(self.loss)(M, self.G).sum())(self.M),
        ):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)

    def test_check_grads_of_vmap(self):
        check_grads(jax.vmap(lambda M: msign(M, eps=1e-2), in_axes=2, out_axes=1), (normal(4, 3, 2),), **check)

    def test_vmap_does_not_mix_up_batches(self):
        A, B, C = normal(2, 3, 3), normal(4, 4, seed=1), normal(2, 3, 4, seed=2)
        found = jax.vmap(sylvester, (0, None, None))(A, B, C)
        np.testing.assert_allclose(found, jnp.stack([sylvester(a, B, C) for a in A]), rtol=0, atol=1e-13)

    def test_scan_and_remat(self):
        def total(M, step):
            return jax.lax.scan(lambda m, g: (step(m) + g, (m * g).sum()), M, self.G)[1].sum()

        step = lambda m: msign(m, eps=1e-2)
        plain, again = (jax.grad(total)(self.M[0], s) for s in (step, jax.checkpoint(step)))
        check_grads(lambda M: total(M, step), (self.M[0],), order=1, modes=["rev"])
        np.testing.assert_allclose(plain, again, rtol=0, atol=1e-12)

    def test_hessian(self):
        M, f = self.M[0], lambda M: self.loss(M, self.G[0])
        found = jax.jacrev(jax.jacrev(f))(M)
        expected = tg.hessian(lambda x: (tg.msign(x, eps=1e-2) * self.G[0]).sum(), M)
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-10)

    def test_forward_mode_is_refused(self):
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(msign, (self.M,), (self.G,))


class TestOddArrays:
    @pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0)], ids=str)
    def test_no_elements(self, shape):
        assert jax.grad(lambda M: msign(M).sum())(jnp.ones(shape)).shape == shape

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_half_precision_is_computed_in_float32(self, dtype):
        M = normal(4, 3).astype(dtype)
        f = jax.value_and_grad(lambda M: msign(M).sum())
        np.testing.assert_array_equal(msign(M), msign(M.astype("float32")).astype(dtype))
        np.testing.assert_array_equal(f(M)[1], f(M.astype("float32"))[1].astype(dtype))

    def test_memory_is_never_written(self):
        M = normal(4, 3)
        kept = np.array(M)
        jax.jit(jax.grad(lambda M: msign(M).sum()))(M)
        np.testing.assert_array_equal(M, kept)

    @pytest.mark.parametrize(
        "call, error, message",
        [
            (lambda e: msign(e.astype(int)), TypeError, r"msign: M is int64, expected a float"),
            (lambda e: msign(e[0]), ValueError, r"msign: M has shape \(2,\); expected matrices"),
            (lambda e: sqrtm(e[:1]), ValueError, "expected square matrices"),
            (lambda e: solve_sylvester(e, e.astype("float32"), e), TypeError, "B is float32 beside float64; convert"),
            (lambda e: solve_sylvester(e, e, e[:1]), ValueError, r"expected \(..., 2, 2\)"),
            (lambda e: msign(e, method="qr"), ValueError, "method='qr'; expected"),
            (lambda e: msign(e, speed=2), TypeError, "unexpected keyword argument 'speed'"),
            (lambda e: sqrtm(-e), Exception, r"sqrtm: A \(2, 2\) is not positive definite"),
        ],
    )
    def test_errors(self, call, error, message):
        with pytest.raises(error, match=message):
            call(jnp.eye(2))


class TestTapes:
    def test_a_tape_goes_when_it_is_used(self):
        f = jax.grad(lambda M: msign(M).sum())
        f(normal(4, 3))
        held = len(bridge.TAPES.held)
        f(normal(4, 3))
        assert len(bridge.TAPES.held) == held

    def test_old_ones_make_room(self):
        tapes = bridge.Tapes(limit=3 * 8 * 12)
        calls = [bridge.Call(tg.msign, [0]) for _ in range(5)]
        for call in calls:
            call.run([np.random.default_rng(0).standard_normal((4, 3))])
        tickets = [tapes.keep(call) for call in calls]
        assert list(tapes.held) == tickets[2:]

    def test_a_tape_of_other_arrays_is_not_taken(self):
        tapes, x = bridge.Tapes(limit=1000), np.random.default_rng(0).standard_normal((4, 3))
        call = bridge.Call(tg.msign, [0])
        call.run([x])
        assert tapes.take(np.int32(tapes.keep(call)), [x + 1]) is None
        assert tapes.take(np.int32(tapes.keep(call)), [x]) is call

    def test_load_state_dict_takes_jax_arrays(self):
        layer = tg.nn.Linear(3, 2, bias=False)
        layer.load_state_dict({"weight": normal(2, 3, dtype="float32")})
        np.testing.assert_array_equal(layer.weight.numpy(), normal(2, 3, dtype="float32"))


class TestPage:
    @pytest.mark.parametrize("shape, eps", [((4, 4), 0), ((5, 3), 0), ((3, 5), 1e-2), ((2, 3, 3), 1e-2)], ids=str)
    def test_the_rule(self, shape, eps):
        namespace = {}
        exec(compile(BLOCKS[-1], "the rule of docs/jax.md", "exec"), namespace)
        rule, M = namespace["msign"], normal(*shape)
        np.testing.assert_allclose(rule(M, eps), msign(M, eps=eps), rtol=0, atol=1e-11)
        check_grads(jax.jit(lambda M: rule(M, eps)), (M,), **check)

    def test_the_first_block(self, capsys):
        exec(compile(BLOCKS[0], "docs/jax.md", "exec"), {})
        assert capsys.readouterr().out == "(64, 32)\n"
