"""Jacobians by central differences without the library: what formulas and the tape are held against."""

import numpy as np

import tinygrad_ms as tg

EXACT = 1e-12  # tape against formula, relative to the largest element
NUMERIC = 1e-8  # central differences with h = 1e-5 in float64 against formula


def differences(f, x, layout="tensor", h=1e-5):
    """dy_i/dx_k of ``f`` on plain arrays, in the layouts of AIDIY: matrices are flattened row by row."""
    x = np.asarray(x, dtype=float)
    columns = []
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = h
        step = step.reshape(x.shape)
        columns.append((np.asarray(f(x + step)) - np.asarray(f(x - step))) / (2 * h))
    y_shape = columns[0].shape
    numerator = np.stack([c.ravel() for c in columns], axis=1)
    shapes = {"tensor": y_shape + x.shape, "numerator": numerator.shape}
    return numerator.T if layout == "denominator" else numerator.reshape(shapes[layout])


def assert_agree(actual, expected, tolerance):
    actual = actual.numpy() if isinstance(actual, tg.Tensor) else np.asarray(actual)
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * max(1, abs(expected).max(initial=0)))


def check(f, x, layout, formula):
    """The tape in reverse and in forward mode, and the differences, all give the formula."""
    for mode in ("reverse", "forward"):
        assert_agree(tg.jacobian(f, x, layout=layout, mode=mode), formula, EXACT)
    assert_agree(differences(f, x, layout), formula, NUMERIC)
