"""Samples of the identity that transforms open their inputs with."""

from tests.samples import Sample, normal

SAMPLES = {
    "alias": [Sample((normal(2, 3),), reference=lambda x: x), Sample((normal(),), reference=lambda x: x)],
}
