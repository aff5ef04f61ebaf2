"""Measure every planted defect of cuda-operator-parity-v1 and write what each reaches into docs/defect-map.md.

python -m scripts.defect_map [--device cpu]
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from aprender.contracts.load import load
from aprender.falsify.probe import Observation, Options, Probe
from falsifiers.cuda_operator_system import OPERATORS

ROOT = Path(__file__).parents[1]
CONTRACT = ROOT / "contracts/cuda-operator-parity-v1.yaml"
TARGET = ROOT / "docs/defect-map.md"
HEAD = """# Defect map

What each planted defect of `contracts/cuda-operator-parity-v1.yaml` reaches, on {device}; made by
`python -m scripts.defect_map`. A ratio above 1, or another number above what the contract allows, is RED; `clean` is
what the right operators reach. Ratios are observed/allowed ([parity](parity.md)).

| falsifier | defect class | what it is | reached |
|---|---|---|---|
"""
SHOWN = ("elements_differing", "inconclusive", "w_error", "m_error", "v_error", "copy_differing", "norm_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    (contract,) = load([CONTRACT]).contracts
    system = OPERATORS.open(Options(device, None))
    rows = []
    for falsifier in contract.falsifiers:
        module, _, name = str(falsifier.probe).partition(":")
        probe: Probe = getattr(import_module(module), name)
        number = falsifier.id[-3:]
        clean = probe.function(system, **falsifier.arguments)
        rows.append(f"| {number} | clean | | {_reached(clean, clean)} |")
        for defect in falsifier.defect_classes:
            planted = probe.defects[defect.name]
            with planted.plant(system):
                observation = probe.function(system, **falsifier.arguments)
            rows.append(f"| {number} | `{defect.name}` | {planted.story} | {_reached(observation, clean)} |")
    host = str(system.facts()["device"])
    TARGET.write_text(HEAD.format(device=host) + "\n".join(rows).replace("**2", "²") + "\n", encoding="utf-8")


def _reached(observation: Observation, clean: Observation) -> str:
    """The ratios and counts that differ from the clean run's; of the clean run all ratios."""
    same = observation is clean
    names = [name for name in observation.values if name.endswith("_ratio") and name != "worst_ratio"]
    values = {
        name: observation.values[name]
        for name in (*names, *SHOWN)
        if name in observation.values and (same or observation.values[name] > max(clean.values[name], 1e-9))
    }
    return ", ".join(f"{name.removesuffix('_ratio').replace('_', ' ')} {value:.3g}" for name, value in values.items())


if __name__ == "__main__":
    main()
