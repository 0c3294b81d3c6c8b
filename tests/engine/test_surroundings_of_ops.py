"""What surrounds an op: the names of its scopes, and how NumPy treats floating-point errors."""

import threading

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.float_errors import ignoring
from tinygrad_ms.scopes import scopes


def test_a_generator_that_a_forward_leaves_suspended_keeps_its_scope_alone():
    class Leaky(tg.nn.Module):
        def forward(self, x):
            self.kept = self.inside()
            next(self.kept)
            return x * 2.0

        def inside(self):
            with tg.scope("left open"):
                yield

    leaky = Leaky()
    y = leaky(tg.tensor([1.0], requires_grad=True))
    assert y.node.scope == ("Leaky", "left open") and scopes() == ("left open",)
    leaky.kept.close()
    assert scopes() == ()


def test_a_failing_forward_leaves_its_scope():
    class Failing(tg.nn.Module):
        def forward(self, x):
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as error:
        Failing()(1.0)
    assert scopes() == () and error.value.__notes__ == ["in Failing: Failing()"]


def test_threads_have_their_own_scopes():
    seen = []
    with tg.scope("here"):
        thread = threading.Thread(target=lambda: seen.append(scopes()))
        thread.start()
        thread.join()
        assert seen == [()] and scopes() == ("here",)


def test_ignored_errors_are_those_named_and_the_others_stay_as_they_are():
    big, zero = np.full(2, 3e38, "float32"), np.zeros(2, "float32")
    with np.errstate(all="raise"):
        for _ in range(2):
            with ignoring("over"), ignoring("over", "invalid"):
                assert np.isinf(big * big).all() and np.isnan(zero * np.inf).all()
                with pytest.raises(FloatingPointError):
                    big / zero
        with pytest.raises(FloatingPointError):
            big * big
    with np.errstate(all="warn"), ignoring("over"):
        assert np.geterr() == {"divide": "warn", "over": "ignore", "under": "warn", "invalid": "warn"}


def test_a_mean_beyond_the_range_of_its_sum_is_right_and_silent():
    x = np.full((1, 4), 3e38, "float32")
    with np.errstate(all="raise"):
        assert tg.mean(x) == np.float32(3e38) and (tg.mean(x, axis=0) == x[0]).all()
    with np.errstate(invalid="ignore"):
        assert np.isnan(tg.mean(np.array([np.inf, -np.inf], "float32")))
