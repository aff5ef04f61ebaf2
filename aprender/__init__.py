"""Contract-driven falsification of GPU transformer code, and the transformer it guards."""

__version__ = "0.1.0"
