"""An inspection as text for people, and as plain data for programs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aprender.formats.inspection import Inspection
from aprender.transformer.config import TransformerConfig

if TYPE_CHECKING:
    from aprender.formats.statistics import Statistics

Numbers = Mapping[str, "Statistics | None"]
_KINDS = {"safetensors": "safetensors", "gguf": "GGUF", "apr": ".apr"}
_COLUMNS = ("min", "mean", "max", "std", "not finite")


def inspection_data(
    inspection: Inspection, statistics: Numbers | None = None, digests: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Everything as one JSON object; tensors in the file's order."""
    tensors = []
    for entry in inspection.entries:
        tensor: dict[str, Any] = {"name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype}
        tensor |= {"file": entry.path.name, "start": entry.start, "bytes": entry.size}
        if statistics is not None:
            found = statistics[entry.name]
            tensor["statistics"] = found and {k: v if math.isfinite(v) else None for k, v in asdict(found).items()}
        tensors.append(tensor)
    return {
        "path": str(inspection.path),
        "format": inspection.kind,
        "files": {file.name: file.stat().st_size for file in inspection.files},
        "config": inspection.config and {**asdict(inspection.config), "rope_scaling": _scaling(inspection.config)},
        "usage": inspection.usage and asdict(inspection.usage),
        "tokenizer": inspection.tokenizer,
        "problems": list(inspection.problems),
        "tensors": tensors,
        **({"sha256": dict(digests)} if digests is not None else {}),
    }


def inspection_text(
    inspection: Inspection, statistics: Numbers | None = None, digests: Mapping[str, str] | None = None
) -> str:
    """What it is, its configuration, its table of tensors, and what keeps it from being loaded."""
    files = len(inspection.files)
    size = sum(file.stat().st_size for file in inspection.files)
    dtypes = Counter(entry.dtype for entry in inspection.entries)
    elements = sum(math.prod(entry.shape) for entry in inspection.entries)
    facts = {
        "format": f"{_KINDS[inspection.kind]}, {files} file{'s'[: files > 1]}, {size:,} bytes",
        "tensors": f"{len(inspection.entries)} with {elements:,} elements: "
        + ", ".join(f"{count} {dtype}" for dtype, count in dtypes.most_common()),
        **(_config_facts(inspection.config) if inspection.config else {"configuration": "not in this file"}),
        **_usage_facts(inspection),
        **{f"sha256 {name}": digest for name, digest in (digests or {}).items()},
    }
    if inspection.config is None and inspection.problems:
        facts["configuration"] = "can't be used, see below"
    width = max(map(len, facts))
    lines = [str(inspection.path), *(f"  {key:{width}}  {value}" for key, value in facts.items())]
    if inspection.entries:
        lines += ["", *_table(inspection, statistics)]
    if inspection.problems:
        lines += ["", f"can't be loaded, {len(inspection.problems)} problem{'s'[: len(inspection.problems) > 1]}:"]
        lines += [f"  {problem}" for problem in inspection.problems]
    return "\n".join(lines)


def _scaling(config: TransformerConfig) -> dict[str, Any] | None:
    scaling = config.rope_scaling
    return None if scaling is None else {"kind": type(scaling).__name__, **asdict(scaling)}


def _config_facts(config: TransformerConfig) -> dict[str, str]:
    windows = Counter(config.windows)
    facts = {key: str(value) for key, value in asdict(config).items() if key not in ("windows", "rope_scaling")}
    facts["rope_scaling"] = str(config.rope_scaling or "none")
    facts["windows"] = ", ".join(f"{window or 'none'} in {count} layers" for window, count in windows.items())
    return facts


def _usage_facts(inspection: Inspection) -> dict[str, str]:
    facts = {"tokenizer": inspection.tokenizer} if inspection.tokenizer else {}
    if usage := inspection.usage:
        facts["context_length"] = str(usage.context_length or "not stated")
        facts["bos_id"] = "not stated" if usage.bos_id is None else str(usage.bos_id)
        facts["eos_ids"] = ", ".join(map(str, usage.eos_ids)) or "not stated"
        template = usage.chat_template
        facts["chat_template"] = "none" if template is None else f"{len(template)} characters"
    return facts


def _table(inspection: Inspection, statistics: Numbers | None) -> list[str]:
    rows = [["name", "shape", "dtype", "bytes", *(_COLUMNS if statistics is not None else ())]]
    for entry in inspection.entries:
        row = [entry.name, "x".join(map(str, entry.shape)) or "scalar", entry.dtype, f"{entry.size:,}"]
        if statistics is not None:
            found = statistics[entry.name]
            row += [f"{v:.4g}" if isinstance(v, float) else str(v) for v in asdict(found).values()] if found else []
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left = (0, 2)  # texts; numbers stand to the right
    return [
        "  ".join(
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
