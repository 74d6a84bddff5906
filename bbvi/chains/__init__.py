"""Many short chains that begin at an approximation, move in its coordinates, and end when they agree."""
