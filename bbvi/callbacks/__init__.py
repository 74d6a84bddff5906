"""What looks on between blocks of steps: a progress bar, a checkpoint."""
