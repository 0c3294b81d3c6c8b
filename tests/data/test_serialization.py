"""A checkpoint comes back exactly, is never half written, and cannot do harm when it is loaded."""

import io
import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import tinygrad_ms as tg
from tinygrad_ms import serialization
from tinygrad_ms.serialization import CheckpointError, load, save

SUFFIXES = [".npz", ".safetensors"]


class FakeTensor:
    """What `save` asks of a Tensor."""

    device = "cuda"

    def __init__(self, array):
        self.array = array

    def numpy(self):
        return self.array


class FakeCupyArray:
    """What `save` asks of a CuPy array, which refuses to become a NumPy array by itself."""

    def __init__(self, array):
        self.array, self.dtype = array, array.dtype

    def get(self):
        return self.array

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


def assert_same(found, expected):
    """Equal in kind, dtype, shape and bits."""
    assert type(found) is type(expected)
    if isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    elif isinstance(expected, (np.ndarray, np.generic)):
        assert found.dtype == expected.dtype and found.shape == expected.shape
        assert found.tobytes() == expected.tobytes()
    else:
        assert repr(found) == repr(expected)


def checkpoint():
    rng = np.random.default_rng(0)
    return {
        "model": {"0.weight": rng.normal(size=(4, 3)).astype(np.float32), "0.bias": np.zeros(3, np.float32)},
        "optimizer": {
            "groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "nesterov": False, "decay": None}],
            "state": {0: {"step": 7, "m": rng.normal(size=(4, 3))}, 1: {"step": 7, "m": None}},
        },
        "rng": rng.bit_generator.state,  # holds integers of 128 bits
        "note": "épreuve \u2207 \U0001f600\n",
        "loss": float("nan"),
        "best": float("inf"),
        "zero": -0.0,
    }


# What goes in comes out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_training_state_comes_back(tmp_path, suffix):
    path = tmp_path / f"run{suffix}"
    save(path, checkpoint())
    assert_same(load(path), checkpoint())
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "state",
    [
        None,
        True,
        0,
        -(10**40),
        0.1,
        "",
        "text",
        [],
        (),
        {},
        {"a": {}},
        [[], ({},)],
        {1: "int", "1": "str"},
        np.float32(0.1),
        np.int64(-3),
        np.bool_(True),
        np.array(2.5),
        np.zeros((0, 3)),
        np.arange(3),
        [np.ones(1), (np.ones(2), {"x": np.ones(3)})],
        {"a.b": np.zeros(1), "a": {"b": np.ones(1)}, "a/b": np.full(1, 2.0), "..": np.ones(2), "": np.zeros(2)},
        {"__metadata__": np.zeros(2), "structure.json": np.ones(2), "structure": np.ones(3)},
    ],
    ids=lambda state: str(state)[:30].replace("\n", " "),
)
def test_kinds_of_state(tmp_path, suffix, state):
    path = tmp_path / f"state{suffix}"
    save(path, state)
    assert_same(load(path), state)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", sorted(serialization.NPY_DTYPES))
