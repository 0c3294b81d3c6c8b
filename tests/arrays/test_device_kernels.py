"""Kernels for devices: their text computes what NumPy does, NVIDIA's compiler takes it, one launch does the work.

No card is needed. The text runs on this CPU, compiled by the host's compiler; NVRTC compiles it for cards of four kinds
(pip install "tinygrad-ms[nvrtc]"); and on the strict device a kernel runs its reference and counts as one launch.
"""

import warnings

import numpy as np
import pytest

import tinygrad_ms as tg
from tests import cuda_on_host, nvrtc
from tests.conftest import require
from tests.ops.test_accuracy import accuracy
from tinygrad_ms import nn
from tinygrad_ms.launches import kernels
from tinygrad_ms.launches.kernels import DTYPES, NEAR
from tinygrad_ms.ops import fused
from tinygrad_ms.ops.fused import devices
from tinygrad_ms.ops.fused.devices.each import Each
from tinygrad_ms.ops.fused.devices.kernel import FUNCTIONS, Making
from tinygrad_ms.ops.fused.devices.text import PRELUDE
from tinygrad_ms.ops.fused.references import REFERENCES
from tinygrad_ms.ops.fused.symbols import written
from tinygrad_ms.random import bits
from tinygrad_ms.testing import strict

for name in REFERENCES:
    devices.named(name)
KERNELS = {name: kernel for name, kernel in kernels.KERNELS.items() if isinstance(kernel, Making)}
ROWS = [name for name, kernel in KERNELS.items() if not isinstance(kernel, Each)]
CASES = [(name, dtype) for name, kernel in KERNELS.items() for dtype in kernel.dtypes]
needs_compiler = pytest.mark.skipif(cuda_on_host.COMPILER is None, reason="no C++ compiler: neither g++ nor c++")
ml_dtypes = pytest.importorskip("ml_dtypes")  # for bfloat16


