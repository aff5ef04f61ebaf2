"""The transformer under contract: configuration, float64 oracle, CUDA path."""