def test_dtypes(tmp_path, suffix, dtype):
    if dtype not in serialization.DTYPES[suffix]:
        with pytest.raises(TypeError, match=rf"state\['x'\] has dtype {dtype}, .*use the suffix .npz"):
            save(tmp_path / f"x{suffix}", {"x": np.ones(2, dtype)})
        return
    state = {"x": np.array([[0, 1, 3], [1, 0, 5]]).astype(dtype)}
    save(tmp_path / f"x{suffix}", state)
    assert_same(load(tmp_path / f"x{suffix}"), state)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        np.transpose,
        lambda x: x[::-1, ::2],
        lambda x: np.broadcast_to(x[0], x.shape),
        lambda x: x.astype(">f8"),
    ],
    ids=["fortran", "transposed", "strided", "broadcast", "big-endian"],
)
def test_any_memory_layout(tmp_path, suffix, change):
    x = change(np.arange(12.0).reshape(3, 4))
    save(tmp_path / f"x{suffix}", [x])
    np.testing.assert_array_equal(load(tmp_path / f"x{suffix}")[0], x)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_loaded_arrays_are_writable_and_independent_of_the_file(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    save(path, [np.zeros(1000)])
    (x,) = load(path)
    save(path, [np.ones(1000)])
    x += 2
    assert (x == 2).all() and (load(path)[0] == 1).all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_tensors_and_device_arrays_load_as_numpy_arrays(tmp_path, suffix):
    values = np.arange(6.0).reshape(2, 3)
    save(tmp_path / f"x{suffix}", {"tensor": FakeTensor(values), "cupy": FakeCupyArray(values)})
    assert_same(load(tmp_path / f"x{suffix}"), {"tensor": values, "cupy": values})


arrays = npst.arrays(
    st.sampled_from(["float32", "float64", "int64", "bool"]), npst.array_shapes(min_dims=0, min_side=0)
)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | arrays
states = st.recursive(
    leaves,
    max_leaves=8,
    extend=lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
    ),
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(state=states)
@pytest.mark.slow
def test_any_nested_state_comes_back(tmp_path_factory, suffix, state):
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    save(path, state)
    assert_same(load(path), state)


def test_equal_states_make_equal_files_that_numpy_opens(tmp_path):
    for name in ("a.npz", "b.npz"):
        save(tmp_path / name, checkpoint())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["model.0.weight"], checkpoint()["model"]["0.weight"])


# What cannot be saved


@pytest.mark.parametrize(
    "state, error, message",
    [
        ({"f": [1, print]}, TypeError, r"state\['f'\]\[1\] is a builtin_function_or_method, expected an array"),
        ({(1, 2): 3}, TypeError, r"state has the key \(1, 2\) of type tuple, expected strings or integers"),
        ({True: 3}, TypeError, "key True of type bool"),
        ([np.array([None])], TypeError, r"state\[0\] has dtype object, which .npz files cannot hold; convert it"),
        ([np.array(["a"])], TypeError, "has dtype <U1"),
        ([1 + 2j], TypeError, r"state\[0\] is a complex"),
        ({1, 2}, TypeError, "state is a set"),
    ],
)
def test_unsuited_values_are_named_with_their_place(tmp_path, state, error, message):
    with pytest.raises(error, match=f"save: .*{message}"):
        save(tmp_path / "x.npz", state)
    assert os.listdir(tmp_path) == []


def test_bfloat16(tmp_path, monkeypatch):
    import ml_dtypes

    state = {"w": np.array([1, 0.5, -3]).astype(ml_dtypes.bfloat16)}
    message = r"state\['w'\] has dtype bfloat16, which .npz files .*; use the suffix .safetensors or convert"
    with pytest.raises(TypeError, match=message):
        save(tmp_path / "x.npz", state)
    save(tmp_path / "x.safetensors", state)
    assert_same(load(tmp_path / "x.safetensors"), state)
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(CheckpointError, match="it holds bfloat16 arrays: `pip install ml_dtypes`"):
        load(tmp_path / "x.safetensors")


def test_state_that_contains_itself(tmp_path):
    state = {}
    state["self"] = [state]
    with pytest.raises(ValueError, match="save: the state is nested over 100 levels deep; does it contain"):
        save(tmp_path / "x.npz", state)


@pytest.mark.parametrize("path", ["x.pt", "x", "x.npy", ".npz"])
def test_unknown_suffix(tmp_path, path):
    with pytest.raises(ValueError, match=r"save: .* ends in '.*', expected one of \.npz, \.safetensors"):
        save(tmp_path / path, {})
    with pytest.raises(ValueError, match=r"load: .* ends in '.*', expected one of \.npz, \.safetensors"):
        load(tmp_path / path)


def test_missing_file_and_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="load: there is no file .*x.npz"):
        load(tmp_path / "x.npz")
    with pytest.raises(FileNotFoundError, match="save: there is no folder .*nowhere; make it first"):
        save(tmp_path / "nowhere" / "x.npz", {})


def test_safetensors_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda path: save(path, {}), load):
        with pytest.raises(ImportError, match="needs the package safetensors: `pip install safetensors`"):
            call(tmp_path / "x.safetensors")


