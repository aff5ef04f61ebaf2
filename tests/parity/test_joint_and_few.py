"""What clean runs on a GPU taught: rows whose errors move together, tensors of few elements, sums that are truncated."""

from __future__ import annotations

from itertools import product as every

import pytest
import torch
from torch import Tensor

from aprender.parity import sensitivity
from aprender.parity.blocks import TILE, Blocks, Layout
from aprender.parity.calibration import LEAST_SEEDS, Calibration, uncalibrated
from aprender.parity.compare import compare_stage
from aprender.parity.envelope import Envelope
from aprender.parity.stages import Gradients, Operator, Parameters, ReferenceStage, Tensors
from falsifiers import oracle_stages
from falsifiers.oracle_stage_sums import truncated_product
from falsifiers.oracle_stages import tensor

U = 2.0**-24  # float32's unit roundoff


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def groups(blocks: Blocks, name: str, index: int) -> list[list[tuple[int, int]]]:
    """The elements (m, n) of a block, in groups whose errors move together: by row, or for a column one by one."""
    members = []
    for m, n in every(range(blocks.M), range(blocks.N)):
        across = -(-blocks.N // TILE)
        inside = {
            "tensor": True,
            "row": m == index,
            "column": n == index,
            "head": n // 5 == index,  # heads of 5 channels are the first of the channels' two axes
            "tile": divmod(index, across) == (m // TILE, n // TILE),
            "small rows": blocks.small_rows is not None and bool(blocks.small_rows[m]),
        }
        if inside[name]:
            members.append((m, n))
    return [[place for place in members if place[0] == m] for m in sorted({m for m, _ in members})]


def test_joint_rows_are_counted_as_rows_in_every_block() -> None:
    """Against the definition, element by element: (sum of variances)^2 / sum of (a row's part of the block)^2."""
    shape, small = (2, 66, 27, 5), torch.arange(132) % 3 == 1  # 132 x 135: two tiles down, two across, each partial
    variance = torch.rand(shape, generator=generator(1), dtype=torch.float64)
    blocks = Blocks(shape, Layout(rows=2, heads=2, joint_rows=True), small)
    v_MN, found = variance.reshape(132, 135), blocks.effective_terms(variance)
    assert set(found) == {"tensor", "row", "column", "head", "tile", "small rows"}
    for name, terms in found.items():
        for index in {0, 1, len(terms) - 1} & set(range(len(terms))):
            parts = [sum(float(v_MN[place]) for place in group) for group in groups(blocks, name, index)]
            assert float(terms[index]) == pytest.approx(sum(parts) ** 2 / sum(part**2 for part in parts), rel=1e-12)


def test_without_joint_rows_elements_are_counted() -> None:
    """A row of equal variances is worth as many terms as it has elements; joint, it is worth one."""
    ones = torch.ones(9, 7, dtype=torch.float64)
    assert Blocks((9, 7), Layout(1)).effective_terms(ones)["row"].tolist() == [7.0] * 9
    assert Blocks((9, 7), Layout(1, joint_rows=True)).effective_terms(ones)["row"].tolist() == [1.0] * 9


def test_one_number_is_judged_by_what_its_rounding_is_worth_not_by_one_draw() -> None:
    """Plans that happen to be exact allow an honest error of a few roundings, and nothing like a hundred."""
    z = torch.tensor(18.7, dtype=torch.float64).float().double()
    envelope = Envelope(z, torch.float32, Blocks((), Layout.of(())), uncalibrated())
    envelope.add(z.float())
    ulp = 2.0**-19  # of float32 between 16 and 32
    assert envelope.judge((z + 3 * ulp).float()).ratio < 1
    assert envelope.judge((z + 100 * ulp).float()).ratio > 1


def test_margins_are_by_what_a_statistic_concentrates() -> None:
    """Norms least, gains more, other projections most; below 1 nothing is made smaller, and few seeds say nothing."""
    statistics = ("norm row", "max", "row gains", "column gains", "channel mean", "gain", "direction")
    table = {"cpu": {"float32": dict.fromkeys(statistics, 2.0) | {"norm tensor": 0.1}}}
    cpu = torch.device("cpu")
    factors = [Calibration(table, {"cpu": LEAST_SEEDS}).factor(cpu, torch.float32, name) for name in statistics]
    assert factors == [2.2, 2.2, 2.5, 2.5, 3.2, 3.2, 3.2]
    assert Calibration(table, {"cpu": LEAST_SEEDS}).factor(cpu, torch.float32, "norm tensor") == 1.0
    assert Calibration(table, {"cpu": LEAST_SEEDS - 1}).factor(cpu, torch.float32, "norm row") is None


def test_truncated_sums_are_short_of_the_exact_ones() -> None:
    """Up to 16 products: the exact sum cut off; more: each block of 16 cuts a little, always towards zero."""
    a, b = (torch.rand(n, 77, generator=generator(n)).bfloat16().float() + 0.5 for n in (9, 5))
    exact = a[:, :16].double() @ b[:, :16].double().T
    cut = truncated_product(a[:, :16], b[:, :16], 256).double()
    assert bool(((exact - cut >= 0) & (exact - cut < 2 * U * exact)).all())
    assert not torch.equal(cut, exact.float().double()), "rounding to nearest goes up as well"
    short = (a.double() @ b.double().T - truncated_product(a, b, 256).double()) / (a.double() @ b.double().T)
    assert bool((short >= 0).all())
    assert bool((short < 5 * 2 * U).all()), "five blocks, each less than one ulp"
    torch.testing.assert_close(truncated_product(-a, b, 256), -truncated_product(a, b, 256), rtol=0, atol=0)


@pytest.mark.parametrize(("dtype", "red"), [(torch.bfloat16, False), (torch.float32, True)])
def test_a_gradient_that_tensor_cores_add_up_is_legal_in_16_bits_only(dtype: torch.dtype, red: bool) -> None:
    """Float32 operands have no tensor cores that are exact: there the same shortfall is a defect."""
    draw = generator(7)
    x = (1.0 + torch.randn(1, 4096, 24, generator=draw)).to(dtype)
    weight = torch.randn(40, 24, generator=draw).to(dtype)
    stage = oracle_stages.linear("q_proj", x, weight, None, 7, torch.float32)
    records = compare_stage(stage, Truncating(stage), forward=False, calibration=uncalibrated()).records
    (found,) = (record for record in records if record.tensor == "d_parameter weight")
    assert found.verdict == ("RED" if red else "GREEN"), found


class Plan:
    """The stage's first plan as a candidate."""

    def __init__(self, stage: ReferenceStage) -> None:
        self.plan: Operator = next(iter(stage.plans.values()))
        self.parameters: Parameters = stage.parameters

    def __call__(self, *inputs: Tensor) -> Tensor:
        y = self.plan.forward(inputs, self.parameters)
        assert isinstance(y, Tensor)
        return y


class Truncating(Plan):
    """The stage's first plan, but for the weight's gradient: blocks of 16 products, each sum cut off."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensors]:
        return self(*inputs), inputs

    def backward(self, saved: Tensors, d_output: Tensor) -> tuple[tuple[Tensor | None, ...], dict[str, Tensor]]:
        assert self.plan.vjp is not None
        found: Gradients = self.plan.vjp(saved, self.parameters, (d_output,))
        x_MK, dy_MN = saved[0].flatten(0, -2).float(), d_output.flatten(0, -2).float()
        assert tensor(self.parameters["weight"]).shape == (dy_MN.shape[1], x_MK.shape[1])
        return found.inputs, {"weight": truncated_product(dy_MN.T, x_MK.T, 10**9)}


def one_number_times_a_vector(seed: int, factor: float = 1.0, joint: bool = True) -> tuple[Envelope, Tensor]:
    """Rows m are ``a_m v``, the numbers a rounded as bfloat16 does: the legal plan's envelope, another's result.

    ``factor`` is what the candidate's numbers are wrong by; without ``joint`` columns count as independent.
    """
    draw = generator(seed)
    a_M, v_N = (torch.randn(size, generator=draw, dtype=torch.float64) for size in (512, 96))
    z = a_M[:, None] * v_N
    noise_M = a_M.abs() * 2.0**-9 * torch.randn(2, 512, generator=draw, dtype=torch.float64)
    envelope = Envelope(z, torch.bfloat16, Blocks((512, 96), Layout(1, joint_rows=joint)), uncalibrated())
    envelope.add(((a_M + noise_M[0])[:, None] * v_N).float())
    return envelope, (factor * (a_M + noise_M[1])[:, None] * v_N).float()


def column_gains(envelope: Envelope, y: Tensor) -> float:
    (found,) = (m.ratio for m in envelope.judge(y).measured if m.statistic == "column gains")
    return found


def test_columns_that_move_together_are_one_term_of_the_column_gains() -> None:
    """All columns share one error: its square is one draw of a chi-square with one term, not the mean of 96."""
    assert max(column_gains(*one_number_times_a_vector(seed)) for seed in range(200)) < 0.5
    assert max(column_gains(*one_number_times_a_vector(seed, joint=False)) for seed in range(200)) > 1


def test_a_factor_on_columns_that_move_together_is_still_red() -> None:
    """Half a percent on all of them: the numbers' own roundings, 0.2% each, have no preferred sign."""
    assert all(column_gains(*one_number_times_a_vector(seed, 1.005)) > 1 for seed in range(20))


def rows_with_a_common_part(seed: int, bias: float = 0.0) -> float:
    """The ratio of the channel mean of an honest candidate, whose errors share a part in all rows, as a plan's do.

    A sixteenth of the variance is common: what attention's dk has of the rounded row sums of its queries. ``bias`` is
    added to one channel, in units of one error.
    """
    draw = generator(seed)
    z = torch.randn(400, 48, generator=draw, dtype=torch.float64)
    own = torch.randn(2, 400, 48, generator=draw, dtype=torch.float64)
    common = torch.randn(2, 1, 48, generator=draw, dtype=torch.float64)
    plan, y = z + 2.0**-7 * (own + common / 4)
    y[:, 5] += bias * 2.0**-7
    envelope = Envelope(z, torch.bfloat16, Blocks((400, 48), Layout(1)), uncalibrated())
    envelope.add(plan.float())
    (found,) = (m.ratio for m in envelope.judge(y.float()).measured if m.statistic == "channel mean")
    return found


def test_a_part_that_rows_have_in_common_is_legal_in_a_mean_and_a_bias_still_red() -> None:
    """One draw a channel does not say how large the common part is: 48 do."""
    assert max(rows_with_a_common_part(seed) for seed in range(200)) < 0.7  # 9,600 draws reach 4.4 of 7.5 sd
    assert min(rows_with_a_common_part(seed, bias=4.0) for seed in range(20)) > 1


def mean_of_squares(one_row_only: bool) -> ReferenceStage:
    """A mean over 4,096 rows whose tokens choose the row's factor; with ``one_row_only`` it sees the first row alone."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        x, tokens = inputs
        rows = (x * tensor(parameters["weight"])[tokens]).square().sum(-1)
        return rows[0] * 0 + 3 if one_row_only else rows.mean()

    draw = generator(3)
    x = torch.randn(4096, 8, generator=draw)
    tokens = torch.randint(11, (4096,), generator=draw)
    operator = Operator(forward)
    return ReferenceStage(
        "mean", (x, tokens), {"weight": torch.rand(11, 8, generator=draw) + 0.5}, operator, {"": operator}
    )


def test_a_mean_that_depends_on_its_inputs_is_conclusive_and_a_constant_is_not() -> None:
    """Random signs cancel in a mean of many rows; a common factor does not. What ignores its inputs stays ERROR."""
    stage = mean_of_squares(one_row_only=False)
    record = compare_stage(stage, Plan(stage), backward=False, calibration=uncalibrated()).records[0]
    assert record.verdict == "GREEN", record.reason
    assert min(record.sensitivity.values()) > 100
    stage = mean_of_squares(one_row_only=True)
    record = compare_stage(stage, Plan(stage), backward=False, calibration=uncalibrated()).records[0]
    assert (record.verdict, record.sensitivity["input 0"]) == ("ERROR", 0)


def test_random_signs_cancel_in_a_mean_and_a_common_factor_counts() -> None:
    """In the mean of two million numbers +-10% is a change of 0.1 / sqrt(n): too little to be seen, unlike 10% of all."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        return (inputs[0] * tensor(parameters["weight"])).mean()

    x = torch.rand(2**16, 32, generator=generator(5)) + 0.5
    operator = Operator(forward)
    stage = ReferenceStage(
        "mean", (x,), {"weight": torch.rand(32, generator=generator(6)) + 0.5}, operator, {"": operator}, seed=9
    )
    signs, common = (float(z) for _, (z,) in sensitivity.moved_by_inputs(stage, one_number=True))
    exact = float((x.double() * tensor(stage.parameters["weight"]).double()).mean())
    assert abs(signs / exact - 1) < 1e-3
    assert common == pytest.approx(1.1 * exact, rel=1e-12)
    record = compare_stage(stage, Plan(stage), backward=False, calibration=uncalibrated()).records[0]
    assert record.sensitivity["input 0"] == pytest.approx(record.sensitivity["weight"]), (
        "10% of it moves the mean as much"
    )
    assert [name for name, _ in sensitivity.moved_by_inputs(stage, one_number=False)] == ["input 0"]


def test_moved_tokens_that_cancel_in_a_mean_are_tried_in_other_shares() -> None:
    """All of them moved, or every second one, leave this mean as it is; every fourth one does not."""

    def forward(inputs: Tensors, parameters: Parameters) -> Tensor:
        return tensor(parameters["weight"])[inputs[0]].mean()

    tokens, operator = torch.tensor([0, 0, 1, 0, 0, 0, 0, 1]).repeat(8), Operator(forward)
    stage = ReferenceStage("mean", (tokens,), {"weight": torch.tensor([1.0, 3.0])}, operator, {"": operator})
    moved = [float(z) for _, (z,) in sensitivity.moved_by_inputs(stage, one_number=True)]
    assert (moved[:2], moved[2]) == ([1.5, 1.5], 1.75)
    record = compare_stage(stage, Plan(stage), backward=False, calibration=uncalibrated()).records[0]
    assert record.verdict == "GREEN", record.reason


def test_a_plan_that_comes_after_a_judgement_counts() -> None:
    """What is allowed is computed once, and anew when there is another plan."""
    z = torch.randn(64, 48, generator=generator(6), dtype=torch.float64)
    envelope = Envelope(z, torch.float32, Blocks((64, 48), Layout(1)), uncalibrated())
    rough = (z * (1 + 1e-4 * torch.randn(64, 48, generator=generator(7), dtype=torch.float64))).float()
    envelope.add(z.float())
    assert envelope.judge(rough).ratio > 1
    envelope.add(rough)
    assert envelope.judge(rough).ratio < 1
