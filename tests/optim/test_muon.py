"""Muon: against the formula with an exact SVD, AdamW for the rest, saved states, no synchronisation, every error."""

import copy
import pickle
from math import sqrt

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.data import DataLoader, load_digits, train_test_split
from tinygrad_ms.nn import Parameter
from tinygrad_ms.ops.matrix_sign.msign import METHODS

SHAPES = [(6, 4), (4, 6), (5, 5), (2, 4, 3)]


def polar_factor(D):
    u, _, vt = np.linalg.svd(D, full_matrices=False)
    return u @ vt


def start(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape) for shape in SHAPES]


def gradients(values, t):
    return [np.sin(3 * v + t) + 0.5 * v for v in values]


def run(optimizer, params, first, last):
    for t in range(first, last):
        for p, g in zip(params, gradients([p.numpy() for p in params], t)):
            p.grad = tg.tensor(g.astype(p.dtype), device=p.device)
        optimizer.step()


SCALES = {
    "spectral": lambda n, m: sqrt(max(1, n / m)),
    "rms": lambda n, m: 0.2 * sqrt(max(n, m)),
    "none": lambda n, m: 1,
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_steps_equal_the_formula_with_an_exact_polar_factor(scale, nesterov, method):
    params = [Parameter(v) for v in start()]
    optimizer = optim.Muon(
        params, lr=0.05, momentum=0.8, nesterov=nesterov, weight_decay=0.1, scale=scale, method=method, steps=12
    )
    values = start()
    buffers = [0 * v for v in values]
    for t in range(10):
        run(optimizer, params, t, t + 1)
        for i, g in enumerate(gradients(values, t)):
            buffers[i] = 0.8 * buffers[i] + g
            D = g + 0.8 * buffers[i] if nesterov else buffers[i]
            step = SCALES[scale](*g.shape[-2:]) * polar_factor(D)
            values[i] = values[i] * (1 - 0.05 * 0.1) - 0.05 * step
    for p, v in zip(params, values):
        np.testing.assert_allclose(p.numpy(), v, rtol=1e-9, atol=1e-9)


def test_a_step_has_the_size_that_its_scale_promises():
    rng = np.random.default_rng(1)
    for shape in [(64, 16), (16, 64)]:
        for scale, size in (
            ("spectral", lambda step: np.linalg.norm(step, 2)),
            ("rms", lambda step: np.sqrt((step**2).mean())),
        ):
            p = Parameter(np.zeros(shape))
            optimizer = optim.Muon([p], lr=1.0, scale=scale)
            p.grad = tg.tensor(rng.normal(size=shape))
            optimizer.step()
            expected = sqrt(max(1, shape[0] / shape[1])) if scale == "spectral" else 0.2
            np.testing.assert_allclose(size(p.numpy()), expected, rtol=1e-5)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", ["float64", "float16"])
@pytest.mark.parametrize("shape", [(32, 8), (8, 32), (3, 8, 32)])
def test_a_weight_that_is_stored_transposed_takes_the_step_of_its_transpose(scale, dtype, shape):
    """x @ W with W (in, out) and x @ V.mT with V (out, in) are one map and train alike."""
    rng = np.random.default_rng(4)
    values, x = rng.normal(size=shape), rng.normal(size=(*shape[:-2], 5, shape[-2]))
    w = nn.TransposedParameter(values, dtype)
    v = Parameter(np.swapaxes(values, -1, -2), dtype)
    for p, product in ((w, lambda x: x @ w), (v, lambda x: x @ v.mT)):
        optimizer = optim.Muon([p], lr=0.1, scale=scale, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (product(tg.tensor(x.astype(dtype))) ** 2).mean().backward()
            optimizer.step()
    rtol = 1e-9 if dtype == "float64" else 2e-2
    np.testing.assert_allclose(w.mT.numpy(), v.numpy(), rtol=rtol, atol=rtol)
    moved = np.linalg.norm(np.float64(v.numpy()) - np.swapaxes(values, -1, -2))
    assert moved > 0.1


def test_the_fast_weights_of_a_layer_say_which_is_stored_transposed():
    """W1 of the SwiGLU network is stored (hidden, d) and maps hidden numbers to d."""
    layer = nn.TTTMuon(8, hidden=32, rng=0)
    for model in (layer, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert [p.transposed for p in model.cell.weights] == [False, True, False]
        before = [p.numpy().copy() for p in model.cell.weights]
        optimizer = optim.Muon(model.cell.weights, lr=0.5)
        for p in model.cell.weights:
            p.grad = tg.tensor(np.random.default_rng(5).normal(size=p.shape).astype("float32"))
        optimizer.step()
        sizes = [np.linalg.norm(p.numpy()[0] - b[0], 2) for p, b in zip(model.cell.weights, before)]
        np.testing.assert_allclose(sizes, [1.0, 0.5, 1.0], rtol=1e-4)  # lr sqrt(max(1, out / in))


def test_five_steps_of_the_original_coefficients_stay_between_their_bounds():
    p = Parameter(np.zeros((8, 8)))
    p.grad = tg.tensor(np.random.default_rng(2).normal(size=(8, 8)))
    optim.Muon([p], lr=1.0, steps=5, coefficients="muon").step()
    values = np.linalg.svd(p.numpy(), compute_uv=False)
    assert 0.6 < values.min() < values.max() < 1.3 and np.ptp(values) > 0.01


def test_parameters_that_are_no_matrices_take_the_steps_of_adamw():
    rng = np.random.default_rng(3)
    values = [rng.normal(size=(4, 3)), rng.normal(size=4), rng.normal(size=())]
    ours, theirs = ([Parameter(v) for v in values] for _ in range(2))
    muon = optim.Muon(ours, lr=0.1, adamw_lr=0.02, betas=(0.8, 0.9), weight_decay=0.1)
    adamw = optim.AdamW(theirs[1:], lr=0.02, betas=(0.8, 0.9), weight_decay=0.1)
    run(muon, ours, 0, 5)
    run(adamw, theirs[1:], 0, 5)
    # ``run`` draws gradients from the values alone, so those of equal parameters are equal
    for p, q in zip(ours[1:], theirs[1:]):
        np.testing.assert_array_equal(p.numpy(), q.numpy())
    assert [group["muon"] for group in muon.param_groups] == [True, False]
    assert [group["lr"] for group in muon.param_groups] == [0.1, 0.02]


def test_a_group_can_send_matrices_to_adamw():
    table, weight = Parameter(np.ones((5, 3))), Parameter(np.ones((3, 3)))
    optimizer = optim.Muon([{"params": [weight]}, {"params": [table], "muon": False, "lr": 0.5}])
    for p in (table, weight):
        p.grad = tg.tensor(np.ones(p.shape))
    optimizer.step()
    np.testing.assert_allclose(table.numpy(), 0.5, atol=1e-6)
    assert set(optimizer.state[weight]) == {"step", "momentum_buffer"}
    assert set(optimizer.state[table]) == {"step", "exp_avg", "exp_avg_sq"}


def test_a_run_stopped_and_resumed_is_the_same_bit_for_bit(tmp_path):
    values = [v.astype("float32") for v in start()] + [np.ones(3, "float32")]
    options = dict(lr=0.05, weight_decay=0.1, coefficients="polar_express")
    straight = [Parameter(v) for v in values]
    run(optim.Muon(straight, **options), straight, 0, 20)

    first = [Parameter(v) for v in values]
    optimizer = optim.Muon(first, **options)
    run(optimizer, first, 0, 10)
    tg.save(tmp_path / "state.npz", optimizer.state_dict())

    second = [Parameter(p) for p in first]
    optimizer = optim.Muon(second)
    optimizer.load_state_dict(tg.load(tmp_path / "state.npz"))
    run(optimizer, second, 10, 20)
    for p, q in zip(second, straight):
        assert np.array_equal(p.numpy(), q.numpy())


def test_a_zero_gradient_moves_nothing_and_a_schedule_moves_both_rates():
    p, b = Parameter(np.ones((3, 3))), Parameter(np.ones(3))
    optimizer = optim.Muon([p, b], lr=0.1, adamw_lr=0.01)
    schedule = optim.StepLR(optimizer, step_size=1, gamma=0.5)
    for q in (p, b):
        q.grad = tg.tensor(np.zeros(q.shape))
    optimizer.step()
    schedule.step()
    np.testing.assert_array_equal(p.numpy(), 1.0)
    np.testing.assert_allclose([group["lr"] for group in optimizer.param_groups], [0.05, 0.005])


def test_a_step_needs_no_synchronisation():
    params = [Parameter(v.astype("float32"), device="strict") for v in start()] + [Parameter([1.0], device="strict")]
    for p in params:
        p.grad = p.detach() * 2
    optimizer = optim.Muon(params)
    with tg.testing.forbid_sync():
        optimizer.step()
    expected = [Parameter(v.astype("float32")) for v in start()]
    for p in expected:
        p.grad = p.detach() * 2
    optim.Muon(expected).step()
    for p, q in zip(params, expected):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(lr=-1), "lr is -1, expected at least 0"),
        (dict(momentum=1.0), "momentum is 1.0, expected at least 0 and below 1"),
        (dict(scale="big"), "scale is big, expected 'spectral' or 'rms' or 'none'"),
        (dict(method="qr"), "method is qr, expected 'newton_schulz' or 'svd'"),
        (dict(steps=0), "steps=0: expected a positive integer"),
        (dict(coefficients="x"), "coefficients='x' is unknown"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optim.Muon([Parameter(np.ones((2, 2)))], **options)


def test_a_vector_is_no_matrix():
    with pytest.raises(ValueError, match=r"has shape \(3,\), which is no matrix"):
        optim.Muon([{"params": [Parameter(np.ones(3))], "muon": True}])
    with pytest.raises(ValueError, match="the list of parameters of group 0 is empty"):
        optim.Muon([{"params": []}])
    with pytest.raises(TypeError, match="a group is a dict"):
        optim.Muon([Parameter(np.ones((2, 2)))]).add_param_group([1])


def accuracy_curve(make, epochs=6):
    """Test accuracy on digits after each epoch: the MLP of the example, without dropout."""
    dataset = load_digits()
    x, x_test, y, y_test = train_test_split(dataset.features(), dataset.labels, test_fraction=0.2, seed=0)
    rng = np.random.default_rng(0)
    model = nn.Sequential(nn.Linear(64, 256, rng=rng), nn.ReLU(), nn.Linear(256, 10, rng=rng))
    optimizer = make(model)
    loader = DataLoader(x, y, batch_size=64, shuffle=True, seed=0)
    curve = []
    for _ in range(epochs):
        for xb, yb in loader:
            optimizer.zero_grad()
            tg.softmax_cross_entropy(model(xb), yb).backward()
            optimizer.step()
        with tg.no_grad():
            curve.append((model(tg.tensor(x_test)).numpy().argmax(axis=1) == y_test).mean())
    return np.array(curve)


def test_muon_reaches_the_accuracy_of_adamw_on_digits_in_fewer_steps():
    adamw = accuracy_curve(lambda model: optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05))
    muon = accuracy_curve(lambda model: optim.Muon(model.parameters(), lr=0.02, adamw_lr=2e-3, weight_decay=0.05))
    first = int(np.argmax(muon >= adamw.max()))
    assert muon.max() >= adamw.max() and first < int(np.argmax(adamw)), (adamw, muon)
