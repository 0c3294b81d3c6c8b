"""Samples of ops/matrix_sign/."""
