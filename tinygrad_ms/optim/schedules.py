"""Schedules: the learning rate is the first one times a factor, which is a function of the step."""

from collections.abc import Callable
from math import cos, inf, pi
from numbers import Integral, Real
from typing import Any

from tinygrad_ms.ops.live import live
from tinygrad_ms.optim.optimizer import Optimizer


class Schedule:
    """At step t, from 0, the learning rate of each group is its first one times ``factor(t)``.

        schedule = CosineLR(optimizer, total_steps=1000)
        for x, y in loader:
            ...
            optimizer.step()
            schedule.step()

    A subclass defines ``factor``. A ``group["lr"]`` set by hand lasts until the next ``schedule.step()``. A group
    that is added later follows the schedule: its "lr" is its first one.
    A second schedule of the same optimizer replaces the first one; the ``step`` of the first then raises RuntimeError.
    The second starts from the same first rates, or from rates that were set by hand in between.
    Raises ValueError for a factor that is negative or not finite.
    """

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: optimizer is {type(optimizer).__name__}, expected an Optimizer")
        self.optimizer = optimizer
        groups, factor = optimizer.param_groups, optimizer._factor
        firsts = optimizer._first_lrs or [group["lr"] for group in groups]
        self._first_lrs = [
            first if group["lr"] == first * factor else group["lr"] for group, first in zip(groups, firsts)
        ]
        self.steps = 0
        optimizer.set_rates(self._first_lrs, self._factor(0))

    @property
    def base_lrs(self) -> list[float]:
        """The first learning rate of each group, also of those that were added later."""
        return self._first_lrs

    def factor(self, t: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} has no factor(self, t)")

    @live("writes")
    def step(self) -> None:
        """Go to the learning rates of the next step."""
        self._still_mine("step")
        factor = self._factor(self.steps + 1)
        self.optimizer.set_rates(self._first_lrs, factor)
        self.steps += 1

    def _factor(self, t):
        value = self.factor(t)
        if not hasattr(value, "__float__"):
            raise TypeError(f"{type(self).__name__}: the factor of step {t} is {value!r}, expected a number >= 0")
        factor = float(value)
        if not 0 <= factor < inf:
            raise ValueError(f"{type(self).__name__}: the factor of step {t} is {factor}, expected a number >= 0")
        return factor

    def _still_mine(self, caller):
        if self.optimizer._first_lrs is not self._first_lrs:
            raise RuntimeError(
                f"{caller} of {type(self).__name__}: another schedule of this optimizer was made since and sets its"
                " rates; step that one alone, or make one schedule of both: LambdaLR, or CosineLR(warmup_steps=)"
            )

    def state_dict(self) -> dict[str, Any]:
        """How many steps were made, and the first learning rates; what the factor is made of is not saved."""
        return {"steps": self.steps, "base_lrs": list(self._first_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a ``state_dict()``; sets the learning rates.

        Raises ValueError where it does not fit.
        """
        caller = f"load_state_dict of {type(self).__name__}"
        self._still_mine("load_state_dict")
        if not isinstance(state, dict) or state.keys() != {"steps", "base_lrs"}:
            raise ValueError(f"{caller}: expected a dict of steps and base_lrs, as of state_dict()")
        steps, lrs = state["steps"], list(state["base_lrs"])
        if len(lrs) != len(self._first_lrs):
            raise ValueError(f"{caller}: the state has {len(lrs)} groups and the optimizer {len(self._first_lrs)}")
        if not isinstance(steps, Integral) or steps < 0:
            raise ValueError(f"{caller}: steps is {steps!r}, expected an integer of at least 0")
        if wrong := [lr for lr in lrs if not isinstance(lr, Real) or not 0 <= float(lr) < inf]:
            raise ValueError(f"{caller}: a learning rate is {wrong[0]!r}, expected a number of at least 0")
        factor = self._factor(int(steps))
        self.steps, self._first_lrs[:] = int(steps), lrs
        self.optimizer.set_rates(self._first_lrs, factor)


class LambdaLR(Schedule):
    """factor(t) = function(t), any function of the step."""

    def __init__(self, optimizer: Optimizer, function: Callable[[int], float]):
        if not callable(function):
            raise TypeError(f"LambdaLR: function is {type(function).__name__}, expected a function of the step")
        self.function = function
        super().__init__(optimizer)

    def factor(self, t):
        return self.function(t)


class StepLR(Schedule):
    """Multiply the rate by ``gamma`` every ``step_size`` steps: factor(t) = gamma^floor(t / step_size)."""

    def __init__(self, optimizer, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = (
            at_least(1, "StepLR", "step_size", step_size),
            at_least(0, "StepLR", "gamma", gamma),
        )
        super().__init__(optimizer)

    def factor(self, t):
        return self.gamma ** (t // self.step_size)


class WarmupLR(Schedule):
    """Rise from lr / warmup_steps in equal steps, then stay: factor(t) = min(1, (t + 1) / warmup_steps)."""

    def __init__(self, optimizer, warmup_steps: int):
        self.warmup_steps = at_least(0, "WarmupLR", "warmup_steps", warmup_steps)
        super().__init__(optimizer)

    def factor(self, t):
        return min(1.0, (t + 1) / max(1, self.warmup_steps))


class CosineLR(Schedule):
    r"""Half a cosine from 1 down to ``final`` at step ``total_steps``, after an optional linear warm-up.

    factor(t) = min(1, (t + 1) / warmup_steps) in the warm-up, then $f + (1 - f)(1 + \cos \pi s) / 2$ with f =
    ``final`` and s = (t - warmup_steps) / (total_steps - warmup_steps), and f after the end.
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.

    >>> optimizer = tg.optim.SGD([tg.nn.Parameter([1.0])], lr=1.0)
    >>> schedule = tg.optim.CosineLR(optimizer, 4)
    >>> rates = []
    >>> for _ in range(4):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 4))
    ...     schedule.step()
    >>> rates
    [1.0, 0.8536, 0.5, 0.1464]
    """

    def __init__(self, optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0):
        self.warmup_steps = at_least(0, "CosineLR", "warmup_steps", warmup_steps)
        self.total_steps = at_least(warmup_steps + 1, "CosineLR", "total_steps", total_steps)
        self.final = at_least(0, "CosineLR", "final", final)
        if final > 1:
            raise ValueError(f"CosineLR: final is {final}, expected at most 1, the factor that it starts from")
        super().__init__(optimizer)

    def factor(self, t):
        if t < self.warmup_steps:
            return min(1.0, (t + 1) / self.warmup_steps)
        s = min(1.0, (t - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * (1 + cos(pi * s)) / 2


def at_least(least, caller, name, value):
    if not isinstance(value, Real):
        raise TypeError(f"{caller}: {name} is {value!r}, expected a number of at least {least}")
    if not least <= value < inf:
        raise ValueError(f"{caller}: {name} is {value}, expected at least {least}")
    return value
