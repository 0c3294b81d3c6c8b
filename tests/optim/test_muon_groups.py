"""Muon as people run it: blocks, routes, kernels, scales, two weight decays, bad gradients, against the formulas."""

import re
from math import sqrt

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms import nn, optim
from tinygrad_ms.nn import Parameter
from tinygrad_ms.ops.iterations.coefficients import TABLES
from tinygrad_ms.optim import muon as module

LR, MOMENTUM, DECAY = 0.05, 0.9, 0.1


def newton_schulz(G, table="muon"):
    """The orthogonalisation of Jordan's Muon, in float64 and without the + 1e-7."""
    X = G.T if G.shape[0] > G.shape[1] else G
    X = X / np.linalg.norm(X)
    for a, b, c in TABLES[table]:
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if G.shape[0] > G.shape[1] else X


def original(n, m):
    return sqrt(max(1, n / m))


def moonlight(n, m):
    return 0.2 * sqrt(max(n, m))


def reference(value, gradients, split, scale):
    """The steps of Muon with Nesterov's momentum on the parts that ``split`` makes of a gradient, as views."""
    value, buffer = value.copy(), 0 * value
    for g in gradients:
        buffer = MOMENTUM * buffer + g
        D = np.ascontiguousarray(g + MOMENTUM * buffer)
        value *= 1 - LR * DECAY
        for part, target in zip(split(D), split(value), strict=True):
            target -= LR * scale(*part.shape) * newton_schulz(part)
    return value


def trained(params, gradients, **options):
    optimizer = optim.Muon(
        params, lr=LR, momentum=MOMENTUM, weight_decay=DECAY, steps=5, coefficients="muon", **options
    )
    flat = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(len(gradients[0])):
        for p, of_p in zip(flat, gradients, strict=True):
            p.grad = tg.tensor(of_p[t].astype(p.dtype), device=p.device)
        optimizer.step()
    return optimizer


def draw(*shape, seed=0, steps=4):
    random = np.random.default_rng(seed)
    return random.standard_normal(shape), [random.standard_normal(shape) for _ in range(steps)]


# --- blocks --------------------------------------------------------------------------------------------------------

BLOCKS = {  # (blocks, how NumPy cuts a weight (12, 8))
    "whole": (None, lambda x: [x]),
    "Q, K and V": (3, lambda x: [x[:4], x[4:8], x[8:]]),
    "heads": (6, lambda x: [x[i : i + 2] for i in range(0, 12, 2)]),
    "grouped queries": ((6, 3, 3), lambda x: [x[:6], x[6:9], x[9:]]),
    "rows by name": (("rows", 2), lambda x: [x[:6], x[6:]]),
    "columns": (("columns", 4), lambda x: [x[:, i : i + 2] for i in range(0, 8, 2)]),
    "columns of sizes": (["columns", [5, 3]], lambda x: [x[:, :5], x[:, 5:]]),
}


