"""Adam and AdamW. Running moments of the gradient scale the steps."""

from collections.abc import Iterable
from math import sqrt
from numbers import Real

from tinygrad_ms.ops.fused import LEAST
from tinygrad_ms.optim.in_one_go import by_kernel, run_kernel
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.pieces import pieces
from tinygrad_ms.optim.whole_steps import elementwise


def pair(betas):
    """Several numbers as a tuple. Anything else is returned as it is, and ``check`` refuses it."""
    return tuple(betas) if isinstance(betas, Iterable) else betas


class Adam(Optimizer):
    """Adam. ``weight_decay`` is added to the gradient (L2 regularisation).

        g <- g + weight_decay p
        m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2
        p <- p - lr m' / (sqrt(v') + eps),   m' = m / (1 - beta1^t),   v' = v / (1 - beta2^t)

    p is the parameter, g its gradient, and t the number of the step.
    Source: Kingma and Ba 2015, arXiv:1412.6980, algorithm 1.

    >>> w = tg.nn.Parameter([1.0, -1.0])
    >>> optimizer = tg.optim.Adam([w], lr=0.1)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> tg.round(w.detach(), 4)
    Tensor([ 0.9, -0.9], dtype=float32)
    """

    decoupled = False  # if True, the weight decay acts on the parameter, not on the gradient

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr=lr, betas=pair(betas), eps=eps, weight_decay=weight_decay)

    def check(self, options):
        super().check(options)
        betas = options["betas"]
        fine = isinstance(betas, (tuple, list)) and len(betas) == 2 and all(isinstance(b, Real) for b in betas)
        fine = fine and all(0 <= beta < 1 for beta in betas)
        self.require(fine, options, "betas", "two numbers of at least 0 and below 1")
        self.require_number(options, "eps")

    def buffers(self, options):
        return ("exp_avg", "exp_avg_sq")

    def scalars(self, options, step):
        lr, (beta1, beta2) = float(options["lr"]), options["betas"]
        root = sqrt(1 - beta2**step)  # sqrt(v') is sqrt(v) / root, so rate and eps are multiplied with it
        eps, rate = options["eps"] * root, lr / (1 - beta1**step) * root
        return beta1, 1 - beta1, beta2, 1 - beta2, eps, rate, 1 - lr * options["weight_decay"]

    def kernel(self, options, numbers):
        *others, shrink = numbers
        return "adam", (*others, *((0, shrink) if self.decoupled else (options["weight_decay"], 1)))

    @by_kernel
    @elementwise
    def update(self, xp, p, g, state, options):
        if p.size >= LEAST and run_kernel(self, p, g, state, options):
            return
        m, v, decay = state["exp_avg"], state["exp_avg_sq"], options["weight_decay"]
        b1, c1, b2, c2, eps, rate, shrink = self.numbers(p, options, state)
        whole = p, g, m, v
        for p, g, m, v in pieces(*whole):
            a = self.scratch(p)
            if decay and self.decoupled:
                p *= shrink
            elif decay:
                b = self.scratch(p, 1)
                g = xp.add(xp.multiply(p, decay, out=b), g, out=b)
            m *= b1
            m += xp.multiply(g, c1, out=a)
            v *= b2
            xp.multiply(g, g, out=a)
            a *= c2
            v += a
            xp.sqrt(v, out=a)
            a += eps
            xp.divide(m, a, out=a)
            a *= rate
            p -= a


class AdamW(Adam):
    """Adam with decoupled weight decay. First p <- (1 - lr weight_decay) p, then the step of Adam without decay.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2.
    """

    decoupled = True

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2):
        super().__init__(params, lr, betas, eps, weight_decay)
