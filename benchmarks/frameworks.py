"""The frameworks that ``compare.py`` measures, each behind the same few methods, so that a workload is written once.

A side has the functions of the workloads under one set of names (``relu``, ``layer_norm``, ``cross_entropy``, ...),
taken from the framework where it has them. A workload names the sides that it runs on.
``train`` gives a whole training step, ``pull`` a function and its vector-Jacobian product; both return a function
without arguments that returns native arrays. It may be called any number of times.
"""

import numpy as np

ADAM = dict(lr=1e-3, betas=(0.9, 0.999), eps=1e-8)


class Side:
    """What every framework does alike: parameters stand in a dict, a network is a function of them."""

    def __init__(self, threads):
        self.threads = threads

    def constant(self, array):
        return array

    def leaf(self, array):
        return array.copy()

    def leaves(self, arrays):
        return {name: self.leaf(array) for name, array in arrays.items()}

    def numpy(self, value):
        return np.asarray(value)

    def with_gradients(self, arrays, gradients):
        parameters = [self.leaf(array) for array in arrays]
        for p, g in zip(parameters, gradients):
            p.grad = self.constant(g)
        return parameters

    def mlp(self, weights, activation):
        """(call, parameters) of a multilayer perceptron; weights: [(W (out, in), b (out,)), ...]."""
        arrays = {f"{name}{i}": array for i, pair in enumerate(weights) for name, array in zip("Wb", pair)}
        last, function = len(weights) - 1, getattr(self, activation)

        def call(p, x):
            for i in range(last + 1):
                x = self.linear(x, p[f"W{i}"], p[f"b{i}"])
                x = x if i == last else function(x)
            return x

        return call, self.leaves(arrays)

    def linear(self, x, weight, bias):
        return x @ weight.T + bias


class Ours(Side):
    """tinygrad_ms on the CPU. fused: with its compiled kernels; compiled: the step goes through ``tg.compile``."""

    def __init__(self, threads, fused=False, compiled=False, method="newton_schulz"):
        import tinygrad_ms as tg

        tg.set_default_device("cpu")
        tg.keep_freed_memory()
        for name, value in (("set_fused", fused), ("set_num_threads", threads)):
            getattr(tg, name, lambda value: None)(value)
        self.lib, self.compiled, self.method = tg, compiled, method

    def __getattr__(self, name):
        return getattr(self.lib, name)

    def constant(self, array):
        return self.lib.tensor(array)

    def leaf(self, array):
        return self.lib.tensor(array, requires_grad=True)

    def numpy(self, value):
        return value.numpy() if isinstance(value, self.lib.Tensor) else np.asarray(value)

    def step(self, function):
        return self.lib.compile(function) if self.compiled else function

    def mlp(self, weights, activation):
        nn, parts = self.lib.nn, []
        for weight, bias in weights:
            layer = nn.Linear(*reversed(weight.shape))
            layer.weight, layer.bias = nn.Parameter(weight.copy()), nn.Parameter(bias.copy())
            parts += [layer, {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]()]
        model = nn.Sequential(*parts[:-1])
        return lambda p, x: model(x), dict(model.named_parameters())

    def train(self, loss, parameters, data, optimizer):
        name, options = optimizer
        update = getattr(self.lib.optim, name)(list(parameters.values()), **options)

        def step(*data):
            value = loss(parameters, *data)
            update.zero_grad()
            value.backward()
            update.step()
            return value

        step, data = self.step(step), [self.constant(array) for array in data]
        return lambda: step(*data)

    def pull(self, function, arrays, seed):
        leaves, seed = [self.leaf(array) for array in arrays], self.constant(seed)

        def step(seed):
            for x in leaves:
                x.grad = None
            function(*leaves).backward(seed)
            return [x.grad for x in leaves]

        step = self.step(step)
        return lambda: step(seed)

    def linear(self, x, weight, bias):
        return self.lib.linear(x, weight, bias)

    def attention(self, q, k, v, mask):
        return self.lib.softmax((q * q.shape[-1] ** -0.5) @ k.mT + mask) @ v

    def transpose(self, x, axes):
        return self.lib.permute_dims(x, axes=axes)

    def power(self, x, n):
        return x**n

    def max_pool(self, x):
        n, c, h, w = x.shape
        return x.reshape((n, c, h // 2, 2, w // 2, 2)).max(axis=(3, 5))

    def conv2d(self, x, weight, bias, padding):
        tg = self.lib
        x = tg.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding))) if padding else x
        windows = tg.sliding_window_view(x, weight.shape[2:], (2, 3))
        return tg.einsum("nchwij,kcij->nkhw", windows, weight) + bias.reshape((-1, 1, 1))

    def amax(self, x, axis):
        return self.lib.max(x, axis=axis)

    suffix = ".npz"

    def update(self, optimizer, arrays, gradients):
        """A step of the optimizer, with the gradients there already."""
        parameters = self.with_gradients(arrays, gradients)
        step = self.step(getattr(self.lib.optim, optimizer[0])(parameters, **optimizer[1]).step)

        def run():
            step()
            return parameters

        return run

    def clip(self, arrays):
        parameters = self.with_gradients(arrays, arrays)
        return lambda: self.lib.optim.clip_grad_norm(parameters, 1.0)


