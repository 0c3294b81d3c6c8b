"""Normalisation on devices by kernels without a weight, where the weight is a number or has one for each row."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.testing import strict

CASES = {  # shape, shape of the weight (None: the number 0.25), axes
    "a number": ((4, 6), None, -1),
    "one for each row": ((4, 6), (4, 1), -1),
    "one for each column, along the columns": ((2, 5, 6), (2, 1, 6), -2),
    "for each row of the last two of a batch": ((3, 2, 5), (2, 1), -1),
    "over two axes": ((3, 2, 5), (3, 1, 1), (-2, -1)),
    "a stack broadcast by its weights": ((2, 1, 5), (2, 3, 1), -1),
    "an axis before the last two": ((3, 2, 5), (1, 2, 5), 0),
}


def gradients(device, function, shape, weight_shape, axes):
    rng = np.random.default_rng(0)
    x = tg.tensor(rng.standard_normal(shape), device=device, requires_grad=True)
    w = 0.25
    if weight_shape is not None:
        w = tg.tensor(rng.standard_normal(weight_shape), device=device, requires_grad=True)
    y = function(x, w, axes=axes)
    strict.reset_stats()
    y.backward(tg.tensor(rng.standard_normal(y.shape), device=device))
    grads = [x.grad] if weight_shape is None else [x.grad, w.grad]
    return [a.cpu().numpy() for a in (y.detach(), *grads)]


@pytest.mark.parametrize("function", [tg.rms_norm, tg.layer_norm])
@pytest.mark.parametrize("case", CASES)
def test_values_and_gradients_are_those_of_the_cpu(case, function):
    for found, right in zip(gradients("strict", function, *CASES[case]), gradients("cpu", function, *CASES[case])):
        np.testing.assert_allclose(found, right, rtol=1e-12, atol=1e-13)


def test_rows_of_weights_are_normalised_in_a_few_launches():
    x, w = (tg.tensor(np.ones(shape, "float32"), device="strict", requires_grad=True) for shape in ((4, 6), (4, 1)))
    strict.reset_stats()
    y = tg.rms_norm(x, w)
    assert strict.STATS.calls == 2
    y.backward(y.detach())
    assert strict.STATS.calls <= 8
