"""The founding contract's probes: GREEN when right, RED for every declared class, and sharp to a few roundings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from aprender.contracts.contract import Contract, Falsifier
from aprender.contracts.load import load
from aprender.errors import AprenderError
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.probe import Observation, Options, Probe
from aprender.falsify.run import Runner
from aprender.falsify.verdict import Verdict
from falsifiers import cuda_forward_parity
from falsifiers.attention_inputs import layer_inputs
from falsifiers.planting import projections_wrong
from falsifiers.projections import WrongParts
from falsifiers.transformer_defects import DEFECTS
from falsifiers.transformer_system import MODEL, TRANSFORMER, TransformerUnderContract

ROOT = Path(__file__).parents[2]
(CONTRACT,) = load([ROOT / "contracts/apr-pretrain-cuda-forward-parity-v1.yaml"]).contracts
FALSIFIERS = {falsifier.id[-3:]: falsifier for falsifier in CONTRACT.falsifiers}
PLANTED = [(number, defect) for number, f in FALSIFIERS.items() for defect in f.defect_classes]
SAMPLE = [  # each expectation's, and each way of planting; ``pv run`` proves all 41
    *(("001", name) for name in ("missing_bias_addition_in_forward", "mask_leaks_the_next_token", "gqa_heads_tiled")),
    *(("001", name) for name in ("softmax_scale_of_hidden_size", "rope_interleaved_pairs", "gelu_for_silu")),
    *(("002", defect.name) for defect in FALSIFIERS["002"].defect_classes),
    *(("003", name) for name in ("upload_path_drops_optional_tensors", "bias_added_after_rope")),
    *(("003", name) for name in ("bias_on_first_position_only", "rope_theta_not_from_config")),
    *(("003", name) for name in ("bias_free_model_gets_a_bias", "projection_wrongly_transposed")),
]


pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are compiled for CUDA in this process")


@pytest.fixture(scope="module")
def system() -> TransformerUnderContract:
    return TRANSFORMER.open(Options("cpu", None))


def probe_of(falsifier: Falsifier) -> Probe:
    probe: Probe = getattr(cuda_forward_parity, str(falsifier.probe).partition(":")[2])
    return probe


def observe(falsifier: Falsifier, system: TransformerUnderContract) -> Observation:
    return probe_of(falsifier).function(system, **falsifier.arguments)


def judged(number: str, system: TransformerUnderContract) -> Judgement:
    falsifier = FALSIFIERS[number]
    return judge(falsifier, observe(falsifier, system).values, probe_of(falsifier).observes)


@pytest.mark.parametrize("number", FALSIFIERS)
def test_the_clean_system_is_green_and_observed_the_same_twice(number: str, system: TransformerUnderContract) -> None:
    """Bit for bit: otherwise no defect could be called inert."""
    falsifier = FALSIFIERS[number]
    first = observe(falsifier, system)
    assert judge(falsifier, first.values, probe_of(falsifier).observes).verdict is Verdict.GREEN
    assert observe(falsifier, system) == first


@pytest.mark.parametrize(("number", "name"), SAMPLE)
def test_a_declared_class_turns_it_red_for_the_declared_reason(
    number: str, name: str, system: TransformerUnderContract
) -> None:
    """Planted on the live model, and gone afterwards."""
    (defect,) = (d for d in FALSIFIERS[number].defect_classes if d.name == name)
    before = system.fingerprint()
    with DEFECTS[defect.name].plant(system):
        assert system.fingerprint() != before
        judgement = judged(number, system)
    assert system.fingerprint() == before
    assert judgement.verdict is Verdict.RED, judgement.reason
    assert set(defect.violates) <= {e.text for e in judgement.expectations if not e.holds}
    assert defect.violates


def test_planting_changes_the_system_and_undoing_it_changes_it_back(system: TransformerUnderContract) -> None:
    """For every defect there is."""
    before = system.fingerprint()
    for name, defect in DEFECTS.items():
        with defect.plant(system):
            assert system.fingerprint() != before, name
        assert system.fingerprint() == before, name


def test_no_planted_defect_is_left_undeclared() -> None:
    """What is planted by nobody's declaration would be dead code."""
    assert set(DEFECTS) == {defect.name for _, defect in PLANTED}
    assert all(defect.story for defect in DEFECTS.values())


