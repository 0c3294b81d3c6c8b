"""Muon: a matrix steps along the orthogonal factor of its momentum. Other parameters get AdamW."""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from itertools import accumulate
from math import prod, sqrt
from typing import Any

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.arrays.registry import BACKENDS
from tinygrad_ms.cards import on_its_card, there
from tinygrad_ms.engine.tensor import Tensor
from tinygrad_ms.ops.iterations.coefficients import fixed_rows
from tinygrad_ms.ops.live import live
from tinygrad_ms.ops.matrix_sign.msign import METHODS, msign
from tinygrad_ms.optim.adam import AdamW, pair
from tinygrad_ms.optim.on_device import launches, momenta, moved
from tinygrad_ms.optim.optimizer import Optimizer
from tinygrad_ms.optim.whole_steps import raises_nothing
from tinygrad_ms.options import is_int

SCALES = {  # the factor of an orthogonal step, for a weight of shape (n, m) that maps m numbers to n
    "spectral": lambda n, m: sqrt(max(1.0, n / m)),  # the operator norm between RMS norms is 1 if n >= m
    "rms": lambda n, m: 0.2 * sqrt(max(n, m)),  # the RMS of the step is 0.2 as in Adam, so lr is as for AdamW
    "none": lambda n, m: 1.0,
    "match_rms_adamw": lambda n, m: 0.2 * sqrt(max(n, m)),  # what torch.optim.Muon calls "rms"
}
TOGETHER = 2**22  # the most elements in one call of msign, unless a single parameter has more


