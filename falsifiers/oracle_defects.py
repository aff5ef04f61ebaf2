"""All planted defects of the oracle, by defect class."""

from aprender.falsify.probe import Defects
from falsifiers import (
    oracle_attention_defects,
    oracle_backward_defects,
    oracle_cache_defects,
    oracle_family_defects,
    oracle_forward_defects,
)

DEFECTS = Defects(
    {
        **oracle_attention_defects.DEFECTS,
        **oracle_forward_defects.DEFECTS,
        **oracle_family_defects.DEFECTS,
        **oracle_cache_defects.DEFECTS,
        **oracle_backward_defects.DEFECTS,
    }
)