def _in_other_orders(weight_splits: int) -> Callable[[Any, Tensor], Tensor]:
    def compute(projection: Any, x_BTK: Tensor) -> Tensor:
        parts = zip(x_BTK.chunk(weight_splits, -1), projection.weight.chunk(weight_splits, -1), strict=True)
        y_BTN = sum(functional.linear(x, w) for x, w in parts)
        assert isinstance(y_BTN, Tensor)
        return y_BTN if projection.bias is None else y_BTN + projection.bias

    return compute


@pytest.mark.parametrize("splits", [2, 96])
def test_another_legal_order_of_summation_stays_green(splits: int, system: TransformerUnderContract) -> None:
    """Rounding must not alarm: every Q/K/V projection summed in 2 to 96 parts."""
    planting = projections_wrong(system, _in_other_orders(splits))
    next(planting)
    try:
        assert judged("001", system).verdict is Verdict.GREEN
        assert judged("003", system).verdict is Verdict.GREEN
    finally:
        next(planting, None)


@pytest.mark.parametrize(
    ("layer", "row", "position", "channel"),
    [(0, 0, 0, 0), (3, 2, 36, 39), (0, 2, 0, 20), (3, 0, 36, 19), (1, 1, 17, 7)],
    ids=["first", "last", "last row", "last position", "somewhere"],
)
def test_one_wrong_element_of_one_projection_is_red(
    layer: int, row: int, position: int, channel: int, system: TransformerUnderContract
) -> None:
    """W1: a single element of V, off by a thousandth of the projection's own size, anywhere."""
    name = f"layers.{layer}.qkv_proj"
    original: Any = system.models["biased"].layers[layer].qkv_proj

    def corrupt(projection: Any, x_BTK: Tensor) -> Tensor:
        y_BTN = functional.linear(x_BTK, projection.weight, projection.bias).clone()
        y_BTN[row, position, channel] += 1e-3 * float(y_BTN.square().mean().sqrt())
        return y_BTN

    with system.with_stage("biased", name, WrongParts(original, ("v_proj",), corrupt)):
        judgement = judged("003", system)
    assert judgement.verdict is Verdict.RED
    assert "projection_error" in judgement.reason


@pytest.mark.parametrize("candidate", ["zeros", "constant", "rows swapped", "identity"])
def test_null_candidates_are_red(candidate: str, system: TransformerUnderContract) -> None:
    """A head that computes nothing, or another row's answer, does not pass a loss test."""
    model = system.model
    head: Any = model.lm_head

    def null(x_BTD: Tensor) -> Tensor:
        logits_BTV: Tensor = head(x_BTD)
        match candidate:
            case "zeros":
                return torch.zeros_like(logits_BTV)
            case "constant":
                return logits_BTV.mean((0, 1), keepdim=True).expand_as(logits_BTV)
            case "rows swapped":
                return logits_BTV.flip(0)
            case _:
                return functional.pad(x_BTD, (0, logits_BTV.shape[-1] - x_BTD.shape[-1]))

    with system.with_stage(system.own, "lm_head", null):
        assert judged("001", system).verdict is Verdict.RED


def test_no_loss_is_error_not_green(system: TransformerUnderContract) -> None:
    """A loss of exactly 0, as a crashed kernel reports it, and NaN: ERROR."""
    nothing = torch.zeros(4, 163)
    for losses_BT, reason in (
        (nothing, "guard does not hold: val_loss > 0, "),
        (nothing * torch.nan, "val_loss is nan"),
    ):
        with system.with_stage(system.own, "loss", SimpleNamespace(token_losses=lambda x, y, found=losses_BT: found)):
            judgement = judged("001", system)
        assert judgement.verdict is Verdict.ERROR
        assert judgement.reason.startswith(reason)


@pytest.mark.parametrize(
    ("number", "arguments", "guard"),
    [
        ("001", {"sequences": 3, "positions": 200}, "sequences >= 4"),
        ("001", {"sequences": 6, "positions": 50}, "tokens_evaluated >= 512"),
        ("003", {"rows": 1, "positions": 37}, "rows >= 2"),
        ("003", {"rows": 3, "positions": 4}, "positions >= 16"),
    ],
)
def test_the_guards_refuse_a_glance(
    number: str, arguments: dict[str, int], guard: str, system: TransformerUnderContract
) -> None:
    """Too few tokens, rows or positions: ERROR, whatever was found."""
    falsifier = replace(FALSIFIERS[number], arguments=arguments)
    judgement = judge(falsifier, observe(falsifier, system).values, probe_of(falsifier).observes)
    assert judgement.verdict is Verdict.ERROR
    assert judgement.reason.startswith(f"guard does not hold: {guard}")


