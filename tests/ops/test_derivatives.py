"""Every primitive in the registry, at every sample: values, both modes, higher orders, layouts, devices.

A primitive without samples fails by name. What a sample is: ``tests/samples/__init__.py``.
"""

from contextlib import nullcontext

import numpy as np
import pytest

import tinygrad_ms as tg
from tests.conftest import require
from tests.samples import Sample, all_samples
from tinygrad_ms.arrays.devices import to_device
from tinygrad_ms.engine.around.forward import push_forward
from tinygrad_ms.engine.around.modes import forward_mode
from tinygrad_ms.engine.backward import walk
from tinygrad_ms.engine.primitive import REGISTRY
from tinygrad_ms.engine.tape import tape_of
from tinygrad_ms.stacked import StackedWalk
from tinygrad_ms.testing import check_jvp, forbid_sync, gradcheck, gradgradcheck, strict, two_devices
from tinygrad_ms.testing.differences import check_pairing, differentiated, to_numpy

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # samples at poles
ROUNDING = {"float64": 1e-10, "float32": 1e-6, "float16": 1e-3}  # of each element against its reference
PRIMITIVES = {name: p for name, p in REGISTRY.items() if p.forward.__module__.startswith("tinygrad_ms.")}
SAMPLES = all_samples()


def each_sample(condition=lambda name, sample: True):
    """Parametrise over (name, sample), the name and number in the id: ``exp-0-empty``."""
    cases = [
        pytest.param(name, sample, id=f"{name}-{i}-{sample.note.replace(' ', '_')}".rstrip("-"))
        for name in sorted(SAMPLES.keys() & PRIMITIVES.keys())
        for i, sample in enumerate(SAMPLES[name])
        if condition(name, sample)
    ]
    return pytest.mark.parametrize("name, sample", cases)


def varied(sample: Sample) -> list[int]:
    """The arguments that can carry a gradient."""
    return [i for i, a in enumerate(sample.args) if isinstance(a, np.ndarray) and a.dtype.kind == "f"]


def differentiable(name, sample):
    return PRIMITIVES[name].differentiable and bool(varied(sample))


def smooth(name, sample):
    return differentiable(name, sample) and sample.smooth


def has_order(n):
    return lambda name, sample: smooth(name, sample) and sample.order >= n


# --- running one sample -------------------------------------------------------------------------------------


def to_dtype(value, dtype):
    return value.astype(dtype) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


def constants_on(value, device):
    """Arrays among the constants (indices, masks) go to the device as well; "cpu" becomes its name."""
    if isinstance(value, (tuple, list)):
        return type(value)(constants_on(item, device) for item in value)
    if isinstance(value, dict):
        return {key: constants_on(item, device) for key, item in value.items()}
    if isinstance(value, str) and value == "cpu":
        return device
    return to_device(value, device) if isinstance(value, np.ndarray) else value


def arguments(sample, device="cpu", needed=None, layout=None, dtype=np.float64):
    """The arguments as tensors on ``device``; those in ``needed`` (default: all) require gradients."""
    result = []
    for i, value in enumerate(sample.args):
        if isinstance(value, np.ndarray):
            host = to_dtype(value, dtype)
            value = tg.Tensor(to_device(layout(host) if layout else host.copy(), device))
            value.requires_grad = i in (varied(sample) if needed is None else needed)
        result.append(value)
    return result


def call(name, sample, *args, device="cpu"):
    return PRIMITIVES[name].op(*args, **constants_on(sample.kwargs, device))


def of_tensors(name, sample):
    """The primitive as a function of its tensors alone."""

    def f(*args):
        return call(name, sample, *args)

    f.__name__ = name
    return f


def as_tuple(y):
    return y if isinstance(y, tuple) else (y,)


def weights(outputs, device):
    """The same random cotangents in every run."""
    random = np.random.default_rng(5)
    hosts = [random.standard_normal(y.shape).astype(y.dtype) for y in outputs]
    return [tg.Tensor(to_device(host, device)) for host in hosts]


def weighted_sum(outputs, device="cpu"):
    """<v, y> over all differentiable outputs, None if there is no such output."""
    outputs = [y for y in outputs if y.requires_grad]
    total = None
    for y, v in zip(outputs, weights(outputs, device)):
        term = (y * v).sum()
        total = term if total is None else total + term
    return total