def random(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def named(kernel, dtype):
    """The name and the text for arrays of that dtype, and arguments: those of the self-check."""
    given = kernel.samples(dtype)
    arrays, numbers = given[: kernel.takes], given[kernel.takes :]
    return kernel.named("".join(a.dtype.char for a in arrays), kernel.split(arrays, numbers)[0]), arrays, numbers


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """All kernels for all dtypes, compiled by the host's compiler."""
    texts = [named(KERNELS[name], dtype)[0][1] for name, dtype in CASES]
    return cuda_on_host.build(PRELUDE, texts, tmp_path_factory.mktemp("kernels"))


@pytest.fixture
def on_host(library, tmp_path, monkeypatch):
    """The strict device runs the text of the kernels on this CPU."""
    names = {named(KERNELS[name], dtype)[0][0] for name, dtype in CASES}
    monkeypatch.setattr(cuda_on_host.RawModule, "made", dict.fromkeys(names, library))
    monkeypatch.setattr(cuda_on_host.RawModule, "folder", tmp_path, raising=False)
    yield from anew(monkeypatch, cuda_on_host.RawModule)


def anew(monkeypatch, module):
    """The strict device with another ``RawModule``, and nothing known of its kernels, before and after."""
    monkeypatch.setitem(vars(strict.xp), "RawModule", module)
    forget()
    yield
    forget()


def forget():
    for kernel in KERNELS.values():
        kernel.made.clear()
        kernel.checked.clear()


def run(library, kernel, arrays, numbers):
    """What the text makes of arrays and numbers."""
    dtypes = "".join(a.dtype.char for a in arrays)
    constants, passed = kernel.split(arrays, numbers)
    made = [np.full(shape, np.nan, dtype) for shape, dtype in kernel.shapes_of(arrays, numbers)]
    blocks, threads = kernel.geometry(arrays, numbers)
    typed = [(np.float64 if type(n) is float else np.int64)(n) for n in passed]
    name, _ = kernel.named(dtypes, constants)
    results = []
    for backwards in (0, 1):
        fenced = [fence(a) for a in (*arrays, *made)]
        library.set_backwards(backwards)
        cuda_on_host.launch(library, name, blocks, (threads,), (*(a for a, _ in fenced), *typed))
        assert all(is_whole() for _, is_whole in fenced), "it writes beside an array"
        results.append([a for a, _ in fenced[len(arrays) :]])
    library.set_backwards(0)
    for one, other in zip(*results):
        assert one.tobytes() == other.tobytes(), "the result depends on the order of threads: a barrier is missing"
    return results[0]


def fence(array):
    """A copy with NaN, or a large number, on both sides, and a function that says whether these are still there."""
    beside = np.full(64, np.nan if array.dtype.kind in "fV" else 99, array.dtype)
    whole = np.concatenate([beside, array.ravel(), beside])
    before = beside.tobytes() * 2
    inside = whole[64 : 64 + array.size].reshape(array.shape)
    return inside, lambda: whole[:64].tobytes() + whole[64 + array.size :].tobytes() == before


def close(found, right, dtype, factor=1.0):
    for f, r in zip(found, right, strict=True):
        assert f.dtype == r.dtype and f.shape == r.shape
        f, r = f.astype("float64"), r.astype("float64")
        scale = max(1.0, np.abs(r[np.isfinite(r)]).max(initial=0))
        np.testing.assert_allclose(f, r, factor * NEAR[dtype], factor * NEAR[dtype] * scale)


# --- the text, run on this CPU --------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("name, dtype", CASES)
def test_the_text_computes_what_the_reference_does(library, name, dtype):
    kernel = KERNELS[name]
    _, arrays, numbers = named(kernel, dtype)
    with np.errstate(all="ignore"):
        right = [np.asarray(r) for r in kernel.reference(np, *arrays, *numbers)]
    close(run(library, kernel, arrays, numbers), right, dtype)


def matrix(rows, n, dtype, seed=0):
    return random(rows, n, seed=seed, dtype="float64").astype(DTYPES[dtype])


def arguments(name, rows, n, dtype):
    """Arguments of a kernel over ``rows`` rows of length ``n``."""
    x, y, w = matrix(rows, n, dtype), matrix(rows, n, dtype, 1), matrix(2, n, dtype, 2)
    labels = np.random.default_rng(3).integers(-1, n + 1, rows)  # n is no class, -1 is ignored
    return {
        "softmax": [x, rows, n],
        "log_softmax": [x, rows, n],
        "softmax_rule": [x, y, rows, n],
        "log_softmax_rule": [x, y, rows, n],
        "labelled_loss": [x, labels, rows, n, -1],
        "labelled_rule": [x, labels, x[:, 0].copy(), np.asarray(3, x.dtype), rows, n, 1, 1, -1],
        "labelled_total": [x.reshape(-1), np.resize(labels, rows * n), 1, rows * n, -1, 1],
        "normalize": [x, w[0].copy(), w[1].copy(), rows, n, 1, 1, 1, 1e-5],
        "normalize_rule": [y, x, w[0].copy(), rows, n, 1, 1, 1e-5],
        "columns": [y, x, np.ones((rows, 4), "float64" if dtype == "d" else "float32"), rows, n, 3],
    }[name]


@needs_compiler
@pytest.mark.parametrize("shape", [(1, 1), (5, 31), (3, 300), (2, 600), (2, 2500)])
@pytest.mark.parametrize("name", [name for name in ROWS if name != "dropout_mask"])
def test_rows_of_all_lengths(library, name, shape):
    kernel = KERNELS[name]
    for dtype in kernel.dtypes:
        given = arguments(name, *shape, dtype)
        arrays, numbers = given[: kernel.takes], given[kernel.takes :]
        with np.errstate(all="ignore"):
            right = [np.asarray(r) for r in kernel.reference(np, *arrays, *numbers)]
        close(run(library, kernel, arrays, numbers), right, dtype)


@needs_compiler
@pytest.mark.parametrize("dtype", "fd")
def test_rows_without_a_usual_number(library, dtype):
    n = 70
    x = matrix(7, n, dtype)
    x[1, 3], x[2, 4], x[3], x[4, 5] = np.nan, np.inf, -np.inf, -np.inf
    x[5], x[6] = x[5] * (1e30 if dtype == "f" else 1e300), x[6] * (1e-30 if dtype == "f" else 1e-300)
    for name in ("softmax", "log_softmax"):
        kernel = KERNELS[name]
        with np.errstate(all="ignore"):
            right = kernel.reference(np, x, 7, n)
        np.testing.assert_allclose(run(library, kernel, [x], (7, n))[0], right[0], 1e-5 if dtype == "f" else 1e-12)
    for eps in (0.0, 1e-5):
        kernel, numbers = KERNELS["normalize"], (7, n, 1, 1, 1, eps)
        w, b = matrix(2, n, dtype, 2)
        with np.errstate(all="ignore"):
            right = kernel.reference(np, x, w, b, *numbers)
        (found,) = run(library, kernel, [x, w.copy(), b.copy()], numbers)
        assert np.isnan(found[1:5]).all() and np.isfinite(found[[0, 5, 6]]).all()
        np.testing.assert_allclose(found, right[0], *([2e-5] * 2 if dtype == "f" else [1e-12] * 2))


@needs_compiler
def test_half_precision_is_read_and_rounded_as_by_numpy(tmp_path):
    """All values of 16 bits; floats between them, ties and the ends of the range."""
    text = 'extern "C" __global__ void NAME(const A* x, const float* y, B* z, long long n)'
    text += " { for (long long i = 0; i < n; i++) z[i] = x[i] + y[i]; }"
    texts = [f"typedef {a} A; typedef {a} B;\n{text.replace('NAME', a + '_sum')}" for a in ("half", "brain")]
    library = cuda_on_host.build(PRELUDE, texts, tmp_path)
    for name, dtype in (("half", np.float16), ("brain", ml_dtypes.bfloat16)):
        x = np.arange(2**16, dtype="uint16").view(dtype)
        x, half_step = x[np.isfinite(x.astype("float32"))], np.float32(2.0 ** (-11 if name == "half" else -8))
        for factor in (0, 1, -1, 0.999, 1.001):
            with np.errstate(all="ignore"):
                y = (x.astype("float32") * half_step * factor).astype("float32")
                right = (x.astype("float32") + y).astype(dtype)
            z = np.empty_like(x)
            cuda_on_host.launch(library, f"{name}_sum", (1,), (1,), (x, y, z, np.int64(x.size)))
            np.testing.assert_array_equal(z.view("uint16"), right.view("uint16"))
        ends = np.array([np.nan, np.inf, -np.inf, 7e4, 65519, 65520, -65520, 1e-8, 3e-8, 2.98e-8, 3.4e38], "float32")
        z = np.empty(ends.size, dtype)
        cuda_on_host.launch(
            library, f"{name}_sum", (1,), (1,), (np.zeros(ends.size, dtype), ends, z, np.int64(ends.size))
        )
        with np.errstate(all="ignore"):
            np.testing.assert_array_equal(z.astype("float32"), ends.astype(dtype).astype("float32"))


ACCURATE = ["elu", "erf", "expm1", "gelu", "gelu tanh", "sigmoid", "silu", "softplus", "tanh"]


@needs_compiler
@pytest.mark.parametrize("name", ACCURATE)
def test_float32_is_accurate_in_its_own_precision(on_host, name):
    """Value and derivative within 5 ulp where they are normal numbers; half precision is rounded to the nearest.

    The bar of docs/accuracy.md for a CPU, where float32 may be computed in float64, is 4.
    """
    case = accuracy.CASES[name]
    for dtype, bar in (("float32", 5.0), ("float16", 0.51)):
        x = accuracy.arguments(case, dtype, 8_000)
        right = accuracy.value_and_slope(case, x.astype("float64"))
        leaf = tg.tensor(x, requires_grad=True, device="strict")
        y = case.function(leaf)
        y.backward(tg.tensor(np.ones_like(x), device="strict"))
        for found, r, more in ((y, right[0], ()), (leaf.grad, right[1], (name,))):
            normal = np.abs(r) >= (np.finfo("float32").tiny if dtype == "float32" else 0)
            assert accuracy.error(found.numpy()[normal], r[normal], dtype, x[normal], *more) <= bar


@needs_compiler
def test_ops_by_the_text_are_those_of_the_cpu(on_host):
    """Value and gradients, through the doors that the ops use."""
    labels = np.random.default_rng(4).integers(0, 40, 30)
    ignored = np.where(labels % 3, labels, -100)
    given = [random(30, 40), random(40, seed=1), random(40, seed=2)]
    functions = {
        "layer_norm": lambda x, w, b, t: tg.layer_norm(x, w, b),
        "layer_norm without eps": lambda x, w, b, t: tg.layer_norm(x * 1e-25, w, b, eps=0.0),
        "layer_norm of two axes": lambda x, w, b, t: tg.layer_norm(x.reshape((3, 10, 40)), axes=(1, 2)),
        "rms_norm": lambda x, w, b, t: tg.rms_norm(x, w) + b,
        "layer_norm of many rows": lambda x, w, b, t: tg.layer_norm(tg.concat([x] * 40), w, b),
        "normalised by a number": lambda x, w, b, t: tg.layer_norm(x, 2.0, b) * w,
        "softmax": lambda x, w, b, t: tg.softmax(x * w + b),
        "softmax of columns": lambda x, w, b, t: tg.softmax(x * w + b, axis=0),
        "log_softmax": lambda x, w, b, t: tg.log_softmax(x.T * 2).T * w + b,
        "cross_entropy": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(labels)),
        "cross_entropy, int32": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(labels.astype("int32"))),
        "cross_entropy, some ignored": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(ignored)),
        "cross_entropy of each": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(ignored), reduction="none"),
        "cross_entropy, sum": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(ignored), reduction="sum"),
        "cross_entropy, all ignored": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(labels * 0 - 100)),
        "cross_entropy, smooth": lambda x, w, b, t: tg.cross_entropy(x * w + b, t(labels), label_smoothing=0.1),
        "erf": lambda x, w, b, t: tg.erf(x * w + b),
        "relu": lambda x, w, b, t: tg.relu(x * w + b),
        "sech": lambda x, w, b, t: tg.sech(x * w + b),
        "logits": lambda x, w, b, t: tg.binary_cross_entropy_with_logits(x * w + b, t(np.abs(given[0]) / 9)),
    }  # fmt: skip
    for name, function in functions.items():
        results = []
        for device in ("cpu", "strict"):
            leaves = [tg.tensor(a, requires_grad=True, device=device) for a in given]
            y = function(*leaves, lambda a, device=device: tg.tensor(a, device=device))
            y.backward(tg.tensor(random(*y.shape, seed=5), device=device))
            results.append([a.numpy() for a in (y, *(leaf.grad for leaf in leaves)) if a is not None])
        for right, found in zip(*results, strict=True):
            scale = max(np.abs(right).max(initial=0), 1e-30)
            np.testing.assert_allclose(found / scale, right / scale, rtol=2e-5, atol=2e-6, err_msg=name)


