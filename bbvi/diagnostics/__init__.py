"""Checks of a fitted distribution; NumPy arrays in, numbers and words out."""
