"""Checks for derivatives, and the strict device that stands in for CuPy."""
