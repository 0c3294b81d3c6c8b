"""TTT-Muon: against the written formulas, the framework's own inner gradient, central differences; recurrent use."""

import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.data import MQAR
from tinygrad_ms.nn.ttt_muon import FAST_NETWORKS, smooth_table
from tinygrad_ms.ops.iterations.coefficients import odd_quintic
from tinygrad_ms.testing import gradcheck

VARIANTS = {
    "muon": dict(),
    "plain": dict(update="plain"),
    "frozen": dict(update="frozen"),
    "pure": dict(msign="pure"),
    "ns5": dict(msign="ns5"),
    "linear": dict(fast="linear"),
    "wide": dict(hidden=7),
    "narrow": dict(hidden=3),
    "no momentum, no norms": dict(momentum=False, weight_norm=False, inner_step=1.0),
}
variants = pytest.mark.parametrize("variant", VARIANTS)


def layer(variant="muon", dim=8, heads=2, chunk=4, dtype="float64", **options):
    return nn.TTTMuon(dim, heads, chunk=chunk, rng=0, dtype=dtype, **VARIANTS[variant], **options)


def sequences(batch=3, T=11, dim=8, dtype="float64", device=None, seed=1):
    return tg.tensor(np.random.default_rng(seed).normal(size=(batch, T, dim)).astype(dtype), device=device)


# --- the formulas, token by token ------------------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def smooth_msign(M, eps):
    u, s, vt = np.linalg.svd(M, full_matrices=False)
    return u * (s / np.sqrt(s**2 + (eps * np.linalg.norm(M)) ** 2)) @ vt


def written_out(module, x, update="muon", gamma=0.3):
    """Section 1 of the specification for SwiGLU fast weights, one sequence, head and token at a time."""
    p = {name: value.numpy() for name, value in module.named_parameters()}
    d, C = module.dim // module.heads, module.chunk
    outputs = np.zeros(x.shape)
    for b, sequence in enumerate(x):
        before = np.concatenate([np.zeros((2, module.dim)), sequence])
        z = before[2:] * p["taps"][0] + before[1:-1] * p["taps"][1] + before[:-2] * p["taps"][2]
        q, k, v = np.split(silu(z @ p["qkv.weight"].T), 3, axis=1)
        eta = np.log1p(np.exp(z @ p["rates.weight"].T + p["rates.bias"] + np.log(np.expm1(module.base_lr))))
        beta = sigmoid(z @ p["beta.weight"].T + p["beta.bias"])
        for h in range(module.heads):
            W0, W1, W2 = (p[f"cell.weights.{i}"][h] for i in range(3))
            W1 = W1.T
            norms = [np.linalg.norm(W, axis=1, keepdims=True) for W in (W0, W1, W2)]
            m = [0 * W0, 0 * W1, 0 * W2]
            for start in range(0, len(z), C):
                here = range(start, min(start + C, len(z)))
                D = [0 * W0, 0 * W1, 0 * W2]
                for i in here:
                    qi, ki, vi = (part[i, h * d : (h + 1) * d] for part in (q, k, v))
                    qi, ki = (part / np.sqrt(part @ part + 1e-6) for part in (qi, ki))
                    outputs[b, i, h * d : (h + 1) * d] = W1 @ (silu(W0 @ qi) * (W2 @ qi))
                    g, u = W0 @ ki, W2 @ ki
                    a, slope = silu(g), sigmoid(g) * (1 + g * (1 - sigmoid(g)))
                    dh = W1.T @ vi
                    e0, e1, e2 = eta[i, 3 * h : 3 * h + 3]
                    D[0] += np.outer(dh * u * slope, e0 * ki)
                    D[1] += np.outer(vi, e1 * a * u)
                    D[2] += np.outer(dh * a, e2 * ki)
                m = [Di + beta[here, h].mean() * mi for Di, mi in zip(D, m)]
                step = m if update == "plain" else [gamma * smooth_msign(mi, 1e-2) for mi in m]
                W0, W1, W2 = (W + s for W, s in zip((W0, W1, W2), step))
                W0, W1, W2 = (W * n / np.linalg.norm(W, axis=1, keepdims=True) for W, n in zip((W0, W1, W2), norms))
    heads = outputs.reshape(*outputs.shape[:2], module.heads, d)
    heads = heads / np.sqrt((heads**2).mean(axis=-1, keepdims=True) + 1e-6) * p["norm.weight"]
    return heads.reshape(outputs.shape) @ p["out.weight"].T


