"""Users' own primitives and hooks are not believed: a gradient of another kind is an error that names the rule."""

import inspect
import types

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.engine.primitive import REGISTRY

tg.testing  # registers the strict device


def leaf(*values, **options):
    return tg.tensor(np.array(values), requires_grad=True, **options)


def double_with(rule, **facts):
    @tg.custom_vjp(rule, **facts)
    def double(a):
        return 2 * a

    return double


class TestHowManyRules:
    @pytest.mark.parametrize("rules", [
        lambda g, a, b: g * b,
        (lambda g, a, b: g * b,),
        (lambda g, b: g * b, lambda g, a: g * a, lambda g: g),
    ])  # fmt: skip
    def test_per_argument_at_the_definition(self, rules):
        with pytest.raises(TypeError, match=r"product: \d rules? for the arguments \(a, b\); give one for each, None"):

            @tg.custom_vjp(rules)
            def product(a, b):
                return a * b

    def test_of_a_jvp_and_of_elementwise(self):
        with pytest.raises(TypeError, match=r"1 rule for the arguments \(a, b\)"):

            @tg.primitive((lambda g, b: g * b, lambda g, a: g * a), jvp=lambda t, b: t * b)
            def product(xp, a, b):
                return a * b

        with pytest.raises(TypeError, match=r"1 rule for the arguments \(a, b\)"):

            @tg.elementwise(derivative=lambda b: b)
            def another(xp, a, b):
                return a * b

    @pytest.mark.parametrize("gradients, got", [
        (lambda g: (g,), "1"),
        (lambda g: (g, g, g), "3"),
        (lambda g: g, "ndarray"),
        (lambda g: None, "NoneType"),
    ])  # fmt: skip
    def test_joint_at_backward(self, gradients, got):
        @tg.custom_vjp(lambda needed, g: gradients(g))
        def plus(a, b):
            return a + b

        with pytest.raises(RuntimeError, match=f"the rule of plus returned {got}; expected a tuple of 2 gradients"):
            plus(leaf(1.0), leaf(2.0)).sum().backward()

    def test_a_jvp_per_argument_of_several_outputs(self):
        with pytest.raises(TypeError, match="f: with outputs= the JVP rule is one for all"):

            @tg.primitive(lambda needed, g: (g[0], g[1]), jvp=(lambda t: (t, t), lambda t: (t, t)), outputs=("p", "q"))
            def f(xp, a, b):
                return a + b, a - b

    def test_none_says_that_an_argument_gets_no_gradient(self):
        @tg.custom_vjp((lambda g, b: g * b, None))
        def product(a, b):
            return a * b

        a, b = leaf(2.0), leaf(3.0)
        product(a, b).sum().backward()
        assert a.grad.item() == 3.0 and b.grad is None

    def test_a_joint_rule_may_send_nothing_to_an_argument(self):
        @tg.custom_vjp(lambda needed, g, b: (g * b, None))
        def product(a, b):
            return a * b

        a, b = leaf(2.0), leaf(3.0)
        product(a, b).sum().backward()
        assert a.grad.item() == 3.0 and b.grad is None

    def test_an_unknown_name_lists_what_a_rule_may_read(self):
        with pytest.raises(TypeError, match=r"'z' is no argument.*may read a, y, scale, a_shape"):

            @tg.custom_vjp(lambda g, z: g * z)
            def scaled(a, scale=2.0):
                return a * scale


