"""Running probes: opening the system once, observing it clean or with a planted defect, never twice for nothing."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, redirect_stdout, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aprender.contracts.contract import Contract, Falsifier
from aprender.errors import AprenderError
from aprender.falsify.bind import BindError, bind, project_root
from aprender.falsify.cache import ObservationCache
from aprender.falsify.digest import canonical, file_digest
from aprender.falsify.host import cuda_device_name, host_facts
from aprender.falsify.probe import Observation, Options, PlantedDefect, Probe, RequirementNotMet, System, SystemFactory
from aprender.falsify.sources import ProbeFiles, Sources
from aprender.faults import explained, in_one_line, let_go

# What user code may raise: sys.exit() in a probe must not end the run as if all were well.
USER_ERRORS = (Exception, SystemExit)


class ProbeFailed(AprenderError):
    """The probe or the opening of its system raised; the message says what, and where in the user's code."""


class NotPlanted(AprenderError):
    """The defect class has no planted defect, or planting it raised."""


class NotUndone(AprenderError):
    """Undoing a planted defect left the system changed."""


@dataclass(frozen=True)
class Observed:
    """A raw observation with the units its probe declared, and the circumstances evidence needs.

    ``inputs`` are the files that it depends on (weights, texts, and Python modules of the project that were loaded),
    relative to the project's root where they lie inside it, with their sha256.
    """

    values: Mapping[str, float | int]
    units: Mapping[str, str]
    output_digest: str
    inputs: Mapping[str, str]
    facts: Mapping[str, Any]
    observed_at: str
    reused: bool