@pytest.mark.parametrize("update, hidden", [("muon", 4), ("muon", 6), ("plain", 4)])
def test_the_layer_computes_the_formulas_of_its_specification(update, hidden):
    module = layer(update=update, hidden=hidden)
    x = sequences()
    np.testing.assert_allclose(module(x).numpy(), written_out(module, x.numpy(), update), rtol=1e-5, atol=1e-7)


# --- the inner gradient ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fast", FAST_NETWORKS)
def test_the_closed_inner_gradient_is_that_of_the_framework_and_so_is_its_derivative(fast):
    network, rng = FAST_NETWORKS[fast], np.random.default_rng(0)
    weights = [tg.tensor(w, requires_grad=True) for w in network.initial(2, 3, 5, rng, "float64")]
    k, v, rates = (tg.tensor(rng.normal(size=(4, 2, 6, n)), requires_grad=True) for n in (3, 3, network.matrices))
    weights = [(w * tg.tensor(rng.normal(size=(4, 1, 1, 1)))).detach() for w in weights]
    for w in weights:
        w.requires_grad = True

    def by_the_framework(*weights):
        """One loss per matrix, each with its own rates."""
        scores = network.apply(weights, k) * v
        gradients = []
        for i in range(network.matrices):
            loss = (scores * rates[..., i : i + 1]).sum()
            gradients.append(tg.gradients(loss, list(weights), create_graph=True))
        return tg.stack([gradients[i][i] for i in range(network.matrices)])

    closed, found = tg.stack(network.score_gradient(weights, k, v, rates)), by_the_framework(*weights)
    np.testing.assert_allclose(closed.numpy(), found.numpy(), rtol=1e-12, atol=1e-12)
    cotangent = tg.tensor(rng.normal(size=closed.shape))
    inputs = [k, v, rates] if fast == "linear" else [*weights, k, v, rates]
    for ours, theirs in zip(*(tg.gradients((y * cotangent).sum(), inputs) for y in (closed, found))):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-11, atol=1e-11)


@variants
def test_gradients_equal_central_differences(variant):
    chunk = 8 if variant == "pure" else 4  # the pure msign has a derivative at full rank only
    module, x = layer(variant, base_lr=0.5, chunk=chunk), sequences(batch=2, T=10)
    names = [name for name, _ in module.named_parameters()]
    inputs = [x.detach(), *(tg.tensor(p.numpy()) for p in module.parameters())]
    for value in inputs:
        value.requires_grad = True

    def outputs(x, *parameters):
        return nn.functional_call(module, dict(zip(names, parameters)), x)

    assert gradcheck(outputs, tuple(inputs), eps=1e-6, atol=1e-6, rtol=1e-6)


def test_gradients_of_a_whole_model_equal_central_differences():
    model = nn.Sequential(
        nn.Embedding(12, 8, rng=0, dtype="float64"), nn.RMSNorm(8, dtype="float64"),
        layer(chunk=3), layer("plain", chunk=5),
        nn.Linear(8, 12, rng=1, dtype="float64"),
    )  # fmt: skip
    tokens = np.random.default_rng(2).integers(0, 12, (2, 13))
    names, values = zip(*((name, tg.tensor(p.numpy(), requires_grad=True)) for name, p in model.named_parameters()))

    def loss(*parameters):
        logits = nn.functional_call(model, dict(zip(names, parameters)), tokens)
        return tg.softmax_cross_entropy(logits[:, :-1], tokens[:, 1:])

    assert gradcheck(loss, values, rtol=1e-6)


# --- recurrent use ---------------------------------------------------------------------------------------------------