def test_a_label_out_of_range_makes_the_loss_nan():
    x = tg.tensor(random(3, 4), requires_grad=True, device="strict")
    loss = tg.cross_entropy(x, tg.tensor([1, 4, -100], device="strict"))
    loss.backward()
    assert np.isnan(loss.item()) and np.isnan(x.grad.numpy()[1]).all()
    assert (x.grad.numpy()[2] == 0).all() and np.isfinite(x.grad.numpy()[0]).all()


def test_second_derivatives_do_not_need_the_kernels():
    for function in (
        tg.gelu,
        tg.softmax,
        tg.layer_norm,
        lambda x: tg.cross_entropy(x, tg.tensor([1, 2], device=x.device)),
    ):
        found = []
        for device in ("cpu", "strict"):
            x = tg.tensor(random(2, 5, dtype="float64"), requires_grad=True, device=device)
            (g,) = tg.gradients((function(x) ** 2).sum(), [x], create_graph=True)
            (h,) = tg.gradients((g * g).sum(), [x])
            found.append(h.numpy())
        np.testing.assert_allclose(*found, rtol=1e-9, atol=1e-12)


# --- launches -------------------------------------------------------------------------------------------------------


def launches(step):
    step()
    strict.reset_stats()
    with tg.testing.forbid_sync():
        step()
    return strict.STATS.calls


