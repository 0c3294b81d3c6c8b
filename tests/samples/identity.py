"""Samples of the identity that transforms open their inputs with."""

from tests.samples import Sample, normal

SAMPLES = {"identity": [Sample((normal(*shape),), reference=lambda x: x) for shape in ((2, 3), (), (0, 3))]}