def test_a_llama_checkpoint_is_looked_at_with_and_without_biases(system: TransformerUnderContract) -> None:
    """Its own model has none; the twin gets seeded ones, and 002 and 003 hold of both."""
    bias_free = system.variants["bias_free"]
    llama = TransformerUnderContract(
        replace(system.checkpoint, config=bias_free.config, tensors=bias_free.tensors), "cpu"
    )
    assert llama.own == "bias_free"
    assert judged("002", llama).verdict is Verdict.GREEN
    assert judged("003", llama).verdict is Verdict.GREEN
    for name in ("bias_added_twice", "bias_added_after_rope", "bias_free_model_gets_a_bias"):
        with DEFECTS[name].plant(llama):
            assert judged("003", llama).verdict is Verdict.RED, name


def _broken(tmp_path: Path, breakage: str) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(MODEL, folder)
    weights = folder / "model.safetensors"
    if breakage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif breakage == "garbage":
        weights.write_bytes(b"not safetensors at all" * 10)
    elif breakage == "wrong shape":
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace('"head_dim": 20', '"head_dim": 22'))
    elif breakage == "no tokenizer":
        (folder / "tokenizer.json").unlink()
    elif breakage == "missing tensor":
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace('"num_hidden_layers": 4', '"num_hidden_layers": 5'))
    return folder


@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        ("truncated", "model.safetensors"),
        ("garbage", "model.safetensors"),
        ("wrong shape", "model.layers.0.self_attn.q_proj.weight"),
        ("no tokenizer", "tokenizer.json"),
        ("missing tensor", "model.layers.4"),
    ],
)
def test_a_broken_checkpoint_is_error_in_one_sentence(breakage: str, message: str, tmp_path: Path) -> None:
    """Said of each falsifier, with the file and the remedy, without a traceback."""
    contract: Contract = CONTRACT
    run = Runner(Options("cpu", _broken(tmp_path, breakage))).run(contract, FALSIFIERS["002"])
    assert run.verdict is Verdict.ERROR
    assert message in run.reason
    assert "Traceback" not in run.reason


@pytest.mark.parametrize(("variant", "layer"), [("biased", 0), ("bias_free", 3)])
def test_one_nan_anywhere_is_error(variant: str, layer: int, system: TransformerUnderContract) -> None:
    """Python's max() would lose it."""
    original: Any = system.models[variant].layers[layer].qkv_proj

    def poisoned(projection: Any, x_BTK: Tensor) -> Tensor:
        y_BTN = functional.linear(x_BTK, projection.weight, projection.bias).clone()
        y_BTN[-1, -1, -1] = torch.nan
        return y_BTN

    with system.with_stage(variant, f"layers.{layer}.qkv_proj", WrongParts(original, ("v_proj",), poisoned)):
        judgement = judged("003", system)
    assert judgement.verdict is Verdict.ERROR
    assert "is nan: not a finite number" in judgement.reason


def test_a_system_that_writes_into_the_checkpoint_is_not_believed() -> None:
    """On a CPU both sides would read the same wrong weights and agree."""
    fresh = TRANSFORMER.open(Options("cpu", None))
    weight: Any = fresh.variants["biased"].tensors["model.layers.1.self_attn.q_proj.bias"]
    weight.mul_(1.5)
    for falsifier in FALSIFIERS.values():
        with pytest.raises(AprenderError, match="wrote into the checkpoint's own tensors"):
            observe(falsifier, fresh)


