"""How a fit is put together: what was asked, what it may take, and its stages."""
