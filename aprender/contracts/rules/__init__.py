"""What a contract must mean, beyond its shape: one module per subject, all of them in ``table``."""
