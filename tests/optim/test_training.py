"""Whole training runs: modules, loss, optimizer, schedule, loader and checkpoint together."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.data import DataLoader, load_digits, train_test_split
from tinygrad_ms.engine.tape import Leaf


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def mlp(device=None, dtype="float32"):
    """Every kind of layer in a few; the numbers come from seeds."""
    options = dict(device=device, dtype=dtype)
    return nn.Sequential(
        nn.Linear(6, 16, rng=0, **options), nn.LayerNorm(16, **options), nn.GELU(), nn.Dropout(0.2, rng=1),
        nn.Linear(16, 8, rng=2, **options), nn.RMSNorm(8, **options), nn.Tanh(), nn.Linear(8, 3, rng=3, **options),
    )  # fmt: skip


def data(rows=64):
    x = normal(rows, 6).astype("float32")
    return x, (x[:, :3] * x[:, 3:]).argmax(1)


class Run:
    """A training run with everything that has a state."""

    def __init__(self, device="cpu", optimizer=optim.AdamW):
        self.model = mlp(device)
        self.optimizer = optimizer(self.model.parameters(), lr=0.02)
        self.schedule = optim.CosineLR(self.optimizer, 20, warmup_steps=4)
        self.loader = DataLoader(*data(), batch_size=10, shuffle=True, seed=5, device=device)
        self.losses = []

    def parts(self):
        return {name: getattr(self, name) for name in ("model", "optimizer", "schedule", "loader")}

    def train(self, steps):
        while True:
            for x, y in self.loader:
                if steps == 0:
                    return self
                steps -= 1
                self.optimizer.zero_grad()
                loss = tg.softmax_cross_entropy(self.model(x), y)
                loss.backward()
                optim.clip_grad_norm(self.model.parameters(), 1.0)
                self.optimizer.step()
                self.schedule.step()
                self.losses.append(loss)
                if steps == 0:
                    return self


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("optimizer", [optim.SGD, optim.Adam, optim.AdamW])
def test_a_run_stopped_and_resumed_equals_one_that_was_not_bit_for_bit(tmp_path, optimizer, suffix):
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    straight = Run(optimizer=optimizer).train(20)
    first = Run(optimizer=optimizer).train(10)  # stops within an epoch of 7 batches
    tg.save(tmp_path / f"run{suffix}", {name: part.state_dict() for name, part in first.parts().items()})

    resumed = Run(optimizer=optimizer)
    for p in resumed.model.parameters():
        p.data[...] = 9.0
    state = tg.load(tmp_path / f"run{suffix}")
    for name, part in resumed.parts().items():
        part.load_state_dict(state[name])
    resumed.train(10)
    assert [float(x) for x in straight.losses] == [float(x) for x in first.losses + resumed.losses]
    for p, q in zip(straight.model.parameters(), resumed.model.parameters()):
        assert np.array_equal(p.numpy(), q.numpy())
    assert straight.schedule.state_dict() == resumed.schedule.state_dict()


def test_a_device_trains_as_numpy_does(device):
    ours, host = Run(device), Run()
    for run in (ours, host):  # a device draws its own masks
        run.model[3].p = 0.0
    host.train(10)
    ours.train(10)
    np.testing.assert_allclose([float(x) for x in ours.losses], [float(x) for x in host.losses], rtol=2e-4)
    for p, q in zip(ours.model.parameters(), host.model.parameters()):
        assert p.device == device
        np.testing.assert_allclose(p.numpy(), q.numpy(), atol=2e-3)


def test_a_training_step_on_the_strict_device_waits_for_nothing():
    model = mlp("strict")
    optimizer = optim.AdamW(model.parameters())
    x, target = (tg.tensor(normal(8, n).astype("float32"), device="strict") for n in (6, 3))
    with tg.testing.forbid_sync():
        for _ in range(3):
            optimizer.zero_grad()
            tg.mse(model(x), target).backward()
            optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
    assert np.isfinite(model.state_dict()["0.weight"]).all()


def test_digits_are_learnt():
    dataset = load_digits()
    x, x_test, y, y_test = train_test_split(dataset.features(), dataset.labels, seed=0)
    model = nn.Sequential(nn.Linear(64, 64, rng=0), nn.ReLU(), nn.Linear(64, 10, rng=1))
    optimizer = optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(12):
        for images, labels in DataLoader(x, y, batch_size=64, shuffle=True):
            optimizer.zero_grad()
            tg.softmax_cross_entropy(model(images), labels).backward()
            optimizer.step()
    with tg.no_grad():
        accuracy = (model(tg.tensor(x_test)).numpy().argmax(1) == y_test).mean()
    assert accuracy > 0.95


@pytest.mark.slow
def test_training_needs_no_garbage_collector():
    model = nn.Sequential(
        nn.Linear(6, 16, rng=0), nn.LayerNorm(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3, rng=1)
    )
    optimizer = optim.AdamW(model.parameters())
    x, y = data(16)
    x, y = tg.tensor(x), tg.tensor(y)

    def steps(count):
        for _ in range(count):
            optimizer.zero_grad()
            tg.softmax_cross_entropy(model(x), y).backward()
            optimizer.step()

    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        steps(20)
        for size in range(1, 20):  # Python keeps up to 2,000 free tuples of each size: those lists are full now
            _ = [tuple(range(size)) for _ in range(2100)]
        before = tracemalloc.get_traced_memory()[0]
        steps(1000)
        grown = tracemalloc.get_traced_memory()[0] - before
        assert grown < 50_000  # less than an array of one element a step
        found = [gc.collect()]
        for _ in range(2):  # a cycle that a step makes is found each time, what another thread leaves is not
            steps(100)
            found.append(gc.collect())
        assert min(found) == 0
        loss = tg.softmax_cross_entropy(model(x), y)
        nodes = [weakref.ref(node) for node in loss.tape() if not isinstance(node, Leaf)]
        assert len(nodes) > 5 and all(node() for node in nodes)
        del loss
        assert not any(node() for node in nodes)
    finally:
        tracemalloc.stop()
        gc.enable()


# --- derivatives through modules ----------------------------------------------------------------------------


def functional(model, x):
    names = [name for name, _ in model.named_parameters()]

    def f(*parameters):
        return nn.functional_call(model, dict(zip(names, parameters)), x)

    return f, tuple(model.parameters())


def test_derivatives_by_every_parameter_to_second_order_and_in_forward_mode():
    model = nn.Sequential(
        nn.Linear(3, 4, rng=0, dtype="float64"), nn.LayerNorm(4, dtype="float64"), nn.SiLU(),
        nn.RMSNorm(4, dtype="float64"), nn.Linear(4, 2, rng=1, dtype="float64"), nn.LogSoftmax(),
    )  # fmt: skip
    f, parameters = functional(model, tg.tensor(normal(2, 3)))
    assert tg.testing.gradcheck(f, parameters)
    assert tg.testing.gradgradcheck(f, parameters)
    assert tg.testing.check_jvp(f, parameters)


def test_a_module_is_a_function_of_its_parameters_for_the_transforms():
    model = mlp(dtype="float64").eval()
    x = tg.tensor(normal(5, 6))
    own = dict(model.named_parameters())
    gradients = tg.grad(lambda p: (nn.functional_call(model, p, x) ** 2).sum())(own)
    (model(x) ** 2).sum().backward()
    for name, p in own.items():
        np.testing.assert_allclose(gradients[name].numpy(), p.grad.numpy(), rtol=1e-12)
        assert p.is_leaf and p.requires_grad and p.name == name


def test_parameters_that_are_computed_get_their_gradient():
    layer = nn.Linear(3, 2, rng=0, dtype="float64")
    scale = tg.tensor(2.0, dtype="float64", requires_grad=True)
    x, before = tg.tensor(normal(4, 3)), layer.weight.data
    y = nn.functional_call(layer, {"weight": layer.weight * scale}, x).sum()
    y.backward()
    assert float(scale.grad) == pytest.approx(float((x @ layer.weight.T).sum()))
    assert layer.weight.data is before
    for values, message in [
        ({"weights": layer.weight}, "functional_call: Linear has no parameter 'weights'"),
        ({"bias": tg.tensor([1.0])}, r"functional_call: bias is \(1,\), expected a Tensor of shape \(2,\)"),
        ({"bias": 1.0}, "functional_call: bias is float, expected a Tensor"),
    ]:
        with pytest.raises(ValueError, match=message):
            nn.functional_call(layer, values, x)


def test_a_gradient_penalty_trains_through_the_gradient():
    """Minimise |dy/dx|^2: needs the mixed second derivative of a whole model."""
    model = mlp(dtype="float64").eval()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    x = tg.tensor(normal(16, 6), requires_grad=True)
    penalties = []
    for _ in range(20):
        optimizer.zero_grad()
        x.grad = None
        model(x).sum().backward(create_graph=True)
        penalty = (x.grad**2).sum()
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
        penalties.append(float(penalty))
    assert penalties[-1] < 0.3 * penalties[0]


# --- PyTorch ------------------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_a_run_equals_the_same_one_in_pytorch():
    torch = pytest.importorskip("torch")
    model = nn.Sequential(
        nn.Linear(6, 16, rng=0, dtype="float64"), nn.LayerNorm(16, dtype="float64"), nn.GELU(),
        nn.Linear(16, 3, rng=1, dtype="float64"),
    )  # fmt: skip
    peer = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.Linear(16, 3))
    peer = peer.double()
    peer.load_state_dict({name: torch.tensor(value) for name, value in model.state_dict().items()})
    optimizer = optim.AdamW(model.parameters(), lr=0.02, weight_decay=0.05)
    theirs = torch.optim.AdamW(peer.parameters(), lr=0.02, weight_decay=0.05)
    schedule, decay = optim.StepLR(optimizer, 7), torch.optim.lr_scheduler.StepLR(theirs, 7)
    x, y = data(32)
    for _ in range(20):
        optimizer.zero_grad()
        tg.softmax_cross_entropy(model(tg.tensor(x.astype("float64"))), tg.tensor(y)).backward()
        optim.clip_grad_norm(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        theirs.zero_grad()
        torch.nn.functional.cross_entropy(peer(torch.tensor(x).double()), torch.tensor(y)).backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), 0.5)
        theirs.step()
        decay.step()
    for (name, p), q in zip(model.named_parameters(), peer.parameters()):
        np.testing.assert_allclose(p.numpy(), q.detach().numpy(), rtol=1e-6, atol=1e-8, err_msg=name)
