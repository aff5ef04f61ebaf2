"""All planted defects of the CUDA path's operators, by defect class."""

from aprender.falsify.probe import Defects
from falsifiers import (
    cuda_operator_attention_backward_defects,
    cuda_operator_attention_defects,
    cuda_operator_backward_defects,
    cuda_operator_forward_defects,
    cuda_operator_linear_defects,
    cuda_operator_mlp_defects,
)

DEFECTS = Defects(
    {
        **cuda_operator_linear_defects.DEFECTS,
        **cuda_operator_attention_defects.DEFECTS,
        **cuda_operator_forward_defects.DEFECTS,
        **cuda_operator_mlp_defects.DEFECTS,
        **cuda_operator_backward_defects.DEFECTS,
        **cuda_operator_attention_backward_defects.DEFECTS,
    }
)