def gradients(name, sample, **options):
    """The outputs, and per varied argument J^T v or None."""
    device = options.get("device", "cpu")
    args = arguments(sample, **options)
    outputs = as_tuple(call(name, sample, *args, device=device))
    total = weighted_sum(outputs, device)
    if total is not None:
        total.backward()
    return outputs, [args[i].grad for i in varied(sample)]


def assert_close(got, expected, tolerance=1e-12):
    """Equal up to ``tolerance`` times the largest finite element; shapes, nan and inf the same."""
    if got is None or expected is None:
        assert got is expected
        return
    got, expected = to_numpy(got), to_numpy(expected)
    assert got.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)], dtype=np.float64)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * finite.max(initial=0))


def assert_all_close(got, expected, tolerance=1e-12):
    assert len(got) == len(expected)
    for a, b in zip(got, expected):
        assert_close(a, b, tolerance)


# --- the registry -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_primitive_has_samples_with_reference_values(name):
    assert SAMPLES.get(name), f"primitive {name!r} has no samples: add some to tests/samples/"
    assert any(sample.reference for sample in SAMPLES[name]), f"no sample of {name!r} has a reference value"


def test_every_sample_belongs_to_a_primitive():
    assert sorted(SAMPLES.keys() - PRIMITIVES.keys()) == []


def refuses_0d(name):
    """Matrix products, index arrays and the like need an axis."""
    sample = SAMPLES[name][0]
    args = [np.ones((), a.dtype) if isinstance(a, np.ndarray) else a for a in sample.args]
    try:
        call(name, sample, *args)
    except (ValueError, TypeError, IndexError):
        return True
    return False


ONE_PER_ELEMENT = (
    "elementwise",
    "trigonometric",
    "comparisons",
    "special",
    "activations",
    "smooth_activations",
    "gelu",
    "mish",
    "normal",
)


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_samples_of_primitive_include_the_corner_cases(name):
    """Empty arrays, 0-d arrays and, where arguments meet element by element, broadcasting."""
    arrays = [[a for a in sample.args if isinstance(a, np.ndarray)] for sample in SAMPLES[name]]
    assert any(a.size == 0 for each in arrays for a in each), f"no sample of {name!r} is empty"
    flat = any(a.ndim == 0 for each in arrays for a in each)
    assert flat or refuses_0d(name), f"no sample of {name!r} is 0-d"
    primitive = PRIMITIVES[name]
    if len(primitive.arguments) > 1 and primitive.forward.__module__.endswith(ONE_PER_ELEMENT):
        assert any(len({a.shape for a in each}) > 1 for each in arrays), f"no sample of {name!r} broadcasts"


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_primitive_states_its_formula_and_source(name):
    primitive = PRIMITIVES[name]
    assert primitive.formula or not primitive.differentiable
    assert primitive.source or not primitive.differentiable
    assert primitive.doc or name.startswith("_")  # the public function documents itself


# --- values -------------------------------------------------------------------------------------------------


@each_sample()
def test_value(name, sample):
    """Arrays give arrays, tensors tensors of the same, equal to the reference; only views share memory."""
    primitive = PRIMITIVES[name]
    outputs = as_tuple(call(name, sample, *arguments(sample)))
    assert all(isinstance(y, tg.Tensor) for y in outputs)
    if any(isinstance(a, np.ndarray) for a in sample.args):
        raw = as_tuple(primitive.op(*sample.args, **sample.kwargs))
        assert not any(isinstance(y, tg.Tensor) for y in raw)
        assert_all_close(outputs, raw, 0)
        for i, a in enumerate(sample.args):
            shared = isinstance(a, np.ndarray) and any(np.may_share_memory(a, y) for y in raw)
            assert not shared or (primitive.view and i == 0), f"{name} must be declared view=True"
    if sample.reference:
        reference = sample.reference(*sample.args, **sample.kwargs)
        reference = reference if isinstance(reference, (tuple, list)) else (reference,)
        for y, expected in zip(outputs, reference, strict=True):
            assert y.shape == np.shape(expected)
            noise = sample.noise * np.abs(expected).max(initial=0) if sample.noise else 0
            np.testing.assert_allclose(y.numpy(), expected, rtol=ROUNDING.get(y.dtype.name, 0), atol=noise)


