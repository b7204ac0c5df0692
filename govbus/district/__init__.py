"""A simulated district for demonstrations and tests: what departments publish, and what must come of it."""
