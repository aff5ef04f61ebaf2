"""What a whole model may return: the float64 oracle, and legal runs in the model's dtype whose error says how far off.

In float32 the legal runs are the oracle's own, each sum over K whole and in four parts; in bfloat16 those of
``cuda_model_plans``. Nothing is typed in but the factors of docs/parity.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from aprender.parity.rounding import ulp
from aprender.parity.tails import UNDECLARED_IN_FLOAT32, norm_excess, undeclared
from aprender.transformer.config import TransformerConfig
from aprender.transformer.oracle import Batch, Oracle, operators
from falsifiers.cuda_model_plans import MODEL_PLANS, ReferenceStages, RoundedModel, truncated_logits

LARGEST = 1e12  # stands for all that is larger, and for NaN
TWICE = 2.0  # the error of one element, in largest errors of the legal runs: FlashAttention's rule (docs/parity.md)

What = Literal["logits", "hidden_states", "token_losses", "backward"]


class Reference:
    """The oracle over the weights as the model holds them, and legal runs beside it; what they read is kept."""

    def __init__(self, exact: Oracle, plans: tuple[Oracle | RoundedModel, ...], dtype: torch.dtype) -> None:
        self.exact, self.plans, self.dtype = exact, plans, dtype
        self._read: dict[tuple[str, bytes], list[Any]] = {}

    def read(self, what: What, batch: Batch) -> list[Any]:
        """What the oracle makes of a batch, and then each legal run: a tensor each, a list of them, or gradients."""
        places = torch.stack((batch.tokens_BT, batch.positions_BT, batch.documents_BT))
        key = (what, f"{tuple(places.shape)}".encode() + places.numpy().tobytes())
        if key not in self._read:
            self._read[key] = [getattr(model, what)(batch) for model in (self.exact, *self.plans)]
        return self._read[key]

    def envelope(self, exact: Tensor, *plans: Tensor, positions: int) -> Envelope:
        """The envelope of one tensor that was ``read``, of so many positions."""
        return Envelope(exact, plans, self.factor(positions))

    def norm_ratio(self, read: Sequence[Tensor], found: Tensor, at: Tensor) -> float:
        """The envelope's ``norm_ratio`` of what was found, at those places only that ``at``, bool, has."""
        return self.envelope(*(x[at] for x in read), positions=int(at.sum())).norm_ratio(found[at])

    def head(self, states_MD: Tensor, targets_M: Tensor | None = None) -> list[Tensor]:
        """What the head makes of given states: logits, or losses of targets in nats; float64, then float32 sums.

        The table is the one that the model holds. Sums of the head are float32 whatever its dtype is; of bfloat16
        operands also as tensor cores take them.
        """
        head_VD = self.exact.parameters[self.exact.head_name]
        orders = ((torch.float64, 1), (torch.float32, 1), (torch.float32, 4))
        logits = [operators.linear(states_MD.to(dtype), head_VD.to(dtype), None, splits) for dtype, splits in orders]
        if self.dtype != torch.float32:
            logits.append(truncated_logits(states_MD.float(), head_VD.float()))
        return logits if targets_M is None else [operators.cross_entropy(z, targets_M) for z in logits]

    def factor(self, positions: int) -> float:
        """How far beyond the legal runs an error of ``positions`` rows may lie, in Euclidean norm.

        In float32 as for any order of sums that is not declared. In bfloat16 what undeclared plans add, and chance: as
        many terms as positions, because an error in one of them moves all that is computed from it.
        """
        if self.dtype == torch.float32:
            return UNDECLARED_IN_FLOAT32
        return undeclared(self.dtype) * float(norm_excess(torch.tensor(float(positions))))


def reference(config: TransformerConfig, weights: Mapping[str, Tensor], dtype: torch.dtype) -> Reference:
    """The reference of a model that holds ``weights`` in ``dtype``."""
    if dtype == torch.float32:
        orders = tuple(Oracle(config, weights, torch.float32, k_splits=n) for n in (1, 4))
        return Reference(Oracle(config, weights), orders, dtype)
    stages = ReferenceStages(config, weights)
    plans = tuple(RoundedModel(stages, number) for number in range(MODEL_PLANS))
    return Reference(Oracle(config, stages.weights), plans, dtype)


class Envelope:
    """How far two honest results of one kind may lie apart, from what the legal runs (``plans``) are off by.

    As a whole in Euclidean norm, ``factor`` times the worst run's; in one element ``TWICE`` the worst of all runs'.
    """

    def __init__(self, exact: Tensor, plans: Sequence[Tensor], factor: float) -> None:
        errors = [plan.double() - exact for plan in plans]
        self.exact = exact
        self.norm = factor * max(float(error.norm()) for error in errors)
        self.largest = TWICE * max(float(error.abs().max()) for error in errors)

    def norm_ratio(self, found: Tensor) -> float:
        """The norm of an error over what is allowed; 0 where nothing is wrong."""
        return _ratio(self.exact, found, self.norm, torch.linalg.vector_norm)

    def ratio(self, found: Tensor) -> float:
        """The larger of ``norm_ratio`` and the same of the largest element."""
        return max(self.norm_ratio(found), largest_ratio(self.largest, self.exact, found))

    def ratio_of_two(self, first: Tensor, second: Tensor) -> float:
        """As ``ratio``, of two results which may each be off by as much."""
        norm = _ratio(first, second, 2 * self.norm, torch.linalg.vector_norm)
        return max(norm, largest_ratio(2 * self.largest, first, second))


def mean_ratio(found: float, exact_M: Tensor, *plans: Tensor) -> float:
    """The error of a mean over ``TWICE`` what the plans are off by on average, whatever the sign, and its own rounding.

    The mean is a float32 number: up to half of the distance to the next one is no error.
    """
    mean = exact_M.double().mean()
    rounding = float(ulp(mean, torch.float32)) / 2
    allowed = rounding + TWICE * max(float((plan.double() - exact_M).abs().mean()) for plan in plans)
    return _ratio(mean, torch.tensor(found, dtype=torch.float64), allowed, torch.abs)


def largest_ratio(allowed: float, expected: Tensor, found: Tensor) -> float:
    """The largest difference of an element over what is allowed."""
    return _ratio(expected, found, allowed, lambda x: x.abs().max())


def _ratio(expected: Tensor, found: Tensor, allowed: float, size: Callable[[Tensor], Tensor]) -> float:
    if expected.shape != found.shape:
        return LARGEST
    error = float(size(found.double() - expected.double()))
    return 0.0 if error == 0 else min(error / allowed, LARGEST) if allowed and error == error else LARGEST
