"""Random numbers, and draws with their weights."""
