"""The checkers of derivatives accept what is right, and say in a sentence what is wrong."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.samples import normal, positive
from tinygrad_ms.engine.primitive import REGISTRY, no_derivative, primitive
from tinygrad_ms.engine.tensor import raw
from tinygrad_ms.testing import GradcheckError, check_grads, check_jvp, gradcheck, gradgradcheck, orders
from tinygrad_ms.testing.differences import FULL, check_pairing, differentiated

ROOT = Path(__file__).parents[2]
CHECKS = [gradcheck, gradgradcheck, check_jvp, check_grads]


def unlisted(op):
    """Take a test's own primitive out of the registry again."""
    del REGISTRY[op.primitive.name]
    return op


def cube(vjp=lambda g, x: 3 * g * x * x, jvp=lambda t, x: 3 * t * x * x):
    def a_cube(xp, x):
        return x * x * x

    return unlisted(primitive(vjp=vjp, jvp=jvp, formula="y = x^3")(a_cube))


@unlisted
@primitive(
    vjp=lambda g, y: (g[0] if g[0] is not None else 0) + (g[1] * y if g[1] is not None else 0),
    jvp=lambda tangents, y: (tangents[0], tangents[0] * y),
    outputs=("same", "y"),
    formula="x, e^x",
)
def with_exp(xp, x):
    return x + 0, xp.exp(x)


def parameter(host, device="cpu"):
    return tg.tensor(host, device=device, requires_grad=True)


@pytest.mark.parametrize("check", CHECKS)
def test_checks_are_public_and_accept_right_derivatives(check, device):
    assert getattr(tg.testing, check.__name__) is check
    x, y = parameter(normal(2, 3), device), parameter(positive(3, seed=1), device)
    assert check(lambda x, y: (x * y).exp() / y, (x, y)) is True
    assert check(tg.exp, x) is True
    assert check(cube(), [x]) is True


@pytest.mark.parametrize("check", CHECKS)
def test_several_outputs_some_unused_or_constant(check):
    x, y = parameter(normal(2, 3)), parameter(normal(3, seed=1))
    assert check(lambda x, y: (x * y, y.sum(), x > 0, tg.tensor(2.0, dtype="float64")), (x, y))
    assert check(with_exp, x)
    assert check(lambda x: with_exp(x)[0] * x, x)
    assert check(lambda x: with_exp(x)[1] * x, x)
    assert check(lambda x: x, x)
    assert check(lambda x: (x, x, x.exp()), x)


@pytest.mark.parametrize("check", CHECKS)
def test_only_inputs_that_require_gradients_are_varied(check):
    x = parameter(normal(3))
    seen = []

    def f(a, x, k):
        seen.append((a, k))
        return a * x * k

    a = tg.tensor(normal(2, 3))
    with pytest.raises(ValueError, match="no input requires a gradient"):
        check(f, (a, x.detach(), 2))
    assert not seen
    assert check(f, (a, x, 2))
    assert all(first is a and k == 2 for first, k in seen)
    assert x.grad is None


@pytest.mark.parametrize("check", CHECKS)
def test_float32_is_refused(check):
    x = tg.tensor(normal(3), dtype="float32", requires_grad=True)
    with pytest.raises(TypeError, match=r"input 1 is float32.*\.astype\('float64'\)"):
        check(lambda a, x: a * x, (parameter(normal(3)), x))


@pytest.mark.parametrize("check", CHECKS)
def test_outputs_must_be_tensors_of_float64(check):
    x = parameter(normal(3))
    with pytest.raises(TypeError, match="output 0 of .* is float, expected a Tensor"):
        check(lambda x: 1.0, x)
    with pytest.raises(TypeError, match="output 1 of .* is float32"):
        check(lambda x: (x, tg.tensor(1.0)), x)


def test_a_wrong_vjp_is_named_with_place_and_numbers():
    wrong = cube(vjp=lambda g, x: 2 * g * x)
    a, x = parameter(normal(2)), parameter(np.array([[0.0], [1.0]]))
    with pytest.raises(GradcheckError) as caught:
        gradcheck(lambda a, x: (a.sum(), wrong(x)), (a, x), atol=1e-6, rtol=1e-6)
    message = str(caught.value)
    for words in (
        "derivative of output 1", "by input 1", "output element (1, 0) and input element (1, 0)",
        "analytic 2, numeric 3", "difference 1 > tolerance 4e-06 (atol 1e-06 + rtol 1e-06 * largest 3)",
    ):  # fmt: skip
        assert words in message
    assert issubclass(GradcheckError, AssertionError)


def test_a_nan_gradient_is_an_error():
    with pytest.raises(GradcheckError, match="analytic nan, numeric 3"):
        gradcheck(cube(vjp=lambda g, x: g * np.nan), parameter(np.ones(1)))


def test_large_arrays_are_probed_along_random_vectors():
    x = parameter(normal(FULL + 1))
    wrong_at_one = np.ones(FULL + 1)
    wrong_at_one[7] = 1.01
    assert gradcheck(cube(), x) and gradgradcheck(cube(), x) and check_jvp(cube(), x)
    with pytest.raises(GradcheckError, match="random output vector . and random input vector ."):
        gradcheck(cube(vjp=lambda g, x: 3 * g * x * x * wrong_at_one), x)


