"""All planted defects of the CUDA path's laws, by defect class."""

from aprender.falsify.probe import Defects
from falsifiers import (
    cuda_laws_attention_defects,
    cuda_laws_gradient_defects,
    cuda_laws_memory_defects,
    cuda_laws_position_defects,
    cuda_laws_run_defects,
    cuda_laws_stage_defects,
)

DEFECTS = Defects(
    {
        **cuda_laws_attention_defects.DEFECTS,
        **cuda_laws_stage_defects.DEFECTS,
        **cuda_laws_gradient_defects.DEFECTS,
        **cuda_laws_memory_defects.DEFECTS,
        **cuda_laws_run_defects.DEFECTS,
        **cuda_laws_position_defects.DEFECTS,
    }
)
