"""detect_nan names the op that made the first NaN."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.anomaly import detect_nan
from tinygrad_ms.engine.primitive import linear


def test_it_names_the_op_its_line_and_its_arguments():
    x = tg.tensor([1.0, np.inf], requires_grad=True)
    with detect_nan(), np.errstate(invalid="ignore"), pytest.raises(FloatingPointError) as caught:
        y = x * 2.0
        (y - y).exp().sum()
    text = str(caught.value)
    assert text.startswith("first NaN: the result of subtract at ") and "test_anomaly.py:" in text
    assert "a: float32 (2,) in [2, 2] with 0 NaN and 1 inf" in text


def test_it_names_the_rule_that_made_the_first_nan():
    @linear(transpose=lambda g: g * np.float32("nan"), formula="")
    def broken_rule(xp, x):
        return x * 1

    x = tg.tensor([1.0], requires_grad=True)
    with detect_nan():
        y = (broken_rule(x) * 2.0).sum()
        with pytest.raises(FloatingPointError, match="the rule of broken_rule, recorded at .*test_anomaly.py"):
            y.backward()


def test_it_is_silent_without_nan():
    x = tg.tensor([1.0, np.inf], requires_grad=True)
    with detect_nan():
        (x * 2.0).sum().backward()
    assert x.grad.tolist() == [2, 2]
