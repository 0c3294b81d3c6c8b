"""Samples of ops/linalg/."""
