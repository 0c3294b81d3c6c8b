"""One training step of the TTT-Muon model beside the same model in PyTorch eager, and what backward keeps in memory.

    python benchmarks/bench_ttt_muon.py [--repeats 15] [--threads 2] [--json FILE]

The model of examples/train_ttt_muon.py on MQAR-Zipf: batch 32, 128 tokens, chunk 32, 56,552 parameters, float32. The
PyTorch model is written out below. It starts from the same parameters, and its loss and gradients are compared with
ours before anything is timed. Two rules for the msign of the inner steps, in both frameworks:

- analytic: the smooth msign by Newton-Schulz and its derivative by the mcsgn Sylvester solve, the same rows of
  coefficients; in PyTorch an autograd.Function.
- unrolled: five steps of Muon's coefficients, differentiated step by step.

The frameworks take turns in one run; figures are medians over the repeats, ratios the median of pairwise ratios.
"""

import argparse
import os
import sys
import tracemalloc
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--repeats", type=int, default=15)
parser.add_argument("--threads", type=int, default=2, help="of NumPy's BLAS and of PyTorch")
parser.add_argument("--json", help="also write the figures to this file")
OPTIONS = parser.parse_args() if __name__ == "__main__" else parser.parse_args([])
if __name__ == "__main__":
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(OPTIONS.threads)  # read when NumPy is imported

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))
import train_ttt_muon as example
from measure import blas, milliseconds, ratio, turns, write

import tinygrad_ms as tg
from tinygrad_ms import optim
from tinygrad_ms.nn.ttt_muon import smooth_table

EPS, CHUNK, GAMMA, BASE_LR, HEADS = 1e-2, 32, 0.3, 0.3, 2
AXES = (-1, -2, -1)  # of the rows of W0, W1 and W2 in W0, W1^T and W2
MUON = (3.4445, -4.7750, 2.0315)
RULES = {"analytic": dict(msign="smooth"), "unrolled": dict(msign="ns5")}
MEMORY = {**RULES, "pure": dict(msign="pure"), "by chunks": dict(msign="smooth", checkpoint=tg.checkpoint)}


def batch():
    return example.RecallTask(example.parse([])).batch(0)


# --- ours ----------------------------------------------------------------------------------------------------------


