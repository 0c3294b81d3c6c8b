"""grad, vjp, jvp, jacobian, hessian, hvp, checkpoint: values, structure, nesting, memory of checkpoint, errors."""

import gc
import tracemalloc
import types
import weakref

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import stacked

RNG = np.random.default_rng(0)
X = RNG.standard_normal((3, 4))
V = RNG.standard_normal((3, 4))


def f(x):
    return (x * x * x + tg.exp(x * 0.5)).sum()


def gradient(x):
    return 3 * x**2 + 0.5 * np.exp(0.5 * x)


def curvature(x):
    return 6 * x + 0.25 * np.exp(0.5 * x)


def assert_close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


def assert_nothing_is_left(step, calls=2000):
    """Calls leave no objects behind for the garbage collector."""
    for _ in range(3):
        step()
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(calls):
            step()
        left = len(gc.get_objects()) - before
    finally:
        gc.enable()
    assert left < 50, f"{left} objects are left by {calls} calls"


class TestReverse:
    def test_grad_and_value_and_grad(self):
        assert_close(tg.grad(f)(X), gradient(X))
        value, g = tg.value_and_grad(f)(X)
        assert_close(value, f(X))
        assert_close(g, gradient(X))
        assert not g.requires_grad and not value.requires_grad

    def test_grad_of_grad(self):
        def h(x):
            return x**5

        for order in (lambda x: x**5, lambda x: 5 * x**4, lambda x: 20 * x**3, lambda x: 60 * x**2, lambda x: 120 * x):
            assert_close(h(np.float64(1.5)), order(1.5))
            h = tg.grad(h)

    def test_argnums_aux_and_trees(self):
        def loss(p, data, scale=1.0):
            return scale * (p["w"] * data + p["b"][0]).sum(), {"seen": data.shape}

        p = {"w": np.ones(3), "b": [np.zeros(())]}
        g, aux = tg.grad(loss, has_aux=True)(p, np.arange(3.0), scale=2.0)
        assert_close(g["w"], [0, 2, 4])
        assert_close(g["b"][0], 6)
        assert aux == {"seen": (3,)}
        gx, gp = tg.grad(lambda a, b, c: (a * b * c).sum(), argnums=(2, 0))(
            np.ones(2), np.full(2, 2.0), np.full(2, 5.0)
        )
        assert_close(gx, [2, 2])
        assert_close(gp, [10, 10])

    def test_vjp_can_be_pulled_again_and_keeps_structure(self):
        y, pull = tg.vjp(lambda x, c: {"square": x * x * c, "sum": x.sum()}, X, np.float64(2.0))
        for v in (V, 2 * V):
            gx, gc_ = pull({"square": v, "sum": np.array(10.0)})
            assert_close(gx, 4 * X * v + 10)
            assert_close(gc_, (X * X * v).sum())
        assert_close(y["square"], 2 * X * X)

    def test_unused_arguments_get_zeros(self):
        a, b = tg.grad(lambda a, b: (a * a).sum(), argnums=(0, 1))(X, V)
        assert_close(b, np.zeros_like(V))

    def test_gradients_in_the_manner_of_torch(self):
        x = tg.tensor(X, requires_grad=True)
        y = x * x
        z = (y * y).sum()
        gx, gy = tg.gradients(z, [x, y], retain_graph=True)  # y depends on x: both are right
        assert_close(gy, 2 * X**2)
        assert_close(gx, 4 * X**3)
        assert x.grad is None
        assert_close(tg.gradients(y, x, grad_outputs=V, retain_graph=True), 2 * X * V)
        (g,) = tg.gradients([z], [x], create_graph=True)
        assert_close(tg.gradients(g.sum(), x), 12 * X**2)

    def test_gradients_of_what_does_not_depend(self):
        x, w = tg.tensor(X, requires_grad=True), tg.tensor(X, requires_grad=True)
        with pytest.raises(RuntimeError, match=r"do not depend on inputs\[1\]; pass allow_unused=True"):
            tg.gradients(x.sum(), [x, w])
        assert tg.gradients(x.sum(), [x, w], allow_unused=True)[1] is None
        with pytest.raises(RuntimeError, match=r"inputs\[0\] is not on the tape"):
            tg.gradients(x.sum(), [tg.tensor(X)])


