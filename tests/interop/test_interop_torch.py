"""msign and its family inside PyTorch: values, derivatives of both orders, and everything odd that a tensor can be."""

import gc
import re
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg

torch = pytest.importorskip("torch", reason="the bridge to PyTorch: pip install torch")
from torch.autograd import gradcheck, gradgradcheck  # noqa: E402

from tinygrad_ms.interop.calls import Call  # noqa: E402
from tinygrad_ms.interop.torch import msign, polar, solve_sylvester, sqrtm  # noqa: E402

pytestmark = pytest.mark.oracle
PAGE = (Path(__file__).parents[2] / "docs" / "pytorch.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.S)
SHAPES = [(4, 4), (5, 3), (3, 5), (2, 3, 3), (2, 1, 4, 2)]


def normal(*shape, seed=0, grad=True, dtype=torch.float64):
    x = torch.tensor(np.random.default_rng(seed).standard_normal(shape), dtype=dtype)
    return x.requires_grad_(grad)


def root_of_definite(X, **options):
    return sqrtm(X @ X.mT + torch.eye(X.shape[-2], dtype=X.dtype), **options)


def sylvester(A, B, C, **options):
    shift = [2 * torch.eye(x.shape[-1], dtype=x.dtype) for x in (A, B)]
    return solve_sylvester(A / 3 + shift[0], B / 3 + shift[1], C, **options)


class TestDerivatives:
    @pytest.mark.parametrize("eps", [0, 1e-2])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_msign(self, shape, eps):
        M = normal(*shape)
        assert gradcheck(lambda M: msign(M, eps=eps), M)
        assert gradgradcheck(lambda M: msign(M, eps=eps), M)

    @pytest.mark.parametrize(
        "options", [{"method": "svd"}, {"method": "eigh"}, {"eps": 1e-2, "recompute": True}], ids=str
    )
    def test_options_of_msign(self, options):
        M = normal(2, 4, 3)
        assert gradcheck(lambda M: msign(M, **options), M) and gradgradcheck(lambda M: msign(M, **options), M)

    @pytest.mark.parametrize("side", ["right", "left"])
    @pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
    def test_polar(self, shape, side):
        M = normal(*shape)
        assert gradcheck(lambda M: polar(M, side), M) and gradgradcheck(lambda M: polar(M, side), M)

    @pytest.mark.parametrize("lead", [((), (), ()), ((2,), (2,), (2,)), ((2, 1), (), (3,))], ids=str)
    def test_solve_sylvester(self, lead):
        A, B, C = (normal(*a, *b, seed=i) for i, (a, b) in enumerate(zip(lead, [(3, 3), (2, 2), (3, 2)])))
        assert gradcheck(sylvester, (A, B, C)) and gradgradcheck(sylvester, (A, B, C))

    @pytest.mark.parametrize("wanted", [(True, False, False), (False, False, True), (True, False, True)])
    def test_solve_sylvester_where_some_want_no_gradient(self, wanted):
        sizes = [(3, 3), (2, 2), (3, 2)]
        inputs = tuple(normal(*size, seed=i, grad=w) for i, (size, w) in enumerate(zip(sizes, wanted)))
        assert gradcheck(sylvester, inputs) and gradgradcheck(sylvester, inputs)

    @pytest.mark.parametrize("shape", [(3, 3), (2, 3, 3)], ids=str)
    def test_sqrtm(self, shape):
        X = normal(*shape)
        assert gradcheck(root_of_definite, X) and gradgradcheck(root_of_definite, X)

    def test_third_order(self):
        def second(M):
            (g,) = torch.autograd.grad((msign(M) ** 3).sum(), M, create_graph=True)
            return torch.autograd.grad((g * g).sum(), M, create_graph=True)[0]

        assert gradcheck(second, normal(3, 2))

    @pytest.mark.parametrize("eps", [0, 1e-2])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("shape", SHAPES[:4], ids=str)
    def test_the_numbers_are_those_of_our_own_call(self, shape, dtype, eps):
        M, G = normal(*shape, dtype=dtype), normal(*shape, seed=1, grad=False, dtype=dtype)
        y = msign(M, eps=eps)
        y.backward(G)
        x = tg.tensor(M.detach().numpy(), requires_grad=True)
        ours = tg.msign(x, eps=eps)
        ours.backward(tg.tensor(G.numpy()))
        np.testing.assert_array_equal(y.detach().numpy(), ours.numpy())
        np.testing.assert_array_equal(M.grad.numpy(), x.grad.numpy())

    def test_one_output_of_two(self):
        M = normal(4, 3)
        for k in (0, 1):
            assert gradcheck(lambda M: polar(M)[k], M) and gradgradcheck(lambda M: polar(M)[k], M)

    def test_accumulates_and_repeats(self):
        M = normal(4, 3)
        loss = (msign(M) ** 3).sum()
        loss.backward(retain_graph=True)
        once = M.grad.clone()
        loss.backward()
        torch.testing.assert_close(M.grad, 2 * once, rtol=0, atol=0)
        with pytest.raises(RuntimeError, match="backward through the graph a second time"):
            loss.backward()


class TestTransformations:
    M, G = normal(4, 5, 3, grad=False), normal(4, 5, 3, seed=1, grad=False)

    def loss(self, M, G):
        return (msign(M, eps=1e-2) * G).sum()

    def test_func(self):
        M = self.M.clone().requires_grad_()
        self.loss(M, self.G).backward()
        for found in (
            torch.func.grad(self.loss)(self.M, self.G),
            torch.func.vmap(torch.func.grad(self.loss))(self.M, self.G),
            torch.func.grad(lambda M: torch.func.vmap(self.loss)(M, self.G).sum())(self.M),
        ):
            torch.testing.assert_close(found, M.grad, rtol=0, atol=1e-13)

    def test_jacobian_and_hessian(self):
        M, f = self.M[0], lambda M: self.loss(M, self.G[0])
        torch.testing.assert_close(torch.func.jacrev(msign)(M), torch.autograd.functional.jacobian(msign, M))
        twice = torch.func.jacrev(torch.func.jacrev(f))(M)
        torch.testing.assert_close(twice, torch.autograd.functional.hessian(f, M))

    def test_vmap_does_not_mix_up_batches(self):
        A, B, C = normal(2, 3, 3, grad=False), normal(4, 4, seed=1, grad=False), normal(2, 3, 4, seed=2, grad=False)
        found = torch.func.vmap(sylvester, (0, None, None))(A, B, C)
        expected = torch.stack([sylvester(a, B, C) for a in A])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)

    @pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own jvp
    def test_forward_mode_is_refused(self):
        with pytest.raises(NotImplementedError, match="jvp"):
            torch.func.jvp(msign, (self.M,), (self.G,))
        with torch.autograd.forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
            msign(torch.autograd.forward_ad.make_dual(self.M, self.G))

    def test_compile(self):
        def f(M):
            return (msign(torch.sin(M) * 2, eps=1e-2) * torch.cos(M)).sum()

        M = normal(6, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the compiler
            y = torch.compile(f, backend="aot_eager")(M)
            (g,) = torch.autograd.grad(y, M)
        torch.testing.assert_close(y, f(M), rtol=0, atol=1e-14)
        torch.testing.assert_close(g, torch.autograd.grad(f(M), M)[0], rtol=0, atol=1e-14)

    @pytest.mark.parametrize("reentrant", [True, False])
    def test_checkpoint(self, reentrant):
        from torch.utils.checkpoint import checkpoint

        M = self.M.clone().requires_grad_()
        checkpoint(self.loss, M, self.G, use_reentrant=reentrant).backward()
        torch.testing.assert_close(M.grad, torch.func.grad(self.loss)(self.M, self.G), rtol=0, atol=1e-13)

    def test_saved_tensors_elsewhere(self):
        M = self.M.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(lambda x: x.clone(), lambda x: x.clone()):
            loss = self.loss(M, self.G)
        loss.backward()
        torch.testing.assert_close(M.grad, torch.func.grad(self.loss)(self.M, self.G), rtol=0, atol=1e-13)


class TestOddTensors:
    @pytest.mark.parametrize(
        "view",
        [
            lambda x: x.mT,
            lambda x: x[:, ::2],
            lambda x: x[::2, 1:],
            lambda x: x.flip(0).T,
            lambda x: x.expand(2, 5, 6).mT,
            lambda x: torch.view_as_complex(x.reshape(5, -1, 2)).conj().imag,
        ],
        ids=["transposed", "columns", "a corner", "turned", "expanded", "a lazy negative"],
    )
    def test_views(self, view):
        base = normal(5, 6)
        x = view(base)
        torch.testing.assert_close(msign(x), msign(x.detach().clone()), rtol=0, atol=1e-13)
        assert gradcheck(lambda base: msign(view(base), eps=1e-2), base)

    @pytest.mark.parametrize("shape", [(0, 3, 4), (2, 0, 3, 3), (3, 0), (0, 3)], ids=str)
    def test_no_elements(self, shape):
        M = normal(*shape)
        y = msign(M)
        y.sum().backward()
        assert y.shape == M.grad.shape == shape

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype):
        M = normal(4, 3, grad=False).to(dtype).requires_grad_()
        x = M.detach().float().requires_grad_()
        y, expected = msign(M), msign(x)
        y.sum().backward()
        expected.sum().backward()
        assert torch.equal(y, expected.to(dtype)) and torch.equal(M.grad, x.grad.to(dtype))

    def test_memory_is_never_written(self):
        tensors = [normal(3, 3, seed=i) for i in range(3)]
        before = [x.detach().clone() for x in tensors]
        G = normal(3, 3, seed=4, grad=False)
        kept = G.clone()
        for y in (msign(tensors[0]), msign(tensors[0], eps=1e-2), *polar(tensors[0]), sylvester(*tensors)):
            torch.autograd.grad(y, tensors, G, allow_unused=True, create_graph=True)
        assert all(torch.equal(x, b) for x, b in zip(tensors, before)) and torch.equal(G, kept)

    def test_nothing_waits_for_the_garbage_collector(self, monkeypatch):
        made, init = weakref.WeakSet(), Call.__init__
        monkeypatch.setattr(Call, "__init__", lambda self, *args: made.add(self) or init(self, *args))
        gc.disable()
        try:
            M = normal(4, 3)
            (g,) = torch.autograd.grad((msign(M) ** 2).sum() + polar(M)[1].sum(), M, create_graph=True)
            (g * g).sum().backward()
            assert made
            del g
            assert not made
        finally:
            gc.enable()

    def test_results_own_their_memory(self):
        """Accumulation in place into one gradient changes nothing else."""
        A, B, C = (normal(3, 3, seed=i) for i in range(3))
        G = normal(3, 3, seed=4, grad=False)
        y = sylvester(A, B, C)
        y.backward(G, retain_graph=True)
        places = [x.data_ptr() for x in (A, B, C, G, y, A.grad, B.grad, C.grad)]
        assert len(set(places)) == len(places)

    def test_without_gradients(self):
        M = normal(4, 3)
        with torch.no_grad():
            assert not msign(M).requires_grad
        with torch.inference_mode():
            assert not msign(M).requires_grad
        assert not msign(M.detach()).requires_grad
        assert msign(M).requires_grad

    def test_changes_in_place_are_found(self):
        M = normal(4, 3)
        y = msign(M)
        with torch.no_grad():
            M.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()
        y = msign(M)
        y.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_a_parameter_of_a_module(self):
        layer = torch.nn.Linear(3, 4, dtype=torch.float64)
        msign(layer.weight).sum().backward()
        assert layer.weight.grad.shape == (4, 3)

    def test_a_warning_names_the_line_of_the_caller(self):
        with pytest.warns(RuntimeWarning, match="numerically rank-deficient") as caught:
            msign(torch.ones(4, 4))
            msign(torch.ones(4, 4, requires_grad=True))
        assert [warning.filename for warning in caught] == [__file__] * 2

    eye = torch.eye(2)

    @pytest.mark.parametrize(
        "call, error, message",
        [
            (lambda e: msign([[1.0]]), TypeError, "msign: M is list, expected a torch.Tensor; tg.msign takes arrays"),
            (lambda e: msign(np.eye(2)), TypeError, "msign: M is ndarray, expected a torch.Tensor"),
            (lambda e: msign(e.long()), TypeError, r"msign: M is torch.int64, expected a float; use M.float\(\)"),
            (lambda e: msign(e + 0j), TypeError, "msign: M is torch.complex64, expected a float"),
            (lambda e: msign(e.to_sparse()), TypeError, r"msign: M is torch.sparse_coo; use M.to_dense\(\)"),
            (lambda e: sqrtm(e.to("meta")), ValueError, "sqrtm: A is on meta; the bridge knows cpu and cuda"),
            (lambda e: msign(e[0]), ValueError, r"M has shape \(2,\); expected matrices"),
            (lambda e: solve_sylvester(e, e.double(), e), TypeError, "A is torch.float32 and B torch.float64; convert"),
            (lambda e: solve_sylvester(e, e, e[:1]), ValueError, r"C has shape \(1, 2\); expected \(..., 2, 2\)"),
            (lambda e: sqrtm(-e), ValueError, r"sqrtm: A \(2, 2\) is not positive definite"),
            (lambda e: msign(e, method="qr"), ValueError, "method='qr'; expected"),
            (lambda e: msign(e, speed=2), TypeError, "unexpected keyword argument 'speed'"),
            (lambda e: polar(e, "up"), ValueError, "polar: side='up'"),
        ],
    )
    def test_errors(self, call, error, message):
        with pytest.raises(error, match=message):
            call(self.eye)

    def test_tensors_without_memory_are_refused(self):
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode() as mode:
            fake = mode.from_tensor(self.eye)
        with pytest.raises(TypeError, match="M is FakeTensor, which has no memory of its own"):
            msign(fake)