class Torch(Side):
    """PyTorch eager. fused: its optimizers in one kernel; msign: which way of bench_msign.py."""

    def __init__(self, threads, fused=False, msign="PyTorch svd, closed form"):
        import torch
        from torch.nn import functional

        torch.set_num_threads(threads)
        self.lib, self.functional, self.fused, self.msign = torch, functional, fused, msign

    def __getattr__(self, name):
        functional = self.functional
        return getattr(functional if hasattr(functional, name) else self.lib, name)

    def constant(self, array):
        return self.lib.tensor(array)

    def leaf(self, array):
        return self.lib.tensor(array, requires_grad=True)

    def numpy(self, value):
        return value.detach().numpy() if isinstance(value, self.lib.Tensor) else np.asarray(value)

    def mlp(self, weights, activation):
        nn, parts = self.lib.nn, []
        for weight, bias in weights:
            layer = nn.Linear(*reversed(weight.shape))
            layer.weight, layer.bias = (nn.Parameter(self.constant(array)) for array in (weight, bias))
            parts += [layer, {"relu": nn.ReLU, "tanh": nn.Tanh}[activation]()]
        model = nn.Sequential(*parts[:-1])
        return lambda p, x: model(x), dict(model.named_parameters())

    def train(self, loss, parameters, data, optimizer):
        name, options = optimizer
        options = {**options, "fused": True} if self.fused else options
        update = getattr(self.lib.optim, name)(list(parameters.values()), **options)
        data = [self.constant(array) for array in data]

        def run():
            value = loss(parameters, *data)
            update.zero_grad()
            value.backward()
            update.step()
            return value

        return run

    def pull(self, function, arrays, seed):
        leaves, seed = [self.leaf(array) for array in arrays], self.constant(seed)

        def run():
            for x in leaves:
                x.grad = None
            function(*leaves).backward(seed)
            return [x.grad for x in leaves]

        return run

    def linear(self, x, weight, bias):
        return self.functional.linear(x, weight, bias)

    def embedding(self, table, indices):
        return self.functional.embedding(indices, table)

    def mse(self, a, b):
        return self.functional.mse_loss(a, b)

    def layer_norm(self, x, weight, bias):
        return self.functional.layer_norm(x, x.shape[-1:], weight, bias)

    def rms_norm(self, x, weight):
        return self.functional.rms_norm(x, x.shape[-1:], weight, 1e-6)

    def softmax(self, x):
        return self.functional.softmax(x, -1)

    def log_softmax(self, x):
        return self.functional.log_softmax(x, -1)

    def attention(self, q, k, v, mask):
        return self.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def transpose(self, x, axes):
        return x.permute(axes)

    def power(self, x, n):
        return x**n

    def max_pool(self, x):
        return self.functional.max_pool2d(x, 2)

    def amax(self, x, axis):
        return x.amax(axis)

    suffix = ".pt"

    def jacobian(self, function, x):
        return self.lib.autograd.functional.jacobian(function, x)

    def hessian(self, function, x):
        return self.lib.autograd.functional.hessian(function, x)

    def update(self, optimizer, arrays, gradients):
        parameters = self.with_gradients(arrays, gradients)
        options = {**optimizer[1], "fused": True} if self.fused else optimizer[1]
        update = getattr(self.lib.optim, optimizer[0])(parameters, **options)

        def run():
            update.step()
            return parameters

        return run

    def clip(self, arrays):
        parameters = self.with_gradients(arrays, arrays)
        return lambda: self.lib.nn.utils.clip_grad_norm_(parameters, 1.0)