# Whole or not at all


class Death(BaseException):
    pass


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("death", [Death, OSError, KeyboardInterrupt])
def test_a_writer_that_dies_midway_leaves_the_old_file(tmp_path, monkeypatch, suffix, death):
    path = tmp_path / f"run{suffix}"
    save(path, {"old": np.arange(3)})

    def dying_writer(file, arrays, structure):
        file.write(b"half a file")
        file.flush()
        assert len(os.listdir(tmp_path)) == 2  # the half file is there, under another name
        raise death

    monkeypatch.setitem(serialization.WRITERS, suffix, dying_writer)
    with pytest.raises(death):
        save(path, {"new": np.arange(4)})
    assert os.listdir(tmp_path) == [path.name]
    assert_same(load(path), {"old": np.arange(3)})


def test_death_at_the_last_moment_leaves_the_old_file(tmp_path, monkeypatch):
    save(tmp_path / "run.npz", 1)

    def dying(descriptor):
        raise Death

    monkeypatch.setattr(os, "fsync", dying)
    with pytest.raises(Death):
        save(tmp_path / "run.npz", 2)
    assert os.listdir(tmp_path) == ["run.npz"] and load(tmp_path / "run.npz") == 1


def test_a_symbolic_link_stays_one(tmp_path):
    save(tmp_path / "epoch1.npz", 1)
    (tmp_path / "last.npz").symlink_to("epoch1.npz")
    save(tmp_path / "last.npz", 2)
    assert (tmp_path / "last.npz").is_symlink() and load(tmp_path / "epoch1.npz") == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444])
def test_a_file_keeps_its_permissions(tmp_path, suffix, mode):
    path = tmp_path / f"x{suffix}"
    save(path, 1)
    path.chmod(mode)
    save(path, 2)
    assert path.stat().st_mode & 0o777 == mode and load(path) == 2


