"""What is inferred: a log density over named, constrained parameters, as one flat vector."""
