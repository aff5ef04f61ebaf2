"""What the author of a falsifier writes: a system, a probe that observes it, and planted defects.

@probe(system=OPEN, observes={"val_loss": "nats", "tokens_evaluated": "tokens"}, defects=DEFECTS)
def validation_loss(system, *, tokens=512):
    ...
    return Observation({"val_loss": 1.43, "tokens_evaluated": 512}, output_digest=sha256_of_logits)

@DEFECTS.plant("no_causal_mask")
def no_causal_mask(system):
    '''Attention sees the future.'''
    with system.replaced(...):
        yield
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aprender.errors import AprenderError


class RequirementNotMet(AprenderError):
    """The host lacks something that the run was told to use; the message is the reason for SKIPPED."""


@dataclass(frozen=True, slots=True)
class Options:
    """How ``pv run`` was asked to open the system: ``device`` is "cpu" or "cuda"; ``model`` None means the default."""

    device: str
    model: Path | None


class System(Protocol):
    """The system under contract, opened on one device with one set of weights."""

    def facts(self) -> Mapping[str, Any]:
        """What evidence should say of this system: device, library versions, dtype, flags, seed (plain data)."""

    def fingerprint(self) -> str:
        """A digest of everything that a planted defect may change: equal before planting and after undoing."""


class SystemFactory(Protocol):
    """Finds and opens a system under contract."""

    def inputs(self, options: Options) -> tuple[Path, ...]:
        """The files (weights, texts) that observations depend on; evidence binds to their digests."""

    def open(self, options: Options) -> System:
        """Open the system. Raises RequirementNotMet or another AprenderError that says what is wrong."""


@dataclass(frozen=True)
class Observation:
    """Named finite numbers, and a digest of the raw output that they were computed from.

    Two runs with equal values and equal ``output_digest`` observed the same: a defect that changes neither is inert.
    """

    values: Mapping[str, float | int]
    output_digest: str


@dataclass(frozen=True)
class PlantedDefect:
    """Code that makes a system wrong in one way for the time of a ``with`` block."""

    name: str
    story: str
    plant: Callable[[Any], AbstractContextManager[None]]


class Defects(dict[str, PlantedDefect]):
    """The planted defects of one subject, by defect class."""

    def plant(self, name: str) -> Callable[[Callable[[Any], Generator[None]]], Callable[[Any], Generator[None]]]:
        """Register a generator function (set up, ``yield``, undo) under the name of its defect class."""

        def register(function: Callable[[Any], Generator[None]]) -> Callable[[Any], Generator[None]]:
            if name in self:
                raise ValueError(f"defect class '{name}' is planted twice, by {self[name].plant} and {function}")
            self[name] = PlantedDefect(name, inspect.getdoc(function) or "", contextmanager(function))
            return function

        return register


@dataclass(frozen=True)
class Probe:
    """A callable that measures and never judges, with the units of what it observes."""

    function: Callable[..., Observation]
    system: SystemFactory
    observes: Mapping[str, str]
    defects: Mapping[str, PlantedDefect]


def probe(
    *, system: SystemFactory, observes: Mapping[str, str], defects: Mapping[str, PlantedDefect]
) -> Callable[[Callable[..., Observation]], Probe]:
    """Declare a probe: ``observes`` maps each name that it returns to its unit ("" for a pure number)."""
    return lambda function: Probe(function, system, observes, defects)
