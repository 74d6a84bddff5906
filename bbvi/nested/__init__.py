"""Nested Laplace: what a few hyper-parameters leave over is integrated out, block by block, and corrected exactly."""