class TestNesting:
    def test_perturbations_are_not_confused(self):
        def inner(x):
            return tg.grad(lambda y: x + y)(np.float64(1.0))

        assert_close(tg.grad(lambda x: x * inner(x))(np.float64(1.0)), 1)
        assert_close(
            tg.jvp(
                lambda x: x * tg.jvp(lambda y: x + y, (np.float64(1),), (np.float64(1),))[1],
                (np.float64(1),),
                (np.float64(1),),
            )[1],
            1,
        )
        assert_close(
            tg.grad(lambda x: x * tg.jvp(lambda y: x * y, (np.float64(1),), (np.float64(1),))[1])(np.float64(3.0)), 6
        )

    def test_forward_over_reverse_reverse_over_forward_and_both_twice(self):
        expected = curvature(X) * V
        assert_close(tg.jvp(tg.grad(f), (X,), (V,))[1], expected)
        assert_close(tg.grad(lambda x: tg.jvp(f, (x,), (V,))[1])(X), expected)
        assert_close(tg.grad(lambda x: (tg.grad(f)(x) * V).sum())(X), expected)
        t = tg.jvp(lambda x: tg.jvp(f, (x,), (V,))[1], (X,), (V,))[1]
        assert_close(t, (curvature(X) * V * V).sum())

    def test_an_outer_tape_sees_inner_transforms(self):
        w = tg.tensor(2.0, dtype="float64", requires_grad=True)
        g = tg.grad(lambda x: (w * x * x).sum())(X)  # closes over w
        g.sum().backward()
        assert_close(w.grad, 2 * X.sum())

    def test_under_no_grad_transforms_still_work(self):
        w = tg.tensor(2.0, dtype="float64", requires_grad=True)
        with tg.no_grad():
            g = tg.grad(lambda x: (w * x * x).sum())(X)
        assert_close(g, 4 * X)
        assert not g.requires_grad

    def test_an_inner_grad_leaves_the_outer_tape_whole(self):
        w = tg.tensor(X, requires_grad=True)
        h = w * w
        with tg.no_grad():
            tg.grad(lambda x: (h * x).sum())(V)
            tg.grad(lambda x: h.sum())(V)
        h.sum().backward()
        assert_close(w.grad, 2 * X)

    def test_inner_gradients_do_not_walk_the_outer_history(self):
        w = tg.tensor(X, requires_grad=True)
        h = w
        for _ in range(50):
            h = h * 1.0
        run_lengths = []

        class Count:
            def before_rule(self, node, g):
                run_lengths.append(node.op)

        with tg.hooks(Count()):
            tg.grad(lambda x: (h * x).sum())(V)
        assert len(run_lengths) == 2


class TestOwnedResults:
    """Gradients and tangents own their memory: writing to one changes no other, nor what the caller gave."""

    A = np.ones(3)
    CALLS = {
        "grad of two arguments": lambda v: tg.grad(lambda a, b: (a + b).sum(), argnums=(0, 1))(np.ones(3), np.ones(3)),
        "grad of a tree": lambda v: tg.grad(lambda p: (p["w"] + p["c"]).sum())({"w": np.ones(3), "c": np.ones(3)}),
        "vjp": lambda v: tg.vjp(lambda a, b: a + b, np.ones(3), np.ones(3))[1](v),
        "vjp of a view": lambda v: tg.vjp(lambda a: a.reshape(3), np.ones((1, 3)))[1](v),
        "jvp": lambda v: tg.jvp(lambda a: a.reshape(3), (np.ones(3),), (v,))[1],
        "jvp of two results": lambda v: tg.jvp(lambda a: (a, a), (np.ones(3),), (v,))[1],
        "gradients": lambda v: tg.gradients(TestOwnedResults.sum_of(), TestOwnedResults.leaves, v),
        "gradients, recorded": lambda v: tg.gradients(
            TestOwnedResults.sum_of(), TestOwnedResults.leaves, v, create_graph=True
        ),
        "gradients, on the tape": lambda v: tg.gradients(
            tg.square(TestOwnedResults.sum_of()), TestOwnedResults.leaves, v, create_graph=True
        ),
    }
    leaves = [tg.tensor(np.ones(3), requires_grad=True) for _ in range(2)]

    @classmethod
    def sum_of(cls):
        return cls.leaves[0] + cls.leaves[1]

    @pytest.mark.parametrize("name", CALLS)
    @pytest.mark.parametrize("given", [np.ones(3), tg.ones(3, dtype="float64")], ids=["array", "tensor"])
    def test_they_share_nothing(self, name, given):
        results, _ = tg.tree.flatten(self.CALLS[name](given))
        for i, t in enumerate(results):
            before = [other.numpy().copy() for other in results]
            t.data[...] += 1.0
            np.testing.assert_array_equal(np.asarray(given), np.ones(3))
            for k, other in enumerate(results):
                np.testing.assert_array_equal(other.numpy(), before[k] + (k == i))


