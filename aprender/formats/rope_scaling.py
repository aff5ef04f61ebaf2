"""RoPE in config.json: theta and scaling, in the form before transformers 5 (``rope_scaling``) and since.

What Hugging Face defines for an absent value, and only that, is filled in (transformers/modeling_rope_utils.py): of
YaRN beta_fast 32, beta_slow 1, truncate true and attention_factor 0.1 ln(factor) + 1; of YaRN and llama3
original_max_position_embeddings = max_position_embeddings.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass

from aprender.formats.fields import Fields
from aprender.transformer.config import LinearScaling, Llama3Scaling, RopeScaling, YarnScaling

BETA_FAST, BETA_SLOW = 32.0, 1.0
_NO_ENTRIES: frozenset[str] = frozenset()
_ENTRIES = {
    "default": _NO_ENTRIES,
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
    "yarn": frozenset(
        {"factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "truncate"}
        | {"mscale", "mscale_all_dim"}
    ),
}
_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


@dataclass(frozen=True, slots=True)
class Rope:
    """theta and scaling; placeholders where ``Fields`` noted a problem."""

    theta: float
    scaling: RopeScaling | None


def read_rope(fields: Fields, values: Mapping[str, object]) -> Rope:
    """RoPE as config.json's ``values`` state it. Notes in ``fields`` what is missing, wrong or contradictory."""
    places = [key for key in ("rope_parameters", "rope_scaling") if values.get(key) is not None]
    scalings: list[RopeScaling | None] = []
    for key in places:
        entries = values[key]
        if isinstance(entries, dict):
            if entries:
                scalings.append(_scaling(fields, key, entries))
        else:
            fields.refuse(f"{key} is {reprlib.repr(entries)}, must be an object")
    if len(scalings) == 2 and scalings[0] != scalings[1]:
        fields.refuse("rope_parameters and rope_scaling differ: only one can be right")
    for key in (*(f"{place}.partial_rotary_factor" for place in places), "partial_rotary_factor"):
        if key in fields and fields.number(key) != 1:
            fields.refuse(f"{key} is {reprlib.repr(fields.value(key))}, must be 1: all channels are rotated here")
    return Rope(_theta(fields, places), scalings[0] if scalings else None)


def _theta(fields: Fields, places: list[str]) -> float:
    """From ``rope_parameters`` or the top level; where several places state it, they must agree."""
    stated = [key for key in (*(f"{place}.rope_theta" for place in places), "rope_theta") if key in fields]
    if not stated:
        return fields.number("rope_parameters.rope_theta" if "rope_parameters" in places else "rope_theta")
    thetas = {key: fields.number(key) for key in stated}
    if len(set(thetas.values())) > 1:
        fields.refuse(f"{' and '.join(thetas)} differ: only one can be right")
    return thetas[stated[0]]


def _scaling(fields: Fields, key: str, entries: Mapping[str, object]) -> RopeScaling | None:
    kind = _kind(fields, key, entries)
    if kind not in _ENTRIES:
        if kind:
            fields.refuse(f"{key} asks for {reprlib.repr(kind)}, which is not supported: {', '.join(_ENTRIES)} are")
        return None
    for entry, value in entries.items():
        if value is not None and entry not in _ENTRIES[kind] | _ALWAYS:
            fields.refuse(f"{key}.{entry} is {reprlib.repr(value)}, which is not supported with {kind} scaling")
    if kind == "default":
        return None
    factor = fields.number(f"{key}.factor")
    if kind == "linear":
        return LinearScaling(factor)
    length_key = f"{key}.original_max_position_embeddings"
    length = fields.integer(length_key if length_key in fields else "max_position_embeddings")
    if kind == "llama3":
        low, high = (fields.number(f"{key}.{end}_freq_factor") for end in ("low", "high"))
        return Llama3Scaling(factor, low, high, length)
    return YarnScaling(
        factor=factor,
        beta_fast=_optional(fields, f"{key}.beta_fast", BETA_FAST),
        beta_slow=_optional(fields, f"{key}.beta_slow", BETA_SLOW),
        attention_factor=_attention_factor(fields, key, factor),
        truncate=fields.boolean(f"{key}.truncate") if f"{key}.truncate" in fields else True,
        original_max_position_embeddings=length,
    )


def _kind(fields: Fields, key: str, entries: Mapping[str, object]) -> str:
    """``rope_type``, which was once called ``type``."""
    if entries.get("rope_type") is None and entries.get("type") is not None:
        return fields.text(f"{key}.type")
    kind = fields.text(f"{key}.rope_type")
    if entries.get("type") not in (None, kind):
        fields.refuse(f"{key} has rope_type {reprlib.repr(kind)} and type {reprlib.repr(entries['type'])}: they differ")
    return kind


def _attention_factor(fields: Fields, key: str, factor: float) -> float:
    """What cos and sin are multiplied by: stated, from two mscales, or the paper's value for the factor."""
    if f"{key}.attention_factor" in fields:
        return fields.number(f"{key}.attention_factor")
    mscale, all_dim = (_optional(fields, f"{key}.{name}", 0.0) for name in ("mscale", "mscale_all_dim"))
    if mscale and all_dim:
        return yarn_attention_factor(factor, mscale) / yarn_attention_factor(factor, all_dim)
    return yarn_attention_factor(factor)


def yarn_attention_factor(factor: float, mscale: float = 1.0) -> float:
    """``0.1 mscale ln(factor) + 1``, and 1 where nothing is stretched. Peng et al. 2023 (arXiv 2309.00071), eq. 22."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def _optional(fields: Fields, key: str, defined: float) -> float:
    return fields.number(key) if key in fields else defined