def forward_and_backward(function, *shapes):
    leaves = [tg.tensor(random(*shape, seed=k), requires_grad=True, device="strict") for k, shape in enumerate(shapes)]
    seed = tg.tensor(random(*shapes[0]), device="strict")

    def step():
        for leaf in leaves:
            leaf.grad = None
        y = function(*leaves)
        y.backward(seed if y.shape else None)

    return step


LABELS = np.random.default_rng(0).integers(0, 128, 64)


@pytest.mark.parametrize(
    "function, shapes, most",
    [
        (tg.layer_norm, [(64, 128), (128,), (128,)], 5),
        (tg.rms_norm, [(64, 128), (128,)], 5),
        (lambda x: tg.cross_entropy(x, tg.tensor(LABELS, device="strict")), [(64, 128)], 5),
        (tg.gelu, [(64, 128)], 2),
        (lambda x: tg.gelu(x, approximate="tanh"), [(64, 128)], 2),
        *[(f, [(64, 128)], 2) for f in (tg.silu, tg.sigmoid, tg.softplus, tg.tanh, tg.relu, tg.elu, tg.exp)],
        *[(f, [(64, 128)], 2) for f in (tg.softmax, tg.log_softmax, tg.mish, tg.sech)],
        (tg.erf, [(64, 128)], 2),
    ],
)  # fmt: skip
def test_launches_forward_and_backward(function, shapes, most):
    assert launches(forward_and_backward(function, *shapes)) <= most