class Observer:
    """Observes the systems of one ``pv run``: each is opened once, and only when the cache can't answer.

    After a fault of the device all are opened anew: what they held is free for the next falsifier.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self._systems: dict[int, tuple[SystemFactory, System]] = {}
        self._inputs: dict[int, dict[str, str]] = {}
        self._sources: dict[Path, Sources] = {}
        self._loaded_before = frozenset(sys.modules)
        self._probes: dict[Path, dict[str, ProbeFiles]] = {}

    def sources(self, contract: Contract) -> Sources:
        """The project's sources as they were when this run first met the contract."""
        if contract.path not in self._sources:
            root = project_root(contract.path)
            probes = self._probes.setdefault(root, {})
            self._sources[contract.path] = Sources(root, contract.code_under_contract, self._loaded_before, probes)
        return self._sources[contract.path]

    def observe(
        self, contract: Contract, falsifier: Falsifier, defect_class: str | None, *, anew: bool = False
    ) -> Observed:
        """Observe the system, clean or with one defect class planted; ``anew`` leaves the cache alone.

        Raises BindError, RequirementNotMet, ProbeFailed, NotPlanted, NotUndone or another AprenderError.
        """
        root = project_root(contract.path)
        cache = ObservationCache(root)
        key = self._key(contract, falsifier, defect_class)
        if not anew and (stored := cache.get(key, contract.valid_for)):
            return Observed(**stored, reused=True)
        try:
            with redirect_stdout(sys.stderr):  # standard output is the report's
                payload = self._observe_live(contract, falsifier, defect_class)
                canonical({"facts": payload["facts"], "units": payload["units"]})  # evidence must be able to hold it
        except USER_ERRORS as error:
            message = f"the probe's system failed: {what_happened(error, root)}"
            if explained(error):  # whatever comes next starts with free memory, and from fresh systems
                self._systems.clear()
                let_go(error)
            if isinstance(error, AprenderError):
                raise
            raise ProbeFailed(message) from error
        if not anew:
            with suppress(AprenderError):  # NaN has no canonical form: the judge will say ERROR, and nothing is kept
                cache.put(key, payload)
        return Observed(**payload, reused=False)

    def _key(self, contract: Contract, falsifier: Falsifier, defect_class: str | None) -> dict[str, Any]:
        host = host_facts()
        try:
            probe_digest = self.sources(contract).probe(falsifier.probe or "")
        except AprenderError as error:
            at = falsifier.at("probe")
            raise BindError(f"{contract.path}:{at.line}:{at.column}: probe {falsifier.probe}: {error}") from None
        return {
            "probe": falsifier.probe,
            "with": dict(falsifier.arguments),
            "probe_digest": probe_digest,
            "code_digest": self.sources(contract).code,
            "defect": defect_class,
            "device": self.options.device,
            "gpu": cuda_device_name() if self.options.device == "cuda" else None,
            "model": str(self.options.model.resolve()) if self.options.model else None,
            "host": {name: host[name] for name in ("machine", "python", "libraries")},
        }

    def _observe_live(self, contract: Contract, falsifier: Falsifier, defect_class: str | None) -> dict[str, Any]:
        sources = self.sources(contract)
        sources.forget_bytecode(falsifier.probe or "")
        probe = bind(contract, falsifier)
        inputs = self._input_digests(probe.system, sources.root)
        system = self._open(probe)
        if defect_class is None:
            observation = _call(probe, system, falsifier, sources.root)
        elif defect_class not in probe.defects:
            raise NotPlanted(f"no planted defect of that name; known: {', '.join(probe.defects) or 'none'}")
        else:
            observation = self._observe_planted(probe, system, falsifier, probe.defects[defect_class], sources.root)
        sources.check_unchanged(falsifier.probe or "")
        return {
            "values": dict(observation.values),
            "units": dict(probe.observes),
            "output_digest": observation.output_digest,
            "inputs": {**inputs, **sources.loaded(falsifier.probe or "")},
            "facts": dict(system.facts()),
            "observed_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }

    def _open(self, probe: Probe) -> System:
        if id(probe.system) not in self._systems:
            self._systems[id(probe.system)] = probe.system, probe.system.open(self.options)
        return self._systems[id(probe.system)][1]

    def _input_digests(self, factory: SystemFactory, root: Path) -> dict[str, str]:
        if id(factory) not in self._inputs:
            files = [Path(file).resolve() for file in factory.inputs(self.options)]
            self._inputs[id(factory)] = {portable(file, root): file_digest(file) for file in files}
        return self._inputs[id(factory)]

    def _observe_planted(
        self, probe: Probe, system: System, falsifier: Falsifier, defect: PlantedDefect, root: Path
    ) -> Observation:
        before = system.fingerprint()
        try:
            planting = defect.plant(system)
            planting.__enter__()
        except USER_ERRORS as error:
            self._check_undone(probe, system, before, defect)
            raise NotPlanted(f"planting it failed: {what_happened(error, root)}") from error
        try:
            return _call(probe, system, falsifier, root)
        finally:
            self._undo(probe, planting, defect, root)
            self._check_undone(probe, system, before, defect)

    def _undo(self, probe: Probe, planting: AbstractContextManager[None], defect: PlantedDefect, root: Path) -> None:
        try:
            planting.__exit__(None, None, None)
        except USER_ERRORS as error:
            del self._systems[id(probe.system)]
            message = f"undoing the planted defect '{defect.name}' failed: {what_happened(error, root)}"
            raise NotUndone(message) from error

    def _check_undone(self, probe: Probe, system: System, before: str, defect: PlantedDefect) -> None:
        if system.fingerprint() != before:
            del self._systems[id(probe.system)]  # whatever comes next starts from a fresh system
            raise NotUndone(f"undoing the planted defect '{defect.name}' left the system changed; correct its undo")


def portable(file: Path, root: Path) -> str:
    """Paths inside the project are kept relative to it, so that they mean the same in another checkout."""
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else str(file)


def _call(probe: Probe, system: System, falsifier: Falsifier, root: Path) -> Observation:
    try:
        observation = probe.function(system, **falsifier.arguments)
    except RequirementNotMet as error:  # only opening a system may ask for what the host lacks
        raise ProbeFailed(str(error)) from error
    except USER_ERRORS as error:
        raise ProbeFailed(f"the probe crashed: {what_happened(error, root)}") from error
    if not isinstance(observation, Observation):
        raise ProbeFailed(f"the probe returned {type(observation).__name__}, not an Observation")
    if not isinstance(observation.values, Mapping) or not isinstance(observation.output_digest, str):
        raise ProbeFailed("the probe's Observation needs a mapping of values and an output_digest of text")
    return observation


def what_happened(error: BaseException, root: Path) -> str:
    """The error in one line, with the innermost place in the project that it came from."""
    if isinstance(error, AprenderError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(root)] or frames[-1:]
    place = f" ({own[-1].filename}:{own[-1].lineno})" if own else ""
    return f"{explained(error) or in_one_line(error)}{place}"
