"""Deterministic simulation: the real code against an in-memory log, one thread, one clock, one seed."""