@pytest.mark.skipif(os.name == "nt", reason="kills by a POSIX signal")
def test_the_next_save_removes_what_a_killed_writer_left_and_nothing_else(tmp_path):
    script = (
        "import os, sys, signal, tinygrad_ms as tg\n"
        "from tinygrad_ms import serialization\n"
        "def dying(file, arrays, structure):\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), signal.SIGKILL)\n"
        "serialization.WRITERS['.npz'] = dying\n"
        "tg.save(sys.argv[1], {'a': 1})\n"
    )
    path = tmp_path / "x[1].npz"
    environment = {**os.environ, "PYTHONPATH": str(Path(tg.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", script, str(path)], env=environment, timeout=60)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".x[1].npz.") and left.endswith(".tmp")
    others = [".y.npz.01234567.tmp", ".x[1].npz.of mine.tmp"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    save(path, 1)
    assert sorted(os.listdir(tmp_path)) == sorted([path.name, *others])


def test_a_save_leaves_the_temporary_of_a_living_writer(tmp_path, monkeypatch):
    path, plain = tmp_path / "x.npz", serialization.WRITERS[".npz"]

    def slow(file, arrays, structure):
        monkeypatch.setitem(serialization.WRITERS, ".npz", plain)
        save(path, "the fast one")
        assert len(os.listdir(tmp_path)) == 2
        plain(file, arrays, structure)

    monkeypatch.setitem(serialization.WRITERS, ".npz", slow)
    save(path, "the slow one")
    assert load(path) == "the slow one" and os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_paths_may_be_bytes(tmp_path, suffix):
    path = os.fsencode(tmp_path / f"x{suffix}")
    save(path, [1, np.ones(2)])
    assert load(path)[0] == 1


def test_a_masked_array_is_refused_where_it_would_lose_its_mask(tmp_path):
    masked = np.ma.masked_array([1.0, 2.0], [True, False])
    with pytest.raises(TypeError, match=r"save: state\['w'\] is a masked array, whose mask would be lost"):
        save(tmp_path / "x.npz", {"w": masked})


def test_a_memory_error_stays_one(tmp_path, monkeypatch):
    save(tmp_path / "x.npz", 1)

    def full(file):
        raise MemoryError

    monkeypatch.setitem(serialization.READERS, ".npz", full)
    with pytest.raises(MemoryError):
        load(tmp_path / "x.npz")


# Damaged and hostile files


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("seed", range(3))
def test_no_flipped_bit_is_loaded_as_another_state(tmp_path, suffix, seed):
    path, rng = tmp_path / f"x{suffix}", random.Random(seed)
    w = np.random.default_rng(seed).normal(size=(20, 30)).astype("float32")
    state = {"w": w, "n": 7, "more": [w[0].astype("float64"), (True, np.int64(3)), {"a": w[:, :0], 5: None}]}
    save(path, state)
    raw = path.read_bytes()
    for k in [*rng.sample(range(8 * len(raw)), 300), *range(64, 8 * 300)]:
        data = bytearray(raw)
        data[k // 8] ^= 1 << k % 8
        path.write_bytes(data)
        try:
            loaded = load(path)
        except CheckpointError:
            continue
        assert_same(loaded, state)


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}, {"format": "np", "note": "a tinygrad_ms model"}])
def test_safetensors_of_other_programs_load_as_their_arrays(tmp_path, metadata):
    safetensors = pytest.importorskip("safetensors.numpy", reason="needs safetensors: pip install safetensors")
    model = tg.nn.Linear(3, 2, rng=0)
    arrays = {**model.state_dict(), "steps": np.array(7), "empty": np.zeros((0, 2), "float16")}
    path = tmp_path / "x.safetensors"
    safetensors.save_file(arrays, path, metadata)
    loaded = load(path)
    assert_same(loaded, dict(sorted(arrays.items())))
    other = tg.nn.Linear(3, 2, rng=1)
    assert other.load_state_dict(loaded, strict=False).unexpected == ["empty", "steps"]
    np.testing.assert_array_equal(other.weight.numpy(), model.weight.numpy())
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # nobody can know, and nobody says that it is as it was
    path.write_bytes(raw)
    assert load(path).keys() == arrays.keys()


def test_safetensors_that_numpy_cannot_hold_are_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    for dtype in ("F8_E4M3", "F4"):
        path.write_bytes(safetensors_file({"x": {"dtype": dtype, "shape": [2], "data_offsets": [0, 2]}}, b"\0" * 2))
        with pytest.raises(CheckpointError, match="is not a usable checkpoint: "):
            load(path)


@pytest.mark.parametrize("version", [1, 2])
def test_no_flipped_bit_of_the_header_makes_our_file_one_of_another_program(tmp_path, version):
    from safetensors.numpy import save_file

    path, state = tmp_path / "x.safetensors", {"w": np.arange(3.0), "n": 7}
    if version == 2:
        save(path, state)
    else:
        tree = structure({"dict": [["w", ONE], ["n", 7]]})
        save_file({"x": state["w"]}, path, metadata={"structure.json": tree})
    raw = path.read_bytes()
    size = 8 + struct.unpack("<Q", raw[:8])[0]
    for k in range(8 * size):
        data = bytearray(raw)
        data[k // 8] ^= 1 << k % 8
        path.write_bytes(data)
        try:
            loaded = load(path)
        except CheckpointError:
            continue
        assert len(loaded) == 2, data[:size]  # not the one array of the file


def test_safetensors_of_version_1_load_without_a_claim(tmp_path):
    from safetensors.numpy import save_file

    path, x = tmp_path / "x.safetensors", np.arange(3.0)
    save_file({"x": x}, path, metadata={"structure.json": structure({"dict": [["w", ONE]]})})
    np.testing.assert_array_equal(load(path)["w"], x)
    two = structure({"dict": [["w", ONE]]}).replace('"version": 1', '"version": 2')
    save_file({"x": x}, path, metadata={"structure.json": two})
    with pytest.raises(CheckpointError, match="the checksum of its structure differs: the file is damaged"):
        load(path)


def test_a_structure_that_is_too_long_is_refused_by_save_and_load(tmp_path, monkeypatch):
    save(tmp_path / "x.npz", ["x" * 200])
    monkeypatch.setattr(serialization, "MAX_STRUCTURE", 100)
    with pytest.raises(ValueError, match="save: the state without its arrays takes 2.. bytes, and 100 is the limit"):
        save(tmp_path / "y.npz", ["x" * 200])
    with pytest.raises(CheckpointError, match="its structure has 2.. bytes, and 100 is the limit"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_refused(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    save(path, {"w": np.arange(5.0), "n": [1, "two"]})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=f"load: .*x{suffix} is not a usable checkpoint: "):
            load(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_flipped_byte_gives_the_state_or_a_checkpoint_error(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    save(path, {"w": np.arange(5.0), "n": [1, "two"]})
    content = path.read_bytes()
    refused = 0
    for i in range(len(content)):
        path.write_bytes(content[:i] + bytes([content[i] ^ 0xA5]) + content[i + 1 :])
        try:
            load(path)
        except CheckpointError:
            refused += 1
    assert refused > len(content) // 3


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "content", [b"", b"\0" * 1000, b"\xff" * 1000, b"PK\x03\x04" + b"\0" * 60, pickle.dumps({"a": 1})]
)
def test_other_kinds_of_file(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a usable checkpoint"):
        load(path)


def npy(array, allow_pickle=False):
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(text):
    text = text.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def structure(state):
    return json.dumps({"format": "tinygrad_ms", "version": 1, "state": state})


def write_zip(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


HUGE = npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 1000), }")
NEGATIVE = npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -3), }") + b"\0" * 24
CODE = npy_header("{'descr': __import__('os').mkdir('executed'), 'fortran_order': False, 'shape': (1,)}")
ONE = {"array": "x"}


@pytest.mark.parametrize(
    "members, message",
    [
        ({"x.npy": npy(np.ones(1))}, "structure.json"),
        ({"structure.json": structure(ONE)}, "names the array 'x' twice, or it is not there"),
        ({"structure.json": structure({"list": [ONE, ONE]}), "x.npy": npy(np.ones(1))}, "the array 'x' twice"),
        ({"structure.json": structure(1), "x.npy": npy(np.ones(1))}, r"does not name the arrays \['x'\]"),
        ({"structure.json": structure(ONE), "x.npy": npy(np.array([Bomb()]), True)}, "dtype object.*any code"),
        ({"structure.json": structure(ONE), "x.npy": pickle.dumps(Bomb())}, "magic string"),
        ({"structure.json": structure(ONE), "x.npy": HUGE}, r"has 0 bytes for its shape \(1000000000000, 1000\)"),
        ({"structure.json": structure(ONE), "x.npy": NEGATIVE}, r"has 24 bytes for its shape \(-1, -3\)"),
        ({"structure.json": structure(ONE), "x.npy": CODE}, "usable checkpoint: "),
        ({"structure.json": structure(ONE), "x.npy": npy(np.ones(3))[:-1]}, "has 23 bytes for its shape"),
        ({"structure.json": structure(ONE), "x.npy": npy(np.array(["a"]))}, "has dtype <U1, which is not loaded"),
        ({"structure.json": structure(1), "../../y.npy": npy(np.ones(1))}, r"not name the arrays \['../../y'\]"),
        ({"structure.json": "{"}, "usable checkpoint: Expecting"),
        ({"structure.json": b"\xff\xfe\xfd"}, "usable checkpoint: "),
        ({"structure.json": "[" * 100_000}, "usable checkpoint: "),
        ({"structure.json": structure(json.loads('{"list": [' * 150 + "1" + "]}" * 150))}, "over 100 levels"),
        ({"structure.json": "9" * 5000}, "usable checkpoint: "),
        ({"structure.json": "[]"}, "not written by tinygrad_ms.save"),
        ({"structure.json": structure(1).replace("1", "2")}, "has version 2, this program reads 1"),
        (
            {"structure.json": structure(1).replace("tinygrad_ms", "numpy")},
            "it has the format 'numpy'; tinygrad_ms.save did not write it",
        ),
        ({"structure.json": structure(1).replace("1", "true")}, "has version True, this program reads 1"),
        ({"structure.json": structure({"set": [1]})}, "entry of unknown kind: {'set'"),
        ({"structure.json": structure({"list": [], "tuple": []})}, "entry of unknown kind"),
        ({"structure.json": structure({"dict": [["a", 1], ["a", 2]]})}, "a dict with one key twice"),
        ({"structure.json": structure({"list": 5})}, "entry of unknown kind"),
        ({"structure.json": structure([1])}, "entry of unknown kind"),
        ({"structure.json": structure({"dict": [["a"]]})}, "entry of unknown kind"),
        ({"structure.json": structure({"dict": [[["a"], 1]]})}, "entry of unknown kind"),
        ({"structure.json": structure({"array": ["x"]}), "x.npy": npy(np.ones(1))}, "entry of unknown kind"),
    ],
)
def test_hostile_npz(tmp_path, monkeypatch, members, message):
    monkeypatch.chdir(tmp_path)
    write_zip("x.npz", members)
    with pytest.raises(CheckpointError, match=message):
        load("x.npz")
    assert os.listdir(tmp_path) == ["x.npz"]  # nothing was executed, nothing unpacked


def test_zip_bombs_are_refused_before_they_are_unpacked(tmp_path):
    path = tmp_path / "x.npz"
    write_zip(path, {"structure.json": structure(ONE), "x.npy": npy(np.zeros(10**6))}, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="its zip members are compressed, which save never does"):
        load(path)
    save(path, [np.zeros(4)])
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")  # the directory entry of the last member; at 24, its unpacked size
    content[entry + 24 : entry + 28] = struct.pack("<I", 10**9)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="its zip members claim more bytes than the file has"):
        load(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("structure.json", structure(ONE))
        for value in (1.0, 2.0):
            archive.writestr("x.npy", npy(np.array(value)))
    with pytest.raises(CheckpointError, match="it has two members of one name"):
        load(tmp_path / "x.npz")


def test_encrypted_zip(tmp_path):
    path = tmp_path / "x.npz"
    save(path, 1)
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="encrypted"):
        load(path)


def safetensors_file(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        safetensors_file(b"{"),
        safetensors_file({"x": {"dtype": "F64", "shape": [2**40], "data_offsets": [0, 8]}}, b"\0" * 8),
        safetensors_file({"x": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}}, b"\0" * 8),
        safetensors_file({"x": {"dtype": "F64", "shape": [1], "data_offsets": [0, 9]}}, b"\0" * 9),
        safetensors_file({"__metadata__": {"structure.json.crc32": "0"}}),
        safetensors_file({"__metadata__": {"structurf.json": structure(ONE)}}),
        safetensors_file({"__metadata__": {"structure.json": "{"}}),
        safetensors_file({"__metadata__": {"structure.json": structure(ONE)}}),
    ],
    ids=[
        "huge header",
        "bad json",
        "huge shape",
        "offsets",
        "bytes",
        "no structure",
        "misspelt",
        "bad structure",
        "no array",
    ],
)
def test_hostile_safetensors(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="load: .*x.safetensors is not a usable checkpoint: "):
        load(path)


def test_checkpoint_error_is_a_value_error():
    assert issubclass(CheckpointError, ValueError)


def test_paths_and_values_that_cannot_be_are_sentences(tmp_path):
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(IsADirectoryError, match="save: .*folder.npz is a folder"):
        save(tmp_path / "folder.npz", 1)
    with pytest.raises(TypeError, match="load: path is a int, expected the name of a file"):
        load(3)
    with pytest.raises(ValueError, match=r"save: state\['n'\]\[0\] has an integer of 16,610 bits; save it as a string"):
        save(tmp_path / "x.npz", {"n": [10**5000]})
    save(tmp_path / "x.npz", 10**4200)
    assert load(tmp_path / "x.npz") == 10**4200
    np.savez(tmp_path / "x.npz", a=np.ones(2))
    with pytest.raises(CheckpointError, match="it has no structure.json: it was not written by tinygrad_ms.save"):
        load(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="missing: weight, bias; unexpected: 1"):
        tg.nn.Linear(2, 2).load_state_dict({1: 2})