class TestForward:
    def test_jvp_and_linearize(self):
        y, t = tg.jvp(lambda x, c: x * x * c, (X, np.float64(3.0)), (V, np.float64(1.0)))
        assert_close(y, 3 * X * X)
        assert_close(t, 6 * X * V + X * X)
        calls = []
        y, push = tg.linearize(lambda x: calls.append(1) or x * x, X)
        assert_close(push(V), 2 * X * V)
        assert_close(push(2 * V), 4 * X * V)
        assert calls == [1]

    def test_outputs_that_do_not_depend_have_zero_tangents(self):
        _, t = tg.jvp(lambda x: (x.sum(), tg.tensor(np.ones(2))), (X,), (V,))
        assert_close(t[1], np.zeros(2))

    def test_a_wrong_tangent_is_named(self):
        with pytest.raises(ValueError, match=r"jvp: gradient has shape \(2,\)"):
            tg.jvp(f, (X,), (np.ones(2),))


class TestJacobian:
    A = RNG.standard_normal((2, 3))

    @pytest.mark.parametrize("mode", ["forward", "reverse", None])
    def test_layouts_of_004(self, mode):
        x = RNG.standard_normal((3, 4))
        expected = np.einsum("ik,jl->ijkl", self.A, np.eye(4))  # d(Ax)_ij/dx_kl
        assert_close(tg.jacobian(lambda x: tg.matmul(self.A, x), x, mode=mode), expected)
        assert_close(
            tg.jacobian(lambda x: tg.matmul(self.A, x), x, layout="numerator", mode=mode), expected.reshape(8, 12)
        )
        assert_close(
            tg.jacobian(lambda x: tg.matmul(self.A, x), x, layout="denominator", mode=mode), expected.reshape(8, 12).T
        )

    def test_scalars_and_vectors(self):
        assert_close(tg.jacobian(lambda x: x * x, np.float64(3.0)), 6)
        assert_close(tg.jacobian(lambda x: x.sum(), np.ones(3)), np.ones(3))
        assert_close(tg.jacobian(lambda x: x * x, np.arange(3.0)), np.diag(2 * np.arange(3.0)))
        assert tg.jacobian(lambda x: x * x, np.ones((0,))).shape == (0, 0)

    def test_trees_and_argnums(self):
        j = tg.jacobian(lambda a, b: {"y": a * b}, np.ones(2), np.full(2, 3.0), argnums=(0, 1))
        assert_close(j["y"][0], 3 * np.eye(2))
        assert_close(j["y"][1], np.eye(2))

    def test_hessian_is_the_jacobian_of_the_gradient(self):
        x = X[0]
        assert_close(tg.hessian(f, x), np.diag(curvature(x)))
        assert_close(tg.hessian(f)(x), tg.jacobian(tg.grad(f))(x))
        assert_close(tg.grad(lambda x: tg.jacobian(lambda y: y * y * y, x).sum())(x), 6 * x)

    def test_rows_go_through_the_walk_in_stacks(self, monkeypatch):
        """One rule for all rows of a stack, as many stacks as keep the cotangents small; the same in every way."""
        w, x = tg.tensor(RNG.standard_normal((4, 3)), requires_grad=True), tg.tensor(RNG.standard_normal((2, 4)))
        rules = []

        @tg.rules.primitive(vjp=lambda g, x: rules.append(g.shape) or 2 * g * x, jvp=lambda t, x: 2 * t * x)
        def squared(xp, x):
            return x * x

        def f(x):
            first, second = tg.split(squared(x @ w), [1])
            return {"a": first.T, "b": tg.svd(second @ w.T, full_matrices=False)[1], "c": w.sum(), "d": x[1]}

        def results():
            rules.clear()
            j = tg.jacobian(f, x, mode="reverse")
            (g,) = tg.gradients([(v * v).sum() for v in (j["a"], j["b"])], [w])
            return [v.detach() for v in (*j.values(), g)]

        expected = results()
        assert_close(expected[0], tg.jacobian(f, x)["a"].detach())
        assert set(rules) == {(2, 3)}  # of a user's primitive: row by row
        assert all(j.data.flags.writeable for j in expected)
        for most in (1, 13):
            monkeypatch.setattr(stacked, "MOST_ELEMENTS", most)
            for got, one in zip(results(), expected, strict=True):
                assert_close(got, one)
        products = []
        see = types.SimpleNamespace(before_rule=lambda node, g: node.op == "matmul" and products.append(g.shape))
        with tg.hooks(see):
            for got, one in zip(results(), expected, strict=True):
                assert_close(got, one)
        assert products and all(len(shape) == 2 for shape in products)  # who looks on sees each row

    def test_hooks_see_each_row(self):
        seen = []

        def f(x):
            y = x * 2
            y.register_hook(lambda g: seen.append(g.shape) or g * 3)
            return y * y

        assert_close(tg.jacobian(f, np.ones(2)), 24 * np.eye(2))
        assert seen == [(2,), (2,)]

    def test_a_change_in_place_is_noticed(self):
        c = tg.tensor([5.0, 6.0])

        def f(x):
            y = x * c
            c.copy_([7.0, 8.0])
            return y

        with pytest.raises(RuntimeError, match="was changed in place after it had been saved"):
            tg.jacobian(f, np.ones(2))

    def test_hvp(self):
        assert_close(tg.hvp(f, X, V), curvature(X) * V)

    def test_choices_are_checked(self):
        with pytest.raises(ValueError, match="layout='rows'"):
            tg.jacobian(f, X, layout="rows")
        with pytest.raises(ValueError, match="mode='sideways'"):
            tg.jacobian(f, X, mode="sideways")


