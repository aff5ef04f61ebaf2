"""Probes of FALSIFY-ORACLE-REFERENCE-PARITY-001..005: the oracle computes what a third party does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat
from typing import NamedTuple

import torch
from torch import Tensor

from aprender.falsify.probe import Observation, probe
from aprender.transformer.oracle import PADDING, Batch, Cache, Oracle
from falsifiers.digests import digest_of
from falsifiers.oracle_cases import Case
from falsifiers.oracle_defects import DEFECTS
from falsifiers.oracle_fields import PERTURBATIONS, fields_expected
from falsifiers.oracle_system import ORACLE, OracleUnderContract, largest, relative_error
from falsifiers.threads import on_one_thread

_LOOKED_AT = {
    "cases_evaluated": "cases",
    "documents": "documents",
    "tokens_evaluated": "tokens",
    "padding": "tokens",
    "longest_document": "tokens",
    "fewest_rows": "rows",
}


@probe(
    system=ORACLE,
    observes={
        "logits_error": "",
        "hidden_error": "",
        "loss_error": "",
        "logits_error_float32": "",
        "hidden_error_float32": "",
        "loss_error_float32": "",
        "hidden_states": "tensors",
        **_LOOKED_AT,
    },
    defects=DEFECTS,
)
@on_one_thread
def forward(system: OracleUnderContract, *, cases: list[str]) -> Observation:
    """Logits, every hidden state and the loss of the oracle against transformers in float64, document by document.

    Errors are relative, ``|ours - theirs| / |theirs|``, and the largest over cases, documents and states: of the
    oracle in float64, and of the oracle in float32.
    """
    chosen = system.cases(cases)
    values: dict[str, float | int] = {"hidden_states": 0}
    outputs: list[Tensor] = []
    for suffix, dtype in (("", torch.float64), ("_float32", torch.float32)):
        errors: dict[str, list[float]] = {"logits": [], "hidden": [], "loss": []}
        for case in chosen:
            oracle, batch, theirs = system.oracle(case, dtype), case.batch(), system.reference(case)
            logits_BTV, states, loss = oracle.logits(batch), oracle.hidden_states(batch), oracle.loss(batch)
            pairs = zip(case.by_document(logits_BTV), theirs.logits, strict=True)
            errors["logits"] += [relative_error(*pair) for pair in pairs]
            for ours, theirs_tD in zip(map(case.by_document, states), zip(*theirs.hidden, strict=True), strict=True):
                errors["hidden"] += [relative_error(*pair) for pair in zip(ours, theirs_tD, strict=True)]
            errors["loss"].append(relative_error(loss, theirs.loss))
            outputs += [*case.by_document(logits_BTV), *(x for state in states for x in case.by_document(state)), loss]
            values["hidden_states"] += len(states)
        values |= {f"{name}_error{suffix}": largest(found) for name, found in errors.items()}
    return Observation(values | _looked_at(chosen), digest_of(outputs))


@probe(
    system=ORACLE,
    observes={
        "gradient_error": "",
        "loss_error": "",
        "float32_to_third_party": "",
        "gradients_missing": "tensors",
        "gradients_evaluated": "tensors",
        **_LOOKED_AT,
    },
    defects=DEFECTS,
)
@on_one_thread
def backward(system: OracleUnderContract, *, cases: list[str]) -> Observation:
    """Every parameter's gradient from the oracle's hand-written VJPs against transformers' autograd in float64.

    ``gradient_error`` is the largest relative error over cases and parameters, in float64.
    ``float32_to_third_party``: in float32 the oracle's worst error, over that of transformers' own float32 run of the
    same case; the largest over cases. ``gradients_missing`` are parameters that one side has and the other has not.
    """
    chosen = system.cases(cases)
    errors, losses, ratios = [], [], []
    missing = evaluated = 0
    outputs: list[Tensor] = []
    for case in chosen:
        theirs = system.reference(case)
        loss, ours = system.oracle(case).backward(case.batch())
        _, rounded = system.oracle(case, torch.float32).backward(case.batch())
        shared = ours.keys() & theirs.gradients.keys()
        missing += len(ours.keys() ^ theirs.gradients.keys())
        evaluated += len(shared)
        errors += [relative_error(ours[name], theirs.gradients[name]) for name in shared]
        worst = largest([relative_error(rounded[name], theirs.gradients[name]) for name in shared])
        ratios.append(worst / theirs.float32_gradient_error)
        losses.append(relative_error(loss, theirs.loss))
        outputs += [loss, *ours.values(), *rounded.values()]
    values = {
        "gradient_error": largest(errors),
        "loss_error": largest(losses),
        "float32_to_third_party": largest(ratios),
        "gradients_missing": missing,
        "gradients_evaluated": evaluated,
    }
    return Observation(values | _looked_at(chosen), digest_of(outputs))


@probe(
    system=ORACLE,
    observes={
        "decode_error": "",
        "third_party_error": "",
        "steps": "steps",
        "requests": "rows",
        "longest_request": "tokens",
        "shortest_request": "tokens",
        "tokens_decoded": "tokens",
        "idle_slots": "tokens",
        "cases_evaluated": "cases",
    },
    defects=DEFECTS,
)
@on_one_thread
def decode(system: OracleUnderContract, *, cases: list[str], prompt: int, chunk: int) -> Observation:
    """Requests of different length in one batch: their prompts are prefilled, the rest is decoded through a cache.

    A request that has ended hands in padding. ``decode_error``: the logits of every step against those of one
    prefill of everything. ``third_party_error``: against those of transformers.
    """
    chosen = system.cases(cases)
    errors, third_party = [], []
    outputs: list[Tensor] = []
    spans: list[Span] = []
    steps = 0
    for case in chosen:
        documents, theirs = case.documents(), system.reference(case).logits
        whole_BTV = system.oracle(case).logits(Batch.packed([[document] for document in documents])).cpu()
        for step in _decoded(system.oracle(case), documents, prompt, chunk):
            steps += 1
            spans += step
            for row, (start, stop, logits_tV) in enumerate(step):
                if stop > start:
                    errors.append(relative_error(logits_tV, whole_BTV[row, start:stop]))
                    third_party.append(relative_error(logits_tV, theirs[row][start:stop]))
                    outputs.append(logits_tV)
    lengths = [len(document) for case in chosen for document in case.documents()]
    values = {
        "decode_error": largest(errors),
        "third_party_error": largest(third_party),
        "steps": steps,
        "requests": len(lengths),
        "longest_request": max(lengths),
        "shortest_request": min(lengths),
        "tokens_decoded": sum(span.stop - span.start for span in spans if span.start),
        "idle_slots": sum(span.stop == span.start for span in spans),
        "cases_evaluated": len(chosen),
    }
    return Observation(values, digest_of(outputs))


@probe(
    system=ORACLE,
    observes={
        "fields_expected": "fields",
        "fields_perturbed": "fields",
        "least_response": "",
        "perturbed_error": "",
        "perturbations": "",
    },
    defects=DEFECTS,
)
@on_one_thread
def config_fields(system: OracleUnderContract) -> Observation:
    """Each field of the configuration perturbed: how far the logits move, and whether transformers' move as far.

    ``least_response`` is the smallest ``|moved - before| / |before|`` over perturbations;
    ``perturbed_error`` the largest relative error of the perturbed models' logits against transformers.
    """
    before = {case: system.oracle(case).logits(case.batch()) for _, case, _ in PERTURBATIONS}
    responses, errors = [], []
    outputs: list[Tensor] = []
    for _, case, perturbed in PERTURBATIONS:
        oracle = Oracle(perturbed.config, case.weights() | perturbed.weights(), device=system.device)
        logits_BTV = oracle.logits(case.batch())
        documents = case.by_document(logits_BTV)
        moved = zip(documents, case.by_document(before[case]), strict=True)
        responses.append(min(relative_error(after, unmoved.cpu()) for after, unmoved in moved))
        pairs = zip(documents, system.reference(perturbed).logits, strict=True)
        errors += [relative_error(*pair) for pair in pairs]
        outputs += documents
    values = {
        "fields_expected": len(fields_expected()),
        "fields_perturbed": len(fields_expected() & {p.field for p in PERTURBATIONS}),
        "least_response": -largest([-response for response in responses]),
        "perturbed_error": largest(errors),
        "perturbations": len(PERTURBATIONS),
    }
    return Observation(values, digest_of(outputs))


class Span(NamedTuple):
    """Places start to stop - 1 of one document, and what the oracle made of them: logits_tV."""

    start: int
    stop: int
    logits_tV: Tensor


def _decoded(oracle: Oracle, documents: Sequence[Tensor], prompt: int, chunk: int) -> Iterator[list[Span]]:
    """A prefill of prompts of ``prompt`` tokens and more, three steps of one token, then steps of ``chunk``."""
    cache: Cache | None = None
    stops = [0 for _ in documents]
    widths = chain((None, 1, 1, 1), repeat(chunk))
    while any(stop < len(document) for stop, document in zip(stops, documents, strict=True)):
        width, starts = next(widths), stops
        wanted = [start + width if width else prompt + 5 * row for row, start in enumerate(starts)]
        stops = [min(stop, len(document)) for stop, document in zip(wanted, documents, strict=True)]
        rows = [[document[a:b]] for document, a, b in zip(documents, starts, stops, strict=True)]
        batch = Batch.packed(rows)
        batch = replace(batch, positions_BT=batch.positions_BT + torch.tensor(starts)[:, None])
        logits_BTV, cache = oracle.prefill(batch) if cache is None else oracle.decode(batch, cache)
        yield [Span(a, b, x_TV[: b - a]) for a, b, x_TV in zip(starts, stops, logits_BTV, strict=True)]


def _looked_at(cases: Sequence[Case]) -> dict[str, int]:
    batches = [case.batch() for case in cases]
    return {
        "cases_evaluated": len(cases),
        "documents": sum(len(case.documents()) for case in cases),
        "tokens_evaluated": sum(int((batch.documents_BT != PADDING).sum()) for batch in batches),
        "padding": sum(int((batch.documents_BT == PADDING).sum()) for batch in batches),
        "longest_document": min(max(map(len, case.documents())) for case in cases),
        "fewest_rows": min(len(batch.tokens_BT) for batch in batches),
    }