@each_sample(lambda name, sample: bool(varied(sample)))
def test_dtypes_are_kept(name, sample):
    """float32 in, float32 out, values and gradients, and near those of float64."""
    double, wide = gradients(name, sample)
    single, narrow = gradients(name, sample, dtype=np.float32)
    for y64, y32 in zip(double, single, strict=True):
        kept = y64.dtype != np.float64 or "dtype" in sample.kwargs
        assert y32.dtype == (y64.dtype if kept else np.float32)
    assert all(g is None or g.dtype == np.float64 for g in wide)
    assert all(g is None or g.dtype == np.float32 for g in narrow)
    if sample.smooth:
        assert_all_close(single, double, 1e-4)
        assert_all_close(narrow, wide, 1e-3)


@each_sample(lambda name, sample: smooth(name, sample) and len(varied(sample)) > 1)
def test_mixed_dtypes(name, sample):
    """float32 beside float64: gradients have the dtype of their argument, tangents that of their output.

    A solver may refuse the mixture instead, and say what to do.
    """
    first = varied(sample)[0]
    with forward_mode():
        args = arguments(sample)
        args[first] = args[first].detach().astype("float32").requires_grad_()
        try:
            outputs = [y for y in as_tuple(call(name, sample, *args)) if y.requires_grad]
        except TypeError as error:
            assert str(error).startswith(f"{name}: ") and ".astype" in str(error)
            return
    tangent = np.ones(args[first].shape, np.float32)
    for y, t in zip(outputs, push_forward([y.node for y in outputs], {args[first].node: tangent})):
        assert t is None or (t.dtype == y.dtype and t.shape == y.shape)
    weighted_sum(outputs).backward()
    for i in varied(sample):
        assert args[i].grad is None or args[i].grad.dtype == args[i].dtype


# --- derivatives --------------------------------------------------------------------------------------------


@each_sample(smooth)
def test_first_order(name, sample):
    """VJP and JVP against central differences, and against each other."""
    f, args = of_tensors(name, sample), arguments(sample)
    assert gradcheck(f, args, atol=sample.tolerance, rtol=sample.tolerance)
    assert check_jvp(f, args, atol=sample.tolerance, rtol=sample.tolerance)


@each_sample(has_order(2))
def test_second_order(name, sample):
    """Reverse over reverse and forward over reverse, against differences of the first gradient."""
    f, args = of_tensors(name, sample), arguments(sample)
    assert gradgradcheck(f, args, atol=sample.tolerance, rtol=sample.tolerance)
    assert check_jvp(*differentiated(f, args), atol=sample.tolerance, rtol=sample.tolerance)


def third_order(name, sample):
    """Where a sample asks for it, and at the first of each primitive that has two orders."""
    first = next((s for s in SAMPLES[name] if has_order(2)(name, s)), None)
    return has_order(3)(name, sample) or sample is first


@pytest.mark.slow
@each_sample(third_order)
def test_third_order(name, sample):
    f, args = of_tensors(name, sample), arguments(sample)
    assert gradgradcheck(*differentiated(f, args), atol=sample.tolerance, rtol=sample.tolerance)


@each_sample(lambda name, sample: differentiable(name, sample) and not sample.smooth)
def test_gradient_at_ties_and_kinks_is_the_documented_one(name, sample):
    assert sample.gradient is not None, "a sample with smooth=False states the documented gradient"
    args = arguments(sample)
    total = 0.0
    for y in as_tuple(call(name, sample, *args)):
        total = total + y.sum() if y.requires_grad else total
    total.backward()
    assert_all_close([args[i].grad for i in varied(sample)], sample.gradient)
    if all(np.isfinite(g).all() for g in sample.gradient if g is not None):
        assert check_pairing(of_tensors(name, sample), arguments(sample))


@each_sample(differentiable)
def test_each_argument_alone_gets_the_same_gradient(name, sample):
    _, together = gradients(name, sample)
    for i, expected in zip(varied(sample), together):
        _, alone = gradients(name, sample, needed=[i])
        assert_all_close(alone, [expected if j == i else None for j in varied(sample)])


