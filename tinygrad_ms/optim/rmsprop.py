"""RMSprop: steps scaled by a running root mean square of the gradient."""

from tinygrad_ms.optim.optimizer import Optimizer, of_lr_alone
from tinygrad_ms.optim.whole_steps import elementwise


class RMSprop(Optimizer):
    """RMSprop as in PyTorch: eps stands outside the root, and the learning rate outside the momentum.

        g <- g + weight_decay p
        v <- alpha v + (1 - alpha) g^2,   a <- alpha a + (1 - alpha) g
        s = sqrt(v)                                  (centered: sqrt(v - a^2), an estimate of the variance)
        m <- momentum m + g / (s + eps)
        p <- p - lr m

    Where rounding makes v - a^2 negative, it counts as 0.
    Source: Tieleman and Hinton 2012, lecture 6.5; centered: Graves 2013, arXiv:1308.0850, equations 38 to 45.

    >>> w = tg.nn.Parameter([1.0, -1.0])
    >>> optimizer = tg.optim.RMSprop([w], lr=0.01)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> tg.round(w.detach(), 4)
    Tensor([ 0.9, -0.9], dtype=float32)
    """

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0.0, momentum=0.0, centered=False):
        super().__init__(
            params, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, centered=centered
        )

    def check(self, options):
        super().check(options)
        self.require_number(options, "alpha", below=1)
        self.require_number(options, "eps")
        self.require_number(options, "momentum")

    def buffers(self, options):
        return (
            ("square_avg",)
            + ("grad_avg",) * bool(options["centered"])
            + ("momentum_buffer",) * (options["momentum"] > 0)
        )

    @of_lr_alone
    def scalars(self, options, step):
        return options["alpha"], 1 - options["alpha"], options["eps"], float(options["lr"]), options["momentum"]

    @elementwise
    def update(self, xp, p, g, state, options):
        v, decay = state["square_avg"], options["weight_decay"]
        alpha, rest, eps, lr, beta = self.numbers(p, options, state)
        a, b = self.scratch(p), self.scratch(p, 1)
        if decay:
            g = xp.add(xp.multiply(p, decay, out=b), g, out=b)
        v *= alpha
        xp.multiply(g, g, out=a)
        a *= rest
        v += a
        if options["centered"]:
            m = state["grad_avg"]
            m *= alpha
            m += xp.multiply(g, rest, out=a)
            xp.multiply(m, m, out=a)
            xp.maximum(xp.subtract(v, a, out=a), 0, out=a)
        xp.sqrt(a if options["centered"] else v, out=a)
        a += eps
        xp.divide(g, a, out=a)
        if options["momentum"]:
            m = state["momentum_buffer"]
            m *= beta
            m += a
            xp.multiply(m, lr, out=a)
        else:
            a *= lr
        p -= a
