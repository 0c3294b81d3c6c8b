"""TTT-Muon: a recurrent layer whose state is a small network that learns, by steps of msign, while it reads.

The state is a set of fast weights for each sequence and head. The fast weights answer the queries of a chunk of tokens.
Then one gradient step on the chunk changes them, so that they bind its values to its keys. Training the layer
differentiates through the msign of every such step.
Sources: Sun et al. 2024, arXiv:2407.04620 (test-time training); Zhang et al. 2025, arXiv:2505.23884 (LaCT:
large chunks, SwiGLU, Muon, weight normalisation). docs/ttt_muon.md derives the inner gradient.
"""

from math import expm1, inf, isfinite, log, sqrt
from typing import Any

import numpy

from tinygrad_ms.arrays.dtypes import DEFAULT_FLOAT
from tinygrad_ms.arrays.sums import HALF, wide
from tinygrad_ms.engine.around.constructors import asarray
from tinygrad_ms.nn import init
from tinygrad_ms.nn.layers import Linear, RMSNorm, check_last_axes, check_sizes
from tinygrad_ms.nn.module import Module, Parameter, TransposedParameter
from tinygrad_ms.ops.creation import zeros
from tinygrad_ms.ops.iterations.coefficients import fixed_rows, rows_to_one
from tinygrad_ms.ops.linalg.norms import vector_norm
from tinygrad_ms.ops.matrix_sign.msign import msign, msign_unrolled
from tinygrad_ms.ops.matrix_sign.rules import chosen_rule
from tinygrad_ms.ops.normalization import rms_norm
from tinygrad_ms.ops.shapes import concat, permute_dims, split, stack, unstack
from tinygrad_ms.ops.smooth_activations import sigmoid, silu, softplus
from tinygrad_ms.options import is_real
from tinygrad_ms.random import generator
from tinygrad_ms.scopes import scope
from tinygrad_ms.tree import tree_map


class SwiGLU:
    r"""f(x) = W1 (silu(W0 x) * W2 x), with W0, W2 (d_h, d) and W1 (d, d_h).

    The weights are W0, W1^T and W2, of one shape, (..., d_h, d): msign takes all three at once. Tokens are
    rows.
    """

    matrices = 3
    row_axes = (-1, -2, -1)  # the axis along which the rows of W0, W1 and W2 lie

    @staticmethod
    def initial(heads, d, hidden, rng, dtype):
        """N(0, 1) / sqrt(fan_in)."""
        up = init.normal((heads, 2 * hidden, d), std=1 / sqrt(d), rng=rng, dtype=dtype)
        down = init.normal((heads, hidden, d), std=1 / sqrt(hidden), rng=rng, dtype=dtype)
        return up[:, :hidden], down, up[:, hidden:]

    @staticmethod
    def apply(weights, x):
        """f of the tokens x (..., C, d)."""
        w0, w1, w2 = weights
        return (silu(x @ w0.mT) * (x @ w2.mT)) @ w1

    @staticmethod
    def score_gradient(weights, k, v, rates):
        r"""The gradient of $\sum_i \eta_i \langle f(k_i), v_i\rangle$ by the weights, in closed form.

        rates (..., C, 3), one for each token and matrix W0, W1, W2. Result D0, D1^T, D2, each (..., d_h, d).
        """
        w0, w1, w2 = weights
        rate0, rate1, rate2 = split(rates, 3, axis=-1)
        gate, linear, dh = k @ w0.mT, k @ w2.mT, v @ w1.mT
        s = sigmoid(gate)
        a = gate * s
        du = dh * a
        dg = dh * linear * (s + a - a * s)  # s + a (1 - s): the derivative of silu
        dg, h, du = dg * rate0, a * linear * rate1, du * rate2  # before the products, so that one loop makes them
        return dg.mT @ k, h.mT @ v, du.mT @ k


class LinearMap:
    """f(x) = W x with W (d, d): the linear fast weights, an associative memory."""

    matrices = 1
    row_axes = (-1,)

    @staticmethod
    def initial(heads, d, hidden, rng, dtype):
        """N(0, 1) / sqrt(fan_in)."""
        return (init.normal((heads, d, d), std=1 / sqrt(d), rng=rng, dtype=dtype),)

    @staticmethod
    def apply(weights, x):
        """f of the tokens x (..., C, d)."""
        return x @ weights[0].mT

    @staticmethod
    def score_gradient(weights, k, v, rates):
        """sum_i eta_i v_i k_i^T, which does not depend on W."""
        return ((v * rates).mT @ k,)


