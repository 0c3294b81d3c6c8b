"""Muon: steps of matrices along the orthogonal factor of their momentum; AdamW for everything else."""

from math import sqrt

from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.iterations.coefficients import fixed_rows
from tinygrad_ms.ops.matrix_sign.msign import METHODS, msign
from tinygrad_ms.optim.adam import AdamW, pair
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.whole_steps import raises_nothing

SCALES = {  # the factor of an orthogonal step for a weight that maps m numbers to n, of shape (n, m)
    "spectral": lambda n, m: sqrt(max(1.0, n / m)),  # the operator norm of a step, between RMS norms
    "rms": lambda n, m: 0.2 * sqrt(max(n, m)),  # elements of RMS 0.2, as steps of Adam have: lr as for AdamW
    "none": lambda n, m: 1.0,
}


class Muon(AdamW):
    r"""Muon for matrices, AdamW for other parameters, in one optimizer.

        B <- momentum B + g,   D = g + momentum B with ``nesterov``, else B
        p <- (1 - lr weight_decay) p - lr scale msign(D)

    params: parameters of two or more axes get the steps of Muon (the last two are the matrix, others a
        batch), the rest those of AdamW. ``{"params": [...], "muon": False}`` sends a group to AdamW:
        embeddings and the last layer, by custom. Every group of ``params`` becomes one of either kind, or
        two.
    scale: "spectral", $\sqrt{\max(1, n/m)}$ for a weight (n, m), which maps m numbers to n, as in
        ``nn.Linear``; one of ``x @ W``, stored (m, n), is an ``nn.TransposedParameter``. "rms",
        $0.2 \sqrt{\max(n, m)}$, whose steps are as large as those of Adam; "none".
    method, steps, coefficients: as of ``msign``. The number of steps is fixed, and nothing waits for a GPU
        (the methods "svd" and "eigh" do wait).
        coefficients="muon", steps=5 is the iteration of the original, which leaves singular values in [0.7,
        1.2].
    adamw_lr, betas, eps: the learning rate and options of the parameters under AdamW; weight_decay is common.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; "rms": Liu et al.
    2025, arXiv:2502.16982, equation 4; AdamW: arXiv:1711.05101, algorithm 2.
    """

    def __init__(
        self, params, lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.0, *, scale="spectral",
        method="newton_schulz", steps=8, coefficients=None, adamw_lr=1e-3, betas=(0.9, 0.95), eps=1e-8,
    ):  # fmt: skip
        self.require_number({"adamw_lr": adamw_lr}, "adamw_lr")
        self.adamw_lr = adamw_lr
        Optimizer.__init__(
            self, params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, scale=scale,
            method=method, steps=steps, coefficients=coefficients, betas=pair(betas), eps=eps, muon=None,
        )  # fmt: skip

    def parts(self, group):
        """Without the option ``muon`` the matrices among the parameters are one group, the others a second one,
        for AdamW; its "lr" is ``adamw_lr`` where the group names none."""
        if not isinstance(group, dict) or "params" not in group:
            return [group]  # which is refused
        params = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        if group.get("muon") is not None or not params:
            parts = [{**group, "params": params}]
        else:
            kinds = {muon: [p for p in params if (getattr(p, "ndim", 0) >= 2) == muon] for muon in (True, False)}
            parts = [{**group, "params": part, "muon": muon} for muon, part in kinds.items() if part]
        return [part if part.get("muon") is not False else {"lr": self.adamw_lr, **part} for part in parts]

    def check(self, options):
        super().check(options)
        self.require_number(options, "momentum", below=1)
        self.require(options["scale"] in list(SCALES), options, "scale", " or ".join(map(repr, SCALES)))
        self.require(options["method"] in METHODS, options, "method", " or ".join(map(repr, METHODS)))
        if options["muon"]:
            for p in options["params"]:
                if getattr(p, "ndim", 2) < 2:
                    raise ValueError(
                        f"Muon: {p.name or 'a parameter'} has shape {p.shape}, which is no matrix; leave out"
                        ' "muon": True, and AdamW updates it'
                    )
        fixed_rows(options["steps"], options["coefficients"])  # its sentence says what is wrong

    def buffers(self, options):
        return ("momentum_buffer",) if options["muon"] else super().buffers(options)

    def elementwise(self, group):
        return type(self).update is Muon.update and not group["muon"]

    @raises_nothing
    def update(self, xp, p, g, state, options):
        if not options["muon"]:
            super().update(xp, p, g, state, options)
            return
        lr, beta, decay = float(options["lr"]), options["momentum"], options["weight_decay"]
        buffer, direction = state["momentum_buffer"], self.scratch(p)
        buffer *= beta
        buffer += g
        if options["nesterov"]:
            xp.multiply(buffer, beta, out=direction)
            direction += g
        else:
            direction = buffer
        step = msign(direction, **{name: options[name] for name in ("method", "steps", "coefficients")})
        n, m = p.shape[:-3:-1] if getattr(self.updating, "transposed", False) else p.shape[-2:]
        step *= lr * SCALES[options["scale"]](n, m)
        if decay:
            p *= 1 - lr * decay
        p -= step
