"""Wiring: one free run, and every stage's input must be, bit for bit, what the stage before it returned.

Teacher forcing can't see a stale buffer, a residual taken from the wrong place or layers in the wrong order: it feeds
every stage itself. The edges are learnt from the reference's own run: where an input of one stage has the bytes of an
earlier output, so it must be in the candidate. Digests depend on the order of bytes; norms do not, and a
permutation passes them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from aprender.parity.exact import bits
from aprender.parity.stages import as_tuple


class Call(NamedTuple):
    """One call of a stage in a free run: digests of what it was given at that moment and of what it returned."""

    stage: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Edge(NamedTuple):
    """``stage`` reads, as input ``input``, one of ``sources``: (stage, output), the latest last.

    There are several where stages return the same bytes, as a dropout that is switched off does.
    """

    stage: str
    input: int
    sources: tuple[tuple[str, int], ...]


class Fault(NamedTuple):
    """An edge that the candidate does not have, or an order of calls that differs (then ``edge`` is None)."""

    edge: Edge | None
    message: str


@dataclass(slots=True)
class Recorder:
    """Wraps stages; every call is kept as digests only. Views have the bytes of what they look at."""

    calls: list[Call] = field(default_factory=list)

    def wrap(self, name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
        """The same stage, recorded."""

        def recorded(*inputs: Any) -> Any:
            given = tuple(digest(x) for x in inputs if isinstance(x, Tensor))
            output = stage(*inputs)
            self.add(name, given, as_tuple(output))
            return output

        return recorded

    def add(self, name: str, given: tuple[str, ...], outputs: Iterable[Tensor]) -> None:
        """Record one call whose inputs were digested before it ran."""
        self.calls.append(Call(name, given, tuple(digest(y) for y in outputs)))


def digest(x: Tensor) -> str:
    """BLAKE2b of the bytes in logical order, 16 hex digits: the same for any view with the same elements in order."""
    return hashlib.blake2b(bits(x.detach()).cpu().numpy().tobytes(), digest_size=8).hexdigest()


def edges_of(calls: Sequence[Call]) -> list[Edge]:
    """What reads what in a run of the reference: the earlier outputs with the same bytes."""
    sources: dict[str, list[tuple[str, int]]] = {}
    edges = []
    for call in calls:
        for i, given in enumerate(call.inputs):
            if given in sources:
                edges.append(Edge(call.stage, i, tuple(sources[given])))
        for o, returned in enumerate(call.outputs):
            sources.setdefault(returned, []).append((call.stage, o))
    return edges


def check(reference: Sequence[Call], candidate: Sequence[Call]) -> list[Fault]:
    """Every way in which the candidate's run is wired unlike the reference's; an empty list where it is right.

    Stages are paired by name and by the how-manieth call of that name.
    """
    return [*_order(reference, candidate), *_broken(_numbered(reference), _numbered(candidate))]


def _order(reference: Sequence[Call], candidate: Sequence[Call]) -> Iterator[Fault]:
    expected, found = [call.stage for call in reference], [call.stage for call in candidate]
    for i, (right, wrong) in enumerate(zip(expected, found, strict=False)):
        if right != wrong:
            yield Fault(None, f"call {i} is {wrong}, the reference's is {right}")
            return
    if len(expected) != len(found):
        yield Fault(None, f"{len(found)} calls of stages, the reference makes {len(expected)}")


def _broken(reference: Sequence[Call], candidate: Sequence[Call]) -> Iterator[Fault]:
    calls = {call.stage: call for call in candidate}
    returned = {(call.stage, o): y for call in candidate for o, y in enumerate(call.outputs)}
    for edge in edges_of(reference):
        reader = calls.get(edge.stage)
        if reader is None or len(reader.inputs) <= edge.input:
            yield Fault(edge, f"{edge.stage} input {edge.input}: it did not run, or without this input")
        elif reader.inputs[edge.input] not in (returned.get(source) for source in edge.sources):
            source, output = edge.sources[-1]
            actual = _origin(reader.inputs[edge.input], candidate)
            yield Fault(edge, f"{edge.stage} input {edge.input} is {actual}, not output {output} of {source}")


def _origin(given: str, calls: Sequence[Call]) -> str:
    for call in calls:
        if given in call.outputs:
            return f"output {call.outputs.index(given)} of {call.stage}"
    return "what no stage returned"


def _numbered(calls: Sequence[Call]) -> list[Call]:
    seen: dict[str, int] = {}
    numbered = []
    for call in calls:
        seen[call.stage] = count = seen.get(call.stage, 0) + 1
        numbered.append(call if count == 1 else call._replace(stage=f"{call.stage} (call {count})"))
    return numbered