class Ours:
    def __init__(self, **msign):
        self.model = example.Model(128, chunk=CHUNK, base_lr=BASE_LR, inner_step=GAMMA, **msign)
        self.optimizer = optim.AdamW(self.model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.01)

    def gradients(self, tokens, answers):
        loss = example.loss_of(self.model, tokens, answers)
        loss.backward()
        return loss.item(), {name: p.grad.numpy().copy() for name, p in self.model.named_parameters()}

    def step(self, tokens, answers):
        loss = example.loss_of(self.model, tokens, answers)
        self.optimizer.zero_grad()
        loss.backward()
        optim.clip_grad_norm(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()


# --- the same in PyTorch eager ---------------------------------------------------------------------------------------


def peer(rule, parameters):
    """The PyTorch model with a copy of ``parameters`` {name: array}, with ``gradients`` and ``step`` as ``Ours``."""
    import torch
    from torch.nn import functional as F

    p = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in parameters.items()}
    rows = smooth_table(EPS, 32, 2.0**-24)

    def skew(x):
        return x - x.mT

    class SmoothMsign(torch.autograd.Function):
        @staticmethod
        def forward(ctx, M):
            shape, n = M.shape, M.shape[-1]
            M = M.reshape(-1, *shape[-2:])
            norm = torch.linalg.matrix_norm(M, keepdim=True)
            X = torch.cat([M / norm, EPS * torch.eye(n).expand(len(M), n, n)], dim=1)
            X = X / (1 + n * EPS * EPS) ** 0.5
            for a, b, c in rows:
                S = X.mT @ X
                X = torch.baddbmm(X, X, torch.baddbmm(S, S, S, beta=b, alpha=c), beta=a)
            Y, tail = X[:, : M.shape[1]].contiguous(), X[:, M.shape[1] :].contiguous()
            ctx.save_for_backward(M, Y, tail, norm)
            return Y.reshape(shape)

        @staticmethod
        def backward(ctx, G):
            M, Y, tail, norm = ctx.saved_tensors
            shape, G = G.shape, G.reshape(M.shape)
            e = EPS * norm
            P, inverse, B = Y.mT @ M + e * tail, tail / e, Y.mT @ G
            C = skew(B)
            size_P, size_C = (torch.linalg.matrix_norm(x, keepdim=True) for x in (P, C))
            A, K = P / size_P, C / size_C
            for a, b, c in rows:
                R, AK = A @ A, A @ K
                D = AK + AK.mT
                RD = R @ D
                H = torch.baddbmm(R, R, R, beta=b, alpha=c)
                N = b * D + c * (RD + RD.mT)
                A, K = torch.baddbmm(A, A, H, beta=a), torch.baddbmm(torch.baddbmm(K, K, H, beta=a), A, N)
            W = K * (size_C / (2 * size_P))
            g = torch.baddbmm(Y @ (W - B @ inverse), G, inverse)
            unit = M / norm
            return (g - (g * unit).sum((-2, -1), keepdim=True) * unit).reshape(shape)

    def unrolled(M):
        X = M / torch.linalg.matrix_norm(M, keepdim=True)
        shape = X.shape
        X = X.reshape(-1, *shape[-2:])
        a, b, c = MUON
        for _ in range(5):
            S = X @ X.mT
            X = torch.baddbmm(X, torch.baddbmm(S, S, S, beta=b, alpha=c), X, beta=a)
        return X.reshape(shape)

    msign = SmoothMsign.apply if rule == "analytic" else unrolled

    def rms_norm(x, weight):
        return F.rms_norm(x, (x.shape[-1],), weight, 1e-6)

    def fast(weights, x):
        w0, w1, w2 = weights
        return (F.silu(x @ w0.mT) * (x @ w2.mT)) @ w1

    def learn(weights, m, norms, k, v, rates, beta):
        w0, w1, w2 = weights
        rate0, rate1, rate2 = rates.split(1, dim=-1)
        gate, linear, dh = k @ w0.mT, k @ w2.mT, v @ w1.mT
        s = torch.sigmoid(gate)
        a = gate * s
        dg = dh * linear * (s + a - a * s)
        D = (dg * rate0).mT @ k, (a * linear * rate1).mT @ v, (dh * a * rate2).mT @ k
        m = torch.stack(D) if m is None else torch.stack(D) + beta * m
        weights = [w + o for w, o in zip(weights, (GAMMA * msign(m)).unbind())]
        return [w * (n / w.norm(dim=axis, keepdim=True)) for w, n, axis in zip(weights, norms, AXES)], m

    def ttt(x, q):
        batch, T, dim = x.shape
        d = dim // HEADS
        padded = F.pad(x, (0, 0, 2, 0))
        taps = p[q + "taps"]
        z = padded[:, 2:] * taps[0] + padded[:, 1:-1] * taps[1] + padded[:, :-2] * taps[2]
        qkv = F.silu(F.linear(z, p[q + "qkv.weight"])).reshape(batch, T, 3 * HEADS, d).transpose(1, 2)
        query, key, value = qkv.split(HEADS, dim=1)
        query, key = (t * torch.rsqrt((t * t).sum(-1, keepdim=True) + 1e-6) for t in (query, key))
        shift = float(np.log(np.expm1(BASE_LR)))
        rates = F.softplus(F.linear(z, p[q + "rates.weight"], p[q + "rates.bias"]) + shift)
        rates = rates.reshape(batch, T, HEADS, 3).transpose(1, 2)
        beta = torch.sigmoid(F.linear(z, p[q + "beta.weight"], p[q + "beta.bias"])).transpose(1, 2)[..., None]
        weights, m = [p[q + f"cell.weights.{i}"] for i in range(3)], None
        norms = [w.norm(dim=axis, keepdim=True) for w, axis in zip(weights, AXES)]
        outputs = []
        for start in range(0, T, CHUNK):
            part = slice(start, start + CHUNK)
            outputs.append(fast(weights, query[:, :, part]))
            if start + CHUNK < T:
                mean = beta[:, :, part].mean(dim=2, keepdim=True)
                weights, m = learn(weights, m, norms, key[:, :, part], value[:, :, part], rates[:, :, part], mean)
        y = rms_norm(torch.cat(outputs, dim=2).transpose(1, 2), p[q + "norm.weight"])
        return F.linear(y.reshape(batch, T, dim), p[q + "out.weight"])

    def loss_of(tokens, answers):
        x = F.embedding(tokens, p["embedding.weight"])
        x = x + ttt(rms_norm(x, p["blocks.0.norm1.weight"]), "blocks.0.ttt.")
        h = F.silu(
            F.linear(rms_norm(x, p["blocks.0.norm2.weight"]), p["blocks.0.mlp.0.weight"], p["blocks.0.mlp.0.bias"])
        )
        x = x + F.linear(h, p["blocks.0.mlp.2.weight"], p["blocks.0.mlp.2.bias"])
        x = rms_norm(x[:, -answers.shape[1] :], p["norm.weight"])
        return F.cross_entropy(F.linear(x, p["head.weight"], p["head.bias"]).flatten(0, 1), answers.flatten())

    optimizer = torch.optim.AdamW(p.values(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.01)

    class Peer:
        def gradients(self, tokens, answers):
            loss = loss_of(torch.from_numpy(tokens), torch.from_numpy(answers))
            loss.backward()
            return loss.item(), {name: value.grad.numpy().copy() for name, value in p.items()}

        def step(self, tokens, answers):
            loss = loss_of(torch.from_numpy(tokens), torch.from_numpy(answers))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(p.values(), 1.0)
            optimizer.step()
            return loss.item()

    return Peer()


# --- time ------------------------------------------------------------------------------------------------------------


def agreement(ours, theirs, data):
    """The relative difference of the losses, and of all gradients together."""
    (loss, gradients), (other, others) = ours.gradients(*data), theirs.gradients(*data)
    difference = sum(float(((gradients[n] - others[n]) ** 2).sum()) for n in others)
    return abs(loss - other) / loss, (difference / sum(float((g**2).sum()) for g in others.values())) ** 0.5


def compare_times(repeats, threads):
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed (pip install torch): our own times alone")
        torch = None
    else:
        torch.set_num_threads(threads)
    data, runners, results = batch(), {}, {}
    for rule in RULES:
        runners["ours", rule] = Ours(**RULES[rule])
        if torch is not None:
            start = {name: value.numpy() for name, value in runners["ours", rule].model.named_parameters()}
            runners["torch", rule] = peer(rule, start)
            loss, gradient = agreement(runners["ours", rule], runners["torch", rule], data)
            print(
                f"{rule}: loss and gradients of ours and PyTorch's differ by {loss:.1e} and {gradient:.1e}, relatively"
            )
            results[f"difference {rule}"] = {"loss": loss, "gradient": gradient}
            assert loss < 1e-4 and gradient < 1e-2, "the two models are not the same"
    times = turns(
        {key: (lambda runner=runner: runner.step(*data)) for key, runner in runners.items()}, repeats, rest=0.03
    )
    for (who, rule), ms in milliseconds(times).items():
        results[f"{who} {rule} ms"] = ms
        print(f"{who:6} {rule:9} {ms:7.1f} ms a step")
    if torch is not None:
        for name, theirs, bar in (("with the same rule", "analytic", 1.3), ("through five steps", "unrolled", 1.0)):
            results[f"ratio to torch {theirs}"] = figure = ratio(times, ("ours", "analytic"), ("torch", theirs))
            print(f"ours (analytic) / PyTorch {name}: {figure:.2f} (bar {bar})")
    return results


# --- memory ----------------------------------------------------------------------------------------------------------


def arrays_of(nodes):
    """{address of the buffer: its bytes} of everything that ``nodes`` keep for backward."""
    found = {}
    for node in nodes:
        for value in node.saved or ():
            if isinstance(value, np.ndarray) and value.ndim:
                while isinstance(value.base, np.ndarray):
                    value = value.base
                found[value.ctypes.data] = value.nbytes
    return found


def compare_memory():
    """Bytes that the nodes of msign keep for backward, and the peak of a whole step, without the parameters.

    "pure" is the msign with epsilon 0; "by chunks" keeps the states between chunks alone.
    """
    data, results = batch(), {}
    for rule, options in MEMORY.items():
        runner = Ours(**options)
        loss = example.loss_of(runner.model, *data)
        kept = sum(arrays_of(node for node in loss.tape() if "msign" in node.scope).values())
        del loss
        runner.step(*data)
        tracemalloc.start()
        runner.step(*data)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        results[rule] = {"msign bytes": kept, "peak bytes": peak}
        print(f"{rule:9} msign keeps {kept / 2**20:6.2f} MiB for backward; peak of a step {peak / 2**20:6.1f} MiB")
    for rule in ("analytic", "pure"):
        results[rule]["ratio"] = times = results["unrolled"]["msign bytes"] / results[rule]["msign bytes"]
        print(f"differentiating through five steps keeps {times:.1f} times as much in msign as {rule} (bar 7)")
    return results


def main():
    print(f"NumPy {np.__version__}, {blas()}")
    tg.set_default_device("cpu")
    results = {"memory": compare_memory(), "time": compare_times(OPTIONS.repeats, OPTIONS.threads)}
    write(OPTIONS.json, results)


if __name__ == "__main__":
    tg.keep_freed_memory()
    main()
