"""Compiled kernels agree with the formulas in NumPy, whatever the array, the number of threads, the process."""

import importlib.util
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.ops.test_accuracy import accuracy
from tinygrad_ms.ops import fused, rows
from tinygrad_ms.ops.fused import compiler, kernels, machine, mathematics, row_kernels, single
from tinygrad_ms.ops.fused.chains import chain

ROOT = Path(__file__).parents[2]
INSTALLED = importlib.util.find_spec("numba") is not None
needs_numba = pytest.mark.skipif(not INSTALLED, reason='numba is missing: pip install "tinygrad-ms[fast]", or numba')
N = 4 * fused.LEAST + 7  # elements: no multiple of the length of a vector
LABELS = np.random.default_rng(5).integers(0, 301, 400)
ELEMENTS = {
    "gelu": (tg.gelu, ["gelu", "gelu_rule"]),
    "gelu tanh": (lambda x: tg.gelu(x, approximate="tanh"), ["gelu_tanh", "times"]),
    "silu": (tg.silu, ["silu", "silu_rule"]),
    "sigmoid": (tg.sigmoid, ["sigmoid", "sigmoid_rule"]),
    "tanh": (tg.tanh, ["tanh", "tanh_rule"]),
    "elu": (tg.elu, ["elu", "times"]),
    "selu": (tg.selu, ["elu", "times"]),
    "softplus": (tg.softplus, ["softplus", "times"]),
    "log_sigmoid": (tg.log_sigmoid, ["softplus", "times"]),
    "exp": (tg.exp, ["exp"]),
    "expm1": (tg.expm1, ["expm1", "exp_rule"]),
    "log": (tg.log, ["log"]),
    "log1p": (tg.log1p, ["log1p"]),
    "sin": (tg.sin, ["sin", "cos"]),
    "cos": (tg.cos, ["cos", "sin"]),
    "erf": (tg.erf, ["erf"]),
    "relu": (tg.relu, ["relu", "relu_rule"]),
}
ROWS = {
    "softmax": (tg.softmax, ["softmax", "softmax_rule"]),
    "log_softmax": (tg.log_softmax, ["log_softmax", "log_softmax_rule"]),
    "cross_entropy": (lambda x: tg.cross_entropy(x, LABELS), ["label_loss", "label_loss_rule"]),
    "cross_entropy of which some is ignored": (
        lambda x: tg.cross_entropy(x, LABELS, ignore_index=7),
        ["log_softmax", "softmax_minus_one_hot"],
    ),
    "layer_norm": (tg.layer_norm, ["normalize_each", "normalize_each_rule"]),
    "layer_norm of a part": (lambda x, w, b: tg.layer_norm(x, w, b), ["normalize", "normalize_rule"]),
    "rms_norm": (lambda x, w: tg.rms_norm(x, w), ["normalize", "normalize_rule"]),
    "layer_norm times each": (lambda x, w: tg.layer_norm(x, w), ["normalize_each", "normalize_each_rule"]),
    "rms_norm times each": (lambda x, w: tg.rms_norm(x, w, 1e-30), ["normalize_each", "normalize_each_rule"]),
}


@pytest.fixture(autouse=True)
def two_threads():
    tg.set_num_threads(2)
    yield
    fused._state["on"] = True
    tg.set_num_threads(None)


@pytest.fixture(autouse=True)
def kernels_of_rows(monkeypatch):
    """Also where the loops of NumPy are of AVX-512, and the rows leave the kernels alone."""
    for name in rows.COMPILED:
        run = rows.large_or(getattr(np, name), name)
        monkeypatch.setitem(getattr(tg, name).primitive.direct, np.ndarray, run)


@pytest.fixture
def used(monkeypatch):
    """The names of the kernels that are called."""
    names = []
    for kind in (kernels.Each, row_kernels.Rows):
        call = kind.__call__
        monkeypatch.setattr(
            kind, "__call__", lambda self, *given, call=call: names.append(self.name) or call(self, *given)
        )
    return names


def inputs(name, dtype="float32"):
    count = 3 if "part" in name else 2 if name == "rms_norm" or "each" in name else 1
    x = 3 * np.random.default_rng(0).normal(size=(400, 301))
    arrays = [x, *np.random.default_rng(1).normal(size=(2, 400, 1) if "each" in name else (2, 301))][:count]
    return [a.astype("float32").astype(dtype) for a in arrays]


