"""Schedules: learning rates that are the first ones times a factor, a function of the step."""

from collections.abc import Callable
from math import cos, pi
from typing import Any

from tinygrad_ms.optim.optimizer import Optimizer


class Schedule:
    """At step t, from 0, the learning rate of each group is its first one times ``factor(t)``.

        schedule = CosineLR(optimizer, total_steps=1000)
        for x, y in loader:
            ...
            optimizer.step()
            schedule.step()

    A subclass defines ``factor``. A ``group["lr"]`` set by hand lasts until the next ``schedule.step()``.
    """

    def __init__(self, optimizer: Optimizer):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(self).__name__}: optimizer is {type(optimizer).__name__}, expected an Optimizer")
        self.optimizer = optimizer
        self.base_lrs = [group["lr"] for group in optimizer.param_groups]
        self.steps = 0
        self._apply()

    def factor(self, t: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} has no factor(self, t)")

    def step(self) -> None:
        """Go to the learning rates of the next step."""
        self.steps += 1
        self._apply()

    def _apply(self):
        factor = float(self.factor(self.steps))
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs):
            group["lr"] = lr * factor

    def state_dict(self) -> dict[str, Any]:
        """How many steps were made, and the first learning rates; what the factor is made of is not saved."""
        return {"steps": self.steps, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a ``state_dict()``; sets the learning rates.

        Raises ValueError where it does not fit.
        """
        name = type(self).__name__
        if not isinstance(state, dict) or state.keys() != {"steps", "base_lrs"}:
            raise ValueError(f"load_state_dict of {name}: expected a dict of steps and base_lrs, as of state_dict()")
        if len(state["base_lrs"]) != len(self.base_lrs):
            raise ValueError(
                f"load_state_dict of {name}: the state has {len(state['base_lrs'])} groups and the optimizer"
                f" {len(self.base_lrs)}"
            )
        self.steps, self.base_lrs = state["steps"], list(state["base_lrs"])
        self._apply()


class LambdaLR(Schedule):
    """factor(t) = function(t), any function of the step."""

    def __init__(self, optimizer: Optimizer, function: Callable[[int], float]):
        self.function = function
        super().__init__(optimizer)

    def factor(self, t):
        return self.function(t)


class StepLR(Schedule):
    """Multiply the rate by ``gamma`` every ``step_size`` steps: factor(t) = gamma^floor(t / step_size)."""

    def __init__(self, optimizer, step_size: int, gamma: float = 0.1):
        self.step_size, self.gamma = at_least(1, "StepLR", "step_size", step_size), gamma
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

    factor(t) = (t + 1) / warmup_steps in the warm-up, then $f + (1 - f)(1 + \cos \pi s) / 2$ with f =
    ``final`` and s = (t - warmup_steps) / (total_steps - warmup_steps), and f after the end.
    Source: Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5, without restarts.
    """

    def __init__(self, optimizer, total_steps: int, warmup_steps: int = 0, final: float = 0.0):
        self.warmup_steps = at_least(0, "CosineLR", "warmup_steps", warmup_steps)
        self.total_steps = at_least(warmup_steps + 1, "CosineLR", "total_steps", total_steps)
        self.final = final
        super().__init__(optimizer)

    def factor(self, t):
        if t < self.warmup_steps:
            return (t + 1) / self.warmup_steps
        s = min(1.0, (t - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * (1 + cos(pi * s)) / 2


def at_least(least, caller, name, value):
    if value < least:
        raise ValueError(f"{caller}: {name} is {value}, expected at least {least}")
    return value
