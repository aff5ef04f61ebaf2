"""Sliding windows in config.json, per family, as transformers computes them from the same keys."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping

from aprender.formats.fields import Fields

_FULL, _SLIDING = "full_attention", "sliding_attention"
Windows = tuple[int | None, ...]


def read_windows(fields: Fields, values: Mapping[str, object], family: str, layers: int) -> Windows:
    """How many positions, its own included, a query of each layer sees; None where it sees all before it.

    Notes in ``fields`` what is missing, wrong or contradictory.
    """
    if family == "mistral":
        return _mistral(fields, values, layers)
    if family == "llama":
        return _llama(fields, values, layers)
    return _qwen(fields, values, layers)


def _mistral(fields: Fields, values: Mapping[str, object], layers: int) -> Windows:
    """One window for all layers; null says that there is none, and only that."""
    if "sliding_window" not in values:
        fields.refuse("missing sliding_window (null where there is none)")
    window = fields.integer("sliding_window") if "sliding_window" in fields else None
    types = _layer_types(fields, values, layers)
    if types is not None and any(kind != (_FULL if window is None else _SLIDING) for kind in types):
        fields.refuse("layer_types and sliding_window disagree: a mistral model has one window for all layers")
    return (window,) * layers


def _llama(fields: Fields, values: Mapping[str, object], layers: int) -> Windows:
    """None at all: transformers ignores the keys, so a file that asks for a window isn't what it says."""
    if "sliding_window" in fields:
        fields.refuse(f"sliding_window is {reprlib.repr(values['sliding_window'])}, which a llama model doesn't have")
    types = _layer_types(fields, values, layers)
    if types is not None and _SLIDING in types:
        fields.refuse(f"layer_types asks for {_SLIDING}, which a llama model doesn't have")
    return (None,) * layers


def _qwen(fields: Fields, values: Mapping[str, object], layers: int) -> Windows:
    """``use_sliding_window``, which Hugging Face defines as false where absent, decides whether there is a window.

    Which layers have it, ``layer_types`` says or, where that is absent, all from ``max_window_layers`` on.
    """
    uses = fields.boolean("use_sliding_window") if "use_sliding_window" in fields else False
    types = _layer_types(fields, values, layers)
    if not uses:
        if types is not None and _SLIDING in types:
            fields.refuse(f"layer_types asks for {_SLIDING}, but use_sliding_window is not true")
        return (None,) * layers
    if "sliding_window" not in fields and "sliding_window" in values:  # null: transformers then slides nowhere
        if types is not None and _SLIDING in types:
            fields.refuse(f"layer_types asks for {_SLIDING}, but sliding_window is null")
        return (None,) * layers
    window = fields.integer("sliding_window")
    if types is None:
        first = fields.integer("max_window_layers")
        return tuple(window if layer >= first else None for layer in range(layers))
    return tuple(window if kind == _SLIDING else None for kind in types)


def _layer_types(fields: Fields, values: Mapping[str, object], layers: int) -> list[str] | None:
    types = values.get("layer_types")
    if types is None:
        return None
    if not isinstance(types, list) or any(kind not in (_FULL, _SLIDING) for kind in types):
        fields.refuse(f"layer_types is {reprlib.repr(types)}, only {_FULL} and {_SLIDING} are supported")
        return None
    if len(types) != layers:
        fields.refuse(f"layer_types has {len(types)} entries for {layers} layers")
        return None
    return types
