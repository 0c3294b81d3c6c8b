"""Arrays of other libraries come in over DLPack, and a framework that is absent is missed in one sentence."""

import subprocess
import sys

import numpy as np
import pytest

import tinygrad_ms as tg
from tinygrad_ms.interop.calls import Call, Pull


class Foreign:
    """An array of a library that this one does not know, with nothing but the two methods of DLPack."""

    def __init__(self, array, kind=None):
        self.array, self.kind, self.dtype = array, kind, array.dtype

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__() if self.kind is None else (self.kind, 0)


class TestFromDlpack:
    def test_shows_the_memory(self):
        a = np.arange(12.0).reshape(3, 4)
        x = tg.from_dlpack(Foreign(a.T[::2]))
        np.testing.assert_array_equal(x.numpy(), a.T[::2])
        assert not x.requires_grad and np.shares_memory(x.data, a)

    def test_counts_with_a_tensor_whose_memory_it_shows(self):
        x = tg.tensor([1.0, 2.0])
        y = tg.from_dlpack(x)
        w = tg.tensor([3.0, 4.0], requires_grad=True)
        loss = (w * x).sum()
        y[0] = 5.0
        with pytest.raises(RuntimeError, match="changed in place"):
            loss.backward()

    @pytest.mark.parametrize("dtype", ["bool", "int8", "int64", "float16", "float32", "float64"])
    def test_dtypes(self, dtype):
        a = np.array([[0, 1, 3]], dtype)
        assert tg.from_dlpack(Foreign(a)).dtype == dtype
        np.testing.assert_array_equal(tg.from_dlpack(a).numpy(), a)

    def test_no_elements(self):
        assert tg.from_dlpack(np.zeros((0, 3, 4))).shape == (0, 3, 4)

    @pytest.mark.parametrize(
        "x, error, message",
        [
            ([1.0], TypeError, "from_dlpack: list has no __dlpack__; tg.tensor takes"),
            (np.ma.masked_array([1.0], [True]), TypeError, "would lose its mask"),
            (np.ones(2, complex), TypeError, "ndarray of complex128 does not come in: .* holds floats, integers"),
            (Foreign(np.ones(2), kind=8), ValueError, "a device of DLPack's kind 8; known are the CPU and CUDA"),
        ],
    )
    def test_what_does_not_come_in(self, x, error, message):
        with pytest.raises(error, match=message):
            tg.from_dlpack(x)

    def test_refuses_tensors_on_the_tape(self):
        with pytest.raises(BufferError, match=r"would lose its gradient there; use x.detach\(\)"):
            tg.from_dlpack(tg.tensor([1.0], requires_grad=True))

    def test_a_gpu_that_is_not_there(self):
        if not tg.device_info()["cuda"].startswith("not usable"):
            pytest.skip("there is a GPU")
        with pytest.raises(RuntimeError, match="device='cuda:0' cannot be used: CuPy"):
            tg.from_dlpack(Foreign(np.ones(2), kind=2))


class TestLoadStateDict:
    def test_takes_arrays_of_other_libraries(self):
        model = tg.nn.Sequential(tg.nn.Linear(3, 2, rng=0), tg.nn.LayerNorm(2))
        state = {name: np.full(x.shape, i, "float32") for i, (name, x) in enumerate(model.state_dict().items())}
        model.load_state_dict({name: Foreign(x) for name, x in state.items()})
        for name, x in model.state_dict().items():
            np.testing.assert_array_equal(x, state[name])
            assert not np.shares_memory(x, state[name])

    def test_says_that_a_transpose_would_fit(self):
        with pytest.raises(ValueError, match=r"shape \(3, 2\) in the state and \(2, 3\) here; its transpose would fit"):
            tg.nn.Linear(3, 2, bias=False).load_state_dict({"weight": np.zeros((3, 2), "float32")})

    def test_names_what_does_not_come_in(self):
        with pytest.raises(ValueError, match="load_state_dict of Linear: weight: the array .* DLPack's kind 8"):
            tg.nn.Linear(3, 2, bias=False).load_state_dict({"weight": Foreign(np.zeros((2, 3), "float32"), kind=8)})


@pytest.mark.parametrize("framework, name", [("torch", "PyTorch"), ("jax", "JAX")])
def test_a_framework_that_is_absent_is_missed_in_one_sentence(framework, name):
    code = f"""
import sys
sys.modules[{framework!r}] = None
try:
    from tinygrad_ms.interop.{framework} import msign
except ImportError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == f"tinygrad_ms.interop.{framework} needs {name}: pip install {framework}\n"


class TestCalls:
    """What the bridges are built on, without a framework: derivatives of every order as functions of arrays."""

    x, g, h = (np.random.default_rng(i).standard_normal((4, 3)) for i in range(3))

    @staticmethod
    def f(x):
        return tg.msign(x), (x**3).sum(axis=0)

    def expected(self):
        x = tg.tensor(self.x, requires_grad=True)
        g = tg.tensor(self.g, requires_grad=True)
        (first,) = tg.gradients([tg.msign(x)], [x], [g], create_graph=True)
        return [first.numpy(), *(y.numpy() for y in tg.gradients([first], [x, g], [tg.tensor(self.h)]))]

    @pytest.mark.parametrize("keeps", [True, False], ids=["on the tape of the call", "with a tape of its own"])
    def test_pulls_are_calls(self, keeps):
        call = Call(self.f, wanted=[0] if keeps else [])
        np.testing.assert_array_equal(call.run([self.x], ["x"])[0], tg.msign(self.x))
        first = Pull(call, needed=[0], given=[0], wanted=[0, 1] if keeps else [])
        (found,) = first.run([self.x, self.g], ["x", "g"])
        second = Pull(first, needed=[0, 1], given=[0])
        more = second.run([self.x, self.g, self.h], ["x", "g", "h"])
        for a, b in zip([found, *more], self.expected(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-13)

    def test_the_tape_of_other_arrays_is_not_used(self):
        call = Call(self.f, wanted=[0])
        call.run([self.x], ["x"])
        (found,) = Pull(call, [0], [0]).run([self.h, self.g], ["h", "g"])
        call.run([self.h], ["h"])
        (expected,) = Pull(call, [0], [0]).run([self.h, self.g], ["h", "g"])
        np.testing.assert_array_equal(found, expected)

    def test_what_no_output_depends_on_gets_zeros(self):
        call = Call(lambda x, y: x * 2, wanted=[0, 1])
        call.run([self.x, self.g])
        found = Pull(call, [0, 1], [0]).run([self.x, self.g, self.h])
        np.testing.assert_array_equal(found, [self.h * 2, self.h * 0])
