"""The oracle: the independent reference in torch float64, forward, backward and cached decode."""

from aprender.transformer.oracle.batch import PADDING, Batch
from aprender.transformer.oracle.model import Cache, Oracle

__all__ = ["PADDING", "Batch", "Cache", "Oracle"]
