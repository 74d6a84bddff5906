"""Mathematics that several algorithms share; it knows of arrays only."""
