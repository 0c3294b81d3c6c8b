"""What works on a card and how: masks, sums, powers, subnormal numbers, memory; on the strict device, and on a GPU."""

import re
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.conftest import require
from tinygrad_ms import nn
from tinygrad_ms.ops.iterations.driver import squared_norm
from tinygrad_ms.random import bits
from tinygrad_ms.testing import forbid_sync, strict

CARDS = pytest.mark.parametrize("card", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])


def points(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


# --- dropout masks --------------------------------------------------------------------------------------------------


def masks(layer, x, count):
    return np.stack([layer(x).numpy() for _ in range(count)])


@CARDS
def test_a_device_draws_its_masks_itself_from_seeds_of_the_host(card):
    x = tg.tensor(np.ones((40, 50), "float32"), device=require(card))
    strict.reset_stats()
    with forbid_sync():
        nn.Dropout(0.25, rng=0)(x)
    assert strict.STATS.h2d == 0
    layer = nn.Dropout(0.25, rng=0)
    first = masks(layer, x, 8)
    state = layer.state_dict()
    following = masks(layer, x, 4)
    np.testing.assert_array_equal(masks(nn.Dropout(0.25, rng=0), x, 12), np.concatenate([first, following]))
    other = nn.Dropout(0.25)
    other.load_state_dict(state)
    np.testing.assert_array_equal(masks(other, x, 4), following)  # a resumed run draws on


def test_the_masks_of_a_device_have_their_share_and_no_pattern():
    first = masks(nn.Dropout(0.25, rng=0), tg.tensor(np.ones((40, 50), "float32"), device="strict"), 8)
    kept = first != 0
    np.testing.assert_allclose(first[kept], 1 / 0.75, rtol=1e-6)
    assert abs(kept.mean() - 0.75) < 4 * (0.25 * 0.75 / kept.size) ** 0.5
    centred = kept.reshape(8, -1) - 0.75
    for lag in (1, 2, 50):
        product = (centred[:, lag:] * centred[:, :-lag]).mean()
        assert abs(product) < 4 * 0.1875 / centred[:, lag:].size ** 0.5
    assert abs((centred[1:] * centred[:-1]).mean()) < 4 * 0.1875 / centred[1:].size ** 0.5  # one mask and the next
    for dtype in ("float16", "float64"):
        y = nn.Dropout(1.0, rng=0)(tg.tensor(np.ones(100, dtype), device="strict"))
        assert y.dtype == dtype and not y.numpy().any()


def test_the_bits_of_a_device_are_those_of_splitmix64():
    """From the state 1234567: the numbers that other implementations of the generator give."""
    expected = [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821,
    ]  # fmt: skip
    assert bits(np, 1234567, 5).tolist() == bits(strict.xp, 1234567, 5).get().tolist() == expected
    assert bits(np, 2**64 - 1, 0).shape == (0,)


# --- sums, powers, subnormal numbers ----------------------------------------------------------------------------------


@CARDS
def test_a_squared_norm_is_a_reduction(card):
    x = points(3, 40, 50)
    array = tg.tensor(x, device=require(card)).data
    strict.reset_stats()
    found = squared_norm(strict.xp if card == "strict" else __import__("cupy"), array)
    np.testing.assert_allclose(tg.Tensor(found).numpy(), (x.astype("f8") ** 2).sum(axis=(1, 2)), rtol=1e-6)
    assert strict.STATS.calls <= 3  # no product


@CARDS
def test_integers_to_a_negative_power_raise_where_the_host_knows_it(card, device="cpu"):
    for where in ("cpu", require(card)):
        x = tg.tensor([1, 2, -1], device=where)
        with pytest.raises(ValueError, match="power: the integer power -2 of integers has no integer value"):
            x**-2
    found = tg.tensor([1, 2, -1, -1, 0], device=card) ** tg.tensor([-1, -1, -1, -2, -3], device=card)
    assert found.tolist() == [1, 0, -1, 1, 0]  # as documented: nothing waits for the exponents


@CARDS
def test_remainders_on_a_device_are_those_of_the_notes(card):
    require(card)
    assert np.isnan(float(tg.remainder(tg.tensor(5.0, device=card), np.inf)))
    assert float(tg.floor_divide(tg.tensor(1.0, "float64", card), 0.1)) == 10.0
    assert (tg.tensor([7, -7], device=card) % 0).tolist() == (tg.tensor([7, -7], device=card) // 0).tolist() == [0, 0]


@CARDS
def test_subnormal_float32_is_zero_in_the_kernels_of_a_device(card):
    tiny = np.array([1e-39, -1e-39, 1e-37], "float32")
    x = tg.tensor(tiny, device=require(card))
    np.testing.assert_array_equal(x.numpy(), tiny)  # copies keep it
    assert (x * 1e30).numpy().tolist()[:2] == [0.0, 0.0]
    assert tg.exp(tg.tensor(-100.0, device=card)).item() == 0.0
    wide = tg.tensor(tiny.astype("float64"), device=card)
    assert (wide * 1e30).numpy()[0] == pytest.approx(1e-9)


# --- gradients without copies ---------------------------------------------------------------------------------------


def test_backward_copies_no_gradient_that_nobody_else_holds(monkeypatch):
    model = nn.Sequential(nn.Linear(6, 5, rng=0), nn.Tanh(), nn.Linear(5, 3, rng=1)).to("strict")
    x = tg.tensor(points(4, 6), device="strict")
    loss = (model(x) ** 2).sum()
    copies = []
    copy = strict.ndarray.copy
    monkeypatch.setattr(strict.ndarray, "copy", lambda self, order="C": copies.append(self.shape) or copy(self, order))
    loss.backward()
    assert copies == []


# --- memory, and the doors of other libraries -----------------------------------------------------------------------


def test_out_of_memory_says_which_op_asked_for_how_much():
    x = tg.broadcast_to(tg.ones(1), (2**59,))
    with pytest.raises(MemoryError, match=r"add: .*2.00 EiB.*\(a: float32 \(576460752303423488,\) on cpu, b: 1.0\)"):
        x + 1.0


def test_out_of_memory_of_a_card_is_a_memory_error_too(monkeypatch):
    class OutOfMemoryError(MemoryError):  # as cupy.cuda.memory.OutOfMemoryError
        pass

    def full(*args, **kwargs):
        raise OutOfMemoryError("Out of memory allocating 24 bytes (allocated so far: 8 bytes).")

    x = tg.tensor(points(2, 3), device="strict", requires_grad=True)
    loss = tg.exp(x).sum()
    monkeypatch.setitem(vars(strict.xp), "exp", full)
    with pytest.raises(MemoryError, match=r"exp: Out of memory allocating 24 bytes .* float32 \(2, 3\) on strict"):
        tg.exp(x)
    loss.backward()
    assert x.grad is not None


def test_the_cuda_array_interface_is_that_of_the_array_and_of_no_other_device(monkeypatch):
    x = tg.tensor(points(2, 3), device="strict", requires_grad=True)
    for other in (tg.tensor([1.0]), x):
        assert not hasattr(other, "__cuda_array_interface__")
        with pytest.raises(AttributeError, match=f"a tensor on {other.device} is on no GPU; use x.cuda()"):
            _ = other.__cuda_array_interface__
    found = {"shape": (2, 3), "typestr": "<f4", "data": (1, False), "version": 3}
    monkeypatch.setattr(strict.ndarray, "__cuda_array_interface__", property(lambda self: found), raising=False)
    with pytest.raises(BufferError, match="on the tape would lose its gradient"):
        _ = x.__cuda_array_interface__
    assert x.detach().__cuda_array_interface__ is found


@pytest.mark.gpu
def test_cupy_reads_a_tensor_by_its_interface():
    require("cuda")
    import cupy

    x = tg.tensor(points(2, 3), device="cuda")
    assert cupy.asarray(x).data.ptr == x.data.data.ptr


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_prints_what_it_shows(capsys):
    """docs/devices.md, its blocks in order."""
    page = (Path(__file__).parents[2] / "docs" / "devices.md").read_text(encoding="utf-8")
    blocks, names = re.findall(r"```python\n(.*?)```\n```text\n(.*?)```", page, re.S), {"__name__": "__main__"}
    assert len(blocks) == page.count("```python") == 4
    for code, expected in blocks:
        exec(compile(code, "devices.md", "exec"), names)
        assert capsys.readouterr().out == expected
