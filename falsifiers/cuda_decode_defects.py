"""All planted defects of the CUDA path's cached decoding, by defect class."""

from aprender.falsify.probe import Defects
from falsifiers import (
    cuda_decode_cache_defects,
    cuda_decode_generation_defects,
    cuda_decode_mask_defects,
    cuda_decode_position_defects,
)

DEFECTS = Defects(
    {
        **cuda_decode_cache_defects.DEFECTS,
        **cuda_decode_position_defects.DEFECTS,
        **cuda_decode_mask_defects.DEFECTS,
        **cuda_decode_generation_defects.DEFECTS,
    }
)
