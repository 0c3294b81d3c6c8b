"""The TTT-Muon model of bench_ttt_muon.py in JAX, where msign is five steps: the peer that jit compiles whole."""

import numpy as np
from bench_ttt_muon import AXES, BASE_LR, CHUNK, GAMMA, HEADS, MUON


def norm(x, axis):
    import jax.numpy as xp

    return xp.sqrt((x * x).sum(axis, keepdims=True))


def unrolled(M):
    X = M / norm(M, (-2, -1))
    a, b, c = MUON
    for _ in range(5):
        S = X @ X.mT
        X = a * X + (b * S + c * (S @ S)) @ X
    return X


def rms_norm(x, weight):
    return x * ((x * x).mean(-1, keepdims=True) + 1e-6) ** -0.5 * weight


def fast(weights, x):
    import jax

    w0, w1, w2 = weights
    return (jax.nn.silu(x @ w0.mT) * (x @ w2.mT)) @ w1


def learn(weights, m, norms, k, v, rates, beta):
    import jax
    import jax.numpy as xp

    w0, w1, w2 = weights
    rate0, rate1, rate2 = (rates[..., i : i + 1] for i in range(3))
    gate, linear, dh = k @ w0.mT, k @ w2.mT, v @ w1.mT
    s = jax.nn.sigmoid(gate)
    a = gate * s
    dg = dh * linear * (s + a - a * s)
    D = xp.stack([(dg * rate0).mT @ k, (a * linear * rate1).mT @ v, (dh * a * rate2).mT @ k])
    m = D if m is None else D + beta * m
    weights = [w + o for w, o in zip(weights, GAMMA * unrolled(m))]
    return [w * (n / norm(w, axis)) for w, n, axis in zip(weights, norms, AXES)], m


def ttt(p, x):
    import jax
    import jax.numpy as xp

    batch, T, dim = x.shape
    padded, taps = xp.pad(x, ((0, 0), (2, 0), (0, 0))), p["taps"]
    z = padded[:, 2:] * taps[0] + padded[:, 1:-1] * taps[1] + padded[:, :-2] * taps[2]
    qkv = jax.nn.silu(z @ p["qkv.weight"].T).reshape(batch, T, 3 * HEADS, dim // HEADS).transpose(0, 2, 1, 3)
    query, key, value = xp.split(qkv, 3, axis=1)
    query, key = (t * ((t * t).sum(-1, keepdims=True) + 1e-6) ** -0.5 for t in (query, key))
    rates = jax.nn.softplus(z @ p["rates.weight"].T + p["rates.bias"] + float(np.log(np.expm1(BASE_LR))))
    rates = rates.reshape(batch, T, HEADS, 3).transpose(0, 2, 1, 3)
    beta = jax.nn.sigmoid(z @ p["beta.weight"].T + p["beta.bias"]).transpose(0, 2, 1)[..., None]
    weights, m, outputs = [p[f"cell.weights.{i}"] for i in range(3)], None, []
    norms = [norm(w, axis) for w, axis in zip(weights, AXES)]
    for start in range(0, T, CHUNK):
        part = slice(start, start + CHUNK)
        outputs.append(fast(weights, query[:, :, part]))
        if start + CHUNK < T:
            mean = beta[:, :, part].mean(axis=2, keepdims=True)
            weights, m = learn(weights, m, norms, key[:, :, part], value[:, :, part], rates[:, :, part], mean)
    y = rms_norm(xp.concatenate(outputs, axis=2).transpose(0, 2, 1, 3), p["norm.weight"])
    return y.reshape(batch, T, dim) @ p["out.weight"].T


def loss_of(p, tokens, answers):
    import jax

    block = {name.removeprefix("blocks.0."): value for name, value in p.items()}
    inner = {name.removeprefix("ttt."): value for name, value in block.items() if name.startswith("ttt.")}
    x = p["embedding.weight"][tokens]
    x = x + ttt(inner, rms_norm(x, block["norm1.weight"]))
    h = jax.nn.silu(rms_norm(x, block["norm2.weight"]) @ block["mlp.0.weight"].T + block["mlp.0.bias"])
    x = x + h @ block["mlp.2.weight"].T + block["mlp.2.bias"]
    logits = rms_norm(x[:, -answers.shape[1] :], p["norm.weight"]) @ p["head.weight"].T + p["head.bias"]
    return -jax.numpy.take_along_axis(jax.nn.log_softmax(logits), answers[..., None], -1).mean()
