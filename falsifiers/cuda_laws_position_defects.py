"""Planted defects of long positions: formats that end too early, and tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from aprender.falsify.probe import Defects
from aprender.transformer.config import LinearScaling, TransformerConfig, YarnScaling
from aprender.transformer.oracle import rope
from falsifiers.cuda_laws_planting import computing, differentiated_at, fed
from falsifiers.cuda_laws_system import THETA, C
from falsifiers.cuda_operator_planting import Planting, stages_wrong
from falsifiers.cuda_operator_system import ReplaceableStages

DEFECTS = Defects()
ROPE, WHOLE, WINDOWED = ("rope",), ("attention",), ("attention_window",)


def as_format(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Positions that went through ``dtype``."""
    return lambda at: at.to(dtype).long()


def _rotating(system: ReplaceableStages, change: Callable[[Tensor], Tensor]) -> Planting:
    """The right rotation at ``change(positions)``, forward and backward."""
    return stages_wrong(system, ROPE, lambda right: Moved(right, change), "float32")


@dataclass(frozen=True)
class Moved:
    """A rotation at other positions."""

    right: Any
    change: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor, at: Tensor) -> Any:
        return self.right(x, self.change(at))

    def forward(self, x: Tensor, at: Tensor) -> Any:
        return self.right.forward(x, self.change(at))

    def backward(self, saved: Any, d_output: Tensor) -> Any:
        return self.right.backward(saved, d_output)