@each_sample(differentiable)
def test_create_graph_gives_the_same_gradient(name, sample):
    """The rules on tensors, which record themselves, and on raw arrays."""
    _, plain = gradients(name, sample)
    args = arguments(sample)
    total = weighted_sum(as_tuple(call(name, sample, *args)))
    if total is not None:
        total.backward(create_graph=True)
    assert_all_close([args[i].grad for i in varied(sample)], plain)


@each_sample(differentiable)
def test_a_stack_of_cotangents_gives_what_its_rows_give(name, sample):
    """Raw and recorded, with one rule for the whole stack where a primitive says so (``batched``), else row by row."""
    random = np.random.default_rng(6)
    args = arguments(sample)
    inputs = [args[i].node for i in varied(sample)]
    for y in as_tuple(call(name, sample, *args)):
        if y.node is None:
            continue
        stack = random.standard_normal((3, *y.shape)).astype(y.dtype)
        rows = [walk([(y.node, row)], inputs, retain=True)[1] for row in [stack[i, ...] for i in range(3)]]
        for nested in (False, True):
            found = StackedWalk([y.node], inputs).pull(y.node, tg.Tensor(stack) if nested else stack, nested)
            assert found.keys() == rows[0].keys()
            for node, whole in found.items():
                assert whole.dtype == node.dtype
                assert_close(whole, np.stack([to_numpy(row[node]) for row in rows]))


# --- what a forward leaves for its rules ----------------------------------------------------------------------


def forget_caches(outputs):
    """Take away what forwards on the tape of ``outputs`` have left for their rules, as ``create_graph`` does."""
    for node in tape_of([y.node for y in outputs]):
        if node.plan is not None and node.plan.cached:
            node.saved = tuple(None if i in node.plan.cached else value for i, value in enumerate(node.saved))


def two_orders(name, sample, forget):
    """JVP, gradients and the gradients of their sum, with the caches or without them."""
    forget = forget_caches if forget else lambda outputs: None
    with forward_mode():
        args = arguments(sample)
        outputs = [y for y in as_tuple(call(name, sample, *args)) if y.requires_grad]
    forget(outputs)
    inputs = [args[i] for i in varied(sample)]
    tangents = {x.node: v.data for x, v in zip(inputs, weights(inputs, "cpu"))}
    pushed = push_forward([y.node for y in outputs], tangents)
    first = tg.gradients(weighted_sum(outputs), inputs, create_graph=True, allow_unused=True)
    second, total = [], weighted_sum([g for g in first if g is not None])
    if total is not None:
        forget([total])
        second = tg.gradients(total, inputs, retain_graph=True, allow_unused=True)
    plain = tg.gradients(weighted_sum(outputs), inputs, allow_unused=True)
    return [t for t in (*pushed, *plain, *first, *second) if t is not None]


@each_sample(lambda name, sample: bool(PRIMITIVES[name].cache) and smooth(name, sample))
def test_rules_with_and_without_their_cache_give_the_same(name, sample):
    kept, forgotten = two_orders(name, sample, False), two_orders(name, sample, True)
    assert_all_close(kept, forgotten, 1e-9)


def test_a_cache_is_on_the_node_and_nowhere_else():
    """It is no output, and it goes with what else the node saved."""
    x = tg.tensor(np.eye(3, 2), requires_grad=True)
    y = tg.msign(x, method="eigh")
    plan = y.node.plan
    assert [plan.names[i] for i in plan.cached] == sorted(plan.primitive.cache)
    assert all(isinstance(y.node.saved[i], np.ndarray) for i in plan.cached)
    y.sum().backward()
    assert y.node.saved is None


# --- memory layouts and devices -----------------------------------------------------------------------------


def transposed(a):
    return a.T.copy().T


def reversed_strides(a):
    backwards = (..., *[slice(None, None, -1)] * a.ndim)
    return a[backwards].copy()[backwards]


def every_second(a):
    return np.repeat(a, 2, axis=-1)[..., ::2] if a.ndim else a.copy()


