"""One falsifier from binding to record: requirement, clean run, judgement, teeth."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from aprender.contracts.contract import Contract, DefectClass, Falsifier
from aprender.errors import AprenderError
from aprender.falsify.bind import project_root
from aprender.falsify.digest import digest, git_state, judge_digest
from aprender.falsify.evidence import evidence_record, ledger_for, same_evidence
from aprender.falsify.host import cuda_missing, host_facts
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.observe import NotPlanted, NotUndone, Observed, Observer
from aprender.falsify.probe import Options, RequirementNotMet
from aprender.falsify.record import FalsifierRun, Outcome, Witness
from aprender.falsify.teeth import unproven, witness
from aprender.falsify.verdict import Verdict

OnStep = Callable[[Falsifier, str], None]


def resolve_device(asked: str) -> str:
    """``auto`` to cuda or cpu. Raises AprenderError for cuda on a host without it."""
    missing = cuda_missing()
    if asked == "cuda" and missing:
        raise AprenderError(f"--device cuda: {missing}; use --device cpu, or run on a machine with a GPU")
    if asked == "auto":
        return "cpu" if missing else "cuda"
    return asked


class Runner:
    """Runs falsifiers with one set of options; systems and digests are shared between them."""

    def __init__(self, options: Options, on_step: OnStep = lambda falsifier, step: None) -> None:
        self.options = options
        self.on_step = on_step
        self.observer = Observer(options)
        self._judge = judge_digest()

    def run(self, contract: Contract, falsifier: Falsifier) -> FalsifierRun:
        """Run one falsifier. Never raises for what the contract, the probe or the system did: that is the verdict."""
        started = time.perf_counter()
        record = self._run(contract, falsifier)
        return replace(record, seconds=time.perf_counter() - started)

    def record(self, run: FalsifierRun) -> None:
        """Append the run to the ledger, unless it says nothing that the ledger does not say already.

        A SKIPPED run measured nothing and is no evidence. Raises EvidenceError or Tampered.
        """
        if run.verdict is Verdict.SKIPPED or not run.provenance:
            return
        ledger = ledger_for(project_root(run.contract.path), run.contract.id, self.options.device)
        new = evidence_record(run)
        recorded = [old for old in ledger.records() if old["id"] == run.falsifier.id]
        if run.reused < run.observed or not recorded or not same_evidence(recorded[-1], new):
            ledger.append(new)

    def _run(self, contract: Contract, falsifier: Falsifier) -> FalsifierRun:
        if falsifier.requires_device not in (None, self.options.device):
            missing = cuda_missing() if falsifier.requires_device == "cuda" else None
            reason = f"requires device {falsifier.requires_device}, this run uses {self.options.device}"
            return FalsifierRun(contract, falsifier, Verdict.SKIPPED, missing or reason)
        self.on_step(falsifier, "clean run")
        try:
            clean = self.observer.observe(contract, falsifier, None)
        except RequirementNotMet as error:
            declared = falsifier.requires_device is not None
            if declared:
                return FalsifierRun(contract, falsifier, Verdict.SKIPPED, str(error))
            return self._failed(contract, falsifier, str(error))
        except AprenderError as error:
            return self._failed(contract, falsifier, str(error))
        except OSError as error:
            return self._failed(contract, falsifier, f"{error.filename}: can't be read: {error.strerror}")
        judgement = judge(falsifier, clean.values, clean.units)
        if judgement.verdict is not Verdict.GREEN:
            return self._record(contract, falsifier, clean, judgement)
        return self._prove(contract, falsifier, clean, judgement)

    def _failed(self, contract: Contract, falsifier: Falsifier, reason: str) -> FalsifierRun:
        """ERROR without an observation: recorded where digests can be taken, so that it outdates an earlier GREEN."""
        run = FalsifierRun(contract, falsifier, Verdict.ERROR, reason)
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with suppress(AprenderError, OSError):  # without code or probe there is nothing that evidence could bind to
            run = replace(run, observed_at=now, provenance=self._provenance(contract, falsifier, {}, {}))
        return run

    def _prove(self, contract: Contract, falsifier: Falsifier, clean: Observed, judgement: Judgement) -> FalsifierRun:
        witnesses: list[Witness] = []
        reused = 0
        for defect in falsifier.defect_classes:
            self.on_step(falsifier, f"planting {defect.name}")
            try:
                seen, was_reused = self._witness(contract, falsifier, defect, clean)
            except NotUndone as error:
                failed = Judgement(Verdict.ERROR, str(error), judgement.expectations, judgement.guards)
                return self._record(contract, falsifier, clean, failed, tuple(witnesses), reused)
            witnesses.append(seen)
            reused += was_reused
        if reused < len(witnesses) and (reason := self._leaked(contract, falsifier, clean)):
            judgement = Judgement(Verdict.ERROR, reason, judgement.expectations, judgement.guards)
        elif reason := unproven(falsifier, tuple(witnesses)):
            judgement = Judgement(Verdict.UNPROVEN, reason, judgement.expectations, judgement.guards)
        return self._record(contract, falsifier, clean, judgement, tuple(witnesses), reused)

    def _leaked(self, contract: Contract, falsifier: Falsifier, clean: Observed) -> str | None:
        """Observe the clean system once more: whatever the fingerprint says, it must look as it did at first."""
        self.on_step(falsifier, "clean run again")
        try:
            again = self.observer.observe(contract, falsifier, None, anew=True)
        except AprenderError as error:
            return f"the clean run after the planted ones failed: {error}"
        if again.output_digest != clean.output_digest or dict(again.values) != dict(clean.values):
            return (
                "the clean run after the planted ones differs: a planted defect leaks, or the probe is not repeatable"
            )
        return None

    def _witness(
        self, contract: Contract, falsifier: Falsifier, defect: DefectClass, clean: Observed
    ) -> tuple[Witness, bool]:
        try:
            planted = self.observer.observe(contract, falsifier, defect.name)
        except NotPlanted as error:
            return Witness(defect.name, Outcome.NOT_PLANTED, str(error)), False
        except NotUndone:
            raise
        except AprenderError as error:
            return Witness(defect.name, Outcome.CRASHED, f"a crash is not RED: {error}"), False
        return witness(falsifier, defect, clean, planted), planted.reused

    def _record(
        self,
        contract: Contract,
        falsifier: Falsifier,
        clean: Observed,
        judgement: Judgement,
        witnesses: tuple[Witness, ...] = (),
        reused: int = 0,
    ) -> FalsifierRun:
        return FalsifierRun(
            contract=contract,
            falsifier=falsifier,
            verdict=judgement.verdict,
            reason=judgement.reason,
            values=clean.values,
            units=clean.units,
            expectations=judgement.expectations,
            guards=judgement.guards,
            witnesses=witnesses,
            observed=1 + len(witnesses),
            reused=reused + clean.reused,
            observed_at=clean.observed_at,
            provenance=self._provenance(contract, falsifier, clean.inputs, clean.facts),
        )

    def _provenance(
        self, contract: Contract, falsifier: Falsifier, inputs: Mapping[str, str], facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        root = project_root(contract.path)
        return {
            "digests": {
                "contract": digest(contract.data),
                "probe": self.observer.sources(contract).probe(falsifier.probe or ""),
                "judge": self._judge,
                "code": self.observer.sources(contract).code,
            },
            "inputs": dict(inputs),
            "git": git_state(root),
            "host": host_facts(),
            "system": dict(facts),
            "options": {
                "device": self.options.device,
                "model": self.options.model and str(self.options.model),
            },
        }