class TestWhatARuleReturns:
    @pytest.mark.parametrize("rule, got", [
        (lambda g, a: 1.0, "float"),
        (lambda g, a: [2.0, 2.0], "list"),
        (lambda g, a: None, "NoneType"),
        (lambda g, a: g * 1j, r"a complex128 array on cpu"),
        (lambda g, a: a > 0, "a bool array"),
        (lambda g, a: np.array(["a", "b"]), "a <U1 array"),
        (lambda needed, g, a: (2.0,), "float"),
        (lambda needed, g, a: (g * 1j,), "a complex128 array"),
    ])  # fmt: skip
    def test_of_another_kind_is_refused(self, rule, got):
        x = leaf(1.0, 2.0)
        with pytest.raises(
            RuntimeError, match=rf"the rule of double returned {got}.* for a; expected an array of float64"
        ):
            double_with(rule)(x).sum().backward()
        assert x.grad is None

    @pytest.mark.parametrize(
        "rule", [lambda g: g.T, lambda g: g.reshape(-1), lambda g: g[:, :2], lambda g: np.ones(3, 3)]
    )
    def test_of_another_shape_is_refused(self, rule):
        x = tg.tensor(np.ones((2, 3)), requires_grad=True)
        with pytest.raises((RuntimeError, TypeError)):
            double_with(rule)(x).sum().backward()
        assert x.grad is None

    def test_on_another_device_is_refused(self):
        x = tg.tensor([1.0, 2.0], device="strict", requires_grad=True)
        with pytest.raises(RuntimeError, match="a float32 array on cpu for a; expected an array of .* on strict"):
            double_with(lambda g: np.ones(2, np.float32))(x).sum().backward()

    def test_a_wider_dtype_is_cast_to_that_of_the_argument(self):
        x = leaf(1.0, dtype="float32")
        double_with(lambda g: np.array([2.0]))(x).sum().backward()
        assert x.grad.dtype == np.float32 and x.grad.item() == 2.0

    def test_a_tensor_where_arrays_flow_is_its_array(self):
        x = leaf(1.0, 3.0)
        double_with(lambda g: tg.asarray(np.array([2.0, 2.0])))(x).sum().backward()
        np.testing.assert_array_equal(x.grad.numpy(), [2.0, 2.0])

    def test_a_constant_under_create_graph(self):
        x = leaf(1.0, 3.0)
        op = double_with(lambda g: np.full(2, 2.0))
        (g,) = tg.gradients((op(x) * x).sum(), [x], create_graph=True)
        np.testing.assert_array_equal(g.numpy(), [4.0, 8.0])

    def test_second_order_of_a_rule(self):
        @tg.custom_vjp(lambda g, a: 2 * g * a)
        def squared(a):
            return a * a

        second = tg.hessian(lambda x: squared(x).sum(), np.array([1.0, 3.0]))
        np.testing.assert_array_equal(second.numpy(), 2 * np.eye(2))

    def test_a_result_may_be_written(self):
        g = tg.grad(lambda x: (double_with(lambda g: g)(x) * np.ones(2)).sum())(np.ones(2))
        g[0] = 5.0
        assert g.tolist() == [5.0, 1.0]

    @pytest.mark.parametrize("tangent", [
        lambda t: 1.0, lambda t: t * 1j, lambda t: np.ones((4, 2)), lambda t: [1.0, 1.0], lambda t: np.ones(3),
    ])  # fmt: skip
    def test_a_tangent_of_another_kind_is_refused(self, tangent):
        op = double_with(lambda g: g * 2, jvp=lambda t: tangent(t))
        with pytest.raises(RuntimeError, match="the JVP rule of double returned .* for a result of float64"):
            tg.jvp(op, (np.ones(2),), (np.ones(2),))

    def test_a_tangent_on_another_device_is_refused(self):
        op = double_with(lambda g: g * 2, jvp=lambda t: np.ones(2, np.float32))
        x = tg.tensor([1.0, 2.0], device="strict")
        with pytest.raises(RuntimeError, match="JVP rule of double returned an array on cpu for tangents on strict"):
            tg.jvp(op, (x,), (x,))

    def test_too_few_tangents_of_several_outputs(self):
        @tg.custom_vjp(lambda needed, g: (g[0],), jvp=lambda tangents: tangents[0], outputs=("p", "q"))
        def parts(a):
            return a + 1, a + 2

        with pytest.raises(RuntimeError, match="the JVP rule of parts returned ndarray; expected a tuple"):
            tg.jvp(lambda x: parts(x)[0], (np.ones(2),), (np.ones(2),))

    def test_a_jvp_rule_does_not_write_into_its_tangents(self):
        def rule(t):
            t *= 2
            return t

        tangent = np.ones(2)
        with pytest.raises(ValueError, match="read-only"):
            tg.jvp(double_with(lambda g: g * 2, jvp=rule), (np.ones(2),), (tangent,))
        assert tangent.tolist() == [1, 1]