class TestInPlace:
    """A recorded derivative notices changes as the function itself does."""

    @pytest.mark.parametrize("derivative", [
        lambda x, c: tg.vjp(lambda a: a * a * c, x)[1](x)[0],
        lambda x, c: tg.jvp(lambda a: a * a * c, (x,), (x,))[1],
        lambda x, c: tg.gradients((v := x * 1) * v * c, v, v, create_graph=True),
    ])  # fmt: skip
    def test_of_a_constant_that_the_derivative_multiplies_by(self, derivative):
        x, c = tg.tensor([3.0], requires_grad=True), tg.tensor([5.0])
        derivative(x, c).backward()
        assert x.grad.item() == 2 * 2 * 3 * 5  # of 2 x x c
        y = derivative(x, c)
        c.copy_([7.0])
        with pytest.raises(RuntimeError, match="was changed in place after it had been saved"):
            y.backward()

    def test_a_constant_that_is_a_scalar_of_numpy(self):
        x = tg.tensor([3.0], requires_grad=True)
        (g,) = tg.gradients(x * x * np.float64(2.0), [x], np.ones(1), create_graph=True)
        g.backward()
        assert x.grad.item() == 4


def through(read):
    """A checkpointed function that reads tensors out of an object, where no name of its code leads to them."""

    def run(x, c, i):
        held = types.SimpleNamespace(c=c.detach(), i=i)
        return tg.checkpoint(lambda a: read(a, held))(x)

    return run


