"""The reference stages of the operator contracts: what they call legal, and that a GPU's longer cases say enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from aprender.parity.calibration import Calibration, packaged
from aprender.parity.compare import compare_stage
from aprender.parity.stages import ReferenceStage
from falsifiers import cuda_operator_cases
from falsifiers.cuda_operator_references import linear_cross_entropy

CPU = torch.device("cpu")


@dataclass(frozen=True)
class StoredLogarithm:
    """The mean loss, whose backward pass has the softmax from ln of the sum of e^logit, ``ulps`` too large."""

    reference: ReferenceStage
    weight_VD: Tensor
    ulps: int

    def __call__(self, x_BTD: Tensor, targets_BT: Tensor) -> Tensor:
        z_BTV = x_BTD @ self.weight_VD.T
        return torch.nn.functional.cross_entropy(z_BTV.flatten(0, 1), targets_BT.flatten())

    def forward(self, x_BTD: Tensor, targets_BT: Tensor) -> Any:
        return self(x_BTD, targets_BT), (x_BTD, targets_BT)

    def backward(self, saved: Any, d_loss: Tensor) -> Any:
        x_BTD, targets_BT = saved
        z_BTV = x_BTD @ self.weight_VD.T
        log_sum_BT1 = z_BTV.logsumexp(-1, keepdim=True)
        for _ in range(self.ulps):
            log_sum_BT1 = torch.nextafter(log_sum_BT1, torch.full_like(log_sum_BT1, torch.inf))
        p_BTV = (z_BTV - log_sum_BT1).exp()
        d_z_BTV = (p_BTV - torch.nn.functional.one_hot(targets_BT, len(self.weight_VD))) * d_loss / targets_BT.numel()
        return (d_z_BTV @ self.weight_VD,), {"weight": d_z_BTV.flatten(0, 1).T @ x_BTD.flatten(0, 1)}


@pytest.mark.parametrize(("ulps", "verdict"), [(0, "GREEN"), (1, "GREEN"), (40, "RED")])
def test_a_stored_logarithm_may_be_rounded_where_a_token_is_certain(ulps: int, verdict: str) -> None:
    """One of 96 tokens is predicted with certainty: an ulp of a logarithm of 36 is more than is left of p - 1."""
    generator = torch.Generator().manual_seed(1)
    weight_VD = torch.linalg.qr(torch.randn(64, 64, generator=generator))[0][:48].contiguous()
    targets_BT = torch.randint(48, (1, 96), generator=generator)
    x_BTD = 3.0 * torch.randn(1, 96, 64, generator=generator) + 18.0 * weight_VD.sum(0)
    x_BTD[0, 40] = 18.0 * (weight_VD[targets_BT[0, 40]] + weight_VD.sum(0))
    reference = linear_cross_entropy("loss", x_BTD, targets_BT, weight_VD, -100, 2)
    records = compare_stage(reference, StoredLogarithm(reference, weight_VD, ulps)).records
    (d_x,) = (record for record in records if record.tensor == "d_input 0")
    assert d_x.verdict == verdict, (d_x.statistic, d_x.ratio, d_x.reason)


class _Long(cuda_operator_cases.Draw):
    """As many positions as on a GPU."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__(device, dtype)
        self.T = 307


@dataclass(frozen=True)
class _FirstPlan:
    reference: ReferenceStage

    def __call__(self, *inputs: Tensor) -> Any:
        plan = next(iter(self.reference.plans.values()))
        return plan.forward(self.reference.inputs, self.reference.parameters)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_every_operators_case_says_enough_at_a_gpus_length(dtype: torch.dtype) -> None:
    """Inputs drawn for 307 positions, judged by the table of CUDA: nothing is inconclusive there either."""
    table = Calibration({"cpu": packaged().largest["cuda"]}, {"cpu": packaged().seeds["cuda"]})
    draw, seen = _Long(CPU, dtype), set()
    for make in cuda_operator_cases.MAKERS:
        for case in make(draw):
            found = compare_stage(case.reference, _FirstPlan(case.reference), backward=False, calibration=table)
            assert [record.reason for record in found.records if record.verdict == "ERROR"] == [], case.reference.name
            seen.add(case.reference.name)
    assert {"qkv_proj", "attention_decode", "loss"} <= seen