class TestFromDlpack:
    def test_shows_the_memory(self):
        x = normal(3, 4, grad=False)
        y = tg.from_dlpack(x.T)
        x[0, 1] = 7
        assert y[1, 0].item() == 7
        back = torch.from_dlpack(y)
        assert back.data_ptr() == x.data_ptr()

    def test_a_lazy_negative_keeps_its_sign(self):
        x = torch.view_as_complex(normal(3, 2, grad=False)).conj().imag
        assert x.is_neg()
        np.testing.assert_array_equal(tg.from_dlpack(x).numpy(), x.clone().numpy())

    @pytest.mark.parametrize(
        "x, error, message",
        [
            (torch.ones(2, requires_grad=True), BufferError, "Tensor of torch.float32 .*, use tensor.detach"),
            (torch.ones(2).bfloat16(), TypeError, "the Tensor of torch.bfloat16 does not come in"),
            (torch.ones(2) + 0j, TypeError, "the Tensor of torch.complex64 does not come in"),
        ],
    )  # fmt: skip
    def test_errors(self, x, error, message):
        with pytest.raises(error, match=message):
            tg.from_dlpack(x)


LAYERS = {
    "Linear": (lambda nn: nn.Linear(3, 4), (5, 3)),
    "square": (lambda nn: nn.Linear(3, 3, bias=False), (5, 3)),
    "LayerNorm": (lambda nn: nn.LayerNorm(3), (5, 3)),
    "GRUCell": (lambda nn: nn.GRUCell(3, 3), (5, 3)),
    "RNNCell": (lambda nn: nn.RNNCell(3, 3), (5, 3)),
    "Sequential": (lambda nn: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 4)), (5, 3)),
}