def test_launches_of_a_perceptron():
    """Forward, cross-entropy, backward: 8 products, 3 biases added and 3 summed, 2 relu each way, 2 + 1 of the loss."""
    tg.set_default_device("strict")
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 10))
    x, labels = tg.tensor(random(8, 20)), tg.tensor(np.arange(8))

    def step():
        for p in model.parameters():
            p.grad = None
        tg.cross_entropy(model(x), labels).backward()

    assert launches(step) <= 34  # of which up to 9 are views, and 3 copies of the gradients of biases


def test_dropout_draws_its_mask_on_the_device():
    x = tg.tensor(np.ones((100, 70), "float32"), requires_grad=True, device="strict")
    layer = nn.Dropout(0.25, rng=0)
    with tg.testing.forbid_sync():
        y = layer(x)
        strict.reset_stats()
        y = layer(x)
        y.backward(x.detach())
    assert strict.STATS.calls <= 4 and strict.STATS.h2d == 0
    assert abs((y.numpy() == 0).mean() - 0.25) < 0.02 and set(np.unique(y.numpy())) == {0, np.float32(4 / 3)}
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())
    assert not np.array_equal(layer(x).numpy(), y.numpy())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_masks_of_dropout_are_those_of_plain_calls(monkeypatch, dtype):
    x = tg.tensor(np.ones((5, 7)), dtype, device="strict")
    masks = [nn.Dropout(0.3, rng=3)(x).numpy()]
    monkeypatch.setitem(fused._state, "on", False)
    masks.append(nn.Dropout(0.3, rng=3)(x).numpy())
    np.testing.assert_array_equal(*masks)


def test_splitmix_gives_the_numbers_of_its_authors():
    """The first numbers of the seed 1234567, as the C program of Vigna prints them."""
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert bits(np, 1234567, 5).tolist() == known


def test_compile_notes_a_kernel_as_one_call():
    def step(x, w):
        return tg.gelu(tg.layer_norm(x, w)).sum()

    x, w = (tg.tensor(random(*shape), device="strict") for shape in ((5, 6), (6,)))
    compiled = tg.compile(step)
    for _ in range(4):
        assert compiled(x, w).item() == step(x, w).item()
    assert "normalize(" in compiled.tape and "gelu(" in compiled.tape