@variants
@pytest.mark.parametrize("pieces", [[1] * 13, [13], [4, 4, 5], [3, 1, 6, 2, 1]], ids=str)
def test_reading_in_pieces_gives_the_outputs_of_the_parallel_pass(variant, pieces):
    module = layer(variant, dtype="float32")
    x = sequences(T=13, dtype="float32")
    state, outputs, start = None, [], 0
    with tg.no_grad():
        for n in pieces:
            y, state = module.read(x[:, start : start + n], state)
            outputs.append(y.numpy())
            start += n
        np.testing.assert_allclose(np.concatenate(outputs, axis=1), module(x).numpy(), rtol=1e-5, atol=1e-5)


@tg.no_grad()
def test_a_state_is_saved_and_restored(tmp_path):
    module, x = layer(dtype="float32"), sequences(T=23, dtype="float32")
    expected = module(x).numpy()
    for stop in (1, 3, 4, 10, 16):
        _, state = module.read(x[:, :stop])
        tg.save(tmp_path / "state.npz", state)
        again = module.restore(tg.load(tmp_path / "state.npz"))
        np.testing.assert_allclose(module.read(x[:, stop:], again)[0].numpy(), expected[:, stop:], rtol=1e-5, atol=1e-5)


def test_a_state_carries_what_the_specification_names():
    module = layer()
    with tg.no_grad():
        _, state = module.read(sequences(T=10))
    weights, momentum, norms = state["cell"]
    assert [w.shape for w in weights] == [(3, 2, 4, 4)] * 3 and momentum.shape == (3, 3, 2, 4, 4)
    assert [n.shape for n in norms] == [(2, 4, 1), (2, 1, 4), (2, 4, 1)]
    assert state["inputs"].shape == (3, 2, 8) and [t.shape[2] for t in state["tokens"]] == [2] * 4
    np.testing.assert_array_equal(state["inputs"].numpy(), sequences(T=10).numpy()[:, -2:])
    for w, norm, axis in zip(weights, norms, (-1, -2, -1)):  # the rows keep the norms that they began with
        lengths = np.linalg.norm(w.numpy(), axis=axis, keepdims=True)
        np.testing.assert_allclose(lengths, np.broadcast_to(norm.numpy(), lengths.shape), rtol=1e-12)


def test_gradients_flow_through_a_carried_state():
    module, x = layer(), sequences(T=13)
    cotangent = tg.tensor(np.random.default_rng(4).normal(size=x.shape))
    (module(x) * cotangent).sum().backward()
    expected = [p.grad.numpy() for p in module.parameters()]
    module.zero_grad()
    first, state = module.read(x[:, :6])
    (tg.concat([first, module.read(x[:, 6:], state)[0]], axis=1) * cotangent).sum().backward()
    for p, g in zip(module.parameters(), expected):
        np.testing.assert_allclose(p.grad.numpy(), g, rtol=1e-9, atol=1e-11)


def state_of(stop, batch=3, **options):
    return layer(**options).read(sequences(batch=batch, T=stop))[1]


@pytest.mark.parametrize(
    "state, message",
    [
        (lambda: state_of(6, chunk=8), "in the middle of a chunk of 8 tokens, after 6, and the chunks of this layer"),
        (lambda: state_of(2, chunk=8), "in the middle of a chunk of 8 tokens, after 2"),
        (lambda: state_of(10, chunk=3), "in the middle of a chunk of 3 tokens, after 1"),
        (lambda: state_of(6, batch=1), "of another batch or layer"),
        (lambda: state_of(2, batch=1), "of another batch or layer"),
        (lambda: state_of(4, batch=2), "of another batch or layer"),
        (lambda: state_of(4, heads=1), "of another batch or layer"),
        (lambda: state_of(4, fast="linear"), "the state has 1 fast weights, expected 3"),
        (lambda: {"cell": None}, "expected a dict as read"),
    ],
)
@tg.no_grad()
def test_a_state_of_another_chunk_batch_or_layer_is_refused(state, message):
    with pytest.raises(ValueError, match=f"TTTMuon: .*{message}"):
        layer().read(sequences(T=5), state())