def _with_tables(system: ReplaceableStages, make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Planting:
    """The right rotation with other tables."""

    def other(right: Any) -> Any:
        cos, sin = make(right.cos, right.sin)
        return replace(right, cos=cos.contiguous(), sin=sin.contiguous())

    return stages_wrong(system, ROPE, other, "float32")


@DEFECTS.plant("rope_positions_in_bfloat16")
def rope_positions_in_bfloat16(system: ReplaceableStages) -> Planting:
    """257 becomes 256 (candle issue 3520)."""
    return _rotating(system, as_format(torch.bfloat16))


@DEFECTS.plant("rope_positions_in_float16")
def rope_positions_in_float16(system: ReplaceableStages) -> Planting:
    """2,049 becomes 2,048."""
    return _rotating(system, as_format(torch.float16))


@DEFECTS.plant("rope_positions_in_int16")
def rope_positions_in_int16(system: ReplaceableStages) -> Planting:
    """65,543 becomes 7: a wrong angle where there should be none."""
    return _rotating(system, as_format(torch.int16))


@DEFECTS.plant("rope_positions_in_uint8")
def rope_positions_in_uint8(system: ReplaceableStages) -> Planting:
    """256 becomes 0."""
    return _rotating(system, lambda at: at % 256)


@DEFECTS.plant("rope_positions_clamped_to_the_table")
def rope_positions_clamped_to_the_table(system: ReplaceableStages) -> Planting:
    """Beyond the table its last angle is used."""
    return _rotating(system, lambda at: at.clamp(max=4098))


@DEFECTS.plant("negative_rope_positions_count_from_the_end")
def negative_rope_positions_count_from_the_end(system: ReplaceableStages) -> Planting:
    """As Python's indices do."""
    return _rotating(system, lambda at: torch.where(at < 0, at + 4099, at))


@DEFECTS.plant("rope_table_wraps_around")
def rope_table_wraps_around(system: ReplaceableStages) -> Planting:
    """Positions modulo the table's length."""
    return _rotating(system, lambda at: at % 4099)


@DEFECTS.plant("rope_table_one_row_short")
def rope_table_one_row_short(system: ReplaceableStages) -> Planting:
    """The last position has no angle."""
    return _with_tables(system, lambda cos, sin: (cos[:-1], sin[:-1]))


@DEFECTS.plant("rope_table_too_long")
def rope_table_too_long(system: ReplaceableStages) -> Planting:
    """Rows beyond the declared length hold what was in memory: a power of two was allocated."""

    def longer(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((cos, cos)), torch.cat((sin, sin))

    return _with_tables(system, longer)


@DEFECTS.plant("rope_table_wrong_beyond_256")
def rope_table_wrong_beyond_256(system: ReplaceableStages) -> Planting:
    """A cache grown later goes on from the wrong row."""

    def grown(table: Tensor) -> Tensor:
        return torch.cat((table[:256], table[255:-1]))

    return _with_tables(system, lambda cos, sin: (grown(cos), grown(sin)))


@DEFECTS.plant("rope_tables_in_bfloat16")
def rope_tables_in_bfloat16(system: ReplaceableStages) -> Planting:
    """Half of their bits."""
    return _with_tables(system, lambda cos, sin: (cos.bfloat16().float(), sin.bfloat16().float()))


@DEFECTS.plant("rope_angles_in_float32")
def rope_angles_in_float32(system: ReplaceableStages) -> Planting:
    """Position times frequency, rounded: right at small positions, off by 1e-4 at 4,095."""

    def tables(cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
        at = torch.arange(len(cos), dtype=torch.float32, device=cos.device)[:, None]
        angle = at * rope.frequencies(C, THETA, None).float().to(cos.device)
        return angle.double().cos().float(), angle.double().sin().float()

    return _with_tables(system, tables)


def _configured(system: ReplaceableStages, change: Callable[[TransformerConfig], TransformerConfig]) -> Planting:
    """The right tables of another configuration."""
    return fed(system, ("tables",), lambda config, positions, device: (change(config), positions, device))


def _scaled(system: ReplaceableStages, change: Callable[[Any], Any]) -> Planting:
    """The right tables of another scaling, where there is one."""
    return _configured(system, lambda c: replace(c, rope_scaling=c.rope_scaling and change(c.rope_scaling)))


@DEFECTS.plant("tables_unscaled")
def tables_unscaled(system: ReplaceableStages) -> Planting:
    """The checkpoint's scaling is read and not used."""
    return _scaled(system, lambda scaling: None)


@DEFECTS.plant("tables_scaled_the_wrong_way")
def tables_scaled_the_wrong_way(system: ReplaceableStages) -> Planting:
    """Frequencies times the factor."""
    return _scaled(system, lambda scaling: replace(scaling, factor=1 / scaling.factor))


@DEFECTS.plant("every_scaling_taken_for_linear")
def every_scaling_taken_for_linear(system: ReplaceableStages) -> Planting:
    """Short wavelengths are slowed too."""
    return _scaled(system, lambda scaling: LinearScaling(scaling.factor))


def _yarn(system: ReplaceableStages, change: Callable[[YarnScaling], YarnScaling]) -> Planting:
    return _scaled(system, lambda scaling: change(scaling) if isinstance(scaling, YarnScaling) else scaling)


@DEFECTS.plant("tables_without_attention_factor")
def tables_without_attention_factor(system: ReplaceableStages) -> Planting:
    """YaRN's frequencies, and cos and sin as they are without it."""
    return _yarn(system, lambda scaling: replace(scaling, attention_factor=1.0))


@DEFECTS.plant("yarn_ramp_with_other_ends")
def yarn_ramp_with_other_ends(system: ReplaceableStages) -> Planting:
    """Whole numbers where the configuration says none, and the other way around."""
    return _yarn(system, lambda scaling: replace(scaling, truncate=not scaling.truncate))


@DEFECTS.plant("tables_of_another_theta")
def tables_of_another_theta(system: ReplaceableStages) -> Planting:
    """10,000, whatever the configuration says."""
    return _configured(system, lambda config: replace(config, rope_theta=1e4))


@DEFECTS.plant("beyond_the_table_no_rotation")
def beyond_the_table_no_rotation(system: ReplaceableStages) -> Planting:
    """NaN is replaced by the input."""

    def compute(right: Any, x: Tensor, at: Tensor) -> Tensor:
        y = right(x, at)
        return torch.where(y.isnan(), x, y)

    return computing(system, ROPE, compute)


@DEFECTS.plant("keys_beyond_2048_dropped")
def keys_beyond_2048_dropped(system: ReplaceableStages) -> Planting:
    """A compiled-in limit."""
    return fed(system, WHOLE, lambda q, k, v, at, k_at: (q, k[:, :2048].contiguous(), v[:, :2048], at, k_at[:, :2048]))


@DEFECTS.plant("keys_beyond_256_dropped")
def keys_beyond_256_dropped(system: ReplaceableStages) -> Planting:
    """The last tile of a test that was too short."""
    return fed(system, WHOLE, lambda q, k, v, at, k_at: (q, k[:, :256].contiguous(), v[:, :256], at, k_at[:, :256]))


def _queries(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda q, k, v, at, k_at: (q, k, v, change(at), change(k_at))


@DEFECTS.plant("mask_positions_in_bfloat16")
def mask_positions_in_bfloat16(system: ReplaceableStages) -> Planting:
    """Neighbours beyond 256 see each other, in both directions."""
    return fed(system, WHOLE, _queries(as_format(torch.bfloat16)))


@DEFECTS.plant("mask_positions_in_float16")
def mask_positions_in_float16(system: ReplaceableStages) -> Planting:
    """The same beyond 2,048."""
    return fed(system, WINDOWED, _queries(lambda at: at.half().float().nan_to_num(posinf=65504).long()))


@DEFECTS.plant("mask_positions_in_int16")
def mask_positions_in_int16(system: ReplaceableStages) -> Planting:
    """32,768 comes before 32,767."""
    return fed(system, WINDOWED, _queries(as_format(torch.int16)))


@DEFECTS.plant("backward_mask_positions_in_int16")
def backward_mask_positions_in_int16(system: ReplaceableStages) -> Planting:
    """The same in the backward pass alone."""
    return differentiated_at(system, WINDOWED, _queries(as_format(torch.int16)))


@DEFECTS.plant("backward_mask_positions_in_bfloat16")
def backward_mask_positions_in_bfloat16(system: ReplaceableStages) -> Planting:
    """Gradients of a window beyond 256."""
    return differentiated_at(system, WINDOWED, _queries(as_format(torch.bfloat16)))
