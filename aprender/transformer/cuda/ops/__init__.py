"""The operators of the CUDA path as stages with a forward and a backward each; one file per operator.

Letters in names give shapes: B rows, T positions (of queries), S positions of keys, D hidden, F feed-forward, V
vocabulary, H query heads, G key/value heads, C channels of a head, R = C/2 rotation pairs, K and N a projection's input
and output width, N (or M) flattened positions.
"""

from aprender.transformer.cuda.ops.adamw import AdamW, clip_scale, global_norm
from aprender.transformer.cuda.ops.attention import Attention
from aprender.transformer.cuda.ops.cross_entropy import LinearCrossEntropy
from aprender.transformer.cuda.ops.embedding import Embedding
from aprender.transformer.cuda.ops.linear import FusedLinear, Linear, Logits
from aprender.transformer.cuda.ops.matmul import use_float32_accumulation
from aprender.transformer.cuda.ops.memory import poisoned
from aprender.transformer.cuda.ops.residual import ResidualAdd
from aprender.transformer.cuda.ops.rms_norm import AddRMSNorm, RMSNorm
from aprender.transformer.cuda.ops.rope import Rope
from aprender.transformer.cuda.ops.runtime import kernels_that_ran
from aprender.transformer.cuda.ops.stage import Gradients, Saved, Stage
from aprender.transformer.cuda.ops.swiglu import SwiGLU

__all__ = [
    "AdamW",
    "AddRMSNorm",
    "Attention",
    "Embedding",
    "FusedLinear",
    "Gradients",
    "Linear",
    "LinearCrossEntropy",
    "Logits",
    "RMSNorm",
    "ResidualAdd",
    "Rope",
    "Saved",
    "Stage",
    "SwiGLU",
    "clip_scale",
    "global_norm",
    "kernels_that_ran",
    "poisoned",
    "use_float32_accumulation",
]