@tg.no_grad()
def test_between_chunks_their_length_may_change():
    module, x = layer(), sequences(T=13)
    expected = module(x).numpy()
    first, state = module.read(x[:, :8])
    module.chunk = 2
    module.read(x[:, 8:9], state)  # the same weights, more often
    module.chunk = 4
    rest = module.read(x[:, 8:], state)[0]
    np.testing.assert_allclose(np.concatenate([first.numpy(), rest.numpy()], axis=1), expected, rtol=1e-9, atol=1e-9)


# --- chunks -----------------------------------------------------------------------------------------------------------


def test_a_chunk_is_answered_by_the_weights_of_the_chunks_before_it():
    module, x = layer(), sequences(T=16)
    changed = x.numpy().copy()
    changed[:, 9] += 1.0  # in the third chunk; the convolution takes it to token 10, its last tap starts at 0
    with tg.no_grad():
        moved = np.abs(module(x).numpy() - module(tg.tensor(changed)).numpy()).max(axis=(0, 2)) > 1e-12
    assert moved.tolist() == [False] * 9 + [True] * 2 + [False] + [True] * 4


def test_a_sequence_within_one_chunk_never_learns():
    x = sequences(T=4)
    with tg.no_grad():
        np.testing.assert_array_equal(layer("muon")(x).numpy(), layer("frozen")(x).numpy())
        assert np.abs(layer("muon", chunk=3)(x).numpy() - layer("frozen")(x).numpy()).max() > 1e-3
    module = layer()
    module(x).sum().backward()
    assert module.rates.weight.grad is None  # the last chunk's update is dead code


def test_checkpoint_gives_the_same_gradients():
    x = sequences(T=14)
    cotangent = tg.tensor(np.random.default_rng(5).normal(size=x.shape))
    found = []
    for checkpoint in (None, tg.checkpoint):
        module = layer(checkpoint=checkpoint)
        inputs = x.detach()
        inputs.requires_grad = True
        (module(inputs) * cotangent).sum().backward()
        found.append([inputs.grad.numpy(), *(p.grad.numpy() for p in module.parameters())])
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_checkpoint_bounds_the_memory_of_a_long_sequence():
    x = sequences(batch=4, T=512, dim=16, dtype="float32")
    peaks = []
    for checkpoint in (None, tg.checkpoint):
        module = layer(dim=16, chunk=16, dtype="float32", checkpoint=checkpoint)
        tracemalloc.start()
        loss = (module(x) ** 2).sum()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        loss.backward()
    assert peaks[1] < 0.6 * peaks[0], peaks


def test_msign_keeps_an_eighth_of_what_five_recorded_steps_keep():
    M = tg.tensor(np.random.default_rng(0).normal(size=(3, 32, 32)).astype("float32"), requires_grad=True)
    kept = []
    for variant in ("muon", "pure", "ns5"):
        cell = nn.TTTMuonCell(32, rng=0, **VARIANTS[variant])
        y = cell.orthogonal(M)
        arrays = {}
        for node in y.tape():
            for value in node.saved or ():
                if isinstance(value, np.ndarray) and value.ndim:
                    base = value
                    while isinstance(base.base, np.ndarray):
                        base = base.base
                    arrays[id(base)] = base.nbytes
        kept.append(sum(arrays.values()))
    smooth, pure, unrolled = kept
    assert 7.5 * max(smooth, pure) <= unrolled, kept


# --- the msign of the cell --------------------------------------------------------------------------------------------


def test_the_table_of_the_smooth_msign_brings_every_singular_value_to_one():
    for eps in (1e-3, 1e-2, 0.1, 1.0):
        for n in (1, 4, 64):
            for dtype in ("float32", "float64"):
                precision = np.finfo(dtype).eps / 2
                x = np.geomspace(eps / np.sqrt(1 + n * eps**2), 1, 2000)
                rows = smooth_table(eps, n, precision)
                for row in rows:
                    x = odd_quintic(row, x)
                assert np.abs(x - 1).max() < 80 * precision
    assert len(smooth_table(1e-2, 32, 2.0**-24)) == 5 and len(smooth_table(1e-2, 32, 2.0**-53)) == 6


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_training_step_needs_no_synchronisation_and_equals_that_of_the_cpu(variant):
    found = []
    for device, dtype in (("cpu", "float64"), ("strict", "float64"), ("strict", "float32")):
        module = layer(variant, dtype=dtype, device=device)
        x = sequences(dtype=dtype, device=device)
        with tg.testing.forbid_sync():
            loss = (module(x) ** 2).sum()
            loss.backward()
        found.append([p.grad.numpy() for p in module.parameters() if p.grad is not None])
    for a, b, half in zip(*found):  # sums of another order: the rounding errors differ
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)
        assert half.dtype == np.float32 and np.isfinite(half).all()


