"""Loss functions as modules, under PyTorch's names. The functions and derivatives: ops/losses.py, classification.py."""

from collections.abc import Callable

from tinygrad_ms.nn.module import Buffer, Module
from tinygrad_ms.ops.classification import nll, softmax_cross_entropy
from tinygrad_ms.ops.losses import binary_cross_entropy_with_logits, check_reduction, huber, l1, mse


class Loss(Module):
    """A loss function with its options: ``loss(input, target)``. Weights are Buffers, which move with ``to``."""

    function: Callable

    def __init__(self, weight=None, reduction: str = "mean", **options):
        check_reduction(type(self).__name__, reduction)
        self.weight = None if weight is None else Buffer(weight)
        self.options = {"reduction": reduction, **options}

    def forward(self, input, target):
        return type(self).function(input, target, weight=self.weight, **self.options)

    def extra_repr(self):
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items() if not isinstance(value, Buffer))


class MSELoss(Loss):
    """``tg.mse``: the mean of (input - target)^2."""

    function = mse


class L1Loss(Loss):
    """``tg.l1``: the mean of abs(input - target)."""

    function = l1


class HuberLoss(Loss):
    """``tg.huber``: quadratic within ``delta`` of the target, of slope ``delta`` beyond."""

    function = huber

    def __init__(self, reduction: str = "mean", delta: float = 1.0, weight=None):
        super().__init__(weight, reduction, delta=delta)


class SmoothL1Loss(HuberLoss):
    """``tg.huber`` over ``beta``: quadratic within ``beta`` of the target, of slope one beyond. ``beta`` > 0."""

    def __init__(self, reduction: str = "mean", beta: float = 1.0, weight=None):
        super().__init__(reduction, beta, weight)

    def forward(self, input, target):
        return super().forward(input, target) / self.options["delta"]


class BCEWithLogitsLoss(Loss):
    """``tg.binary_cross_entropy_with_logits``: targets in [0, 1] against sigmoid(input)."""

    function = binary_cross_entropy_with_logits

    def __init__(self, weight=None, reduction: str = "mean", pos_weight=None):
        super().__init__(weight, reduction, pos_weight=None if pos_weight is None else Buffer(pos_weight))


class CrossEntropyLoss(Loss):
    """``tg.cross_entropy`` of logits. The classes are the last axis, where PyTorch has them in axis 1: ``axis=1``.

    >>> loss = tg.nn.CrossEntropyLoss(label_smoothing=0.1)
    >>> round(loss([[2.0, 0.0]], [0]).item(), 4)
    0.2269
    """

    function = softmax_cross_entropy

    def __init__(self, weight=None, ignore_index=-100, reduction: str = "mean", label_smoothing=0.0, *, axis: int = -1):
        super().__init__(weight, reduction, axis=axis, ignore_index=ignore_index, label_smoothing=label_smoothing)


class NLLLoss(Loss):
    """``tg.nll`` of log-probabilities, as ``LogSoftmax`` gives them. The classes: see ``CrossEntropyLoss``."""

    function = nll

    def __init__(self, weight=None, ignore_index=-100, reduction: str = "mean", *, axis: int = -1):
        super().__init__(weight, reduction, axis=axis, ignore_index=ignore_index)
