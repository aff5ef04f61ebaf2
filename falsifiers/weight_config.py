"""Probe of FALSIFY-WEIGHT-LOADING-002: every value of a configuration comes from the file."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from pathlib import Path

from aprender.errors import FormatError
from aprender.falsify.probe import Observation, probe
from aprender.formats.model_file import open_model
from aprender.formats.stored import TensorFiles
from aprender.transformer.config import TransformerConfig
from falsifiers.weight_defects import DEFECTS
from falsifiers.weight_system import WEIGHT_LOADING, WeightLoading


@probe(
    system=WEIGHT_LOADING,
    observes={
        "configurations": "files",
        "configurations_read": "files",
        "fields_expected": "fields",
        "fields_equal": "fields",
        "kinds_of_fields": "fields",
        "kinds_of_fields_varied": "fields",
        "omissions": "files",
        "omissions_refused": "files",
        "formats": "formats",
    },
    defects=DEFECTS,
)
def configuration(system: WeightLoading) -> Observation:
    """Open files that differ in one field each, in every format, and files that leave out one key that is needed.

    What is opened is compared field by field with what was written. ``kinds_of_fields_varied`` counts the fields that
    take more than one value over all files: one that doesn't was not looked at.
    """
    state = hashlib.sha256()
    sound = [(stated.path, stated.config) for stated in system.configurations if stated.config is not None]
    omissions = [stated for stated in system.configurations if stated.config is None]
    names = [field.name for field in fields(TransformerConfig)]
    read = equal = 0
    for path, expected in sound:
        config = _opened(path, state)
        if config is not None:
            read += 1
            equal += sum(repr(getattr(config, name)) == repr(getattr(expected, name)) for name in names)
    varied = [name for name in names if len({repr(getattr(config, name)) for _, config in sound}) > 1]
    return Observation(
        {
            "configurations": len(sound),
            "configurations_read": read,
            "fields_expected": len(sound) * len(names),
            "fields_equal": equal,
            "kinds_of_fields": len(names),
            "kinds_of_fields_varied": len(varied),
            "omissions": len(omissions),
            "omissions_refused": sum(_opened(stated.path, state) is None for stated in omissions),
            "formats": len({stated.path.suffix for stated in system.configurations}),
        },
        state.hexdigest(),
    )


def _opened(path: Path, state: hashlib._Hash) -> TransformerConfig | None:
    """The configuration, or None where the file is refused."""
    try:
        with TensorFiles() as files:
            config = open_model(path, files).config
    except FormatError as error:
        state.update(f"refused: {str(error).rpartition('/')[2]}".encode())
        return None
    state.update(repr(config).encode())
    return config