class TestLoadStateDict:
    @pytest.mark.parametrize("way", ["state_dict", "keep_vars", "safetensors"])
    @pytest.mark.parametrize("name", LAYERS)
    def test_a_layer_computes_what_theirs_does(self, tmp_path, name, way):
        make, shape = LAYERS[name]
        theirs, ours = make(torch.nn), make(tg.nn)
        state = theirs.state_dict(keep_vars=way == "keep_vars")
        if way == "safetensors":
            pytest.importorskip("safetensors.torch").save_file(state, tmp_path / "x.safetensors")
            state = tg.load(tmp_path / "x.safetensors")
        ours.load_state_dict(state)
        x = normal(*shape, dtype=torch.float32, grad=False)
        np.testing.assert_allclose(ours(tg.from_dlpack(x)).numpy(), theirs(x).detach().numpy(), atol=1e-6)

    def test_ours_is_a_copy(self):
        theirs, ours = torch.nn.Linear(3, 4), tg.nn.Linear(3, 4)
        ours.load_state_dict(theirs.state_dict())
        with torch.no_grad():
            theirs.weight.zero_()
        assert ours.weight.numpy().any()

    def test_errors(self):
        state = torch.nn.Linear(3, 4).state_dict()
        ours = tg.nn.Linear(3, 4)
        with pytest.raises(ValueError, match="its transpose would fit"):
            ours.load_state_dict({**state, "weight": state["weight"].T})
        with pytest.raises(ValueError, match="weight is float64 in the state and float32 here"):
            ours.load_state_dict({**state, "weight": state["weight"].double()})
        with pytest.raises(TypeError, match="load_state_dict of Linear: weight: the Tensor of torch.bfloat16 does not"):
            ours.load_state_dict({**state, "weight": state["weight"].bfloat16()})


@pytest.fixture(scope="module")
def rule():
    namespace = {}
    exec(compile(BLOCKS[-1], "the rule of docs/pytorch.md", "exec"), namespace)
    return namespace["msign"]


class TestPage:
    @pytest.mark.parametrize("eps", [0, 1e-2])
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    def test_the_rule(self, rule, shape, eps):
        M = normal(*shape)
        torch.testing.assert_close(rule(M, eps), msign(M, eps=eps), rtol=0, atol=1e-11)
        assert gradcheck(lambda M: rule(M, eps), M) and gradgradcheck(lambda M: rule(M, eps), M)

    def test_the_other_blocks(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        namespace = {}
        for block in BLOCKS[:-1]:
            exec(compile(block, "docs/pytorch.md", "exec"), namespace)
        assert capsys.readouterr().out.split("\n") == ["torch.Size([64, 32])", "True", "True", ""]