READS = {
    "an index": lambda a, held: a[held.i],
    "an index of take": lambda a, held: tg.take(a, held.i),
    "rows of an embedding": lambda a, held: tg.embedding(a[:, None], held.i),
    "a list": lambda a, held: a * held.c.tolist()[0],
    "an array": lambda a, held: a * tg.tensor(held.c.numpy() * 1.0),
    "NumPy's view": lambda a, held: a * tg.tensor(np.sum(held.c)),
    "a truth": lambda a, held: a * (2.0 if (held.c[0] < 4) else 3.0),
    "a value that is written": lambda a, held: a * tg.zeros(2).copy_(held.c),
    "class weights": lambda a, held: tg.softmax_cross_entropy(a[None], [0], weight=held.c),
    "labels": lambda a, held: tg.nll(tg.log_softmax(tg.stack([a, a])), held.i),
}


class TestCheckpoint:
    def block(self, x):
        return (x * x).exp() * x

    def test_gradients_of_every_order_and_mode(self):
        X = 0.3 * np.ones((2, 2))
        with_, without = tg.checkpoint(self.block), self.block
        for transform in (
            lambda h: tg.grad(lambda x: h(x).sum())(X),
            lambda h: tg.hvp(lambda x: h(x).sum(), X, np.ones((2, 2))),
            lambda h: tg.jvp(h, (X,), (np.ones((2, 2)),))[1],
            lambda h: tg.hessian(lambda x: h(h(x)).sum(), X),
            lambda h: tg.grad(lambda x: tg.hvp(lambda y: h(y).sum(), x, np.ones((2, 2))).sum())(X),
        ):
            assert_close(transform(with_), transform(without))

    def test_parameters_it_closes_over_get_gradients(self):
        w = tg.tensor(np.full(3, 0.5), requires_grad=True)
        inner = tg.tensor(np.full(3, 0.25), requires_grad=True) * 2.0  # an interior tensor it closes over
        x = tg.tensor(np.ones(3), requires_grad=True)
        y = tg.checkpoint(lambda x: w * x * x * inner)(x).sum()
        y.backward()
        assert_close(w.grad, 0.5 * np.ones(3))
        assert_close(x.grad, 0.5 * np.ones(3))
        w.grad = None
        g = tg.gradients(tg.checkpoint(lambda x: w * w * x)(x).sum(), w, create_graph=True)
        g.sum().backward()
        assert_close(w.grad, 2 * np.ones(3))

    def test_several_results_and_constants_in_trees(self):
        x = tg.tensor(X, requires_grad=True)
        out = tg.checkpoint(lambda d, k: {"a": d["x"] * k, "b": d["x"].sum()})({"x": x}, 3.0)
        (out["a"].sum() + out["b"]).backward()
        assert_close(x.grad, np.full((3, 4), 4.0))

    def test_it_keeps_only_its_inputs(self):
        x = tg.tensor(np.ones(1000), requires_grad=True)
        seen = []

        def block(x):
            y = (x * 2.0).exp()
            seen.append(weakref.ref(y.node))
            return y * y

        gc.collect()
        gc.disable()
        try:
            z = tg.checkpoint(block)(x)
            assert seen[0]() is None
        finally:
            gc.enable()
        z.sum().backward()
        assert len(seen) == 2
        assert_close(x.grad, 4 * np.exp(4.0) * np.ones(1000))

    def test_memory_of_a_chain_is_that_of_its_parts(self):
        def part(x):
            for _ in range(6):
                x = tg.tanh(x)
            return x

        def peak(part):
            x = tg.tensor(np.ones(20_000), requires_grad=True)
            tracemalloc.start()
            y = x
            for _ in range(6):
                y = part(y)
            y.sum().backward()
            arrays = tracemalloc.get_traced_memory()[1] / x.data.nbytes
            tracemalloc.stop()
            return arrays

        assert peak(part) > 36  # results of tanh
        assert peak(tg.checkpoint(part)) < 5 + 6 + 4  # between parts, inside one, and while its rules run

    def test_an_input_that_it_also_closes_over_gets_both_gradients(self):
        x = tg.tensor(np.array([3.0]), requires_grad=True)
        tg.checkpoint(lambda a: a * x)(x).sum().backward()
        assert x.grad.item() == 6
        nested = lambda x: tg.checkpoint(lambda a: tg.checkpoint(lambda b: b * a * x)(a))(x).sum()
        assert tg.grad(nested)(np.array([3.0])).item() == 27
        assert tg.grad(lambda x: tg.grad(nested)(x).sum())(np.array([3.0])).item() == 18
        assert tg.jvp(nested, (np.array([3.0]),), (np.ones(1),))[1].item() == 27

    def test_a_hook_on_what_it_closes_over_runs_once_on_the_whole_gradient(self):
        x = tg.tensor(np.array([3.0]), requires_grad=True)
        h = x * 2.0
        seen = []
        for t, name in ((x, "x"), (h, "h")):
            t.register_hook(lambda g, name=name: seen.append((name, g.item())) or g * 0.5)
        (tg.checkpoint(lambda a: a * h * x)(x.detach()) + h).sum().backward()
        assert seen == [("h", 10.0), ("x", 18.0 + 2 * 5.0)]  # d/dh (3 h x + h) and what x gets beside 2 h
        assert x.grad.item() == 14.0

    def test_it_may_return_what_it_closes_over(self):
        x = tg.tensor(np.array([3.0]), requires_grad=True)
        h = x * 2.0
        y = tg.checkpoint(lambda a: (a, h, x, h.reshape(1, 1)))(x)
        (y[0] + 2.0 * y[1] + 3.0 * y[2] + y[3].sum()).sum().backward()
        assert x.grad.item() == 1 + 4 + 3 + 2
        x.grad = None
        tg.checkpoint(lambda: x * x)().sum().backward()
        assert x.grad.item() == 6
        np.testing.assert_array_equal(tg.checkpoint(lambda: tg.ones(3))(), np.ones(3))

    CHANGED = {
        "a parameter": lambda x, c, i: tg.checkpoint(lambda a: c * c * a)(x),
        "a parameter that no rule reads": lambda x, c, i: tg.checkpoint(lambda a: tg.exp(a + c))(x),
        "a constant behind an op off the tape": lambda x, c, i: tg.checkpoint(lambda a: a * (c.detach() * 2.0))(x),
        "a keyword argument": lambda x, c, i: tg.checkpoint(lambda a, c: a * c)(x, c=c),
        "an index": lambda x, c, i: tg.checkpoint(lambda a: a[i])(x),
        "an index that is an argument": lambda x, c, i: tg.checkpoint(lambda a, i: a[i])(x, i),
        "a number": lambda x, c, i: tg.checkpoint(lambda a: a * float(i[0].item() + 1))(x),
        "inside a checkpoint": lambda x, c, i: tg.checkpoint(lambda b: tg.checkpoint(lambda a: c * a)(b))(x),
        "an input": lambda x, c, i: tg.checkpoint(lambda a, b: a * b)(x, c),
        "an input seen through a view that came back": lambda x, c, i: tg.square(
            tg.checkpoint(lambda a: a.reshape(1, 2))(c)
        ),
        **{f"{kind} out of an object": through(read) for kind, read in READS.items()},
    }

    @pytest.mark.parametrize("name", CHANGED)
    @pytest.mark.parametrize("requires_grad", [True, False])
    def test_what_it_read_may_not_change_before_backward(self, name, requires_grad):
        x = tg.tensor([1.0, 2.0], requires_grad=True)
        c = tg.tensor([3.0, 4.0], requires_grad=requires_grad or "view" in name)
        i = tg.tensor([0, 1])
        y = self.CHANGED[name](x, c, i).sum()
        with tg.no_grad():
            c.copy_([5.0, 6.0])
            i.copy_([1, 1])
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()
        assert x.grad is None

    def test_initial_values_drawn_inside_are_drawn_again(self):
        for draw in (
            lambda: tg.nn.init.uniform((5,)),
            lambda: tg.nn.init.he_normal((5, 1))[:, 0],
            lambda: tg.nn.init.orthogonal((5, 2))[:, 0],
        ):
            x = tg.tensor(np.ones(5, "float32"), requires_grad=True)
            y = tg.checkpoint(lambda x: x * tg.tensor(draw()))(x)
            y.sum().backward()
            np.testing.assert_array_equal(x.grad.numpy(), y.numpy())

    def test_other_parameters_than_the_first_time_are_refused(self):
        x, parts = tg.tensor([1.0], requires_grad=True), {"w": tg.tensor([2.0], requires_grad=True)}
        y = tg.checkpoint(lambda a: a * parts["w"])(x).sum()
        parts["w"] = tg.tensor([2.0], requires_grad=True)
        with pytest.raises(RuntimeError, match="depends on other tensors"):
            y.backward()

    def test_a_parameter_frozen_since_gets_no_gradient(self):
        x, w = tg.tensor([1.0], requires_grad=True), tg.tensor([2.0], requires_grad=True)
        y = tg.checkpoint(lambda a: a * w * w)(x).sum()
        w.requires_grad = False
        y.backward()
        assert x.grad.item() == 4 and w.grad is None

    def test_functional_call_around_it_is_made_again(self):
        class Net(tg.nn.Module):
            def __init__(self, wrap):
                self.a, self.b, self.wrap = tg.nn.Linear(3, 4, rng=0), tg.nn.Linear(4, 2, rng=1), wrap

            def forward(self, x):
                return self.b(self.wrap(lambda x: tg.tanh(self.a(x)))(x))

        def derivatives(wrap):
            net = Net(wrap)
            p = {name: tg.tensor(v.numpy().astype("float64") * 2) for name, v in net.named_parameters()}
            loss = lambda p: tg.nn.functional_call(net, p, tg.ones((2, 3), dtype="float64")).sum()
            return [*tg.grad(loss)(p).values(), *tg.hvp(loss, p, p).values(), *tg.grad(loss)(p).values()]

        for a, b in zip(derivatives(lambda f: f), derivatives(tg.checkpoint)):
            assert_close(a.detach(), b.detach())

    def test_random_numbers_are_drawn_again_while_others_draw(self):
        x, seen = tg.tensor(np.ones(4), requires_grad=True), []

        @tg.checkpoint
        def noisy(x):
            seen.append((tg.rand(4) * tg.randn(4)).astype("float64"))
            return x * seen[-1]

        tg.manual_seed(3)
        y = noisy(x).sum()
        after = tg.rand(2)
        y.backward()
        next_ = tg.rand(2)
        assert_close(seen[1], seen[0])
        assert_close(x.grad, seen[0])
        tg.manual_seed(3)
        noisy(x), tg.rand(2)
        np.testing.assert_array_equal(tg.rand(2), next_)
        assert not np.array_equal(after, next_)

    def test_other_random_numbers_than_the_first_time_are_refused(self):
        x, drop = tg.tensor(np.ones(4), requires_grad=True), tg.nn.Dropout(0.5)
        for first, then, words in ((True, False, "not made again"), (False, True, "not drawn the first time")):
            y = tg.checkpoint(drop.train(first))(x).sum()
            drop.train(then)
            with pytest.raises(RuntimeError, match=words):
                y.backward()

    @pytest.mark.slow
    def test_no_call_leaves_anything_behind(self):
        x, c = tg.tensor(np.ones(3), requires_grad=True), tg.tensor(np.ones(3))

        def step():
            x.grad = None
            h = tg.exp(x)
            y = tg.checkpoint(lambda a: tg.tanh(a * h * c))(x)
            tg.gradients(y.sum(), [x], create_graph=True)
            tg.checkpoint(lambda a: tg.checkpoint(tg.tanh)(a) * h)(x).sum().backward()

        assert_nothing_is_left(step)

    def test_a_picture_shows_its_values(self):
        x, w = (tg.tensor(np.full(2, v), requires_grad=True, name=n) for v, n in ((2.0, "x"), (3.0, "w")))
        h = w * 1.0
        text = tg.explain(tg.checkpoint(lambda a: tg.square(a * h))(x).sum())
        assert "u_1 = w · 1 = [3, 3]" in text and "∂L/∂w = " in text and text.count("[24, 24]") >= 1

    def test_without_recording_it_is_the_function(self):
        with tg.no_grad():
            assert not tg.checkpoint(self.block)(tg.tensor(X, requires_grad=True)).requires_grad


