"""All planted defects of whole CUDA models, by defect class."""

from aprender.falsify.probe import Defects
from falsifiers import (
    cuda_composition_gradient_defects,
    cuda_composition_loss_defects,
    cuda_composition_parameter_defects,
    cuda_composition_rounding_defects,
    cuda_composition_wiring_defects,
)

DEFECTS = Defects(
    {
        **cuda_composition_wiring_defects.DEFECTS,
        **cuda_composition_parameter_defects.DEFECTS,
        **cuda_composition_rounding_defects.DEFECTS,
        **cuda_composition_gradient_defects.DEFECTS,
        **cuda_composition_loss_defects.DEFECTS,
    }
)