class Muon(AdamW):
    r"""Muon for matrices, AdamW for other parameters, in one optimizer.

        B <- momentum B + g,   D = g + momentum B with ``nesterov``, else B
        p <- (1 - lr weight_decay) p - lr scale msign(D)

    p is the parameter, g its gradient, and B its momentum.

    params: parameters or groups, or pairs of a name and a parameter, as ``model.named_parameters()`` gives them. A
        parameter with two or more axes gets the steps of Muon: its last two axes are the matrix, the others a batch.
        The rest get the steps of AdamW. ``{"params": [...], "muon": False}`` sends a group to AdamW; that is usual for
        embeddings and the last layer. A group with parameters of both kinds becomes two groups.
    adamw: which matrices get the steps of AdamW, too: a parameter, a pattern of names ("head.*"), a number of axes (2,
        if biases are stacked), a function (name, parameter) -> bool, or a list of these.
    scale: for a weight (n, m) that maps m numbers to n, as in ``nn.Linear``. "spectral" is $\sqrt{\max(1, n/m)}$. "rms"
        or "match_rms_adamw" is $0.2 \sqrt{\max(n, m)}$; then the steps are as large as those of Adam. "none" is 1. The
        weight of ``x @ W`` is stored as (m, n); make it an ``nn.TransposedParameter``.
    blocks: the parts of a weight (n, m) that are matrices of their own; each gets the scale of its own shape. 3 means
        Q, K and V of a fused weight. The number of heads means heads. ``(64, 16, 16)`` are the rows of each part.
        ``("columns", 4)`` and ``("columns", (8, 24))`` do the same with columns. Rows are outputs, in whichever way the
        weight is stored.
    flatten: treat a kernel (n, a, b, ...) as a matrix (n, a b ...), not as a batch.
    method, steps, coefficients: as in ``msign``. The number of steps is fixed, so nothing waits for a GPU, except with
        the methods "svd" and "eigh". coefficients="muon" with steps=5 is the iteration of the original; it leaves
        singular values in [0.7, 1.2]. Matrices of equal shapes share one call.
    adamw_lr, adamw_weight_decay, betas, eps: options of the parameters under AdamW. With adamw_weight_decay=None they
        have the common weight decay.
    nonfinite: what a step does if a gradient is infinite or NaN. "ignore" does not look. "skip" changes nothing and
        counts in ``skipped``. "raise" changes nothing and raises ValueError that names the parameters. "skip" and
        "raise" make the host wait for the device.

    Parameters in half precision keep their state in float32, and are rounded after the step.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; "rms": Liu et al.
    2025, arXiv:2502.16982, equation 4; AdamW: arXiv:1711.05101, algorithm 2.

    >>> model = tg.nn.Linear(4, 3, rng=0)
    >>> optimizer = tg.optim.Muon(model.parameters(), lr=0.02)  # the bias goes to AdamW
    >>> model(np.ones((1, 4), "float32")).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self, params, lr=0.02, momentum=0.95, nesterov=True, weight_decay=0.0, *, scale="spectral",
        method="newton_schulz", steps=8, coefficients=None, blocks=None, flatten=False, adamw=(), adamw_lr=1e-3,
        adamw_weight_decay=None, betas=(0.9, 0.95), eps=1e-8, nonfinite="ignore",
    ):  # fmt: skip
        self.require_number({"adamw_lr": adamw_lr}, "adamw_lr")
        self.adamw_lr = adamw_lr
        self.adamw: dict[str, Any] = {"lr": adamw_lr}
        if adamw_weight_decay is not None:
            self.require_number({"adamw_weight_decay": adamw_weight_decay}, "adamw_weight_decay")
            self.adamw["weight_decay"] = adamw_weight_decay
        choices = ("ignore", "skip", "raise")
        self.require(nonfinite in choices, {"nonfinite": nonfinite}, "nonfinite", " or ".join(map(repr, choices)))
        self.nonfinite, self.skipped = nonfinite, 0
        single = isinstance(adamw, (str, Tensor)) or not isinstance(adamw, Iterable)
        self.routes = [adamw] if single else list(adamw)
        for route in self.routes:
            if not (isinstance(route, (str, Tensor)) or is_int(route) or callable(route)):
                raise TypeError(
                    f"Muon: adamw holds {route!r}, expected parameters, patterns of names, numbers of axes, or"
                    " functions (name, parameter) -> bool"
                )
        self._met: set[str] = set()  # the patterns that fit a name
        self._waiting: list[tuple] = []  # (parameter, direction, options, lr, 1 - lr decay) for ``_turn``
        Optimizer.__init__(
            self, params, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay, scale=scale,
            method=method, steps=steps, coefficients=coefficients, blocks=blocks, flatten=flatten, betas=pair(betas),
            eps=eps, muon=None,
        )  # fmt: skip
        if lost := [route for route in self.routes if isinstance(route, str) and route not in self._met]:
            raise ValueError(
                f"Muon: adamw={lost[0]!r} fits no name of a parameter; pass model.named_parameters(), which has names"
            )

    def parts(self, group):
        """The group as one or two groups. Without the option ``muon``, matrices are one group, the others another.

        The group for AdamW has the options ``adamw_lr`` and ``adamw_weight_decay``, unless it names its own.
        """
        if not isinstance(group, dict) or "params" not in group:
            return [group]  # the base class refuses it
        given = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        kinds: dict[bool, list] = {True: [], False: []}
        for p in given:
            named = isinstance(p, (tuple, list)) and len(p) == 2 and isinstance(p[0], str)
            name, p = p if named else (getattr(p, "name", None) or "", p)
            muon = group.get("muon")
            kinds[bool(self.is_matrix(name, p) if muon is None else muon)].append(p)
        parts = [{**group, "params": part, "muon": muon} for muon, part in kinds.items() if part or not given and muon]
        return [part if part["muon"] else {**self.adamw, **part} for part in parts]

    def is_matrix(self, name, p) -> bool:
        """Whether ``p`` gets the steps of Muon, if its group does not say so."""
        if not isinstance(p, Tensor):
            return False  # the base class refuses it
        fits = [route for route in self.routes if self.fits(route, name, p)]
        return p.ndim >= 2 and not fits

    def fits(self, route, name, p) -> bool:
        """Whether ``route``, an item of ``adamw``, means the parameter ``p``."""
        if isinstance(route, str):
            fits = bool(name) and fnmatchcase(name, route)
            self._met |= {route} if fits else set()
            return fits
        return route is p if isinstance(route, Tensor) else p.ndim == route if is_int(route) else bool(route(name, p))

    def check(self, options):
        super().check(options)
        self.require_number(options, "momentum", below=1)
        self.require(options["scale"] in list(SCALES), options, "scale", " or ".join(map(repr, SCALES)))
        self.require(options["method"] in METHODS, options, "method", " or ".join(map(repr, METHODS)))
        self.require(options["flatten"] in (True, False), options, "flatten", "True or False")
        if options["muon"]:
            for p in options["params"]:
                if getattr(p, "ndim", 2) < 2:
                    raise ValueError(
                        f"Muon: {p.name or 'a parameter'} has shape {p.shape}, which is no matrix; leave out"
                        ' "muon": True, and AdamW updates it'
                    )
                if options["blocks"] is not None and isinstance(p, Tensor):
                    block_sizes(p, options)
        fixed_rows(options["steps"], options["coefficients"])  # it raises the error for wrong steps or coefficients

    def buffers(self, options):
        return ("momentum_buffer",) if options["muon"] else super().buffers(options)

    def scalars(self, options, step):
        if not options["muon"]:
            return super().scalars(options, step)
        lr = float(options["lr"])
        return lr, 1 - lr * options["weight_decay"]

    def elementwise(self, group):
        return type(self).update is Muon.update and not group["muon"]

    @raises_nothing
    def update(self, xp, p, g, state, options):
        if not options["muon"]:
            super().update(xp, p, g, state, options)
            return
        beta, buffer, (lr, shrink) = options["momentum"], state["momentum_buffer"], self.numbers(p, options, state)
        if launches(p) and p.dtype == self.updating.data.dtype and p.flags.c_contiguous and buffer.flags.c_contiguous:
            self._waiting.append((self.updating, (buffer, g), options, lr, shrink))
            return
        buffer *= beta
        buffer += g
        direction = buffer * beta + g if options["nesterov"] else buffer.copy()
        self._waiting.append((self.updating, xp.ascontiguousarray(direction), options, lr, shrink))

    def load_state_dict(self, state):
        """As in ``Optimizer``. An old state has no ``blocks`` and no ``flatten``; it gets their defaults."""
        if isinstance(state, dict) and isinstance(groups := state.get("param_groups"), (list, tuple)):
            old = {"blocks": None, "flatten": False}
            state = {**state, "param_groups": [{**old, **g} if isinstance(g, dict) else g for g in groups]}
        super().load_state_dict(state)

    # --- the step -------------------------------------------------------------------------------------------

    def step(self) -> None:
        """As in ``Optimizer``. If ``nonfinite`` asks for it, the gradients are tested first."""
        if self.nonfinite == "ignore":
            super().step()
        else:
            self._step_if_finite()

    @live("writes")
    def _step_if_finite(self):
        if self.all_finite():
            super().step()
        else:
            self.skipped += 1

    def all_finite(self) -> bool:
        """Whether all gradients are finite. If not, and ``nonfinite`` is "raise": ValueError that names them."""
        params = [p for group in self.param_groups for p in group["params"] if isinstance(p.grad, Tensor)]
        bad = [p for p in params if not bool(all_of(p.grad.data))]
        if bad and self.nonfinite == "raise":
            which = ", ".join(f"{p.name or 'a parameter'} of shape {p.shape}" for p in bad[:5])
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise ValueError(f"Muon: the gradient of {which}{more} is not finite; nothing was changed")
        return not bad

    def _change(self, work):
        """Update the parameters under AdamW, then the matrices. Matrices of equal shapes are updated together."""
        self._waiting.clear()
        alike: dict[tuple, list[list]] = {}
        for item in work:
            array, _, _, options, p, _ = item
            if not options["muon"]:
                continue
            backend = BACKENDS[type(array)]
            key = array.shape, array.dtype, type(array), backend.multi_device and backend.index_of(array)
            rows = options["coefficients"]
            rows = rows if rows is None or isinstance(rows, str) else str(rows)
            lists = alike.setdefault((*key, options["method"], options["steps"], rows, options["flatten"]), [[]])
            if (len(lists[-1]) + 1) * array.size > TOGETHER:
                lists.append([])
            lists[-1].append(item)
        super()._change([item for item in work if not item[3]["muon"]])
        for part in [part for lists in alike.values() for part in lists if part]:
            super()._change(part)
            there(self._turn, part[0][0])(part[0][3])

    def _turn(self, common):
        """Turn the directions that wait into steps, and make them."""
        waiting, self._waiting = turned_on_device(self._waiting, common), []
        pieces: dict[tuple, list] = {}
        for p, direction, options, _, _ in waiting:
            transposed = getattr(p, "transposed", False)
            matrix = direction.reshape(matrix_shape(p, options))
            for piece in cut(BACKENDS[type(matrix)].xp, matrix, p, options):
                n, m = piece.shape[:-3:-1] if transposed else piece.shape[-2:]
                pieces.setdefault(piece.shape[-2:], []).append((piece, SCALES[options["scale"]](n, m)))
        choice = {name: common[name] for name in ("method", "steps", "coefficients")}
        for shape, parts in pieces.items():
            if len(parts) == 1:
                whole = parts[0][0]
            else:
                xp = BACKENDS[type(parts[0][0])].xp
                whole = xp.concatenate([piece.reshape((-1, *shape)) for piece, _ in parts])
            turned, first = msign(whole, **choice).reshape((-1, *shape)), 0
            for piece, scale in parts:
                count = prod(piece.shape[:-2])
                piece[...] = (turned[first : first + count] * scale).reshape(piece.shape)
                first += count
        for p, step, options, lr, shrink in waiting:
            array = exact = p.data
            if array.itemsize < 4:
                exact = array.astype(DEFAULT_FLOAT)
            if options["weight_decay"]:
                exact *= shrink
            step *= lr
            exact -= step
            if exact is not array:
                array[...] = exact.astype(array.dtype)
            p.touch()


def turned_on_device(waiting, common) -> list:
    """Make the steps of matrices on a device, of one shape, in two launches beside those of ``msign``.

    What is left for others is returned: matrices in blocks, with their directions, and those on the CPU.
    """
    left = [item for item in waiting if type(item[1]) is not tuple]
    groups: dict[int, list] = {}
    for item in waiting:
        if type(item[1]) is tuple:
            groups.setdefault(id(item[2]), []).append(item)
    for items in groups.values():
        params, pairs, (options, *_), (lr, *_), (shrink, *_) = zip(*items)
        directions = momenta(pairs, options["momentum"], options["nesterov"])
        if options["blocks"] is not None:
            rows = directions.reshape((len(items), *params[0].shape))
            left += [(p, rows[i], options, lr, shrink) for i, p in enumerate(params)]
            continue
        n, m = matrix_shape(params[0], options)[-2:]
        choice = {name: common[name] for name in ("method", "steps", "coefficients")}
        turned = msign(directions.reshape((-1, n, m)), **choice).reshape(-1)
        sides = [(m, n) if getattr(p, "transposed", False) else (n, m) for p in params]
        rates = [lr * SCALES[options["scale"]](*side) for side in sides]
        moved([p.data for p in params], turned, rates, shrink)
        for p in params:
            p.touch()
    return left


@on_its_card
def all_of(x):
    """Whether all elements of a raw array are finite."""
    return BACKENDS[type(x)].xp.isfinite(x).all()


def matrix_shape(p, options):
    """The shape of ``p`` as a matrix or a batch of matrices."""
    if not options["flatten"] or p.ndim == 2:
        return p.shape
    return (prod(p.shape[:-1]), p.shape[-1]) if getattr(p, "transposed", False) else (p.shape[0], prod(p.shape[1:]))


def block_sizes(p, options):
    """The axis along which the blocks of ``p`` lie, and their sizes."""
    blocks = options["blocks"]
    named = isinstance(blocks, (tuple, list)) and len(blocks) == 2 and isinstance(blocks[0], str)
    side, sizes = blocks if named else ("rows", blocks)
    axis = -1 if (side == "columns") != getattr(p, "transposed", False) else -2
    length = matrix_shape(p, options)[axis]
    if is_int(sizes) and sizes > 0:
        sizes = (length // int(sizes),) * int(sizes)
    known = side in ("rows", "columns") and isinstance(sizes, (tuple, list)) and all(map(is_int, sizes))
    if not known or any(size < 1 for size in sizes) or sum(sizes) != length:
        raise ValueError(
            f"Muon: blocks is {blocks!r}, and {p.name or 'a parameter'} of shape {p.shape} has {length}"
            f" {'columns' if side == 'columns' else 'rows'}; expected a number that divides {length}, sizes that add up"
            " to it, or ('rows', ...) or ('columns', ...) with one of these"
        )
    return axis, tuple(map(int, sizes))


def cut(xp, matrix, p, options):
    """The blocks of a matrix of ``p``, as views."""
    if options["blocks"] is None:
        return [matrix]
    axis, sizes = block_sizes(p, options)
    return xp.split(matrix, list(accumulate(sizes))[:-1], axis=matrix.ndim + axis)
