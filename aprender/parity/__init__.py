"""How the CUDA path is judged against the oracle: envelopes of honest rounding."""
