"""Localisation: what a trial names is what the engine names, inert defects do not count, and shares decide the exit."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from aprender.falsify.probe import Defects
from aprender.parity.teacher_forced import teacher_forced
from bench import localisation
from bench.localisation import Compared, Draw, Kind, Trial, pairs, plan, report, targets_of, trial
from falsifiers.cuda_operator_defects import DEFECTS
from falsifiers.cuda_operator_planting import Planting, holding
from falsifiers.cuda_operator_system import ReplaceableStages

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")

SEED = 2  # float32, packed, two layers


@pytest.fixture(scope="module")
def clean() -> dict[str, Compared]:
    """A model compared as it is."""
    return {pair.reference.name: Compared.of(pair, {}) for pair in pairs(Kind.of(SEED), SEED)}


def test_a_clean_model_is_green_and_has_every_operator(clean: dict[str, Compared]) -> None:
    assert {r.verdict for found in clean.values() for r in found.records} == {"GREEN"}
    assert Counter(found.pair.kind for found in clean.values())["down_proj"] == 2
    assert ((*clean,)[0], (*clean,)[-1]) == ("embed_tokens", "loss")


def test_a_trial_names_what_teacher_forcing_names(clean: dict[str, Compared]) -> None:
    """Only the wrong operator is run in a trial; here everything is."""
    found = trial(clean, "bias_dropped", Kind.of(SEED), Draw(5), SEED)
    assert (found.right, found.inert, found.found) == (True, False, "RED output 0")

    class Model:
        names = tuple(clean)

        def stages(self):  # type: ignore[no-untyped-def]
            return (of.pair.reference for of in clean.values())

    candidates = {name: of.pair.candidate for name, of in clean.items()}
    right = candidates[found.planted]
    candidates[found.planted] = replace(right, bias=right.bias * 0)
    first = teacher_forced(Model(), candidates).first
    assert first is not None
    assert (first.stage, f"{first.verdict} {first.tensor}") == (found.named, found.found)


def test_a_defect_that_changes_no_bit_is_inert(clean: dict[str, Compared]) -> None:
    """A table in float32 rounded to float32: nothing else would tell it from a defect that nobody sees."""
    defects = Defects()

    @defects.plant("embedding_in_float32")
    def embedding_in_float32(system: ReplaceableStages) -> Planting:
        return holding(system, ("embed_tokens",), weight=lambda w: w.float().clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localisation, "DEFECTS", defects)
        found = trial(clean, "embedding_in_float32", Kind.of(SEED), Draw(5), SEED)
    assert (found.planted, found.named, found.inert) == ("embed_tokens", "nothing", True)


def test_what_is_found_without_the_defect_does_not_name_it(clean: dict[str, Compared]) -> None:
    """The table gives NaN before anything is planted: the same ERROR in the trial is no merit."""
    defects, embedding = Defects(), clean["embed_tokens"]
    broken = replace(embedding.pair.candidate, weight=embedding.pair.candidate.weight * torch.nan)

    @defects.plant("embedding_negated")
    def embedding_negated(system: ReplaceableStages) -> Planting:
        return holding(system, ("embed_tokens",), weight=torch.neg)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(localisation, "DEFECTS", defects)
        already = {**clean, "embed_tokens": embedding.with_candidate(broken)}
        found = trial(already, "embedding_negated", Kind.of(SEED), Draw(5), SEED)
        assert (found.planted, found.named, found.inert) == ("embed_tokens", "nothing", False)
        assert trial(clean, "embedding_negated", Kind.of(SEED), Draw(5), SEED).right


def test_every_defect_has_operators_to_be_planted_in() -> None:
    for name in DEFECTS:
        assert {*targets_of(name)} <= {*localisation.PLACES}, name
        assert targets_of(name), name


def test_defects_are_planted_evenly_where_they_fit() -> None:
    """In each dtype, as far as the models that a defect fits go."""
    planned = plan(0, 1200)
    assert sum(map(len, planned.values())) == 1200
    for seed, defects in planned.items():
        assert all(Kind.of(seed).cases() & {*targets_of(name)} for name in defects)
    for dtype in ("float32", "bfloat16"):
        counts = Counter(name for seed, of in planned.items() if Kind.of(seed).dtype == dtype for name in of)
        assert set(counts) == set(DEFECTS)
        assert min(counts.values()) >= 4


def outcomes(right: int, wrong: int, inert: int) -> list[Trial]:
    """That many trials of each kind."""
    made = [("a", False)] * right + [("b", False)] * wrong + [("b", True)] * inert
    return [Trial("bias_dropped", "float32", 0, "a", named, "RED output", inert) for named, inert in made]


@pytest.mark.parametrize(
    ("found", "code"),
    [(outcomes(294, 6, 50), 0), (outcomes(293, 7, 0), 1), (outcomes(299, 0, 50), 3), ([], 3)],
    ids=["98% right", "less", "too few that count", "nothing"],
)
def test_exit_codes(found: list[Trial], code: int) -> None:
    assert report(found, 1.0) == code


def test_a_wrong_name_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    report(outcomes(1, 1, 1), 1.0)
    assert "  float32 seed 0: bias_dropped in a, named b RED output\n" in capsys.readouterr().out
