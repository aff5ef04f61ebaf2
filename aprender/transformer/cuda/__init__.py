"""The CUDA path: the transformer in torch, as plain objects whose stages can be read and replaced by name."""

from aprender.transformer.cuda.model import CudaTransformer

__all__ = ["CudaTransformer"]