def value_and_gradients(function, arrays, order=1):
    leaves = [tg.tensor(a, requires_grad=True) for a in arrays]
    y = function(*leaves)
    seed = np.random.default_rng(2).normal(size=y.shape).astype("float32").astype(y.dtype)
    y.backward(seed, create_graph=order > 1)
    found = [y, *(leaf.grad for leaf in leaves)]
    if order > 1:
        loss = sum((g * g).sum() for g in found[1:])
        for leaf in leaves:
            leaf.grad = None
        loss.backward()
        found += [leaf.grad for leaf in leaves]
    return [f.numpy() for f in found if f is not None]


def in_numpy(function, *arguments):
    """What the formulas in NumPy give."""
    fused.set_fused(False)
    try:
        return function(*arguments)
    finally:
        fused.set_fused(True)


def ulps(found, right):
    """The largest error in ulp of float32 of the largest number of each array."""
    return max(
        float(np.abs(f - r).max(initial=0) / np.spacing(np.float32(max(np.abs(r).max(initial=0), 1e-38))))
        for f, r in zip(found, right, strict=True)
    )


# --- values ---------------------------------------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("name", [name for name in ELEMENTS if name != "relu"])
def test_elements_of_the_whole_range_hold_the_bar(name, used):
    case = accuracy.CASES[name]
    x = accuracy.arguments(case, "float32", 200_000)
    leaf = tg.tensor(x, requires_grad=True)
    y = case.function(leaf)
    y.backward(np.ones_like(x))
    assert used == ELEMENTS[name][1]
    right = accuracy.value_and_slope(case, x.astype("float64"))
    assert accuracy.error(y.numpy(), right[0], "float32", x) <= 4
    if name not in ("log_sigmoid",) + tuple(accuracy.BARS):
        return
    assert accuracy.error(leaf.grad.numpy(), right[1], "float32", x, name) <= 4


@needs_numba
@pytest.mark.parametrize("name", list(ELEMENTS))
def test_ends_of_the_range(name, used):
    ends = [0.0, 1e-45, 1e-38, 1.2e-38, 1e-5, 87.0, 88.8, 104.0, 1e6, 1.1e6, 3e38, math.inf]
    x = np.resize(np.array([math.nan, *ends, *np.negative(ends)], "float32"), N)
    with np.errstate(all="ignore"):
        found = value_and_gradients(ELEMENTS[name][0], [x])
        assert used == ELEMENTS[name][1]
        right = in_numpy(value_and_gradients, ELEMENTS[name][0], [x])
    for f, r in zip(found, right):
        np.testing.assert_allclose(f, r, rtol=5e-7, atol=3e-45)


@needs_numba
@pytest.mark.parametrize("name", list(ROWS))
def test_rows(name, used):
    function, names = ROWS[name]
    found = value_and_gradients(function, inputs(name))
    assert used == names
    right = in_numpy(value_and_gradients, function, inputs(name, "float64"))
    assert ulps(found, right) <= 4


@needs_numba
@pytest.mark.parametrize("name", list(ROWS))
def test_rows_with_values_that_are_not_finite_or_leave_the_range(name):
    x, *others = inputs(name)
    x[0, 3], x[1], x[2, 5], x[3], x[4, 0] = math.nan, -math.inf, math.inf, 0, -math.inf
    x[5] *= 1e30
    x[6] *= 1e-30
    x[7] = 1e4 + x[7]
    with np.errstate(all="ignore"):
        found = value_and_gradients(ROWS[name][0], [x, *others])
        right = value_and_gradients(ROWS[name][0], [a.astype("float64") for a in (x, *others)])
    for f, r in zip(found, right):
        np.testing.assert_allclose(f, r, rtol=2e-6, atol=1e-6 * np.abs(r[np.isfinite(r)]).max(initial=0))