FAST_NETWORKS: dict[str, Any] = {"swiglu": SwiGLU, "linear": LinearMap}

# --- the inner step -----------------------------------------------------------------------------------------


def smooth_table(eps: float, n: int, precision: float):
    """The rows that bring all singular values of [M, e I] to one, for the n rows of M on its smaller side.

    No singular value is below eps / sqrt(1 + n eps^2) times the norm. For eps = .01 this takes five rows in float32 and
    six in float64.
    """
    return rows_to_one(eps / sqrt(1 + n * eps * eps), 64 * precision)


class TTTMuonCell(Module):
    r"""The inner step of TTT-Muon: fast weights, their momentum, and what a chunk of tokens does to them.

        D = the gradient of sum_i eta_i <f_W(k_i), v_i>
        m <- D + beta m
        W <- W + gamma msign(m)        update="muon"; W + m for "plain"; W for "frozen"
        W <- W ||row of the first W|| / ||row of W||

    d, hidden: the sizes of the fast network, f: d -> hidden -> d. heads: each head has its own fast weights, whose
        first value is learnt. fast: "swiglu" or "linear" (which has no hidden layer).
    msign: "smooth" is damped by an epsilon relative to ||m||_F. It has its exact derivative at every rank; chunks
        shorter than d make m rank-deficient. "pure" has epsilon 0 and 8 steps. "ns5" records 5 unconverged steps with
        Muon's coefficients, and has the derivative through the steps. All run a fixed number of steps, so the host
        never waits for a GPU.
    msign_vjp, steps, coefficients: the rule of its derivative, the number of steps and their table, as in
        ``tg.msign``. ``msign="ns5", msign_vjp="eigh"`` has the values of five steps and the derivative of the exact
        msign. "unrolled" has the derivative of the steps without keeping them.
    prenorm: the weights that learn keep their scale. A copy, whose rows have the first norms, is applied.
    guards: numbers added to the norms of rows, and in recorded "ns5" steps to ||m||_F, before a division by them.
    """

    weights: list[Parameter]

    def __init__(
        self, d, heads=1, hidden=None, *, fast="swiglu", update="muon", msign="smooth", msign_vjp=None, steps=None,
        coefficients=None, eps=1e-2, inner_step=0.3, momentum=True, weight_norm=True, prenorm=False, guards=(0.0, 0.0),
        rng=None, device=None, dtype=DEFAULT_FLOAT,
    ):  # fmt: skip
        hidden = d if hidden is None else hidden
        check_sizes(self, d=d, heads=heads, hidden=hidden)
        one_of(self, "fast", fast, FAST_NETWORKS)
        one_of(self, "update", update, ("muon", "plain", "frozen"))
        one_of(self, "msign", msign, ("smooth", "pure", "ns5"))
        if msign == "smooth" and not (is_real(eps) and 1e-4 <= eps <= 1):
            raise ValueError(f"{type(self).__name__}: eps is {eps}, expected 1e-4 to 1, relative to ||m||_F")
        self.d, self.heads, self.hidden = d, heads, hidden = int(d), int(heads), int(hidden)
        self.fast, self.update, self.msign = fast, update, msign
        if not (is_real(inner_step) and isfinite(inner_step)):
            raise ValueError(f"{type(self).__name__}: inner_step is {inner_step!r}, expected a finite number")
        self.eps, self.inner_step, self.momentum, self.weight_norm = (
            float(eps),
            float(inner_step),
            momentum,
            weight_norm,
        )
        one_of(self, "prenorm", prenorm, (True, False))
        if prenorm and not weight_norm:
            raise ValueError(f"{type(self).__name__}: prenorm=True normalises the weights; leave out weight_norm=False")
        if not (isinstance(guards, (tuple, list)) and len(guards) == 2 and all(is_real(g) and g >= 0 for g in guards)):
            raise ValueError(f"{type(self).__name__}: guards is {guards!r}, expected two numbers of at least 0")
        self.prenorm, self.guards = bool(prenorm), tuple(map(float, guards))
        self.steps = {"pure": 8, "ns5": 5}.get(msign) if steps is None and coefficients is None else steps
        self.coefficients = "muon" if coefficients is None and msign == "ns5" else coefficients
        self.msign_vjp, table = msign_vjp, fixed_rows(self.steps, self.coefficients) or "su"
        chosen_rule(msign_vjp, "newton_schulz", self.eps * (msign == "smooth"), None, table, False)  # it may raise
        first = FAST_NETWORKS[fast].initial(heads, d, hidden, generator(rng), dtype)
        kinds = [Parameter if axis == -1 else TransposedParameter for axis in FAST_NETWORKS[fast].row_axes]
        self.weights = [kind(w, device=device) for kind, w in zip(kinds, first)]

    @property
    def network(self):
        return FAST_NETWORKS[self.fast]

    def start(self):
        """The state before the first chunk: (weights, momentum, norms). ``learn`` changes it.

        weights: each (heads, n, m), the same for all sequences. norms: those of their rows. momentum: None means zero.
        With ``prenorm`` there is a fourth part, the weights with their scale.
        """
        weights = tuple(map(wide, self.weights))
        norms = tuple((w * w).sum(axis=i, keepdims=True) ** 0.5 for w, i in zip(weights, self.network.row_axes))
        return (weights, None, norms, weights) if self.prenorm else (weights, None, norms)

    def forward(self, state, q):
        """f_W of the queries (batch, heads, C, d)."""
        with scope("apply"):
            return self.network.apply(state[0], q)

    def learn(self, state, k, v, rates, beta):
        """The state after a chunk.

        k, v (batch, heads, C, d), rates (batch, heads, C, matrices), beta (batch, heads, 1, 1).
        """
        if self.update == "frozen":
            return state
        weights, m, norms, *scaled = state
        with scope("update"):
            gradient = stack(self.network.score_gradient(weights, k, v, rates))
            m = gradient if m is None or not self.momentum else gradient + beta * m
            step = m if self.update == "plain" else self.orthogonal(m) * self.inner_step
            weights = moved = tuple(w + part for w, part in zip(scaled[0] if scaled else weights, unstack(step)))
            if self.weight_norm:
                rows = zip(moved, norms, self.network.row_axes)
                weights = tuple(with_row_norms(w, norm, i, self.guards[0]) for w, norm, i in rows)
        return (weights, m, norms, moved) if scaled else (weights, m, norms)

    def orthogonal(self, m):
        """msign of all matrices of m (..., n, d)."""
        with scope("msign"):
            steps, table, rule = self.steps, self.coefficients, self.msign_vjp
            if self.msign == "smooth":
                if steps is None and table is None:
                    table = smooth_table(self.eps, min(m.shape[-2:]), float(numpy.finfo(m.dtype.name).eps) / 2)
                return msign(m, eps=self.eps, vjp=rule, steps=steps, coefficients=table, recompute=rule is None)
            if self.msign == "ns5" and rule is None:
                return msign_unrolled(m, steps=steps, coefficients=table, guard=self.guards[1])
            return msign(m, vjp=rule, steps=steps, coefficients=table)

    def extra_repr(self):
        names = ["d", "heads", "hidden", "fast", "update", "msign"]
        names += [name for name in ("msign_vjp", "prenorm") if getattr(self, name)]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


