"""Coverage for people, with its denominators, and for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aprender.contracts.coverage import Coverage, Gap, Share
from aprender.contracts.files import stem
from aprender.reports.colour import coloured
from aprender.reports.excerpt import shown
from aprender.reports.table import aligned
from aprender.reports.validation_text import file_name

FORMAT_VERSION = 1  # grows where a key changes its meaning or goes; new keys may come at any time
_HEADER = ("CONTRACT", "OBLIGATIONS COVERED", "EQUATIONS NAMED", "FALSIFIERS WITH A PROBE", "DEFECT CLASSES")
_LACKS = {
    "obligation": "is covered by no falsifier",
    "equation": "is named by no obligation and no falsifier",
    "falsifier": "has no probe",
}


def coverage_text(each: Sequence[Coverage], total: Coverage) -> str:
    """Every gap with its place, and the table."""
    rows = [_HEADER, *(_row(shown(stem(file_name(one.file))), one) for one in each), _row("total", total)]
    cells = aligned(rows)
    for row, one in zip(cells[1:], [*each, total], strict=True):
        for column, share in enumerate((one.obligations, one.equations, one.falsifiers), 1):
            row[column] = coloured(row[column], "yellow") if share.held < share.total else row[column]
    table = "\n".join("  ".join(row).rstrip() for row in cells)
    gaps = "\n".join(map(_gap, total.gaps))
    return f"{gaps}\n\n{table}" if gaps else table


def coverage_json(each: Sequence[Coverage], total: Coverage, exit_code: int) -> str:
    """``contracts``, ``total`` and ``exit_code``; ASCII."""
    contracts = [{"file": file_name(one.file), **_plain(one), "gaps": list(map(_plain_gap, one.gaps))} for one in each]
    report = {
        "format_version": FORMAT_VERSION, "contracts": contracts, "total": _plain(total), "exit_code": exit_code,
    }  # fmt: skip
    return json.dumps(report, indent=2, allow_nan=False)


def _row(name: str, one: Coverage) -> tuple[str, ...]:
    beside = f" ({one.not_applicable} not applicable)" if one.not_applicable else ""
    shares = (_share(one.obligations) + beside, _share(one.equations), _share(one.falsifiers))
    return (name, *shares, str(len(one.defect_classes)))


def _share(share: Share) -> str:
    return f"{share.held}/{share.total}"


def _gap(gap: Gap) -> str:
    text = f" ({shown(gap.text)})" if gap.text else ""
    return (
        f"{shown(file_name(gap.file))}:{gap.line}:{gap.column}: {gap.kind} {shown(gap.name)} {_LACKS[gap.kind]}{text}"
    )


def _plain(one: Coverage) -> dict[str, Any]:
    return {
        "obligations_covered": one.obligations._asdict(),
        "obligations_not_applicable": one.not_applicable,
        "equations_named": one.equations._asdict(),
        "falsifiers_with_probe": one.falsifiers._asdict(),
        "defect_classes": list(one.defect_classes),
    }


def _plain_gap(gap: Gap) -> dict[str, Any]:
    return gap._asdict() | {"file": file_name(gap.file)}