OBSERVERS = {
    "profile": tg.profile,
    "detect_nan": tg.detect_nan,
    "guard": tg.guard_saved,
    "recording": tg.graph.recording,
}


@pytest.mark.parametrize("observer", OBSERVERS.values(), ids=OBSERVERS)
def test_observers_leave_nothing_behind(observer):
    x = tg.tensor(np.ones(3), requires_grad=True)

    def step():
        x.grad = None
        with observer():
            tg.exp(x).sum().backward()

    assert_nothing_is_left(step, 300)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: x @ x,
        lambda x: x + tg.ones(3),
        lambda x: tg.inv(x),
        lambda x: tg.checkpoint(lambda a: a @ a)(x),
        lambda x: tg.nn.Sequential(tg.nn.Linear(3, 4))(x),
        lambda x: tg.sum(x, axis=5),
        lambda x: tg.grad(lambda a: a)(x),
    ],
)
def test_errors_leave_nothing_behind(call):
    """An exception that is its own cause, or that a frame of its traceback holds, waits for the collector."""
    x = tg.tensor(np.ones((3, 4)), requires_grad=True)

    def step():
        try:
            call(x)
        except (ValueError, TypeError, IndexError) as error:
            assert error.__cause__ is not error
        else:
            raise AssertionError("no error")

    assert_nothing_is_left(step, 100)


