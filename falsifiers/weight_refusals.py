"""Probe of FALSIFY-WEIGHT-LOADING-003: what can't be right is refused, in words that name it."""

from __future__ import annotations

import hashlib

from aprender.errors import FormatError
from aprender.falsify.probe import Observation, probe
from aprender.formats import load_checkpoint
from falsifiers.weight_defects import DEFECTS
from falsifiers.weight_system import WEIGHT_LOADING, WeightLoading


@probe(
    system=WEIGHT_LOADING,
    observes={
        "unsound_files": "files",
        "refused": "files",
        "refused_by_name": "files",
        "sound_files": "files",
        "sound_files_loaded": "files",
        "formats": "formats",
    },
    defects=DEFECTS,
)
def refusals(system: WeightLoading) -> Observation:
    """Load files that were each made from a sound one by a single change; ``refused_by_name`` says what is wrong.

    Only FormatError is a refusal: anything else that comes out of a file is a crash. The sound files themselves must
    load, or refusing everything would do.
    """
    state = hashlib.sha256()
    refused = named = loaded = 0
    for unsound in system.unsound:
        try:
            load_checkpoint(unsound.path)
        except FormatError as error:
            message = str(error).replace(str(unsound.path), "")
            state.update(message.encode())
            refused += bool(unsound.says)
            named += bool(unsound.says) and unsound.says in message
        else:
            state.update(b"loaded")
            loaded += not unsound.says
    sound = sum(not unsound.says for unsound in system.unsound)
    return Observation(
        {
            "unsound_files": len(system.unsound) - sound,
            "refused": refused,
            "refused_by_name": named,
            "sound_files": sound,
            "sound_files_loaded": loaded,
            "formats": len({unsound.path.suffix for unsound in system.unsound}),
        },
        state.hexdigest(),
    )