def with_row_norms(w, norms, axis, guard=0.0):
    """w with its rows, which lie along ``axis``, scaled to these norms."""
    if guard:
        return w * (norms / (vector_norm(w, axis=axis, keepdims=True) + guard))
    return rms_norm(w, norms * w.shape[axis] ** -0.5, eps=1e-30, axes=axis)


def one_of(module, name, value, choices):
    if value not in choices:
        raise ValueError(f"{type(module).__name__}: {name} is {value!r}, expected {' or '.join(map(repr, choices))}")


# --- the layer ----------------------------------------------------------------------------------------------


class TTTMuon(Module):
    r"""The TTT-Muon layer: (batch, T, dim) -> (batch, T, dim), any T, causal from chunk to chunk.

        x' = a depthwise causal convolution of x, width 3: it binds a value to the key before it
        q, k, v = silu(Linear(x')) in heads; q and k normalised
        eta = softplus(Linear(x') + softplus^{-1}(base_lr)), per token, head and matrix
        beta = sigmoid(Linear(x')), per token and head
        per chunk: out = f_W(q), then W learns k -> v (``TTTMuonCell``), with the mean of beta over the chunk
        y = Linear(RMSNorm per head(out))

    dim: a multiple of heads. chunk: tokens per inner step. base_lr: what eta starts from; msign forgets the
        scale of a whole chunk, so with "muon" it weighs tokens against each other, and is the step size with
        "plain".
    checkpoint: ``tg.checkpoint`` (any such wrapper) keeps for backward only the state between chunks, and
        computes each chunk again.
    conv: without it x' is x.
    gate: y = Linear(silu(Linear(x)) RMSNorm(out)), one learnt gate for each token and head.
    qk_guard: q / (||q|| + qk_guard) and k alike; 0 is q / (||q||^2 + 1e-6)^{1/2}.
    Further options: see ``TTTMuonCell``. ``TTTMuon.lact`` has those of LaCT.
    float16 and bfloat16, of x and of the parameters, are computed in float32, as is the state; y has the dtype of x.

    ``layer(x)`` runs the chunks of a whole sequence. The last chunk changes no weights, because nothing follows.
    ``y, state = layer.read(x, state)`` continues from a state with any number of tokens, and has the same outputs.
    """

    def __init__(
        self, dim, heads=1, *, hidden=None, chunk=32, base_lr=0.3, checkpoint=None, conv=True, gate=False, qk_guard=0.0,
        rng=None, device=None, dtype=DEFAULT_FLOAT, **cell,
    ):  # fmt: skip
        check_sizes(self, dim=dim, heads=heads, chunk=chunk)
        if dim % heads:
            raise ValueError(f"{type(self).__name__}: dim is {dim}, expected a multiple of the {heads} heads")
        if not (is_real(base_lr) and 0 < base_lr < inf):
            raise ValueError(f"{type(self).__name__}: base_lr is {base_lr}, expected a number above 0")
        one_of(self, "conv", conv, (True, False))
        one_of(self, "gate", gate, (True, False))
        if not (is_real(qk_guard) and 0 <= qk_guard < inf):
            raise ValueError(f"{type(self).__name__}: qk_guard is {qk_guard!r}, expected a number of at least 0")
        dim, heads, chunk = int(dim), int(heads), int(chunk)
        self.qk_guard = float(qk_guard)
        self.dim, self.heads, self.chunk = dim, heads, chunk
        self.base_lr, self.checkpoint = float(base_lr), checkpoint
        options = dict(rng=generator(rng), device=device, dtype=dtype)
        d = dim // heads
        taps = numpy.array([[1.0], [0.5], [0.0]]) * numpy.ones(dim)  # of this token, the one before, two before
        self.taps = Parameter(taps.astype(dtype), device=device) if conv else None
        self.qkv = Linear(dim, 3 * dim, bias=False, **options)
        self.cell = TTTMuonCell(d, heads, hidden, **options, **cell)
        self.rates = Linear(dim, heads * self.cell.network.matrices, **options)
        self.beta = Linear(dim, heads, **options)
        self.norm = RMSNorm(d, device=device, dtype=dtype)
        self.out = Linear(dim, dim, bias=False, **options)
        self.gate = Linear(dim, heads, **options) if gate else None

    @classmethod
    def lact(cls, dim, heads=1, *, chunk=2048, prenorm=True, gate=True, base_lr=1e-3, inner_step=1.0, **options):
        """The layer with the choices of LaCT's language models, as published; docs/ttt_muon.md lists what is left out.

        It has no convolution. The state before its normalisation learns (``prenorm``). It has a learnt gate, and rates
        from 1e-3. Its steps have length one, by five rows of coefficients ("lact") with the derivative through them. It
        adds 1e-5 and 1e-7 to norms. ``chunks`` is LaCT's function of q, k and v, in float64 equal up to rounding.
        Source: Zhang et al. 2025, arXiv:2505.23884.
        """
        table = "lact" if options.get("msign", "ns5") == "ns5" else None
        theirs = dict(conv=False, qk_guard=1e-5, msign="ns5", coefficients=table, guards=(1e-5, 1e-7))
        chosen = dict(chunk=chunk, prenorm=prenorm, gate=gate, base_lr=base_lr, inner_step=inner_step)
        return cls(dim, heads, **{**theirs, **chosen, **options})

    def forward(self, x):
        """The outputs (batch, T, dim) for sequences x (batch, T, dim) from their beginning."""
        self._check(x)
        if x.dtype.char in HALF:
            return self.forward(wide(asarray(x))).astype(x.dtype)
        return self._merge(self.chunks(*self._tokens(self._convolve(x, None)[0])), x)

    def chunks(self, q, k, v, rates, beta):
        """The answers of the fast weights to the queries, (batch, heads, T, d). They learn after each chunk.

        q, k, v (batch, heads, T, d); rates (batch, heads, T, matrices); beta (batch, heads, T, 1), from 0 to 1. The
        layer makes these from x; here they may come from anywhere.
        """
        state = self.cell.start()
        cuts = list(range(self.chunk, q.shape[2], self.chunk))
        pieces = [split(part, cuts, axis=2) for part in (q, k, v, rates, beta)]
        outputs, last = [], len(pieces[0]) - 1
        with scope("heads"):
            for i, chunk in enumerate(zip(*pieces)):
                run = self._last if i == last else self._chunk
                y, state = (run if self.checkpoint is None else self.checkpoint(run))(state, *chunk)
                outputs.append(y)
        return outputs[0] if len(outputs) == 1 else concat(outputs, axis=2)

    def read(self, x, state=None):
        """(outputs, the state after x) for the next tokens x (batch, T, dim). None is the state before the first token.

        The weights learn after every full chunk; the state keeps a chunk in progress. It is a dict of Tensors that
        ``tg.save`` takes: "cell" (weights, momentum, norms), "inputs" (the last two, for the convolution), "tokens"
        (keys, values, rates and betas of the chunk in progress) and "chunk" (empty, of shape (chunk, 0)). A loaded
        state goes through ``restore``.
        Raises ValueError for a state of another batch or layer, or in the middle of a chunk of another length.
        """
        self._check(x)
        if x.dtype.char in HALF:
            y, state = self.read(wide(asarray(x)), state)
            return y.astype(x.dtype), state
        if state is None:
            state = {"cell": self.cell.start(), "inputs": None, "tokens": None}
        else:
            self._check_state(x, state)
        cell, waiting = state["cell"], state["tokens"]
        convolved, inputs = self._convolve(x, state["inputs"])
        tokens = self._tokens(convolved)
        started = 0 if waiting is None else waiting[0].shape[2]
        cuts = list(range(self.chunk - started, x.shape[1], self.chunk))
        outputs = []
        for query, *chunk in zip(*(split(part, cuts, axis=2) for part in tokens)):
            with scope("heads"), scope("chunk"):
                outputs.append(self.cell(cell, query))
                if waiting is not None:
                    chunk = [concat(pair, axis=2) for pair in zip(waiting, chunk)]
                waiting = tuple(chunk)
                if waiting[0].shape[2] == self.chunk:
                    cell, waiting = self._learn(cell, *waiting), None
        length = zeros((self.chunk, 0), dtype=x.dtype, device=x.device)
        y = outputs[0] if len(outputs) == 1 else concat(outputs, axis=2)
        return self._merge(y, x), {"cell": cell, "inputs": inputs, "tokens": waiting, "chunk": length}

    def _check_state(self, x, state):
        """Raise ValueError unless this layer can continue from ``state`` with x."""
        name, batch, d = type(self).__name__, x.shape[0], self.dim // self.heads
        if not isinstance(state, dict) or not {"cell", "inputs", "tokens"} <= state.keys():
            raise ValueError(f"{name}: the state is {str(state)[:60]}, expected a dict as read() returns it")

        def expect(what, value, *shapes):
            if value.shape not in shapes:
                raise ValueError(
                    f"{name}: {what} of the state has shape {value.shape}, and for x of shape {tuple(x.shape)}"
                    f" it must have {' or '.join(map(str, shapes))}: a state of another batch or layer?"
                )

        weights, momentum, norms, *scaled = state["cell"]
        if len(scaled) != self.cell.prenorm or (state["inputs"] is None) != (self.taps is None):
            raise ValueError(f"{name}: the state is that of a layer with other options for prenorm or conv")
        matrices = [w.shape for w in self.cell.weights]
        if len(weights) != len(matrices) or len(norms) != len(matrices):
            raise ValueError(f"{name}: the state has {len(weights)} fast weights, expected {len(matrices)}")
        for i, (weight, norm, shape, axis) in enumerate(zip(weights, norms, matrices, self.cell.network.row_axes)):
            for part in (weight, *(some[i] for some in scaled)):
                expect(f"fast weight {i}", part, shape, (batch, *shape))
            across = list(shape)
            across[axis] = 1
            expect(f"norm {i}", norm, tuple(across))
        if momentum is not None:
            expect("the momentum", momentum, (len(matrices), batch, *matrices[0]))
        if state["inputs"] is not None:
            expect("inputs", state["inputs"], (batch, 2, self.dim))
        if (waiting := state["tokens"]) is not None:
            started, chunk = waiting[0].shape[2], state["chunk"].shape[0] if "chunk" in state else self.chunk
            if chunk != self.chunk or not 0 < started < self.chunk:
                raise ValueError(
                    f"{name}: the state is in the middle of a chunk of {chunk} tokens, after {started}, and the chunks"
                    f" of this layer have {self.chunk}"
                )
            for what, value, size in zip(
                ("keys", "values", "rates", "betas"), waiting, (d, d, self.cell.network.matrices, 1)
            ):
                expect(what, value, (batch, self.heads, started, size))

    def restore(self, state):
        """A state of ``read``, from ``tg.load`` or from another device, on the device of the layer."""
        return tree_map(lambda part: asarray(part).to(self.out.weight.device), state)

    def _check(self, x):
        check_last_axes(self, x, (self.dim,), "dim")
        if x.ndim != 3 or not x.shape[1]:
            raise ValueError(
                f"{type(self).__name__}: x has shape {tuple(x.shape)}, expected (batch, T, {self.dim}) with T >= 1"
            )

    def _convolve(self, x, before):
        """The convolution of x, and the last two inputs (batch, 2, dim), which the next tokens need."""
        if self.taps is None:
            return x, None
        if before is None:
            before = zeros((x.shape[0], 2, self.dim), dtype=x.dtype, device=x.device)
        T = x.shape[1]
        padded = concat([before, x], axis=1)
        now, previous, earlier = self.taps
        return padded[:, 2:] * now + padded[:, 1 : T + 1] * previous + padded[:, :T] * earlier, padded[:, T:]

    def _tokens(self, x):
        """q, k, v (batch, heads, T, d), rates (batch, heads, T, matrices) and beta (batch, heads, T, 1)."""
        batch, T = x.shape[:2]
        d = self.dim // self.heads
        qkv = silu(self.qkv(x)).reshape((batch, T, 3 * self.heads, d))
        qk, v = split(permute_dims(qkv, (0, 2, 1, 3)), [2 * self.heads], axis=1)
        if self.qk_guard:
            qk = qk / (vector_norm(qk, axis=-1, keepdims=True) + self.qk_guard)
        else:
            qk = rms_norm(qk, d**-0.5, eps=1e-6 / d)  # |q| = |k| = 1, smooth at 0
        q, k = split(qk, 2, axis=1)
        shift = self.base_lr + log(-expm1(-self.base_lr))  # softplus^{-1}(base_lr)
        rates = softplus(self.rates(x) + shift).reshape((batch, T, self.heads, self.cell.network.matrices))
        beta = sigmoid(self.beta(x)).reshape((batch, T, self.heads, 1))
        return q, k, v, permute_dims(rates, (0, 2, 1, 3)), permute_dims(beta, (0, 2, 1, 3))

    def _learn(self, state, k, v, rates, beta):
        return self.cell.learn(state, k, v, rates, beta.sum(axis=2, keepdims=True) / self.chunk)

    def _chunk(self, state, q, *tokens):
        with scope("chunk"):
            return self.cell(state, q), self._learn(state, *tokens)

    def _last(self, state, q, *tokens):
        with scope("chunk"):
            return self.cell(state, q), state

    def _merge(self, y, x):
        """The heads' outputs (batch, heads, T, d) as (batch, T, dim)."""
        y = self.norm(permute_dims(y, (0, 2, 1, 3)))
        if self.gate is not None:
            y = y * silu(self.gate(x)).reshape((*x.shape[:2], self.heads, 1))
        return self.out(y.reshape((*y.shape[:2], self.dim)))

    def extra_repr(self):
        return f"dim={self.dim}, heads={self.heads}, chunk={self.chunk}, base_lr={self.base_lr}"