class TestErrors:
    def test_grad_of_a_vector_says_to_use_jacobian(self):
        with pytest.raises(ValueError, match=r"one number; it returned shapes \[\(3, 4\)\]. Use jacobian"):
            tg.grad(lambda x: x * x)(X)

    def test_integers_are_refused(self):
        with pytest.raises(TypeError, match="argument 0 has dtype int64"):
            tg.grad(lambda x: x.sum())(np.arange(3))

    def test_argnums_out_of_range(self):
        with pytest.raises(ValueError, match="argnums=2 but the function is called with 1"):
            tg.grad(f, argnums=2)(X)


class TestUserPrimitives:
    def test_a_few_lines_make_a_primitive(self):
        @tg.elementwise(derivative=lambda x: tg.exp(x) * (1 + x), formula="(1 + x) e^x")
        def xexpx(xp, x):
            """x times e to the x."""
            return x * xp.exp(x)

        assert tg.testing.gradcheck(xexpx, [tg.tensor(X, requires_grad=True)])

    def test_a_black_box_behind_a_custom_vjp(self):
        @tg.custom_vjp(lambda g, x, y: g * y * 2.0)
        def black_box(x):
            return np.exp(2.0 * x)

        x = tg.tensor(X, requires_grad=True)
        assert tg.testing.gradcheck(black_box, [x])
        assert_close(tg.grad(lambda x: tg.grad(lambda z: black_box(z).sum())(x).sum())(X), 4 * np.exp(2 * X))
        with pytest.raises(RuntimeError, match="black_box has no JVP rule"):
            tg.jvp(black_box, (X,), (V,))

    def test_a_wrong_rule_is_found_by_gradcheck(self):
        @tg.elementwise(derivative=lambda x: 3 * x, formula="x^2")
        def wrong_square(xp, x):
            return x * x

        with pytest.raises(AssertionError):
            tg.testing.gradcheck(wrong_square, [tg.tensor(X, requires_grad=True)])


@pytest.mark.parametrize("argnums", [(0, 0), (0, -2), (1, 0, 1)])
def test_an_argument_named_twice_is_refused(argnums):
    """The first of the two would get a gradient of zero."""
    for transform in (tg.grad, tg.value_and_grad, tg.jacobian, tg.hessian):
        with pytest.raises(ValueError, match=r"argnums=\(.*\) names an argument twice"):
            transform(lambda a, b: (a * b).sum(), argnums=argnums)(np.ones(2), np.ones(2))
