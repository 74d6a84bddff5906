"""Where a fit starts: a point, a mode, or the bulk of the posterior."""
