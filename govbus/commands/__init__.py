"""The commands of ``govbus``, one module a group; each has ``register(app)``."""
