"""Two nn.Modules of anyone's: paired by name, compared operator by operator, with clear errors for what does not fit."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from aprender.errors import AprenderError
from aprender.parity.free_run import free_run
from aprender.parity.from_names import compare_named, random_inputs, read_map
from aprender.parity.modes import InFloat64, TermByTerm
from aprender.parity.modules import ModuleComparison, Options
from aprender.parity.pairing import paired
from aprender.parity.record import Comparison

EXAMPLE = "docs.examples.qwen2_parity"
MAP = Path(__file__).parents[2] / "docs/examples/qwen2_parity.yaml"


class Block(nn.Module):
    """A norm, a projection with a residual; ``bug`` names what is wrong in ``forward`` itself."""

    def __init__(self, bug: str = "") -> None:
        super().__init__()
        self.bug = bug
        self.norm = nn.RMSNorm(24, eps=1e-5)
        self.proj = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        y = self.proj(x if self.bug == "norm skipped" else normed)
        out: Tensor = y + (normed if self.bug == "residual" else x)
        return out


class Net(nn.Module):
    def __init__(self, bug: str = "") -> None:
        super().__init__()
        self.embed = nn.Embedding(53, 24)
        self.blocks = nn.ModuleList(Block(bug if i == 1 else "") for i in range(2))
        self.head = nn.Linear(24, 53, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(x)
        return y


def net(bug: str = "") -> Net:
    made, generator = Net(bug), torch.Generator().manual_seed(0)
    for name, parameter in made.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.3 * noise if "norm" in name else noise if "embed" in name else 0.4 * noise
    return made


def compared(reference: nn.Module, candidate: nn.Module, dtype: torch.dtype = torch.float32) -> Comparison:
    comparison = ModuleComparison(reference, candidate, paired(reference, candidate), Options(dtype))
    return comparison.run(*random_inputs(reference, 2, 67, 0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_module_equals_itself_in_every_stage_forward_and_backward(dtype: torch.dtype) -> None:
    comparison = compared(net(), net(), dtype)
    assert comparison.verdict == "GREEN", comparison.first
    stages = {record.stage for record in comparison.records}
    assert stages == {"embed", "blocks.0.norm", "blocks.0.proj", "blocks.0", "blocks.1.norm", "blocks.1.proj",
                      "blocks.1", "head"}  # fmt: skip
    assert any(record.tensor == "d_parameter proj.bias" for record in comparison.records)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_wrong_weight_is_found_in_its_submodule(dtype: torch.dtype) -> None:
    wrong = net()
    wrong.get_parameter("blocks.1.proj.bias").data.zero_()
    first = compared(net(), wrong, dtype).first
    assert first is not None
    assert (first.stage, first.tensor, first.verdict) == ("blocks.1.proj", "output", "RED")


@pytest.mark.parametrize("bug", ["norm skipped", "residual"])
def test_a_bug_in_a_forward_itself_is_found_in_the_module_around_it(bug: str) -> None:
    """Every operator inside is right; the composition is not."""
    first = compared(net(), net(bug)).first
    assert first is not None
    assert (first.stage, first.verdict) == ("blocks.1", "RED")
    assert first.reproducer is not None
    assert first.reproducer.shapes == ((1, 1, 24),)


def test_neither_module_is_changed() -> None:
    reference, candidate = net(), net()
    before = [copy.deepcopy(m.state_dict()) for m in (reference, candidate)]
    compared(reference, candidate, torch.bfloat16)
    for module, state in zip((reference, candidate), before, strict=True):
        assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
        assert all(parameter.requires_grad for parameter in module.parameters())
        assert not module._forward_hooks


def test_a_reference_that_remembers_its_calls_is_an_error() -> None:
    class Counting(nn.Linear):
        calls = 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(x) + self.calls

    reference = net()
    reference.head = Counting(24, 53)
    candidate = net()
    candidate.head = nn.Linear(24, 53)
    (record,) = compared(reference, candidate).of("head").records
    assert record.verdict == "ERROR"
    assert "called twice on the same input" in record.reason


def test_names_that_do_not_pair_are_one_error_with_hints() -> None:
    class Other(Net):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = self.head
            del self.head

    with pytest.raises(AprenderError) as error:
        paired(net(), Other())
    assert "the candidate has no module for 'head' (did you mean 'lm_head'?)" in str(error.value)
    assert "nothing in the reference is compared with the candidate's 'lm_head'" in str(error.value)
    assert "--map" in str(error.value)
    assert paired(net(), Other(), {"head": "lm_head"})["head"] == "lm_head"


def test_patterns_of_a_map_pair_by_their_stars_and_null_leaves_out() -> None:
    pairs = paired(net(), net(), {"blocks.*": "blocks.*", "blocks.*.norm": None})
    assert "blocks.1.norm" not in pairs
    assert pairs["blocks.1.proj"] == "blocks.1.proj"
    with pytest.raises(AprenderError, match=r"'block\.\*' matches no module of the reference \(did you mean"):
        paired(net(), net(), {"block.*": "blocks.*"})
    with pytest.raises(AprenderError, match=r"'head' \(mapped to 'haed'\) \(did you mean 'head'\?\)"):
        paired(net(), net(), {"head": "haed"})


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("nowhere:build", "'nowhere' can't be imported: ModuleNotFoundError"),
        (f"{EXAMPLE}:build_referense", "did you mean 'build_reference'"),
        (EXAMPLE, "must be PACKAGE.MODULE:FUNCTION"),
        ("os:getcwd", "returned str, not a torch.nn.Module"),
    ],
)
def test_what_cant_be_built_is_one_sentence(reference: str, said: str) -> None:
    with pytest.raises(AprenderError) as error:
        compare_named(reference, f"{EXAMPLE}:build_fixed", None, "f32", 2, 7, 0)
    assert said in str(error.value)


def test_a_map_that_is_no_map_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("- a\n")
    with pytest.raises(AprenderError, match="must map names"):
        read_map(path)
    with pytest.raises(AprenderError, match="No such file"):
        read_map(tmp_path / "none.yaml")


def test_a_module_without_embedding_says_what_it_needs() -> None:
    with pytest.raises(AprenderError, match="parity_inputs"):
        random_inputs(nn.Linear(2, 2), 2, 3, 0)


def test_casts_inside_a_module_are_widened_for_the_oracle() -> None:
    """As Hugging Face's norms and softmax do: float32 inside whatever they are given."""
    x = torch.randn(8, dtype=torch.float64)
    with InFloat64():
        assert torch.equal(x.float(), x)
        assert torch.equal(x.to(torch.float32), x)
        assert torch.softmax(x, -1, dtype=torch.float32).dtype == torch.float64