@pytest.mark.parametrize("case", BLOCKS)
@pytest.mark.parametrize("scale, factor", [("spectral", original), ("match_rms_adamw", moonlight), ("rms", moonlight)])
def test_blocks_are_matrices_of_their_own(case, scale, factor):
    blocks, split = BLOCKS[case]
    value, gradients = draw(12, 8)
    p = Parameter(value)
    trained([{"params": [p], "blocks": blocks}], [gradients], scale=scale)
    np.testing.assert_allclose(p.numpy(), reference(value, gradients, split, factor), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", BLOCKS)
def test_the_rows_of_a_weight_stored_transposed_are_its_columns(case):
    value, gradients = draw(12, 8)
    p, q = Parameter(value), nn.TransposedParameter(value.T)
    for weight, of_weight in ((p, gradients), (q, [g.T for g in gradients])):
        trained([weight], [of_weight], blocks=BLOCKS[case][0])
    np.testing.assert_allclose(q.numpy().T, p.numpy(), rtol=1e-10, atol=1e-12)


def test_blocks_of_a_batch_of_weights_and_of_the_order_of_fortran():
    value, gradients = draw(2, 6, 4)
    p = Parameter(value)
    trained([p], [gradients], blocks=2)
    for i in range(2):
        of_one = reference(value[i], [g[i] for g in gradients], lambda x: [x[:3], x[3:]], original)
        np.testing.assert_allclose(p.numpy()[i], of_one, rtol=1e-10, atol=1e-10)
    value, gradients = draw(4, 3, 2, 2)
    q = Parameter(np.zeros((1, 1)))
    q.data = np.asfortranarray(value)
    trained([q], [gradients], flatten=True)
    expected = reference(value.reshape(4, 12), [g.reshape(4, 12) for g in gradients], lambda x: [x], original)
    np.testing.assert_allclose(q.numpy().reshape(4, 12), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "blocks", [5, 0, -1, (4, 4), (12, 0), (13, -1), ("rows", 5), ("heads", 3), "rows", 2.5, ("rows",)]
)
def test_blocks_that_do_not_fit_are_refused(blocks):
    with pytest.raises(
        ValueError, match=r"Muon: blocks is .*, and w of shape \(12, 8\) has 12 rows; expected a number"
    ):
        p = Parameter(np.ones((12, 8)))
        p.name = "w"
        optim.Muon([p], blocks=blocks)


def test_kernels_are_flat_matrices_or_batches():
    value, gradients = draw(4, 3, 2, 2)
    as_matrix = lambda x: x.reshape(4, 12)
    p, q = Parameter(value), Parameter(value)
    trained([{"params": [p], "flatten": True, "blocks": ("columns", 3)}], [gradients])
    expected = reference(
        as_matrix(value), list(map(as_matrix, gradients)), lambda x: [x[:, i : i + 4] for i in (0, 4, 8)], original
    )
    np.testing.assert_allclose(as_matrix(p.numpy()), expected, rtol=1e-10, atol=1e-10)
    trained([q], [gradients])
    one = reference(value[1, 2], [g[1, 2] for g in gradients], lambda x: [x], original)
    np.testing.assert_allclose(q.numpy()[1, 2], one, rtol=1e-10, atol=1e-10)


# --- one call for equal shapes ---------------------------------------------------------------------------------------


def test_equal_shapes_go_through_one_call(monkeypatch):
    calls = []

    def watched(x, **options):
        calls.append(x.shape)
        return tg.msign(x, **options)

    shapes = [(6, 4), (4, 6), (6, 4), (2, 6, 4), (6, 4), (8, 8)]
    drawn = [draw(*shape, seed=i, steps=2) for i, shape in enumerate(shapes)]
    params = [Parameter(value) for value, _ in drawn]
    apart = [Parameter(value) for value, _ in drawn]
    for p, (_, gradients) in zip(apart, drawn):
        trained([p], [gradients])
    monkeypatch.setattr(module, "msign", watched)
    trained(params, [gradients for _, gradients in drawn])
    assert sorted(calls[: len(calls) // 2]) == [(2, 6, 4), (3, 6, 4), (4, 6), (8, 8)]
    for p, q in zip(params, apart):
        np.testing.assert_allclose(p.numpy(), q.numpy(), rtol=1e-13)
    calls.clear()
    monkeypatch.setattr(module, "TOGETHER", 50)  # elements: two matrices of (6, 4)
    trained([Parameter(value) for value, _ in drawn], [gradients for _, gradients in drawn])
    assert calls.count((2, 6, 4)) == 4 and (3, 6, 4) not in calls  # a pair, and the batch of two


# --- which parameter goes where --------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(10, 4, rng=0)
        self.blocks = [nn.Linear(4, 4, rng=i) for i in range(2)]
        self.biases = Parameter(np.zeros((3, 4)))
        self.head = nn.Linear(4, 10, rng=3)


def under_adamw(model, **options):
    optimizer = optim.Muon(model.named_parameters(), **options)
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for group in optimizer.param_groups if not group["muon"] for p in group["params"]}


def test_parameters_are_sent_to_adamw_by_axes_name_function_or_themselves():
    model = Model()
    vectors = {"blocks.0.bias", "blocks.1.bias", "head.bias"}
    assert under_adamw(model) == vectors
    assert under_adamw(model, adamw="head.*") == vectors | {"head.weight"}
    assert under_adamw(model, adamw=["embedding*", "biases"]) == vectors | {"embedding.weight", "biases"}
    assert under_adamw(model, adamw=[model.embedding.weight, "*head*"]) == vectors | {"embedding.weight", "head.weight"}
    assert under_adamw(model, adamw=lambda name, p: max(p.shape) > 4) == vectors | {"embedding.weight", "head.weight"}
    assert under_adamw(model, adamw=2) == {name for name, _ in model.named_parameters()}
    groups = [
        {"params": [("a", Parameter(np.ones((2, 2))))], "muon": True},
        {"params": [Parameter(np.ones((2, 2)))], "muon": False},
    ]
    assert [group["muon"] for group in optim.Muon(groups, adamw=2).param_groups] == [True, False]  # the group decides


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(adamw="haed.*"), ValueError, "adamw='haed.*' fits no name of a parameter; pass model.named_parameters()"),
        (dict(adamw=[None]), TypeError, "adamw holds None, expected parameters, patterns of names, numbers of axes"),
        (dict(adamw=2.5), TypeError, "adamw holds 2.5"),
        (dict(flatten="yes"), ValueError, "flatten is yes, expected True or False"),
        (dict(nonfinite="stop"), ValueError, "nonfinite is stop, expected 'ignore' or 'skip' or 'raise'"),
        (dict(adamw_weight_decay=-1), ValueError, "adamw_weight_decay is -1, expected at least 0"),
        (dict(scale="original"), ValueError, "scale is original, expected 'spectral' or 'rms' or"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, error, message):
    with pytest.raises(error, match=re.escape(message)):
        optim.Muon(Model().named_parameters(), **options)


def test_the_part_under_adamw_has_a_rate_and_a_decay_of_its_own():
    matrix, of_matrix = draw(5, 3)
    table, of_table = draw(7, 3, seed=1)
    p, q = Parameter(matrix), Parameter(table)
    optimizer = trained(
        [("w", p), ("table", q)], [of_matrix, of_table], adamw="table", adamw_lr=0.01, adamw_weight_decay=0.3, eps=1e-6
    )
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(LR, DECAY), (0.01, 0.3)]
    np.testing.assert_allclose(p.numpy(), reference(matrix, of_matrix, lambda x: [x], original), rtol=1e-10, atol=1e-10)
    m = v = 0
    for t, g in enumerate(of_table, 1):
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        table = table * (1 - 0.01 * 0.3) - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-6)
    np.testing.assert_allclose(q.numpy(), table, rtol=1e-10, atol=1e-10)