class Updates:
    """SGD with momentum, Adam and AdamW on NumPy arrays in place, for frameworks that bring no optimizer."""

    def __init__(self, parameters, optimizer):
        self.parameters, (self.name, self.options), self.count = parameters, optimizer, 0
        self.m, self.v = ([np.zeros_like(p) for p in parameters] for _ in range(2))

    def __call__(self, gradients):
        options, self.count = self.options, self.count + 1
        if self.name == "SGD":
            momentum = options.get("momentum", 0)
            for p, g, m in zip(self.parameters, gradients, self.m):
                if momentum:
                    m *= momentum
                    m += g
                    g = m
                p -= np.float32(options["lr"]) * g
            return
        (a, b), eps = options["betas"], options["eps"]
        rate, root = options["lr"] / (1 - a**self.count), (1 - b**self.count) ** 0.5
        for p, g, m, v in zip(self.parameters, gradients, self.m, self.v):
            m += (1 - a) * (g - m)
            v += (1 - b) * (g * g - v)
            p *= 1 - options["lr"] * options.get("weight_decay", 0)
            d = np.sqrt(v)
            d /= root
            d += eps
            np.divide(m, d, out=d)
            d *= rate
            p -= d


class Jax(Side):
    """JAX, everything under ``jax.jit``: the whole step is one compiled function."""

    def __init__(self, threads):
        import jax

        self.lib, self.np = jax, jax.numpy

    def __getattr__(self, name):
        for place in (self.lib.nn, self.lib.lax, self.lib.numpy):
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(name)

    def constant(self, array):
        return self.np.asarray(array)

    def leaf(self, array):
        return self.np.asarray(array)

    def train(self, loss, parameters, data, optimizer, clip=None):
        jax, xp = self.lib, self.np
        name, options = optimizer
        zeros = jax.tree.map(xp.zeros_like, parameters)

        def update(p, g, m, v, count):
            if name == "SGD":
                m = options.get("momentum", 0) * m + g
                return p - options["lr"] * m, m, v
            (a, b), eps = options["betas"], options["eps"]
            m, v = a * m + (1 - a) * g, b * v + (1 - b) * g * g
            p = p * (1 - options["lr"] * options.get("weight_decay", 0))
            d = options["lr"] / (1 - a**count) * m / (xp.sqrt(v) / xp.sqrt(1 - b**count) + eps)
            return p - d, m, v

        @jax.jit
        def step(state, *data):
            p, m, v, count = state
            value, g = jax.value_and_grad(loss)(p, *data)
            if clip:
                size = xp.sqrt(sum((x * x).sum() for x in g.values()))
                g = {k: x * xp.minimum(1, clip / (size + 1e-6)) for k, x in g.items()}
            new = {k: update(p[k], g[k], m[k], v[k], count) for k in p}
            p, m, v = ({k: item[i] for k, item in new.items()} for i in range(3))
            return (p, m, v, count + 1), value

        state, data = (parameters, zeros, zeros, xp.float32(1)), [self.constant(array) for array in data]

        def run():
            nonlocal state
            state, value = step(state, *data)
            jax.block_until_ready((state, value))
            return value

        return run

    def pull(self, function, arrays, seed):
        arrays, seed = [self.constant(array) for array in arrays], self.constant(seed)
        step = self.lib.jit(lambda arrays, seed: self.lib.vjp(function, *arrays)[1](seed))
        return lambda: self.lib.block_until_ready(step(arrays, seed))

    def embedding(self, table, indices):
        return table[indices]

    def mse(self, a, b):
        return ((a - b) ** 2).mean()

    def cross_entropy(self, logits, labels):
        return -self.np.take_along_axis(self.lib.nn.log_softmax(logits), labels[..., None], -1).mean()

    def gelu(self, x, approximate="none"):
        return self.lib.nn.gelu(x, approximate=approximate == "tanh")

    def layer_norm(self, x, weight, bias):
        c = x - x.mean(-1, keepdims=True)
        return c * self.lib.lax.rsqrt((c * c).mean(-1, keepdims=True) + 1e-5) * weight + bias

    def rms_norm(self, x, weight):
        return x * self.lib.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight

    def attention(self, q, k, v, mask):
        return self.lib.nn.softmax((q * q.shape[-1] ** -0.5) @ k.mT + mask) @ v

    def transpose(self, x, axes):
        return x.transpose(axes)

    def power(self, x, n):
        return x**n

    def conv2d(self, x, weight, bias, padding):
        y = self.lib.lax.conv(x, weight, (1, 1), "SAME" if padding else "VALID")
        return y + bias[:, None, None]

    def max_pool(self, x):
        n, c, h, w = x.shape
        return x.reshape((n, c, h // 2, 2, w // 2, 2)).max(axis=(3, 5))


class MyGrad(Side):
    """mygrad; the optimizers are NumPy's (``Updates``)."""

    def __init__(self, threads):
        import mygrad

        self.lib = mygrad

    def __getattr__(self, name):
        for place in (self.lib, self.lib.nnet.activations, self.lib.nnet.losses):
            if hasattr(place, name):
                return getattr(place, name)
        raise AttributeError(name)

    def leaf(self, array):
        return self.lib.tensor(array)

    def numpy(self, value):
        return np.asarray(getattr(value, "data", value))

    def train(self, loss, parameters, data, optimizer):
        leaves = list(parameters.values())
        update = Updates([p.data for p in leaves], optimizer)

        def run():
            value = loss(parameters, *data)
            value.backward()
            update([p.grad for p in leaves])
            return value

        return run

    def pull(self, function, arrays, seed):
        leaves = [self.leaf(array) for array in arrays]

        def run():
            function(*leaves).backward(seed)
            gradients = [x.grad for x in leaves]
            for x in leaves:
                x.null_grad()
            return gradients

        return run

    def cross_entropy(self, logits, labels):
        return self.lib.nnet.losses.softmax_crossentropy(logits, labels)

    def mse(self, a, b):
        return ((a - b) ** 2).mean()

    def power(self, x, n):
        return x**n


class Autograd(Side):
    """HIPS autograd; the optimizers are NumPy's (``Updates``)."""

    def __init__(self, threads):
        import autograd

        self.lib, self.np = autograd, autograd.numpy

    def __getattr__(self, name):
        return getattr(self.np, name)

    def train(self, loss, parameters, data, optimizer):
        gradient = self.lib.value_and_grad(loss)
        update = Updates(list(parameters.values()), optimizer)

        def run():
            value, g = gradient(parameters, *data)
            update([g[name] for name in parameters])
            return value

        return run

    def pull(self, function, arrays, seed):
        pull = self.lib.make_vjp(lambda arrays: function(*arrays))
        return lambda: pull(tuple(arrays))[0](seed)

    def relu(self, x):
        return self.np.maximum(x, 0)

    def cross_entropy(self, logits, labels):
        z = logits - self.np.max(logits, axis=-1, keepdims=True)
        z = z - self.np.log(self.np.sum(self.np.exp(z), axis=-1, keepdims=True))
        return -self.np.mean(z[self.np.arange(len(labels)), labels])

    def mse(self, a, b):
        return self.np.mean((a - b) ** 2)

    def power(self, x, n):
        return x**n
