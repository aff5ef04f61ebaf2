"""Running probes: opening the system once, observing it clean or with a planted defect, never twice for nothing."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aprender.contracts.contract import Contract, Falsifier
from aprender.errors import AprenderError
from aprender.falsify.bind import bind, project_root
from aprender.falsify.cache import ObservationCache
from aprender.falsify.digest import NotCanonical, file_digest, files_digest, glob_files, package_digest
from aprender.falsify.host import cuda_device_name, host_facts
from aprender.falsify.probe import (
    Observation,
    Options,
    PlantedDefect,
    Probe,
    RequirementNotMet,
    System,
    SystemFactory,
)


class ProbeFailed(AprenderError):
    """The probe or the opening of its system raised; the message says what, and where in the user's code."""


class NotPlanted(AprenderError):
    """The defect class has no planted defect, or planting it raised."""


class NotUndone(AprenderError):
    """Undoing a planted defect left the system changed."""


@dataclass(frozen=True)
class Observed:
    """A raw observation with the units its probe declared, and the circumstances evidence needs."""

    values: Mapping[str, float | int]
    units: Mapping[str, str]
    output_digest: str
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]
    observed_at: str
    reused: bool


class Observer:
    """Observes the systems of one ``pv run``: each is opened at most once, and only when the cache can't answer."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self._systems: dict[int, tuple[SystemFactory, System]] = {}
        self._inputs: dict[int, dict[str, str]] = {}
        self._code: dict[Path, str] = {}

    def code_digest(self, contract: Contract) -> str:
        """One digest of the code under contract. Raises AprenderError for a glob that matches nothing."""
        if contract.path not in self._code:
            root = project_root(contract.path)
            self._code[contract.path] = files_digest(root, glob_files(root, contract.code_under_contract))
        return self._code[contract.path]

    def probe_digest(self, contract: Contract, falsifier: Falsifier) -> str:
        """A digest of the sources of the probe's package."""
        return package_digest(project_root(contract.path), (falsifier.probe or "").partition(":")[0])

    def observe(self, contract: Contract, falsifier: Falsifier, defect_class: str | None) -> Observed:
        """Observe the system, clean or with one defect class planted.

        Raises BindError, RequirementNotMet, ProbeFailed, NotPlanted or NotUndone.
        """
        cache = ObservationCache(project_root(contract.path) / ".pv" / "observations")
        key = self._key(contract, falsifier, defect_class)
        if stored := cache.get(key):
            return Observed(**stored, reused=True)
        probe = bind(contract, falsifier)
        system = self._open(probe)
        if defect_class is None:
            observation = _call(probe, system, falsifier)
        elif defect_class not in probe.defects:
            raise NotPlanted(f"no planted defect of that name; known: {', '.join(probe.defects) or 'none'}")
        else:
            observation = self._observe_planted(probe, system, falsifier, probe.defects[defect_class])
        payload: dict[str, Any] = {
            "values": dict(observation.values),
            "units": dict(probe.observes),
            "output_digest": observation.output_digest,
            "inputs": self._digests(probe.system),
            "facts": dict(system.facts()),
            "observed_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        with suppress(NotCanonical):  # NaN has no canonical form: the judge will say ERROR, and nothing is kept
            cache.put(key, payload)
        return Observed(**payload, reused=False)

    def _key(self, contract: Contract, falsifier: Falsifier, defect_class: str | None) -> dict[str, Any]:
        host = host_facts()
        return {
            "probe": falsifier.probe,
            "with": dict(falsifier.arguments),
            "probe_digest": self.probe_digest(contract, falsifier),
            "code_digest": self.code_digest(contract),
            "defect": defect_class,
            "device": self.options.device,
            "gpu": cuda_device_name() if self.options.device == "cuda" else None,
            "model": str(self.options.model.resolve()) if self.options.model else None,
            "host": {name: host[name] for name in ("machine", "python", "libraries")},
        }

    def _open(self, probe: Probe) -> System:
        if id(probe.system) not in self._systems:
            try:
                system = probe.system.open(self.options)
            except AprenderError:
                raise
            except Exception as error:
                raise ProbeFailed(f"opening the system failed: {_what_happened(error)}") from error
            self._systems[id(probe.system)] = probe.system, system
        return self._systems[id(probe.system)][1]

    def _digests(self, factory: SystemFactory) -> dict[str, str]:
        if id(factory) not in self._inputs:
            files = factory.inputs(self.options)
            self._inputs[id(factory)] = {str(file.resolve()): file_digest(file) for file in files}
        return self._inputs[id(factory)]

    def _observe_planted(
        self, probe: Probe, system: System, falsifier: Falsifier, defect: PlantedDefect
    ) -> Observation:
        before = system.fingerprint()
        planting = defect.plant(system)
        try:
            planting.__enter__()
        except Exception as error:
            self._check_undone(probe, system, before, defect)
            raise NotPlanted(f"planting it failed: {_what_happened(error)}") from error
        try:
            return _call(probe, system, falsifier)
        finally:
            self._undo(probe, system, planting, defect)
            self._check_undone(probe, system, before, defect)

    def _undo(
        self, probe: Probe, system: System, planting: AbstractContextManager[None], defect: PlantedDefect
    ) -> None:
        try:
            planting.__exit__(None, None, None)
        except Exception as error:
            del self._systems[id(probe.system)]
            message = f"undoing the planted defect '{defect.name}' failed: {_what_happened(error)}"
            raise NotUndone(message) from error

    def _check_undone(self, probe: Probe, system: System, before: str, defect: PlantedDefect) -> None:
        if system.fingerprint() != before:
            del self._systems[id(probe.system)]  # whatever comes next starts from a fresh system
            raise NotUndone(f"undoing the planted defect '{defect.name}' left the system changed; correct its undo")


def _call(probe: Probe, system: System, falsifier: Falsifier) -> Observation:
    try:
        observation = probe.function(system, **falsifier.arguments)
    except RequirementNotMet as error:  # only opening a system may ask for what the host lacks
        raise ProbeFailed(str(error)) from error
    except Exception as error:
        raise ProbeFailed(f"the probe crashed: {_what_happened(error)}") from error
    if not isinstance(observation, Observation):
        raise ProbeFailed(f"the probe returned {type(observation).__name__}, not an Observation")
    return observation


def _what_happened(error: Exception) -> str:
    """The error in one line, with the innermost place it came from."""
    if isinstance(error, AprenderError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