@needs_numba
@pytest.mark.parametrize("name", [name for name in {**ELEMENTS, **ROWS} if name != "relu"])
def test_second_derivatives(name):
    function = {**ELEMENTS, **ROWS}[name][0]
    arrays = inputs(name)
    if name.startswith("log"):
        arrays[0] = np.abs(arrays[0]) + np.float32(0.1)
    found = value_and_gradients(function, arrays, 2)
    right = in_numpy(value_and_gradients, function, [a.astype("float64") for a in arrays], 2)
    assert ulps(found, right) <= 64


# --- arrays ---------------------------------------------------------------------------------------------------------


@needs_numba
def test_a_function_takes_any_array_and_a_kernel_only_what_it_can(used):
    x = np.random.default_rng(0).normal(size=(300, 300)).astype("float32")
    frozen = x.copy()
    frozen.setflags(write=False)
    taken = {"plain": x, "read-only": frozen, "a part": x[50:]}
    left = {
        "transposed": x.T, "every other column": x[:, ::2], "float64": x.astype("float64"), "empty": x[:0],
        "float16": x.astype("float16"), "small": x[:2], "other bytes": x.astype(">f4"),
        "unaligned": np.frombuffer(b" " + x.tobytes(), "float32", offset=1).reshape(x.shape),
    }  # fmt: skip
    for which, a in {**taken, **left}.items():
        for function in (tg.gelu, tg.exp, tg.softmax, tg.layer_norm):
            used.clear()
            y = function.primitive.forward(np, a)[0] if function is tg.gelu else function(a)
            copied = function is tg.layer_norm and which in ("transposed", "every other column")
            assert bool(used) == (which in taken or copied), which
            np.testing.assert_allclose(
                y, in_numpy(lambda a=a, f=function: f(tg.tensor(a)).numpy()), rtol=2e-3 if a.itemsize == 2 else 1e-6,
                atol=1e-6,
            )  # fmt: skip


@needs_numba
def test_other_axes_and_weights_stay_with_numpy(used):
    x = np.random.default_rng(0).normal(size=(40, 30, 50)).astype("float32")
    for function in (
        lambda x: tg.softmax(x, axis=0), lambda x: tg.layer_norm(x, axes=(0,)),
        lambda x: tg.log_softmax(x, axis=(1, 2)),
        lambda x: tg.rms_norm(x, np.ones((30, 50), "f")), lambda x: tg.layer_norm(x, axes=(0, 2)),
    ):  # fmt: skip
        assert ulps(value_and_gradients(function, [x]), value_and_gradients(function, [x.astype("d")])) <= 8
    assert set(used) <= {"exp"}
    value_and_gradients(lambda x: tg.layer_norm(x, axes=(2, 1)), [x])
    assert set(used) - {"exp"} == {"normalize_each", "normalize_each_rule"}


@needs_numba
@pytest.mark.parametrize("low, high", [(-13, -4), (-4, -0.77), (-0.74, -0.25), (-0.25, -1e-4), (1e-4, 0.6), (0.6, 9)])
def test_each_element_of_gelu_is_within_4_ulp(low, high, used):
    """The zero of the slope is between two ranges."""
    x = np.random.default_rng(7).uniform(low, high, 300_000).astype("float32")
    found = value_and_gradients(tg.gelu, [x])
    assert used == ["gelu", "gelu_rule"]
    right = in_numpy(value_and_gradients, tg.gelu, [x.astype("d")])
    for one, other in zip(found, right):
        assert (np.abs(one - other) / np.spacing(np.abs(other).astype("f"))).max() <= 4


@needs_numba
@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_a_rule_that_computes_its_slope_takes_any_gradient(name, used):
    function, x = ELEMENTS[name][0], inputs(name)[0]
    rows = np.linspace(-1, 1, x.shape[1], dtype="float32")
    expected = in_numpy(gradient_of, function, x, rows)
    used.clear()
    found = gradient_of(function, x, rows)  # a gradient that was broadcast is not contiguous
    assert used == [name, f"{name}_rule"]
    without = gradient_of(function, x, rows, between=lambda: fused.set_fused(False))
    for gradient in (found, without):
        np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)


