"""Probe of FALSIFY-CUDA-COMPOSITION-004: a chain of stages in bfloat16, each link against the oracle of itself.

After a few bfloat16 stages rounding hides much of what a whole model can show. Here every stage is held to the oracle
of that stage on the very tensors that it read, and what it read to what the stage before it returned, bit for bit: no
rounding runs on from one link to the next.
"""

from __future__ import annotations

from aprender.errors import AprenderError
from aprender.falsify.probe import Observation, probe
from aprender.parity.blocks import Blocks, Layout
from aprender.parity.calibration import packaged
from aprender.parity.envelope import Envelope
from aprender.parity.exact import Exact
from aprender.parity.stages import ReferenceStage, Tensors, as_tuple, in_float64
from aprender.parity.wiring import check
from aprender.parity.yardstick import output_names
from falsifiers.cuda_composition import TEXT, expected_calls, hidden_states, recorded
from falsifiers.cuda_composition_defects import DEFECTS
from falsifiers.cuda_model_plans import ReferenceStages
from falsifiers.cuda_model_reference import LARGEST
from falsifiers.cuda_model_system import MODELS, ModelsUnderContract
from falsifiers.digests import digest_of
from falsifiers.threads import on_one_thread


@probe(
    system=MODELS,
    observes={
        "hidden_ratio": "",
        "logits_ratio": "",
        "stage_ratio": "",
        "wiring_faults": "edges",
        "edges_checked": "edges",
        "stages_compared": "stages",
        "elements_compared": "elements",
    },
    defects=DEFECTS,
)
@on_one_thread
def chain(system: ModelsUnderContract, *, model: str) -> Observation:
    """One bfloat16 model, running freely on packed, padded documents: its links, and where the chain ends.

    ``stage_ratio`` is the largest of a stage's statistics over what its own legal roundings allow (docs/parity.md).
    ``hidden_ratio`` and ``logits_ratio`` are the whole model's errors over what its legal runs allow, and
    ``wiring_faults`` as in ``cuda_composition.forward``.
    """
    built, reference = system.model(model, "bfloat16"), system.reference(model, "bfloat16")
    calls, seen, logits = recorded(built)
    stages = ReferenceStages(built.config, system.cases[model].weights())
    real, wired = TEXT.documents_BT >= 0, expected_calls(built)
    ratios = []
    for name, call in seen.items():
        inputs = (x.cpu() for x in call.args)
        ratios.append(ratio_of(stages.of(name, *inputs), as_tuple(call.output)))
    states = hidden_states(seen)
    hidden = zip(*reference.read("hidden_states", TEXT), states, strict=False)  # of layers that ran
    values = {
        "hidden_ratio": max(reference.norm_ratio(expected, found, real) for *expected, found in hidden),
        "logits_ratio": reference.norm_ratio(reference.read("logits", TEXT), logits, real),
        "stage_ratio": min(max(ratios), LARGEST),
        "wiring_faults": len(check(wired, calls)),
        "edges_checked": sum(len(call.inputs) for call in wired),
        "stages_compared": len(ratios),
        "elements_compared": sum(y.numel() for call in seen.values() for y in as_tuple(call.output)),
    }
    return Observation(values, digest_of([logits, *states]))


def ratio_of(stage: ReferenceStage, outputs: Tensors) -> float:
    """The largest ratio of what a stage returned. Raises AprenderError where nothing is known of the device's noise."""
    z = as_tuple(stage.oracle.forward(*in_float64(stage.inputs, stage.parameters)))
    plans = [as_tuple(plan.forward(stage.inputs, stage.parameters)) for plan in stage.plans.values()]
    worst = 0.0
    for i, (name, found) in enumerate(zip(output_names(len(z)), outputs, strict=True)):
        if found.shape != z[i].shape or found.dtype != plans[0][i].dtype:
            return LARGEST
        blocks = Blocks(tuple(found.shape), stage.layouts.get(name, Layout.of(tuple(found.shape))))
        yardstick: Exact | Envelope = Exact(z[i], found.dtype, blocks)
        if name not in stage.exact:
            yardstick = Envelope(z[i], found.dtype, blocks, packaged())
            for plan in plans:
                yardstick.add(plan[i])
        judgement = yardstick.judge(found)
        if judgement.worst is None:
            raise AprenderError(f"{stage.name}: no statistic is calibrated for {found.dtype} on {found.device.type}")
        worst = max(worst, judgement.ratio)
    return worst