def test_scopes_name_chunk_heads_and_msign():
    names = {"/".join(node.scope) for node in layer()(sequences()).tape()}
    assert any(name.endswith("heads/chunk/update/msign") for name in names)
    assert any(name.endswith("heads/chunk/cell/apply") for name in names)


def test_a_picture_folds_the_chunks():
    x = sequences(T=20)
    picture = tg.graph.build((layer()(x) ** 2).sum(), collapse=("chunk",))
    assert "chunk ×3" in picture.dot()  # the first has no momentum yet, the last does not learn


def test_extreme_inputs_have_finite_gradients():
    for scale in (0.0, 1e-20, 1e-6, 1e4):
        module = layer(dtype="float32")
        x = tg.tensor(sequences(dtype="float32").numpy() * np.float32(scale), requires_grad=True)
        module(x).sum().backward()
        assert all(np.isfinite(t.grad.numpy()).all() for t in (x, *module.parameters())), scale


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_layer_learns_associative_recall():
    task = MQAR.uniform(pairs=4, queries=8, keys=16, values=16)
    accuracy = {}
    for update in ("muon", "frozen"):
        rng = np.random.default_rng(0)
        model = nn.Sequential(
            nn.Embedding(32, 32, rng=rng), nn.RMSNorm(32), nn.TTTMuon(32, 2, chunk=4, update=update, rng=rng),
            nn.RMSNorm(32), nn.Linear(32, 32, rng=rng),
        )  # fmt: skip
        optimizer = optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95))
        for step in range(150):
            batch = task.batch(32, step)
            logits = model(batch.tokens)[:, -task.queries :]
            optimizer.zero_grad()
            tg.softmax_cross_entropy(logits, tg.tensor(batch.answers)).backward()
            optim.clip_grad_norm(model.parameters(), 1.0)
            optimizer.step()
        accuracy[update] = (logits.numpy().argmax(axis=-1) == batch.answers).mean()
    assert accuracy["muon"] > 0.9 and accuracy["frozen"] < 0.4, accuracy


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(dim=9), "dim is 9, expected a multiple of the 2 heads"),
        (dict(chunk=0), "chunk is 0, expected an integer of at least 1"),
        (dict(base_lr=0), "base_lr is 0, expected a number above 0"),
        (dict(update="adam"), "update is 'adam', expected 'muon' or 'plain' or 'frozen'"),
        (dict(msign="svd"), "msign is 'svd', expected 'smooth' or 'pure' or 'ns5'"),
        (dict(fast="mlp"), "fast is 'mlp', expected 'swiglu' or 'linear'"),
        (dict(eps=0), "eps is 0, expected 1e-4 to 1"),
        (dict(hidden=0), "hidden is 0, expected an integer of at least 1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nn.TTTMuon(**{"dim": 8, "heads": 2, **options})


def test_inputs_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"x has shape \(2, 3, 7\), expected \(..., 8\), given by dim"):
        layer()(tg.tensor(np.zeros((2, 3, 7))))
    for shape in ((3, 8), (2, 0, 8)):
        with pytest.raises(ValueError, match=r"expected \(batch, T, 8\) with T >= 1"):
            layer()(tg.tensor(np.zeros(shape)))


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_code_of_the_page_prints_what_it_shows(capsys):
    page = (Path(__file__).parents[2] / "docs" / "ttt_muon.md").read_text(encoding="utf-8")
    [(code, expected)] = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", page, re.DOTALL)
    exec(compile(code, "docs/ttt_muon.md", "exec"), {})
    assert capsys.readouterr().out == expected
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page):
        assert (Path(__file__).parents[2] / "docs" / target).exists(), target
