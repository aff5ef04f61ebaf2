"""What must never pass: ways in which a tool can be GREEN while nothing was shown."""

from __future__ import annotations

import pytest

from aprender.falsify.record import Outcome
from aprender.falsify.verdict import Verdict, exit_code
from tests.toy_project import Project

VALUE = "    value = system.scale(room - 0.5 + system.offset)"


@pytest.mark.parametrize(
    ("file", "old", "new", "verdict"),
    [
        pytest.param("toyprobes/reading.py", VALUE, "    value = 21.5", Verdict.UNPROVEN, id="constant metric"),
        pytest.param("toyprobes/reading.py", VALUE, "    value = room", Verdict.UNPROVEN, id="compared with itself"),
        pytest.param(
            "toyprobes/reading.py", VALUE, f"    import thermometer\n{VALUE.replace('system.offset', 'thermometer.OFFSET').replace('system.scale', '')}",
            Verdict.UNPROVEN, id="looks at another object than the one that is planted",
        ),
        pytest.param("toyprobes/reading.py", '"samples": 2', '"samples": 0', Verdict.ERROR, id="nothing measured"),
        pytest.param(
            "toyprobes/reading.py", VALUE, f"    value = float('nan')\n    if not system.offset: {VALUE.strip()}",
            Verdict.ERROR, id="swallowed failure becomes NaN",
        ),
        pytest.param("toyprobes/reading.py", "    return Observation(", "    return\n    Observation(", Verdict.ERROR, id="returns nothing"),
        pytest.param("toyprobes/reading.py", "room.offset = room.offset, 0.0", "room.offset = room.offset, 0.5", Verdict.UNPROVEN, id="planting plants nothing"),
        pytest.param("toyprobes/reading.py", VALUE, f"    assert system.offset, 'no offset'\n{VALUE}", Verdict.UNPROVEN, id="defect caught by a crash only"),
        pytest.param("contracts/thermometer-v1.yaml", "abs(reading - room) < 0.1", "abs(reading - room) < 1e9", Verdict.UNPROVEN, id="tolerance widened"),
        pytest.param("contracts/thermometer-v1.yaml", "- offset_forgotten", "- nobody_plants_this", Verdict.UNPROVEN, id="class never planted"),
    ],
)  # fmt: skip
def test_it_is_not_green_and_the_exit_code_is_not_zero(
    file: str, old: str, new: str, verdict: Verdict, project: Project
) -> None:
    """Each by its own verdict, none by luck."""
    project.edit(file, old, new)
    run = project.run()
    assert run.verdict is verdict, run.reason
    assert exit_code([run.verdict], skipped_may_pass=True) == 3


def test_a_falsifier_without_defect_classes_is_never_green(project: Project) -> None:
    """Not ship-blocking, so that validation lets it pass; nothing shows that it can go RED."""
    project.edit_contract("ship_blocking: true", "ship_blocking: false")
    text = project.contract_path.read_text()
    project.contract_path.write_text(text[: text.index("    counter_example_classes:")])
    run = project.run()
    assert (run.verdict, run.reason[:28]) == (Verdict.UNPROVEN, "no defect class is declared:")


def test_one_survivor_among_many_caught_is_enough_to_be_unproven(project: Project) -> None:
    """All means all."""
    project.edit_contract("abs(reading - room) < 0.1", "abs(reading - room) < 1.0")
    run = project.run()
    assert {w.outcome for w in run.witnesses} == {Outcome.CAUGHT, Outcome.SURVIVED}
    assert run.verdict is Verdict.UNPROVEN