# --- kernels that check themselves ----------------------------------------------------------------------------------


class Wrong(cuda_on_host.RawModule):
    """A card that is off by a quarter."""

    def get_function(self, name):
        run = super().get_function(name)
        takes = FUNCTIONS[name][0].takes

        def off(blocks, threads, args):
            run(blocks, threads, args)
            arrays = [a for a in args if type(a) is strict.ndarray]
            arrays[takes]._a[...] *= 1.25

        return off


class Refused:
    """A compiler that takes nothing."""

    def __init__(self, code, options):
        raise RuntimeError("no compiler is here")


@pytest.fixture(params=[pytest.param(Wrong, marks=needs_compiler), Refused])
def broken(request, monkeypatch):
    if request.param is Wrong:
        names = {named(KERNELS[name], dtype)[0][0] for name, dtype in CASES}
        monkeypatch.setattr(cuda_on_host.RawModule, "made", dict.fromkeys(names, request.getfixturevalue("library")))
    yield from anew(monkeypatch, request.param)


@needs_compiler
def test_self_check_finds_nothing_wrong(on_host):
    found = devices.self_check("strict")
    assert {f"{name} {DTYPES[dtype]}" for name, dtype in CASES} < set(found) and not any(found.values())
    with pytest.raises(ValueError, match="device 'cpu' has no kernels of this kind"):
        devices.self_check("cpu")


@pytest.mark.gpu
def test_self_check_finds_nothing_wrong_on_a_card():
    found = devices.self_check(require("cuda"))
    assert len(found) >= 100 and not any(found.values())


def test_a_kernel_that_does_wrong_is_switched_off_with_one_warning(broken):
    x, w = random(20, 30), random(30, seed=1)
    with pytest.warns(RuntimeWarning) as caught:
        for _ in range(2):
            found = [
                tg.layer_norm(tg.tensor(x, device="strict"), tg.tensor(w, device="strict")).numpy(),
                tg.gelu(tg.tensor(x, device="strict")).numpy(),
            ]
    assert [str(w.message).split(" of ")[0] for w in caught] == [
        f"tinygrad_ms: the kernel {k}" for k in ("normalize", "gelu")
    ]
    assert "is not used on strict, where calls of the array library do its work" in str(caught[0].message)
    right = [tg.layer_norm(tg.tensor(x), tg.tensor(w)).numpy(), tg.gelu(tg.tensor(x)).numpy()]
    for f, r in zip(found, right):
        np.testing.assert_allclose(f, r, rtol=1e-5, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = devices.self_check("strict")
    assert all(found[f"{name} {DTYPES[dtype]}"] for name, dtype in CASES)


def test_kernels_may_be_turned_off(monkeypatch):
    monkeypatch.setitem(fused._state, "on", False)
    assert launches(forward_and_backward(tg.gelu, (6, 8))) > 20


def test_what_depends_on_values_has_no_text():
    def kernel(xp, x):
        return (x if x > 0 else -x,)

    with pytest.raises(TypeError, match="cannot depend on the value of an element"):
        written(kernel, "float32", 1)
    with pytest.raises(AttributeError, match="has no cumsum"):
        written(lambda xp, x: (xp.cumsum(x),), "float32", 1)


# --- NVIDIA's compiler ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_90", "sm_100"])
def test_nvrtc_takes_every_text(architecture):
    library = nvrtc.find_library()
    if library is None:
        pytest.skip('NVRTC is not installed: pip install "tinygrad-ms[nvrtc]", or nvidia-cuda-nvrtc-cu12')
    texts = [named(KERNELS[name], dtype)[0][1] for name, dtype in CASES]
    source = PRELUDE + "\n".join(f"namespace part{k} {{\n{text}\n}}" for k, text in enumerate(texts))
    options = ["--std=c++17", "-ftz=true", "--fmad=false", "-w", f"--gpu-architecture={architecture}"]
    code, log = nvrtc.compiled(library, source, options)
    assert code.startswith(b"\x7fELF") and not log.strip("\0\n"), log[:3000]
