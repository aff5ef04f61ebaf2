"""Reference stages of the CUDA path's fused operators, each of them several operators of the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from aprender.parity.blocks import Layout
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from aprender.transformer.oracle import operators
from falsifiers.oracle_stage_sums import linear_in_parts, rms_norm_gradients, truncated_product
from falsifiers.oracle_stages import MOST_PARTS, from_stored_log_sum, linear, tensor, widened


def projections(
    name: str,
    x_BTK: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor] | None,
    seed: int = 0,
    gradients: torch.dtype | None = None,
) -> ReferenceStage:
    """Several projections of one input, each an output; the parameters are theirs, one after the other."""
    widths = list(map(len, weights))

    def split(whole: Operator) -> Operator:
        def forward(inputs: Tensors, parameters: Parameters) -> Tensors:
            y = whole.forward(inputs, parameters)
            assert isinstance(y, Tensor)  # noqa: S101 - ``linear`` has one output
            return torch.split(y, widths, -1)

        def vjp(inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
            assert whole.vjp is not None  # noqa: S101 - so have all plans of ``linear``
            return whole.vjp(inputs, parameters, (torch.cat(d_outputs, -1),))

        return Operator(forward, vjp)

    of_all = linear(
        name, x_BTK, torch.cat(tuple(weights)), None if biases is None else torch.cat(tuple(biases)), seed, gradients
    )
    plans = {what: split(plan) for what, plan in of_all.plans.items()}
    return replace(of_all, oracle=split(of_all.oracle), plans=plans)


def add_rms_norm(name: str, x_BTD: Tensor, branch_BTD: Tensor, gain_D: Tensor, eps: float, seed: int) -> ReferenceStage:
    """``h = x + branch`` and RMSNorm of h: h is one correct rounding, and the norm goes on from the rounded h."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensors:
        h = inputs[0] + inputs[1]
        gain = widened(tensor(parameters["weight"]))
        return h, operators.rms_norm(widened(h), gain, float(parameters["eps"])).to(h.dtype)

    def vjp(splits: int, inputs: Tensors, parameters: Parameters, d_outputs: Tensors) -> Gradients:
        h, gain = inputs[0] + inputs[1], widened(tensor(parameters["weight"]))
        d_residual, dy = map(widened, d_outputs)
        dh, dgain = rms_norm_gradients(widened(h), gain, float(parameters["eps"]), dy, splits)
        dx = (dh + d_residual).to(h.dtype)
        return Gradients((dx, dx), {"weight": dgain})

    names = {1: "gain in one sum", 4: "gain in four parts", MOST_PARTS: "gain row by row"}
    plans = {what: Operator(forward, partial(vjp, splits)) for splits, what in names.items()}
    parameters: dict[str, Tensor | float] = {"weight": gain_D, "eps": eps}
    exact = frozenset({"output 0"})
    oracle = plans["gain in one sum"]
    return ReferenceStage(name, (x_BTD, branch_BTD), parameters, oracle, plans, exact=exact, seed=seed)


def linear_cross_entropy(
    name: str, x_BTD: Tensor, targets_BT: Tensor, weight_VD: Tensor, ignored: int, seed: int
) -> ReferenceStage:
    """The mean loss over the targets that are not ``ignored``; logits and sums in float32, whole or in four parts.

    A plan may take the softmax of its backward pass from a stored ln of the sum of e^logit and round the logits'
    gradient to the storage dtype before its two products, and in 16 bits add the weight's gradient up as tensor cores
    do it.
    """

    def forward(splits: int, inputs: Tensors, parameters: Parameters) -> Tensor:
        x, targets, weight = _flat(inputs, parameters, ignored)
        return operators.cross_entropy(linear_in_parts(x, weight, None, splits), targets).mean()

    def vjp(
        splits: int, inputs: Tensors, parameters: Parameters, d_outputs: Tensors, truncated: bool = False
    ) -> Gradients:
        x, targets, weight = _flat(inputs, parameters, ignored)
        dloss = torch.full_like(x[:, 0], 1 / len(x))
        z = linear_in_parts(x, weight, None, splits)
        if splits == 1:
            dz = operators.cross_entropy_vjp(z, targets, dloss)
        else:
            dz = from_stored_log_sum(z, targets, dloss, 4).to(inputs[0].dtype).to(z.dtype)
        dx = torch.zeros_like(inputs[0], dtype=x.dtype)
        dx[inputs[1] != ignored] = dz @ weight
        d_output = d_outputs[0].to(x.dtype)
        dweight = truncated_product(dz.T, x.T, MOST_PARTS) if truncated else dz.T @ x
        return Gradients(((dx * d_output).to(inputs[0].dtype), None), {"weight": dweight * d_output})

    def plan(splits: int) -> Operator:
        return Operator(partial(forward, splits), partial(vjp, splits))

    D = x_BTD.shape[-1]
    plans = {"whole": plan(1), "in four parts": plan(min(4, D)), "term by term": plan(min(MOST_PARTS, D))}
    if x_BTD.dtype.itemsize == 2:
        plans["sums truncated"] = Operator(partial(forward, 1), partial(vjp, 1, truncated=True))
    layouts = {  # dz is one number for a position and a token
        "d_input 0": Layout(rows=x_BTD.ndim - 1, joint_rows=True),
        "d_parameter weight": Layout(rows=1, joint_rows=True),
    }
    return ReferenceStage(name, (x_BTD, targets_BT), {"weight": weight_VD}, plan(1), plans, layouts=layouts, seed=seed)


def _flat(inputs: Tensors, parameters: Parameters, ignored: int) -> tuple[Tensor, Tensor, Tensor]:
    x_BTD, targets_BT = inputs
    valid = targets_BT != ignored
    return widened(x_BTD[valid]), targets_BT[valid], widened(tensor(parameters["weight"]))
