"""Copies in another dtype and on another device; gradients travel back through them."""

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.conftest import require
from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.engine.around.forward import push_forward
from tinygrad_ms.engine.around.modes import forward_mode


def test_astype_copies_and_its_gradient_returns_in_the_first_dtype():
    x = tg.tensor([0.1, -2.5], dtype="float64", requires_grad=True)
    y = x.astype("float32")
    assert y.dtype == np.float32 and y.requires_grad
    (y * y).sum().backward()
    assert x.grad.dtype == np.float64
    np.testing.assert_allclose(x.grad.numpy(), [0.2, -5.0], rtol=1e-7)
    assert not np.shares_memory(x.astype("float64").data, x.data)


@pytest.mark.parametrize("dtype", ["int64", "int8", bool])
def test_integers_and_booleans_carry_no_gradient(dtype):
    y = tg.tensor([1.7, -0.2], requires_grad=True).astype(dtype)
    assert y.dtype == dtype and not y.requires_grad


def test_second_order_through_astype():
    x = tg.tensor([1.5], dtype="float64", requires_grad=True)
    (x.astype("float32") ** 3).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    first.sum().backward()
    assert x.grad.dtype == np.float64 and x.grad.item() == 9.0


def test_shorthands_for_dtypes():
    x = tg.tensor([1.0], requires_grad=True)
    assert x.double().dtype == np.float64 and x.half().dtype == np.float16
    assert x.float() is x and x.to("float32") is x and x.to("cpu") is x and x.cpu() is x and x.to(None) is x
    assert x.to("cpu", np.float64).dtype == np.float64
    assert x.to(dtype="float16").dtype == np.float16
    assert x.to(tg.tensor([1.0], dtype="float64")).dtype == np.float64


@pytest.mark.parametrize("there", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_gradient_crosses_devices(there):
    require(there)
    x = tg.tensor([1.0, 2.0, 3.0], dtype="float64", requires_grad=True)
    y = x.to(there) ** 2
    assert y.device == there
    z = y.cpu() * x
    assert z.device == "cpu"
    z.sum().backward()
    assert x.grad.device == "cpu"
    np.testing.assert_allclose(x.grad.numpy(), 3 * x.numpy() ** 2)


@pytest.mark.parametrize("there", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_second_order_and_forward_mode_cross_devices(there):
    require(there)
    x = tg.tensor([1.0, 2.0], dtype="float64", requires_grad=True)
    (x.to(there) ** 3).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    assert first.device == "cpu"
    first.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), 6 * x.numpy())
    with forward_mode():
        y = x.to(there) ** 3
    (tangent,) = push_forward([y.node], {x.node: np.array([1.0, 10.0])})
    np.testing.assert_allclose(tg.Tensor(tangent).cpu().numpy(), [3.0, 120.0])


@pytest.mark.parametrize("there", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_to_follows_a_tensor_in_device_and_dtype(there):
    like = tg.Tensor(to_device(np.zeros(1), require(there)))
    y = tg.tensor([1.0, 2.0]).to(like)
    assert y.device == there and y.dtype == np.float64


def test_unknown_targets_are_named():
    x = tg.tensor([1.0])
    with pytest.raises(ValueError, match="device='cpu:1' cannot be used"):
        x.to("cpu:1")
    with pytest.raises(ValueError, match="device='gpu' is unknown: the devices are"):
        x.to("gpu")


def test_clone_stays_on_the_tape_and_owns_its_memory():
    x = tg.tensor([1.0, 2.0], requires_grad=True)
    y = x.clone()
    assert not np.shares_memory(x.data, y.data)
    (y * y).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 4.0])
