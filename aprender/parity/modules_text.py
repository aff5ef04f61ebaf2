"""What ``apr parity`` prints."""

from __future__ import annotations

from aprender.parity.from_names import ModulesReport
from aprender.parity.table import comparison_text, number


def modules_text(report: ModulesReport) -> str:
    """The table of all stages, the first that is wrong, and the free run."""
    free, lines = report.free, [comparison_text(report.comparison)]
    if free.reason:
        return "\n".join([*lines, f"Running freely: nothing compared: {free.reason}."])
    lines.append(f"Running freely: {free.edges} connections between operators, {len(free.faults)} broken.")
    lines += [f"  {fault.message}" for fault in free.faults[:8]]
    found = free.generation
    if found is not None and not found.compared:
        lines.append(f"  predictions can't be compared: {found.reason}")
    elif found is not None:
        times = found.divergence / found.allowed_divergence if found.allowed_divergence else 0.0
        lines.append(
            f"  predictions: {found.steps} steps, {found.decidable:.0%} decidable, {len(found.disagreements)} wrong; "
            f"KL {found.divergence:.2e} nats at step {found.worst_step}, {number(times)} of what is allowed"
        )
    return "\n".join(lines)
