"""Ways to look at a posterior; each is a function of it."""