# --- gradients that are not finite, half precision, saved states -----------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "strict"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_step_with_a_bad_gradient_is_skipped_or_reported_on_request(bad, device):
    values = [np.ones((3, 2)), np.ones(4)]
    for nonfinite in ("skip", "raise", "ignore"):
        params = [Parameter(v, device=device) for v in values]
        params[0].name = "w"
        optimizer = optim.Muon(params, nonfinite=nonfinite)
        for p in params:
            p.grad = p.detach() * 1
        optimizer.step()
        before = [p.numpy() for p in params]
        broken = np.ones((3, 2))
        broken[1, 1] = bad
        params[0].grad = tg.tensor(broken, device=device)
        if nonfinite == "raise":
            with pytest.raises(
                ValueError, match=r"Muon: the gradient of w of shape \(3, 2\) is not finite; nothing was"
            ):
                optimizer.step()
        else:
            with np.errstate(all="ignore"):
                optimizer.step()
        unchanged = all(np.array_equal(p.numpy(), b) for p, b in zip(params, before))
        assert unchanged == (nonfinite != "ignore") and optimizer.skipped == (nonfinite == "skip")
        assert optimizer.state[params[1]]["step"] == 1 + (nonfinite == "ignore")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_has_a_state_in_float32(dtype):
    if dtype == "bfloat16":
        dtype = pytest.importorskip("ml_dtypes").bfloat16
    value, gradients = draw(6, 4)
    p, q = Parameter(np.zeros((6, 4)), "float32"), Parameter(np.zeros((6, 4)), "float32")
    p.data = value.astype(dtype)
    q.data = value.astype(dtype).astype("float32")
    gradients = [g.astype(dtype) for g in gradients]
    optimizer = optim.Muon([p], lr=0.05, weight_decay=0.1)
    other = optim.Muon([q], lr=0.05, weight_decay=0.1)
    for g in gradients:
        p.grad, q.grad = tg.tensor(g), tg.tensor(g.astype("float32"))
        optimizer.step()
        other.step()
        q.data = q.data.astype(dtype).astype("float32")
    assert optimizer.state[p]["momentum_buffer"].dtype == "float32" and p.dtype == dtype
    np.testing.assert_array_equal(p.data.astype("float32"), q.numpy())


def test_states_saved_before_there_were_blocks_are_read():
    value, gradients = draw(4, 4)
    p, q = Parameter(value), Parameter(value)
    state = trained([p], [gradients]).state_dict()
    for group in state["param_groups"]:
        del group["blocks"], group["flatten"]
    optimizer = optim.Muon([q])
    optimizer.load_state_dict(state)
    assert optimizer.param_groups[0]["blocks"] is None and optimizer.state[q]["step"] == 4
    with pytest.raises(ValueError, match="expected a dict with state and param_groups"):
        optimizer.load_state_dict([])


def test_blocks_need_no_synchronisation():
    p, q = (Parameter(np.eye(6, 4), "float32", device="strict") for _ in range(2))
    optimizer = optim.Muon([{"params": [p, q], "blocks": 2}])
    for w in (p, q):
        w.grad = w.detach() + 0.5
    with tg.testing.forbid_sync():
        optimizer.step()
    assert np.isfinite(p.numpy()).all() and np.array_equal(p.numpy(), q.numpy())