@needs_numba
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_the_loss_of_labels_keeps_no_array(reduction, used):
    x, labels = np.random.default_rng(0).normal(size=(20, 20, 301)), LABELS.reshape((20, 20))

    def gradient(dtype, between=lambda: None):
        leaf = tg.tensor(x.astype(dtype), requires_grad=True)
        loss = tg.cross_entropy(leaf, labels, reduction=reduction)
        between()
        loss.sum().backward()
        return loss.numpy(), leaf.grad.numpy()

    right, found = gradient("float64"), gradient("float32")
    assert used == ["label_loss", "label_loss_rule"]
    assert ulps(found, right) <= 4
    for a, b in zip(gradient("float32", between=lambda: fused.set_fused(False)), right):
        np.testing.assert_allclose(a, b, rtol=2e-6)


def gradient_of(function, x, rows, between=lambda: None):
    leaf = tg.tensor(x, requires_grad=True)
    y = function(leaf)
    between()
    y.backward(np.broadcast_to(rows, x.shape))
    return leaf.grad.numpy()


# --- stores past the caches -----------------------------------------------------------------------------------------


def shifted(size, by, dtype):
    """An empty array that begins so many numbers behind a multiple of 64 bytes."""
    room = np.empty(size + 32, dtype)
    start = (by - room.ctypes.data % 64 // room.itemsize) % (64 // room.itemsize)
    return room[start : start + size]


@needs_numba
@pytest.mark.parametrize("name, dtype", [("relu", "f"), ("relu", "d"), ("relu_rule", "f"), ("elu", "f")])
def test_stores_past_the_caches_leave_the_same_numbers(name, dtype, monkeypatch):
    kernel = fused.loaded()[name]
    assert kernel.ready(np.dtype(dtype))
    for size in (0, 5, 127, 128, 129, 300, 5000, 120_001):
        given = [np.random.default_rng(k).normal(size=size).astype(dtype) for k in range(len(kernel.arrays))]
        given += [0.5] * len(kernel.constants)
        right = kernel(*given)
        with monkeypatch.context() as patch:
            patch.setattr(kernels, "STREAMED", 0)
            for by in [(0, 0), (3, 3), (0, 5)]:
                room = [shifted(size + 2, k, dtype) for k in by[: kernel.makes]]
                for a in room:
                    a[...] = 7
                kernel(*given, out=[a[1:-1] for a in room])
                for a, b in zip(room, right):
                    np.testing.assert_array_equal(a, [7, *b, 7])


@needs_numba
@pytest.mark.parametrize("name", ["normalize", "softmax_rule", "normalize_rule", "normalize_each"])
def test_rows_sent_past_the_caches_are_the_same(name, monkeypatch):
    kernel = fused.loaded()[name]
    assert kernel.ready(np.dtype("f"))
    for shape in [(1, 128), (7, 131), (400, 300)]:
        lines = {"normalize": (1, 0), "normalize_rule": (1, 0, 0)}.get(name, ())
        lines = [np.full(shape[1], value, "f") for value in lines] or [np.ones(shape[0], "f")] * ("each" in name)
        more = [*lines, *([1e-5, 1.0] if lines else [])]
        given = np.random.default_rng(0).normal(size=(len(kernel.matrices) - 1, *shape)).astype("f")
        for by in (0, 1, 15):
            found = []
            for least in (kernels.STREAMED, 0):
                room = shifted(shape[0] * shape[1] + 2, by, "f")
                room[...] = 7
                monkeypatch.setattr(row_kernels, "STREAMED", least)
                kernel(*given, room[1:-1].reshape(shape), *more)
                found.append(room)
            np.testing.assert_array_equal(*found)
            assert room[0] == 7 == room[-1] and not (room[1:-1] == 7).any()


# --- threads and processes ------------------------------------------------------------------------------------------


@needs_numba
@pytest.mark.parametrize("name", ["gelu", "tanh", "sin", *ROWS])
def test_results_do_not_depend_on_the_number_of_threads(name):
    function = {**ELEMENTS, **ROWS}[name][0]
    found = []
    for threads in (1, 2, 3):
        tg.set_num_threads(threads)
        found.append(value_and_gradients(function, inputs(name)))
    for other in found[1:]:
        for a, b in zip(found[0], other):
            np.testing.assert_array_equal(a, b)


@needs_numba
def test_several_threads_may_call_kernels_at_once():
    tg.set_num_threads(2)
    x = inputs("gelu")
    right, wrong = [value_and_gradients(f, x) for f in (tg.gelu, tg.softmax)], []

    def call():
        for _ in range(10):
            for function, expected in zip((tg.gelu, tg.softmax), right):
                same = map(np.array_equal, value_and_gradients(function, x), expected)
                wrong.extend(not equal for equal in same)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wrong) == 120 and not any(wrong)