@pytest.mark.parametrize("wrong", ["rows swapped", "columns shifted", "all the mean"])
def test_right_losses_at_the_wrong_tokens_are_red(
    wrong: str, system: TransformerUnderContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their mean is the oracle's; token by token they are not."""
    right = type(system.model).token_losses

    def misplaced(model: Any, tokens_BT: Tensor) -> Tensor:
        losses_BT = right(model, tokens_BT)
        match wrong:
            case "rows swapped":
                return losses_BT.flip(0)
            case "columns shifted":
                return losses_BT.roll(1, 1)
            case _:
                return losses_BT.mean().expand_as(losses_BT)

    monkeypatch.setattr(type(system.model), "token_losses", misplaced)
    judgement = judged("001", system)
    assert judgement.verdict is Verdict.RED
    assert "mean_token_error" in judgement.reason


def test_a_forward_that_is_wrong_beside_right_losses_is_red(
    system: TransformerUnderContract, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What users call is looked at too."""
    right = type(system.model).forward
    monkeypatch.setattr(type(system.model), "forward", lambda model, tokens_BT: right(model, tokens_BT).roll(1, 1))
    judgement = judged("001", system)
    assert judgement.verdict is Verdict.RED
    assert "forward_token_error" in judgement.reason


def test_a_bias_free_model_that_skips_a_layer_is_red(system: TransformerUnderContract) -> None:
    """Not only what its attention is fed."""
    layers = system.models["bias_free"].layers
    kept = layers.pop(2)
    try:
        judgement = judged("003", system)
    finally:
        layers.insert(2, kept)
    assert judgement.verdict is Verdict.RED
    assert "bias_free_token_error" in judgement.reason


def test_a_missing_layer_does_not_lower_what_is_expected(system: TransformerUnderContract) -> None:
    """Expected counts come from the configuration, not from what was built."""
    layers = system.models["biased"].layers
    kept = layers.pop()
    try:
        judgements = {number: judged(number, system) for number in ("002", "003")}
    finally:
        layers.append(kept)
    assert judgements["002"].verdict is Verdict.RED
    assert "bias_tensors_present == bias_tensors_expected, observed 9 against 12" in judgements["002"].reason
    assert judgements["003"].verdict is Verdict.RED
    assert "biases_answering == biases_expected, observed 9 against 12" in judgements["003"].reason


def test_a_row_of_zero_weights_is_judged_and_not_an_error(system: TransformerUnderContract) -> None:
    """A pruned channel has a rounding envelope of underflow only, not of zero."""
    bias_free = system.variants["bias_free"]
    tensors = {name: tensor.clone() for name, tensor in bias_free.tensors.items()}
    for projection in ("q_proj", "v_proj"):
        tensors[f"model.layers.1.self_attn.{projection}.weight"][7] = 0
    checkpoint = replace(system.checkpoint, config=bias_free.config, tensors=tensors)
    pruned = TransformerUnderContract(checkpoint, "cpu")
    assert judged("003", pruned).verdict is Verdict.GREEN
    with DEFECTS["bias_free_model_gets_a_bias"].plant(pruned):
        assert judged("003", pruned).verdict is Verdict.RED


def test_each_layer_is_probed_on_its_own_input_even_if_residuals_are_added_in_place(
    system: TransformerUnderContract,
) -> None:
    """What was recorded by reference would be the last layer's input, four times."""
    model = system.models["biased"]
    tokens_BT = system.held_out_tokens(3, 37)
    before = layer_inputs(model, tokens_BT)
    norm: Any = model.layers[1].input_layernorm

    def overwriting(x_BTD: Tensor) -> Tensor:
        y_BTD: Tensor = norm(x_BTD)
        x_BTD.zero_()
        return y_BTD

    with system.with_stage("biased", "layers.1.input_layernorm", overwriting):
        assert torch.equal(layer_inputs(model, tokens_BT)[1], before[1])


@pytest.mark.parametrize(("field", "value"), [("rms_norm_eps", 9.9999999747e-7), ("rope_theta", 10_000.0)])
def test_a_constant_not_from_the_configuration_is_never_planted_as_the_configured_one(
    field: str, value: float, system: TransformerUnderContract
) -> None:
    """A GGUF file's eps of 1e-6 comes back from float32 a little smaller: planting 1e-6 would change nothing."""
    config = replace(system.checkpoint.config, **{field: value})  # type: ignore[arg-type]
    other = TransformerUnderContract(replace(system.checkpoint, config=config), "cpu")
    clean = observe(FALSIFIERS["001"], other)
    with DEFECTS[f"{field}_not_from_config"].plant(other):
        assert observe(FALSIFIERS["001"], other).output_digest != clean.output_digest


def test_precision_is_lost_also_where_the_checkpoint_is_bfloat16(system: TransformerUnderContract) -> None:
    """Rounding bfloat16 values to bfloat16 would be inert."""
    tensors = {name: tensor.bfloat16().float() for name, tensor in system.checkpoint.tensors.items()}
    coarse = TransformerUnderContract(replace(system.checkpoint, tensors=tensors), "cpu")
    for number in ("002", "003"):
        assert judged(number, coarse).verdict is Verdict.GREEN
        with DEFECTS["bias_precision_lost"].plant(coarse):
            assert judged(number, coarse).verdict is Verdict.RED
