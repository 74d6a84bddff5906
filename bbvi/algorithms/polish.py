"""Moved."""

from bbvi.algorithms.newton import balanced_draws, triangular

__all__ = ["balanced_draws", "triangular"]