class TestWhatAForwardReturns:
    @pytest.mark.parametrize("function, error, pattern", [
        (lambda a: None, TypeError, "f: the forward returned NoneType"),
        (lambda a: a * 1j, TypeError, "f: the forward returned an array of complex128"),
        (lambda a: [a, a], TypeError, "f: the forward returned list"),
        (lambda a: tg.tensor(a), TypeError, "f: the forward returned Tensor"),
        (lambda a: a, ValueError, "f: the forward returned its argument a, or a view of it; return a copy"),
        (lambda a: a[::2], ValueError, "returned its argument a"),
        (lambda a: a.reshape(2, 1), ValueError, "returned its argument a"),
    ])  # fmt: skip
    def test_of_another_kind_is_refused(self, function, error, pattern):
        def f(a):
            return function(a)

        with pytest.raises(error, match=pattern):
            tg.custom_vjp(lambda g: g)(f)(leaf(1.0, 2.0))

    def test_a_view_that_is_declared_counts_changes_with_its_argument(self):
        @tg.custom_vjp(lambda g, a_shape: g.reshape(a_shape), view=True)
        def column(a):
            return a.reshape(-1, 1)

        x = tg.tensor([1.0, 2.0])
        y = (column(x) * leaf(3.0, 4.0)).sum()
        x[0] = 5.0
        with pytest.raises(RuntimeError, match="changed in place"):
            y.backward()

    def test_too_many_outputs(self):
        @tg.custom_vjp(lambda needed, g: (g[0],), outputs=("p", "q"))
        def parts(a):
            return a + 1, a + 2, a + 3

        with pytest.raises(ValueError, match=r"parts: the forward returned 3 outputs, not \('p', 'q'\)"):
            parts(leaf(1.0))

    def test_one_array_where_several_are_declared(self):
        @tg.custom_vjp(lambda needed, g: (g[0],), outputs=("p", "q"))
        def parts(a):
            return a + 1

        with pytest.raises(TypeError, match="parts: the forward returned ndarray; expected a tuple of its outputs"):
            parts(leaf(1.0, 2.0))

    def test_on_another_device(self):
        @tg.custom_vjp(lambda g: g)
        def f(a):
            return np.ones(2, np.float32)

        with pytest.raises(TypeError, match=r"f: the forward returned an array of another device \(cpu, strict\)"):
            f(tg.tensor([1.0, 2.0], device="strict"))


class TestWritesAreRefused:
    def test_of_a_forward_into_its_argument(self):
        @tg.custom_vjp(lambda g: 2 * g)
        def double(a):
            a *= 2
            return a + 0

        x = leaf(1.0, 2.0)
        with pytest.raises(ValueError, match="read-only"):
            double(x)
        assert x.tolist() == [1.0, 2.0]

    def test_of_a_rule_into_the_gradient_which_neighbours_share(self):
        def rule(g):
            g *= 2
            return g

        x, y = leaf(1.0), leaf(2.0)
        with pytest.raises(ValueError, match="read-only") as caught:
            (double_with(rule)(x) + y).sum().backward()
        assert "the rule of double gets its arrays read-only" in caught.value.__notes__[0]

    def test_of_a_rule_into_what_was_saved(self):
        def rule(g, a):
            a[...] = 0
            return g

        x = leaf(1.0)
        with pytest.raises(ValueError, match="read-only"):
            double_with(rule)(x).sum().backward()
        assert x.item() == 1.0


