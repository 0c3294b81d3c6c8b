"""Points and their classes: moons, spirals, circles, digits, or a CSV file of the user's."""

import csv
import io
from typing import NamedTuple

import numpy as np

from tinygrad_ms.data import load_digits

MOST_ROWS, MOST_COLUMNS, MOST_CLASSES = 5000, 64, 10


class Points(NamedTuple):
    """Features (N, D) in float32, classes (N,), and the names of both. ``images``: (N, 8, 8) of digits."""

    features: np.ndarray
    classes: np.ndarray
    names: list[str]
    class_names: list[str]
    images: np.ndarray | None = None


def make(settings) -> Points:
    """The data that the settings name. Raises ValueError with a sentence for a CSV that is none."""
    if settings.data == "csv":
        return read_csv(settings.csv)
    rng = np.random.default_rng(settings.seed)
    if settings.data == "digits":
        digits = load_digits()
        chosen = rng.permutation(len(digits))[: max(settings.points, 100)]
        features = digits.features()[chosen].astype("float32")
        return Points(standard(features, keep=True), digits.labels[chosen], [f"pixel {i}" for i in range(64)],
                      list(digits.classes), digits.images[chosen])  # fmt: skip
    classes = np.arange(settings.points) % 2
    plane = SHAPES[settings.data](classes, rng)
    plane = plane + settings.noise * rng.standard_normal(plane.shape)
    return Points(plane.astype("float32"), classes, ["x1", "x2"], ["0", "1"])


def moons(classes, rng):
    angle = np.pi * rng.random(len(classes))
    upper = np.column_stack([np.cos(angle), np.sin(angle)])
    lower = np.column_stack([1 - np.cos(angle), 0.5 - np.sin(angle)])
    return np.where(classes[:, None] == 0, upper, lower) * 1.2 - [0.6, 0.3]


def spirals(classes, rng):
    """Two arms of one and a half turns."""
    along = np.sqrt(rng.random(len(classes)))
    angle = 3 * np.pi * along + np.pi * classes
    return 2 * along[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


def circles(classes, rng):
    angle, radius = 2 * np.pi * rng.random(len(classes)), np.where(classes == 0, 1.6, 0.7)
    return radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])


SHAPES = {"moons": moons, "spirals": spirals, "circles": circles}


def standard(features, keep=False) -> np.ndarray:
    """Every column with mean 0 and deviation 1; ``keep``: one scale for all, so that an image stays one."""
    spread = features.std() if keep else features.std(axis=0)
    return ((features - features.mean(axis=0)) / np.where(spread == 0, 1, spread)).astype("float32")


def read_csv(text: str) -> Points:
    """Numbers, and the class in the last column; a first row without numbers holds the names."""
    try:
        rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise ValueError(f"csv: {error}") from None
    if len(rows) < 2:
        raise ValueError("csv: the file has no rows; expected numbers, and the class in the last column")
    wide = len(rows[0])
    if not 2 <= wide <= MOST_COLUMNS + 1:
        raise ValueError(f"csv: row 1 has {wide} columns; expected 1 to {MOST_COLUMNS} of numbers, and the class")
    names = [f"x{i}" for i in range(1, wide)]
    first = 1
    if any(number(cell) is None for cell in rows[0][:-1]):
        names, rows, first = [cell.strip()[:24] or name for cell, name in zip(rows[0], names)], rows[1:], 2
    if len(rows) > MOST_ROWS:
        raise ValueError(f"csv: {len(rows)} rows are too many for the playground; expected at most {MOST_ROWS}")
    if len(rows) < 10:
        raise ValueError(f"csv: {len(rows)} rows are too few to learn from and to test with; expected at least 10")
    values = np.empty((len(rows), wide - 1), "float64")
    for i, row in enumerate(rows):
        if len(row) != wide:
            raise ValueError(f"csv: row {i + first} has {len(row)} columns and row 1 has {wide}")
        for j, cell in enumerate(row[:-1]):
            found = number(cell)
            if found is None:
                raise ValueError(f"csv: row {i + first}, column {names[j]} is {cell.strip()[:24]!r}; expected a number")
            values[i, j] = found
    labels = [row[-1].strip()[:24] for row in rows]
    classes = sorted(set(labels), key=lambda label: (number(label) is None, number(label) or 0.0, label))
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ValueError(
            f"csv: the last column has {len(classes)} different values; expected 2 to {MOST_CLASSES} classes"
            + ": is the class there?" * (len(classes) > MOST_CLASSES)
        )
    places = {label: i for i, label in enumerate(classes)}
    return Points(standard(values), np.array([places[label] for label in labels]), names, classes)


def number(cell: str) -> float | None:
    """The finite number in a cell of moderate size, or None."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) < 1e30 else None
