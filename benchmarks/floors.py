"""The floors of ``compare.py``: steps that a person wrote out in NumPy, and the matrix products of a step alone.

A step by hand has no tape and no checks, and its results are compared with ours. The products run on buffers that are
there already, through ``numpy.matmul``: what the BLAS of NumPy needs for them and nothing else.
"""

import numpy as np
from frameworks import Updates
from workloads import GPT, IMAGES, MLPS, SHAPES, TWENTY, UPDATES, normal, with_gradients

BY_HAND, PRODUCTS = {}, {}  # by the name of the workload


# --- by hand ------------------------------------------------------------------------------------------------


def mlp_by_hand(net):
    weights, (x, target) = net.weights(), net.data()
    update = Updates([array for pair in weights for array in pair], net.optimizer)
    slope = {"relu": lambda y: y > 0, "tanh": lambda y: 1 - y * y}[net.activation]
    rows = np.arange(net.batch)

    def activate(z):
        return np.tanh(z, out=z) if net.activation == "tanh" else np.maximum(z, 0, out=z)

    def run():
        layers = [x]
        for i, (W, b) in enumerate(weights):
            z = layers[-1] @ W.T
            z += b
            layers.append(z if i + 1 == len(weights) else activate(z))
        g = layers.pop()
        if net.loss == "mse":
            g -= target
            loss = (g * g).mean()
            g *= 2 / g.size
        else:
            g -= g.max(axis=1, keepdims=True)
            picked = g[rows, target]
            np.exp(g, out=g)
            total = g.sum(axis=1, keepdims=True)
            loss = (np.log(total[:, 0]) - picked).mean()
            g /= total
            g[rows, target] -= 1
            g /= net.batch
        found = []
        for i in reversed(range(len(weights))):
            found += [g.sum(axis=0), g.T @ layers[i]]
            if i:
                g = g @ weights[i][0]
                g *= slope(layers[i])
        update(found[::-1])
        return loss

    return run


for _name, _net in MLPS.items():
    BY_HAND[_name] = lambda net=_net: mlp_by_hand(net)


def twenty_by_hand():
    x, y = normal(TWENTY, seed=1), normal(TWENTY, seed=2)

    def run():
        a = x * y
        b = a + x
        c = np.tanh(b)
        d = c * c
        e = np.exp(-d)
        u = e * y
        h = np.sin(u) + c
        q = np.cos(h * np.float32(0.5))
        k = q * a
        m = k - b
        r = np.sqrt(m * m + 1)
        n = r + e
        log = np.log(n)
        (log * d - k).sum()
        gn = d / n
        gm = gn * m / r
        gk = gm - 1
        gh = np.sin(h * np.float32(0.5))
        gh *= a
        gh *= gk
        gh *= np.float32(-0.5)
        gu = gh * np.cos(u)
        ge = gu * y + gn
        gd = log - ge * e
        gc = gh + 2 * gd * c
        gb = gc * (1 - d) - gm
        ga = gk * q + gb
        return ga * y + gb, ga * x + gu * e

    return run


BY_HAND["twenty"] = twenty_by_hand


def update_by_hand(optimizer, count, n):
    arrays, gradients = with_gradients(count, n)
    update = Updates(arrays, optimizer)

    def run():
        update(gradients)
        return arrays

    return run


for _name, _case in UPDATES.items():
    BY_HAND[_name] = lambda case=_case: update_by_hand(*case)


# --- the products alone -------------------------------------------------------------------------------------


def layer(rows, inner, columns, batch=1, inputs=True):
    """(rows, inner) (inner, columns), and the products of its two gradients; ``inputs``: also that of the left one."""
    shapes = [(batch, rows, inner, columns), (batch, inner, rows, columns)]
    return [*shapes, (batch, rows, columns, inner)] if inputs else shapes


def products(shapes):
    """A function that runs the products of ``shapes``, (batch, n, k, m) each."""
    random, buffers = np.random.default_rng(0), {}

    def buffer(*shape):
        if shape not in buffers:
            buffers[shape] = random.standard_normal(shape, dtype="float32")
        return buffers[shape]

    calls = []
    for batch, n, k, m in shapes:
        lead = (batch,) if batch > 1 else ()
        calls.append((buffer(*lead, n, k), buffer(*lead, k, m), np.empty((*lead, n, m), "float32")))

    def run():
        for a, b, out in calls:
            np.matmul(a, b, out=out)

    return run


def mlp_products(net):
    pairs = zip(net.sizes, net.sizes[1:])
    return products([s for i, (n, m) in enumerate(pairs) for s in layer(net.batch, n, m, inputs=i > 0)])


def gpt_products():
    net = GPT()
    rows, d, width = net.batch * net.places, net.width, net.width // net.heads
    block = [shape for n, m in ((d, 3 * d), (d, d), (d, 4 * d), (4 * d, d)) for shape in layer(rows, n, m)]
    attention = [(net.places, width, net.places), (net.places, net.places, width)]
    block += [shape for sizes in attention for shape in layer(*sizes, batch=net.batch * net.heads)]
    return products(block * net.layers + layer(rows, d, net.tokens))


def lenet_products():
    n = IMAGES
    convolutions = layer(n * 28 * 28, 25, 6, inputs=False) + layer(n * 10 * 10, 150, 16)
    return products(convolutions + layer(n, 400, 120) + layer(n, 120, 84) + layer(n, 84, 10))


def ttt_products():
    """Of the model in bench_ttt_muon.py: batch 32, 128 tokens in four chunks, width 64, two heads of 32."""
    import bench_ttt_muon as bench

    tokens, answers = bench.batch()
    batch, T = tokens.shape
    model = bench.Ours(msign="ns5").model
    shapes = {name: p.shape for name, p in model.named_parameters()}
    found = []
    for name, shape in shapes.items():
        if name.endswith("weight") and len(shape) == 2 and "embedding" not in name:
            found += layer(answers.size if name == "head.weight" else batch * T, *shape[::-1])
    heads, hidden, d = shapes["blocks.0.ttt.cell.weights.0"]
    count, chunks = batch * heads, T // bench.CHUNK
    for chunk in range(chunks):
        found += [s for _ in range(3) for s in layer(bench.CHUNK, d, hidden, count)]
        if chunk + 1 < chunks:
            found += [s for _ in range(3) for s in layer(bench.CHUNK, d, hidden, count)]
            found += [s for _ in range(3) for s in layer(hidden, bench.CHUNK, d, count)]
            found += [s for _ in range(5 * 3) for s in layer(d, d, d, 3 * count)]
    return products(found)


def msign_products(shape):
    import bench_msign

    return bench_msign.products(normal(*shape, seed=1), 8)


for _name, _net in MLPS.items():
    PRODUCTS[_name] = lambda net=_net: mlp_products(net)
PRODUCTS |= {"GPT": gpt_products, "LeNet": lenet_products, "TTT unrolled": ttt_products}
for _shape in SHAPES:
    PRODUCTS[f"msign {' x '.join(map(str, _shape))}"] = lambda shape=_shape: msign_products(shape)