@each_sample()
def test_what_shows_the_memory_of_an_argument_counts_its_changes(name, sample):
    """A view, or the argument itself, that came back uncounted could change under the tape in silence."""
    args = arguments(sample, needed=())
    with tg.no_grad():
        outputs = as_tuple(call(name, sample, *args))
    tensors = [a for a in args if isinstance(a, tg.Tensor)]
    for i, y in enumerate(outputs):
        for other in (*tensors, *outputs[:i]):
            if np.shares_memory(y.data, other.data):
                assert y.version_counter() is other.version_counter()


@pytest.mark.parametrize("layout", [transposed, reversed_strides, every_second])
@each_sample()
def test_memory_layout_changes_nothing(name, sample, layout):
    """Nor does the op write to its arguments: they are read-only here."""

    def read_only(a):
        a = layout(a)
        a.flags.writeable = False
        return a

    outputs, found = gradients(name, sample)
    other_outputs, other = gradients(name, sample, layout=read_only)
    assert_all_close(other_outputs, outputs, 1e-10)
    assert_all_close(other, found, 1e-10)


def turned(name, outputs, like):
    """``outputs`` of eigh or svd with each vector turned as in ``like``: its sign, a constant, is up to the library."""
    if name not in ("eigh", "svd") or like is None:
        return outputs
    which = 1 if name == "eigh" else 0  # where the vectors are columns
    expected = tg.Tensor(to_device(like[which].numpy(), outputs[0].device))
    signs = tg.sign((outputs[which].detach() * expected).sum(axis=-2, keepdims=True))
    if name == "eigh":
        return outputs[0], outputs[1] * signs
    return outputs[0] * signs, outputs[1], signs.mT * outputs[2]


def everything(name, sample, device, like=None):
    """Values, VJP, JVP and second-order VJP of the sample on a device, on the host.

    like: the results on another one, whose singular vectors and eigenvectors may have other signs.
    """
    args = arguments(sample, device)
    outputs = turned(name, as_tuple(call(name, sample, *args, device=device)), like)
    results = list(outputs)
    total = weighted_sum(outputs, device)
    if total is None:
        return results
    total.backward(create_graph=True)
    first = [args[i].grad for i in varied(sample)]
    for i in varied(sample):
        args[i].zero_grad()
    again = weighted_sum([g for g in first if g is not None], device)
    if again is not None:
        again.backward()
    second = [args[i].grad for i in varied(sample)]
    with forward_mode():
        args = arguments(sample, device)
        outputs = turned(name, as_tuple(call(name, sample, *args, device=device)), like)
        outputs = [y for y in outputs if y.requires_grad]
    tangents = weights([args[i] for i in varied(sample)], device)
    given = {args[i].node: t.data for i, t in zip(varied(sample), tangents)}
    return results + first + second + push_forward([y.node for y in outputs], given)


@pytest.mark.parametrize("device", ["strict", pytest.param("cuda", marks=pytest.mark.gpu)])
@each_sample()
def test_device_computes_the_same_without_synchronising(name, sample, device):
    require(device)
    expected = everything(name, sample, "cpu")
    with nullcontext() if sample.sync or device != "strict" else forbid_sync():
        found = everything(name, sample, device, expected)
    assert all(y.device == device for y in found if isinstance(y, tg.Tensor))
    for y, right in zip(found, expected, strict=True):  # a kernel of a device may round float32 to the next number
        single = right is not None and right.dtype == "float32"
        assert_close(y, right, 1e-6 if single else 1e-10 if device == "strict" else 1e-8)


def is_largest(name, sample):
    """Whether no sample of the primitive before this one has as many arrays with elements."""
    count = [sum(isinstance(a, np.ndarray) and a.size > 1 for a in s.args) for s in SAMPLES[name]]
    return sample is SAMPLES[name][count.index(max(count))]


@each_sample(is_largest)
def test_results_stay_on_the_second_card(name, sample):
    """While the first card is the current one, where results of CuPy would go: a missing context raises, or shows."""
    expected = everything(name, sample, "cpu")
    with two_devices():
        found = everything(name, sample, "strict:1", expected)
        assert all(y.device == "strict:1" for y in found if isinstance(y, tg.Tensor))
        assert all(y.device.id == 1 for y in found if isinstance(y, strict.ndarray))
    assert_all_close(found, expected, 1e-10)
