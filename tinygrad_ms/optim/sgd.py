"""Stochastic gradient descent."""

from tinygrad_ms.ops.fused import LEAST
from tinygrad_ms.optim.in_one_go import by_kernel, run_kernel
from tinygrad_ms.optim.optimizer import Optimizer, of_lr_alone
from tinygrad_ms.optim.whole_steps import elementwise


class SGD(Optimizer):
    """Stochastic gradient descent with momentum as in PyTorch: the learning rate is not part of the momentum.

        g <- g + weight_decay p
        m <- momentum m + (1 - dampening) g        (m = g if m is new)
        p <- p - lr m                              (nesterov: p - lr (g + momentum m))

    p is the parameter and g its gradient. ``group["momentum"] = 0.9`` switches the momentum on later; then m starts
    with the next step.
    Source: Sutskever et al. 2013, equations 1 and 2 (momentum), 3 and 4 (Nesterov).

    >>> w = tg.nn.Parameter([1.0])
    >>> optimizer = tg.optim.SGD([w], lr=0.1, momentum=0.9)
    >>> (w * w).sum().backward()
    >>> optimizer.step()
    >>> w.detach()
    Tensor([0.8], dtype=float32)
    """

    starts_late = True

    def __init__(self, params, lr=1e-3, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov
        )

    def check(self, options):
        super().check(options)
        self.require_number(options, "momentum")
        self.require_number(options, "dampening")
        self.require(options["dampening"] <= 1, options, "dampening", "at most 1")
        plain = options["momentum"] > 0 and options["dampening"] == 0
        self.require(plain or not options["nesterov"], options, "nesterov", "False, or momentum > 0 and dampening = 0")

    def buffers(self, options):
        return ("momentum_buffer",) if options["momentum"] else ()

    @of_lr_alone
    def scalars(self, options, step):
        return float(options["lr"]), options["momentum"]

    def kernel(self, options, numbers):
        (lr, beta), decay = numbers, options["weight_decay"]
        if not options["momentum"]:
            return "sgd", (lr, decay)
        return "sgd_momentum", (lr, beta, 1 - options["dampening"], decay, options["nesterov"])

    @by_kernel
    @elementwise
    def update(self, xp, p, g, state, options):
        momentum, decay = options["momentum"], options["weight_decay"]
        if p.size >= LEAST and not (momentum and self._fresh) and run_kernel(self, p, g, state, options):
            return
        known = self._numbers.get((id(options), type(p), p.dtype))  # ``step`` drops it if the options are new
        lr, beta = known[1] if known else self.numbers(p, options, state)
        a = self.scratch(p)
        if decay:
            b = self.scratch(p, 1)
            g = xp.add(xp.multiply(p, decay, out=b), g, out=b)
        if momentum:
            m = state["momentum_buffer"]
            if self._fresh:
                m[...] = g
            else:
                m *= beta
                m += xp.multiply(g, 1 - options["dampening"], out=a) if options["dampening"] else g
            g = xp.add(xp.multiply(m, beta, out=a), g, out=a) if options["nesterov"] else m
        p -= xp.multiply(g, lr, out=a)