AFTER_FORK = """
import os, numpy as np, tinygrad_ms as tg
tg.set_num_threads(2)
x = np.linspace(-5, 5, 200_000).astype("f")
before = tg.exp(x)
child = os.fork()
if not child:
    os._exit(0 if np.array_equal(tg.exp(x), before) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert np.array_equal(tg.exp(x), before)
"""
NOTHING_SMALL = """
import sys, numpy as np, tinygrad_ms as tg
x = tg.tensor(np.ones((20, 30), "f"), requires_grad=True)
tg.layer_norm(tg.softmax(tg.gelu(tg.exp(x)))).sum().backward()
tg.optim.Adam([x]).step()
assert "numba" not in sys.modules
"""
SWITCHED_OFF = """
import sys, numpy as np, tinygrad_ms as tg
assert np.isfinite(tg.exp(np.ones(100_000, "f"))).all()
assert "numba" not in sys.modules
"""
NO_NUMBA = """
import sys
sys.modules["numba"] = None
import numpy as np, tinygrad_ms as tg
assert tg.gelu(tg.ones((200, 300))).shape == (200, 300)
try:
    tg.set_fused(True)
except RuntimeError as error:
    assert 'pip install "tinygrad-ms[fast]"' in str(error)
else:
    raise AssertionError
"""
NO_FOLDER = """
import numpy as np, tinygrad_ms as tg
from tinygrad_ms.ops.fused import find
x = np.ones(100_000, "f")
assert find("relu", x)(x)[0].sum() == 100_000
"""


def in_a_process(code, **environment):
    command = [sys.executable, "-W", "error", "-W", "ignore:This process:DeprecationWarning", "-c", code]
    subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, check=True, timeout=120)


@needs_numba
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_kernels_run_after_a_fork():
    in_a_process(AFTER_FORK)


@needs_numba
def test_nothing_is_compiled_for_small_arrays():
    in_a_process(NOTHING_SMALL)


@needs_numba
def test_the_environment_switches_kernels_off():
    in_a_process(SWITCHED_OFF, TINYGRAD_MS_FUSED="0")


@needs_numba
def test_no_folder_for_the_cache_is_needed():
    in_a_process(NO_FOLDER, TINYGRAD_MS_CACHE="/dev/null/none")


def test_without_numba_numpy_does_all():
    in_a_process(NO_NUMBA)


@needs_numba
def test_text_and_machine_code_are_kept_under_a_name_that_says_what_they_are_of(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_MS_CACHE", str(tmp_path))
    name, text = kernels.KERNELS["relu"].text("float32")
    for changed in (text, text.replace("<=", "<")):
        compiler.compiled(name, changed, {"contract"})(*[np.zeros(3, "f")] * 3)
    assert len(list(tmp_path.glob("relu_loop_*.py"))) == 2
    assert len(list(tmp_path.glob("__pycache__/relu_loop_*.nbi"))) == 2


@needs_numba
def test_a_kernel_that_cannot_be_compiled_steps_aside_with_one_warning(monkeypatch):
    def broken(x, /):
        return undefined(x)  # noqa: F821

    kernel = kernels.Each(broken)
    try:
        with pytest.warns(RuntimeWarning, match="the kernel broken cannot be compiled, NumPy does its work"):
            assert fused.find("broken", np.ones(N, "f")) is None
        assert fused.find("broken", np.ones(N, "f")) is None
    finally:
        del kernels.KERNELS[kernel.name]


@pytest.mark.parametrize("threads", [0, 1.5, True, "2"])
def test_a_number_of_threads_is_an_integer_of_at_least_one(threads):
    with pytest.raises(ValueError, match="set_num_threads: threads is .*, expected an integer of at least 1"):
        tg.set_num_threads(threads)


@pytest.mark.parametrize(
    "given, expected", [({"OPENBLAS_NUM_THREADS": "1"}, 1), ({"OMP_NUM_THREADS": "1"}, 1), ({"PMI_SIZE": "4"}, 1)]
)
def test_the_environment_gives_the_number_of_threads(monkeypatch, given, expected):
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    tg.set_num_threads(None)
    assert tg.get_num_threads() == expected


# --- steps of optimizers --------------------------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda p: tg.optim.SGD(p, 0.1, weight_decay=0.01),
    "momentum": lambda p: tg.optim.SGD(p, 0.1, momentum=0.9, dampening=0.1),
    "Nesterov": lambda p: tg.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: tg.optim.Adam(p, weight_decay=0.1),
    "AdamW": lambda p: tg.optim.AdamW(p),
}


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_steps_are_those_of_numpy(name, dtype, used):
    def steps():
        numbers = np.random.default_rng(0)
        p = tg.tensor(numbers.normal(size=(200, 301)).astype(dtype), requires_grad=True)
        optimizer = OPTIMIZERS[name]([p])
        for _ in range(3):
            p.grad = tg.tensor(numbers.normal(size=p.shape).astype(dtype))
            optimizer.step()
        return p.numpy()

    found, right = steps(), in_numpy(steps)
    if name.startswith("Adam"):  # one division less
        np.testing.assert_allclose(found, right, rtol=4 * np.finfo(dtype).eps, atol=1e-2 * np.finfo(dtype).eps)
    else:
        np.testing.assert_array_equal(found, right)
    assert len(used) >= 2