def test_a_wrong_jvp_is_found_by_differences_and_by_pairing():
    x, wrong = parameter(normal(3)), cube(jvp=lambda t, x: t * x * x)
    assert gradcheck(wrong, x)
    with pytest.raises(GradcheckError, match=r"check_jvp: the derivative of output 0 of a_cube along inputs \[0\]"):
        check_jvp(wrong, x)
    with pytest.raises(GradcheckError, match=r"JVP and VJP of a_cube do not pair.*<v, J u> is .*tolerance"):
        check_pairing(wrong, x)


def test_a_rule_that_is_right_once_and_wrong_twice():
    """Reading raw data in a rule hides it from the tape: the first gradient is right, the second is not."""

    def raw(g, x):
        return 3 * g * (x.data * x.data if isinstance(x, tg.Tensor) else x * x)

    x, wrong = parameter(normal(3)), cube(vjp=raw)
    assert gradcheck(wrong, x) and check_jvp(wrong, x)
    with pytest.raises(GradcheckError, match="derivative of output 0 of the gradient of a_cube by input 0"):
        gradgradcheck(wrong, x)
    with pytest.raises(GradcheckError):
        check_jvp(*differentiated(wrong, x))


def test_third_order():
    x = parameter(normal(3))
    f, inputs = differentiated(*differentiated(cube(), x))
    assert gradcheck(f, inputs) and gradgradcheck(f, inputs)


def test_no_gradient_through_a_primitive_without_derivative():
    def a_floor(xp, x):
        return xp.floor(x)

    floor = unlisted(no_derivative(formula=r"\lfloor x \rfloor")(a_floor))
    assert gradcheck(lambda x: floor(x) * x, parameter(np.array([0.5, 1.5, -0.5])))


@pytest.mark.parametrize("rules", [(None, lambda g, x: 2 * g * x), (lambda g: None, lambda g, x: 2 * g * x)])
def test_an_argument_whose_rule_is_or_returns_none_gets_no_gradient(rules):
    def a_square(xp, step, x):
        return x * x

    square = unlisted(primitive(vjp=rules, jvp=lambda tangents, x: 2 * tangents[1] * x, formula="x^2")(a_square))
    x, step = parameter(normal(3)), parameter(np.ones(3))
    square(step, x).sum().backward(create_graph=True)
    assert step.grad is None
    np.testing.assert_array_equal(x.grad.numpy(), 2 * normal(3))
    assert gradcheck(square, (step, x))


def test_testing_is_imported_when_it_is_first_used():
    code = (
        "import sys, tinygrad_ms as tg; before = 'tinygrad_ms.testing' in sys.modules; tg.testing.gradcheck;"
        "print(before, tg.tensor(1.0, device='strict').device)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.split() == ["False", "strict"]


def test_unknown_attributes_of_the_package_raise():
    assert "testing" in dir(tg)
    with pytest.raises(AttributeError, match="module 'tinygrad_ms' has no attribute 'nonsense'"):
        tg.nonsense


class TestCheckGrads:
    @pytest.mark.parametrize("modes", [("forward",), ("reverse",), "reverse", ("forward", "reverse")], ids=str)
    def test_third_order_in_every_mode_of_the_others(self, modes):
        x, y = parameter(normal(2, 2)), parameter(positive(2, seed=1))
        assert check_grads(lambda x, y: ((x * y).sin() / y, x @ y), (x, y), order=3, modes=modes) is True

    @pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 2, 3)], ids=str)
    def test_msign(self, shape):
        assert check_grads(tg.msign, (parameter(normal(*shape)),), order=2)

    def test_takes_the_checks_that_it_says(self, monkeypatch):
        seen = []

        def noted(mode, check):
            return lambda f, inputs, **tolerances: seen.append((mode, getattr(f, "__name__", ""))) or check(f, inputs)

        modes = {mode: (noted(mode, check), make) for mode, (check, make) in orders.MODES.items()}
        monkeypatch.setattr(orders, "MODES", modes)
        check_grads(cube(), parameter(normal(2)))
        assert seen == [
            ("forward", "a_cube"), ("reverse", "a_cube"),
            ("forward", "the JVP of a_cube"), ("reverse", "the JVP of a_cube"),
            ("forward", "the gradient of a_cube"), ("reverse", "the gradient of a_cube"),
        ]  # fmt: skip

    def test_a_rule_that_is_right_once_and_wrong_twice(self):
        square = lambda x: raw(x) ** 2  # off the tape
        constant = cube(vjp=lambda g, x: 3 * g * square(x), jvp=lambda t, x: 3 * t * square(x))
        x = parameter(normal(3))
        assert check_grads(constant, x, order=1)
        for modes, name in [("forward", "the JVP of a_cube"), ("reverse", "the gradient of a_cube")]:
            with pytest.raises(GradcheckError, match=name):
                check_grads(constant, x, order=2, modes=modes)

    def test_tolerances(self):
        wrong = cube(vjp=lambda g, x: 3.001 * g * x * x)
        x = parameter(positive(3))
        with pytest.raises(GradcheckError):
            check_grads(wrong, x, order=1, modes="reverse")
        assert check_grads(wrong, x, order=1, modes="reverse", rtol=1e-2)

    def test_bad_orders_and_modes(self):
        x = parameter(normal(2))
        with pytest.raises(ValueError, match="check_grads: order"):
            check_grads(tg.exp, x, order=0)
        for modes in [("fwd",), ()]:
            with pytest.raises(ValueError, match=r"check_grads: modes=.*; expected 'forward', 'reverse', or both"):
                check_grads(tg.exp, x, modes=modes)
