"""All planted defects of the CUDA transformer, by defect class."""

from aprender.falsify.probe import Defects
from falsifiers import bias_defects, operator_defects, upload_defects

DEFECTS = Defects({**bias_defects.DEFECTS, **upload_defects.DEFECTS, **operator_defects.DEFECTS})