@needs_numba
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_large_parameters_of_a_group_are_stepped_together(name, monkeypatch):
    together, over = [], kernels.Each.over
    monkeypatch.setattr(
        kernels.Each, "over", lambda self, lists, *values: together.append(len(lists)) or over(self, lists, *values)
    )

    def steps(threads=2, change=lambda parameters: None):
        tg.set_num_threads(threads)
        numbers = np.random.default_rng(0)
        shapes = (200, 301), (7,), (40_000,), (300_000,)
        parameters = [tg.tensor(numbers.normal(size=shape).astype("f"), requires_grad=True) for shape in shapes]
        change(parameters)
        optimizer = OPTIMIZERS[name](parameters)
        for _ in range(3):
            for p in parameters:
                p.grad = tg.tensor(numbers.normal(size=p.shape).astype("f"))
            optimizer.step()
        assert {optimizer.state[p]["step"] for p in parameters} == {3}
        assert len({p.version_counter()[0] for p in parameters}) == 1
        return [p.numpy() for p in parameters]

    found = steps()
    assert together == [3] * (3 if name == "SGD" else 2)  # in the first step the state of the others is new
    for other in (steps(1), steps(3)):
        for a, b in zip(found, other, strict=True):
            np.testing.assert_array_equal(a, b)
    for change, count in ((shares_memory, 0), (has_gaps, 2)):
        together.clear()
        found = steps(change=change)
        assert set(together) == ({count} if count else set())
        for a, b in zip(found, in_numpy(lambda: steps(change=change)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def shares_memory(parameters):
    parameters[2].data = parameters[3].data[:40_000]


def has_gaps(parameters):
    parameters[0].data = np.asfortranarray(parameters[0].data)


@needs_numba
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_clipping(dtype, used):
    def clipped():
        p = tg.tensor(np.zeros((400, 301), dtype), requires_grad=True)
        p.grad = tg.tensor(np.random.default_rng(0).normal(size=p.shape).astype(dtype))
        norm = tg.optim.clip_grad_norm([p], 1.0)
        return norm.numpy(), p.grad.numpy()

    found, right = clipped(), in_numpy(clipped)
    np.testing.assert_allclose(found[0], right[0], rtol=1e-7)
    np.testing.assert_allclose(found[1], right[1], rtol=3e-7)
    assert used == ["squares", "squares", "scaled"]


# --- one loop of many calls -----------------------------------------------------------------------------------------

LINES = [
    ("a", "multiply", "x", "y"), ("b", "tanh", "a"), ("c", "sin", "y"), ("d", "maximum", "b", "c"),
    ("e", "greater", "x", 0.25), ("f", "where", "e", "d", "b"), ("g", "multiply", "f", "rate"), ("h", "sqrt", "e"),
    ("i", "add", "g", "h"),
]  # fmt: skip


@needs_numba
def test_a_list_of_calls_becomes_one_loop():
    run = chain(LINES, {"x": "1", "y": "1", "rate": "0"}, {"i": "", "d": ""}, ["g"])
    x, y = np.random.default_rng(0).normal(size=(2, 500, 301)).astype("float32")
    x[0, :5], y[1, :3], y[300, 7] = math.nan, [math.inf, -math.inf, math.nan], 3e7
    found = []
    for threads in (1, 3):
        tg.set_num_threads(threads)
        found.append([*(np.empty_like(x) for _ in range(2)), 0])
        i, d, _ = found[-1]
        found[-1][2] = run(
            (x[2:].size,), *(a[2:].reshape(-1) for a in (x, y)), 0.5, *(a[2:].reshape(-1) for a in (i, d))
        )
        i[:2], d[:2] = 0, 0
    for one, other in zip(*found):
        np.testing.assert_array_equal(one, other)
    i, d = np.empty_like(x), np.empty_like(x)
    (g,) = run((x.size,), *(a.reshape(-1) for a in (x, y)), 0.5, *(a.reshape(-1) for a in (i, d)))
    assert math.isnan(g)
    b = np.tanh(x.astype("d") * y)
    with np.errstate(invalid="ignore"):
        right = np.maximum(b, np.sin(y.astype("d")))
    np.testing.assert_allclose(d, right, rtol=2e-6, atol=1e-7)
    chosen = 0.5 * np.where(x > 0.25, right, b)
    np.testing.assert_allclose(i, chosen + (x > 0.25), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(found[0][2], chosen[2:].sum(), rtol=1e-6)


def test_a_list_with_an_unknown_function_becomes_none():
    assert chain([("a", "arctan2", "x", "y")], {"x": "1", "y": "1"}, {"a": ""}) is None


# --- bodies as functions of Python ----------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [-80.0, -1.5, -1e-9, 0.0, 1e-12, 0.7, 3.0, 80.0])
def test_bodies_are_functions_of_floats(x):
    for name in ("exp", "expm1", "erf", "sin", "cos"):
        assert getattr(mathematics, name)(x) == pytest.approx(getattr(math, name)(x), rel=2e-9, abs=1e-300)
    for name in ("log", "log1p"):
        if x > 0:
            assert getattr(mathematics, name)(x) == pytest.approx(getattr(math, name)(x), rel=1e-10)
    assert single.exp(x) == pytest.approx(math.exp(x), rel=1e-8)
    assert machine.from_rank(machine.rank(x)) == np.float32(x)


def test_ranks_grow_with_their_floats():
    x = [-math.inf, -3e38, -1.0, -1e-45, 0.0, 1e-45, 2.5, math.inf, math.nan]
    assert sorted(map(machine.rank, x)) == list(map(machine.rank, x))


# --- gradients that nobody else knows -------------------------------------------------------------------------------


def test_a_gradient_is_copied_only_where_somebody_else_knows_it(monkeypatch):
    from tinygrad_ms.engine import backward

    given, accumulate = [], backward.accumulate
    monkeypatch.setattr(
        backward, "accumulate", lambda leaf, g, sole=False: given.append(sole) or accumulate(leaf, g, sole)
    )
    x, w = (tg.tensor(np.ones(3), requires_grad=True) for _ in range(2))
    (3.0 * x).sum().backward()
    assert given == [True]
    seed = np.ones(3)
    for g in (seed, tg.tensor(seed)):
        x.grad = w.grad = None
        (x + w).backward(g)
        arrays = [x.grad.data, w.grad.data, seed, getattr(g, "data", seed)]
        assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays[:2]) for b in arrays[i + 1 :])


def test_one_owner_is_found():
    from tinygrad_ms.sole import sole

    found = []
    for place, array in [(0, np.ones(3)), (1, np.ones((2, 3)).T), (2, np.ones(3)[:2])]:
        found += take(place, array, sole(array))
    known = np.ones(3)
    for place, array in [(3, known)]:
        found += take(place, array, sole(array))
    assert found == [True, False, False, False]


def take(place, array, one):
    return [one]
