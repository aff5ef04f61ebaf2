"""Generation parity: the same tokens fed to both sides, the choice of each step judged by how clear it is.

Two correct implementations part ways on a step whose two best tokens lie closer than rounding moves logits, and never
meet again; so free generation is no test. Here the reference's sequence is forced on both (no error compounds), and a
step must agree only where it is decidable.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from aprender.parity.record import Verdict

LEAST_DECIDABLE = 0.8  # of the steps; with fewer the run says too little about the choices (parity.md 4, iv)

# Divergence is quadratic in the logits' error: twice the error of the rounded reference, as the max net allows, is 4
# times its divergence.
DIVERGENCE = 4.0
DIVERGENCE_FLOOR = 1e-9  # nats: below, the float64 sums over a vocabulary round

TWICE = 2.0  # the error that any one logit may have, in largest errors of the legal plans: the max net's rule


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """What a teacher-forced run of ``steps`` positions found.

    ``disagreements``: decidable steps whose argmax differs, and undecidable ones whose token the reference's own
    rounding could not have chosen; each as (step, candidate's token, oracle's token). ``divergence`` is the largest of
    a step, in nats.
    """

    verdict: Verdict
    reason: str
    steps: int
    decidable: float
    disagreements: tuple[tuple[int, int, int], ...]
    divergence: float
    allowed_divergence: float
    worst_step: int
    over_divergence: int

    @property
    def compared(self) -> bool:
        """Whether the logits could be compared at all: too few decidable steps still leave their divergence."""
        return not math.isnan(self.divergence)

    def to_json(self) -> dict[str, Any]:
        """All fields as plain data."""
        return {name: value if value == value else None for name, value in asdict(self).items()}


def compare_generation(oracle_TV: Tensor, plans: Iterable[Tensor], candidate_TV: Tensor) -> GenerationRecord:
    """Judge next-token logits of the same forced sequence, one row per step: float64 oracle, legal plans, candidate.

    With m_t the oracle's margin between its two best tokens and d_t twice the logit error allowed at step t: where
    m_t > d_t the argmax must agree; elsewhere the candidate's token must be within d_t of the best. On every step
    KL(oracle || candidate) is at most 4 times that of the rounded reference, and so is its mean over the steps. Less
    than 80% decidable steps: ERROR.
    """
    problem = _incomparable(oracle_TV, candidate_TV)
    legal = list(plans)
    if problem or not legal:
        return _error(problem or "there is no legal rounding plan", len(oracle_TV))
    error_T = torch.stack([(y.double() - oracle_TV).abs().amax(-1) for y in legal]).amax(0)
    rounding = divergence(oracle_TV, legal)
    d_T = 2 * TWICE * error_T
    best_T2, token_T2 = oracle_TV.topk(2, -1)
    decidable_T = best_T2[:, 0] - best_T2[:, 1] > d_T
    chosen_T = candidate_TV.argmax(-1)
    reachable_T = oracle_TV.gather(-1, chosen_T[:, None])[:, 0] >= best_T2[:, 0] - d_T
    wrong_T = torch.where(decidable_T, chosen_T != token_T2[:, 0], ~reachable_T)
    # one step's divergence is a draw of chance: the largest of the run bounds each, the mean bounds the mean
    allowed_T = torch.full_like(rounding, DIVERGENCE * float(rounding.max()) + DIVERGENCE_FLOOR)
    found_T = divergence(oracle_TV, [candidate_TV])
    worst = int((found_T / allowed_T).argmax())
    share = float(decidable_T.double().mean())
    mean_over = float(found_T.mean()) > DIVERGENCE * float(rounding.mean()) + DIVERGENCE_FLOOR
    over = max(int((found_T > allowed_T).sum()), int(mean_over))
    wrong = [(int(t), int(chosen_T[t]), int(token_T2[t, 0])) for t in wrong_T.nonzero()[:, 0]]
    red = bool(wrong) or over > 0
    vague = share < LEAST_DECIDABLE
    reason = f"inconclusive: {share:.0%} of the steps are decidable" if vague and not red else ""
    verdict: Verdict = "RED" if red else "ERROR" if vague else "GREEN"
    return GenerationRecord(
        verdict,
        reason,
        len(oracle_TV),
        share,
        tuple(wrong),
        float(found_T[worst]),
        float(allowed_T[worst]),
        worst,
        over,
    )


def divergence(oracle_TV: Tensor, others: Sequence[Tensor]) -> Tensor:
    """KL(oracle || other) in nats per step, the largest over ``others``: float64, shape [T]."""
    log_p = oracle_TV.log_softmax(-1)
    found = [(log_p.exp() * (log_p - y.double().log_softmax(-1))).sum(-1) for y in others]
    return torch.stack(found).amax(0).clamp_min(0)


def common_prefix(reference: Sequence[int], candidate: Sequence[int], undecidable: Sequence[bool]) -> int | None:
    """For free generation: the step of the first token that differs though it was decidable; None where there is none.

    After the first undecidable step whose tokens differ the streams are no longer comparable, and nothing is said.
    """
    for step, (right, found, open_) in enumerate(zip(reference, candidate, undecidable, strict=False)):
        if right != found:
            return None if open_ else step
    return None if len(reference) == len(candidate) else min(len(reference), len(candidate))


def _incomparable(oracle_TV: Tensor, candidate_TV: Tensor) -> str:
    if oracle_TV.ndim != 2 or oracle_TV.numel() == 0:
        return f"logits must be [steps, vocabulary], not {tuple(oracle_TV.shape)}"
    if oracle_TV.shape != candidate_TV.shape:
        return f"the candidate's logits have shape {tuple(candidate_TV.shape)}, the oracle's {tuple(oracle_TV.shape)}"
    if not bool(torch.isfinite(oracle_TV).all() and torch.isfinite(candidate_TV).all()):
        return "logits are not finite"
    if bool((oracle_TV.amax(-1) == oracle_TV.amin(-1)).any()):
        return "inconclusive: the oracle's logits are constant at a step"
    return ""


def _error(reason: str, steps: int) -> GenerationRecord:
    return GenerationRecord("ERROR", reason, steps, 0.0, (), math.nan, math.nan, 0, 0)