class TestNames:
    def test_a_name_of_the_library_or_of_another_package_is_no_clash(self):
        for module, name in (("one", "exp"), ("one", "my_swish"), ("two", "my_swish"), ("two", "solve")):
            code = f"@tg.custom_vjp(lambda g: 3.0 * g)\ndef {name}(x): return 3.0 * x"
            space = types.ModuleType(module)
            space.tg = tg
            exec(code, vars(space))
            assert REGISTRY[f"{module}.{name}"].op is vars(space)[name]
        assert REGISTRY["exp"].op is tg.exp and REGISTRY["solve"].op.__module__ == tg.solve.__module__


class TestHooks:
    def test_what_a_hook_writes_stays_with_its_tensor(self):
        x, y, seed = leaf(1.0, 1.0), leaf(1.0, 1.0), np.ones(2)

        def times_ten(g):
            g[...] = g * 10

        x.register_hook(times_ten)
        (x + y).backward(seed)
        assert x.grad.tolist() == [10, 10] and y.grad.tolist() == [1, 1] and seed.tolist() == [1, 1]

    def test_at_the_root_it_does_not_write_the_callers_array(self):
        x, seed = leaf(1.0, 1.0), tg.tensor(np.ones(2))
        y = x * 3

        def zero(g):
            g[...] = 0.0

        y.register_hook(zero)
        y.backward(seed)
        assert x.grad.tolist() == [0, 0] and seed.tolist() == [1, 1]

    def test_a_retained_gradient_is_not_changed_by_a_later_hook(self):
        x = leaf(1.0, 2.0)
        y = (x * 3).retain_grad()

        def zero(g):
            g[...] = 0.0

        y.register_hook(zero)
        y.sum().backward()
        assert y.grad.tolist() == [1, 1] and x.grad.tolist() == [0, 0]

    @pytest.mark.parametrize("answer", [lambda g: g > 0, lambda g: 2.0, lambda g: g.numpy(), lambda g: g.to("strict")])
    def test_an_answer_of_another_kind_is_refused(self, answer):
        x = leaf(1.0, 2.0)
        x.register_hook(answer)
        with pytest.raises(ValueError, match=r"a hook on leaf must return None or a Tensor of shape \(2,\)"):
            (x * x).sum().backward()

    def test_an_answer_of_another_float_dtype_is_cast(self):
        x = leaf(1.0, 2.0)
        x.register_hook(lambda g: g.astype("float32") * 2)
        (x * x).sum().backward()
        assert x.grad.dtype == np.float64 and x.grad.tolist() == [4, 8]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: tg.linear(transpose=lambda g: g), "the decorator that makes a linear primitive is tg.rules.linear"),
        (lambda: tg.linear(lambda g: g), "the decorator that makes a linear primitive is tg.rules.linear"),
        (lambda: tg.linear(transpose=lambda g: g, formula="2 x"), r"@tg.rules.linear\(transpose=lambda g: ...\)"),
    ],
)
def test_the_affine_map_that_is_taken_for_the_decorator_says_so(call, message):
    with pytest.raises(TypeError, match=message):
        call()
    y = tg.linear(tg.ones(2), weight=tg.ones((3, 2)), bias=tg.ones(3))
    assert y.tolist() == [3, 3, 3] and list(inspect.signature(tg.linear).parameters) == ["x", "weight", "bias"]


def test_a_rule_without_parameters_is_refused_at_its_definition():
    for rules, forward in (((lambda: 1), lambda xp, x: x * 2), ((lambda: 1, lambda g: g), lambda xp, a, b: a * b)):
        with pytest.raises(TypeError, match="a rule has no parameter; its first one is the cotangent"):
            tg.rules.primitive(rules)(forward)


def test_a_forward_that_fails_on_an_array_runs_once():
    calls = []

    @tg.elementwise(derivative=lambda x: x)
    def fails(xp, x):
        calls.append(x)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no\nthe forward of fails was called with x: float64"):
        fails(np.ones(2))
    assert len(calls) == 1