def test_sums_term_by_term_err_more_than_blocked_ones_and_are_the_same_sums() -> None:
    a, b = torch.randn(5, 4000), torch.randn(4000, 3)
    exact = a.double() @ b.double()
    with TermByTerm():
        found = a @ b
    assert 0 < float((found - exact).abs().max()) < 1e-2


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_the_worked_example_finds_the_planted_bug_and_passes_without_it(dtype: str) -> None:
    """Hugging Face's Qwen2 against a hand-written one whose query heads read the wrong key heads."""
    wrong = compare_named(f"{EXAMPLE}:build_reference", f"{EXAMPLE}:build_candidate", MAP, dtype, 2, 131, 0)
    first = wrong.comparison.first
    assert wrong.verdict == "RED"
    assert first is not None
    assert (first.stage, first.direction) == ("model.layers.0.self_attn", "forward")
    inside = [r for r in wrong.comparison.records if r.stage.count(".") != 2 and "self_attn" in r.stage]
    assert all(record.verdict == "GREEN" for record in inside if record.stage.endswith("_proj"))

    right = compare_named(f"{EXAMPLE}:build_reference", f"{EXAMPLE}:build_fixed", MAP, dtype, 2, 131, 0)
    assert right.verdict == "GREEN", right.comparison.first
    assert right.free.faults == ()
    assert right.free.edges > 8


class Spoilt(Net):
    """Every submodule is right; what ``forward`` makes of the logits is not."""

    def forward(self, tokens: Tensor) -> Tensor:
        y = super().forward(tokens)
        return {"nan": y * torch.nan, "cut": y[..., :-1], "worse": y * 1.5}.get(self.bug, y)

    bug = ""


@pytest.mark.parametrize(("bug", "verdict"), [("", "GREEN"), ("nan", "ERROR"), ("cut", "ERROR"), ("worse", "RED")])
def test_logits_that_can_not_be_compared_are_no_pass(bug: str, verdict: str) -> None:
    """Few decidable steps are no fault of a random model; NaN and another shape are."""
    candidate = Spoilt()
    candidate.load_state_dict(net().state_dict())
    candidate.bug = bug
    comparison = ModuleComparison(net(), candidate, paired(net(), candidate), Options(torch.float32))
    assert free_run(comparison, *random_inputs(net(), 2, 67, 0)).verdict == verdict
