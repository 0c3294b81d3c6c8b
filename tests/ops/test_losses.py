"""Losses: against PyTorch's definitions, the fused cross-entropy, extreme logits, labels that are wrong."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.testing import forbid_sync, gradcheck, gradgradcheck

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.standard_normal((5, 3))
ELEMENTWISE = [tg.mse, tg.l1, tg.huber, tg.binary_cross_entropy_with_logits]
LABELS = np.array([2, 0, 1, 2, 2])


def leaf(array, **options):
    return tg.tensor(array, requires_grad=True, **options)


def test_gradient_of_cross_entropy_is_softmax_minus_one_hot():
    z = leaf(LOGITS)
    tg.softmax_cross_entropy(z, LABELS, reduction="sum").backward()
    e = np.exp(LOGITS)
    np.testing.assert_allclose(z.grad.data, e / e.sum(1, keepdims=True) - np.eye(3)[LABELS], rtol=1e-12)


def test_cross_entropy_is_one_node():
    loss = tg.softmax_cross_entropy(leaf(LOGITS), LABELS)
    assert [node.op for node in loss.tape()] == ["leaf", "softmax_cross_entropy"]


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_cross_entropy_of_huge_logits_neither_overflows_nor_underflows(size):
    z = leaf(np.array([[size, -size, 0.0], [size, size, 0.0]], dtype=np.float32))
    loss = tg.softmax_cross_entropy(z, np.array([1, 0]), reduction="none")
    loss.sum().backward()
    np.testing.assert_allclose(loss.data, [2 * size, np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(z.grad.data, [[1, -1, 0], [-0.5, 0.5, 0]], atol=1e-6)


def test_a_masked_logit_of_minus_infinity_is_a_class_of_probability_zero():
    z = leaf(np.array([[-np.inf, 0.0, 0.0], [-np.inf, 1.0, 2.0]]))
    loss = tg.softmax_cross_entropy(z, np.array([1, -1]), ignore_index=-1)
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    np.testing.assert_allclose(z.grad.data, [[0, -0.5, 0.5], [0, 0, 0]])


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@pytest.mark.parametrize("weight", [None, [1.0, 2.0, 4.0]])
def test_a_soft_target_of_zero_beside_a_logit_of_minus_infinity_counts_as_nothing(dtype, weight, device):
    logits = np.array([[0.0, 1.0, -np.inf], [-np.inf, 2.0, 0.5]], dtype)
    soft = np.array([[0.25, 0.75, 0.0], [0.0, 0.5, 0.5]], dtype)
    kept = np.where(soft == 0, -1e4, logits.astype("float64"))
    factor = soft.astype("float64") * (1.0 if weight is None else np.array(weight))
    p = np.exp(kept - np.log(np.exp(kept).sum(-1, keepdims=True)))
    expected = -(factor * np.log(np.where(p == 0, 1, p))).sum() / 2
    slope = (factor.sum(-1, keepdims=True) * p - factor) / 2
    z, t = leaf(logits, device=device), tg.tensor(soft, device=device)
    w = None if weight is None else tg.tensor(np.array(weight, dtype), device=device)
    tolerance = {"float64": 1e-14, "float32": 1e-6, "float16": 2e-3}[dtype]

    def loss(z):
        return tg.softmax_cross_entropy(z, t, weight=w)

    value = loss(z)
    value.backward()
    assert float(value.cpu()) == pytest.approx(expected, rel=tolerance)
    np.testing.assert_allclose(z.grad.cpu().numpy(), slope, rtol=tolerance, atol=tolerance)
    direction = tg.tensor(np.array([[1.0, -2.0, 0.0], [0.0, 0.5, 1.0]], dtype), device=device)
    _, along = tg.jvp(loss, (z.detach(),), (direction,))
    assert float(along.cpu()) == pytest.approx((slope * direction.cpu().numpy()).sum(), abs=2 * tolerance)
    product = tg.hvp(loss, z.detach(), direction).cpu().numpy()
    assert np.isfinite(product).all() and (product[[0, 1], [2, 0]] == 0).all()


@pytest.mark.parametrize("change", ["tensor", "array"])
def test_class_weights_and_labels_that_change_before_backward_change_no_gradient(change):
    def cases():
        yield tg.softmax_cross_entropy, dict(weight=np.array([1.0, 2.0, 3.0])), "weight", 9.0
        yield tg.nll, dict(weight=np.array([1.0, 2.0, 3.0])), "weight", 9.0
        yield tg.nll, dict(target=LABELS.copy()), "target", 1

    for loss, options, name, value in cases():
        gradients = []
        for changed in (False, True):
            z, given = leaf(LOGITS), {"target": LABELS, **options}
            array = given[name] = tg.tensor(given[name]) if change == "tensor" else given[name].copy()
            y = loss(tg.log_softmax(z) if loss is tg.nll else z, **given)
            if changed:
                array[0] = value
            y.backward()
            gradients.append(z.grad.numpy())
        np.testing.assert_array_equal(*gradients)


def test_labels_of_a_tensor_that_change_before_backward_are_counted():
    z, labels = leaf(LOGITS), tg.tensor(LABELS)
    loss = tg.softmax_cross_entropy(z, labels)
    labels[0] = 1
    with pytest.raises(RuntimeError, match="argument target of softmax_cross_entropy .* was changed in place"):
        loss.backward()


def test_soft_targets_equal_labels_and_carry_gradients():
    hot = leaf(np.eye(3)[LABELS])
    by_labels = tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS)
    by_targets = tg.softmax_cross_entropy(tg.tensor(LOGITS), hot)
    assert by_targets.item() == pytest.approx(by_labels.item(), rel=1e-14)
    assert gradcheck(lambda t: tg.softmax_cross_entropy(tg.tensor(LOGITS), t, label_smoothing=0.1), [hot])


def test_label_smoothing_mixes_in_the_uniform_distribution():
    mixed = 0.8 * np.eye(3)[LABELS] + 0.2 / 3
    smoothed = tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS, label_smoothing=0.2)
    assert smoothed.item() == pytest.approx(tg.softmax_cross_entropy(tg.tensor(LOGITS), mixed).item(), rel=1e-14)


def test_ignored_samples_change_nothing():
    padded = np.concatenate([LOGITS, 100 * LOGITS])
    z = leaf(padded)
    loss = tg.softmax_cross_entropy(z, np.concatenate([LABELS, np.full(5, -100)]))
    loss.backward()
    assert loss.item() == pytest.approx(tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS).item(), rel=1e-14)
    assert not z.grad.data[5:].any()


def test_mean_over_no_sample_is_zero_with_zero_gradient():
    z = leaf(LOGITS)
    loss = tg.softmax_cross_entropy(z, np.full(5, -100))
    loss.backward()
    assert loss.item() == 0 and not z.grad.data.any()


def test_mean_with_class_weights_divides_by_the_weights_of_the_samples():
    weight = np.array([0.5, 2.0, 1.0])
    per_sample = tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS, reduction="none").data
    expected = (weight[LABELS] * per_sample).sum() / weight[LABELS].sum()
    assert tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS, weight).item() == pytest.approx(expected, rel=1e-14)


def test_classes_in_another_axis():
    z = RANDOM.standard_normal((2, 3, 4))
    labels = RANDOM.integers(0, 3, (2, 4))
    x, y = leaf(z), leaf(z.transpose(0, 2, 1).copy())
    a = tg.softmax_cross_entropy(x, labels, axis=1)
    b = tg.softmax_cross_entropy(y, labels)
    (a + b).backward()
    assert a.item() == b.item()
    np.testing.assert_array_equal(x.grad.data, y.grad.data.transpose(0, 2, 1))


def test_nll_of_log_probabilities_is_cross_entropy():
    z = LOGITS - np.log(np.exp(LOGITS).sum(1, keepdims=True))
    for options in ({}, {"reduction": "sum"}, {"ignore_index": 2}, {"weight": np.array([0.5, 2.0, 1.0])}):
        expected = tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS, **options)
        assert tg.nll(tg.tensor(z), LABELS, **options).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("function", [*ELEMENTWISE, tg.softmax_cross_entropy, tg.nll])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reduction(function, reduction):
    """sum = sum of none, mean = sum / count, and the gradients accordingly."""
    target = LABELS if function in (tg.softmax_cross_entropy, tg.nll) else RANDOM.standard_normal((5, 3))
    x = leaf(LOGITS)
    losses = function(x, target, reduction="none")
    assert losses.shape == (LABELS.shape if target is LABELS else LOGITS.shape)
    expected = {"mean": losses.data.mean(), "sum": losses.data.sum(), "none": losses.data}[reduction]
    np.testing.assert_allclose(function(x, target, reduction=reduction).data, expected, rtol=1e-12)
    assert gradcheck(lambda x: function(x, target, reduction=reduction), [x])
    assert gradgradcheck(lambda x: function(x, target, reduction=reduction), [x])


def test_weights_of_elements():
    x, t, w = RANDOM.standard_normal((3, 4, 3))
    w = abs(w)
    assert tg.mse(tg.tensor(x), t, w).item() == pytest.approx((w * (x - t) ** 2).sum() / w.sum())
    assert tg.l1(tg.tensor(x), t, weight=w, reduction="sum").item() == pytest.approx((w * abs(x - t)).sum())
    column = w[:, :1]
    expected = (column * (x - t) ** 2).sum() / (3 * column.sum())
    assert tg.mse(tg.tensor(x), t, column).item() == pytest.approx(expected)


def test_binary_cross_entropy_weights_the_positive_class():
    x, t = leaf(4 * LOGITS), RANDOM.uniform(0, 1, (5, 3))
    p = 1 / (1 + np.exp(-x.data))
    for weight in (3.0, np.array([0.5, 1.0, 2.0])):
        expected = -(weight * t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
        loss = tg.binary_cross_entropy_with_logits(x, t, pos_weight=weight)
        assert loss.item() == pytest.approx(expected)
        assert gradcheck(lambda x: tg.binary_cross_entropy_with_logits(x, t, pos_weight=weight), [x])


def test_binary_cross_entropy_of_huge_logits():
    x = leaf(np.array([1e4, -1e4, 1e4], dtype=np.float32))
    loss = tg.binary_cross_entropy_with_logits(x, np.array([1, 1, 0], dtype=np.float32), reduction="none")
    loss.sum().backward()
    np.testing.assert_array_equal(loss.data, [0, 1e4, 1e4])
    np.testing.assert_array_equal(x.grad.data, [0, -1, 1])


def test_arrays_alone_give_arrays():
    assert isinstance(tg.mse(LOGITS, LOGITS), np.floating)
    assert not isinstance(tg.softmax_cross_entropy(LOGITS, LABELS), tg.Tensor)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # NumPy warns of 0 / 0, the device's NaN
def test_on_a_device_a_wrong_label_makes_nan_and_nothing_waits():
    z = leaf(LOGITS, device="strict")
    with forbid_sync():
        good = tg.softmax_cross_entropy(z, tg.tensor(LABELS, device="strict"))
        bad = tg.softmax_cross_entropy(z, tg.tensor(np.array([0, 1, 2, 3, 0]), device="strict"), reduction="none")
        good.backward()
    assert good.item() == pytest.approx(tg.softmax_cross_entropy(tg.tensor(LOGITS), LABELS).item())
    assert np.isnan(bad.numpy()).tolist() == [False, False, False, True, False]
