"""All planted defects of weight loading, by defect class: functions and tables of ``aprender.formats`` replaced."""

from aprender.falsify.probe import Defects
from falsifiers import (
    weight_account_defects,
    weight_check_defects,
    weight_config_defects,
    weight_quant_defects,
    weight_tensor_defects,
)

DEFECTS = Defects(
    {
        **weight_tensor_defects.DEFECTS,
        **weight_quant_defects.DEFECTS,
        **weight_config_defects.DEFECTS,
        **weight_check_defects.DEFECTS,
        **weight_account_defects.DEFECTS,
    }
)
