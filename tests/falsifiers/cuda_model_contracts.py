"""What the tests of the contracts of whole CUDA models share: a contract's falsifiers, observed and judged."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from aprender.contracts.contract import Contract, Falsifier
from aprender.contracts.load import load
from aprender.falsify.judge import Judgement, judge
from aprender.falsify.probe import Observation, Options, Probe
from aprender.falsify.verdict import Verdict
from falsifiers.cuda_model_system import MODELS, ModelsUnderContract

ROOT = Path(__file__).parents[2]


@dataclass
class Bound:
    """A contract's falsifiers by their last three digits, on one system."""

    name: str

    @cached_property
    def contract(self) -> Contract:
        (contract,) = load([ROOT / f"contracts/{self.name}.yaml"]).contracts
        return contract

    @cached_property
    def system(self) -> ModelsUnderContract:
        return MODELS.open(Options("cpu", None))

    def probe(self, number: str) -> Probe:
        module, _, name = str(self._falsifier(number).probe).partition(":")
        found: Probe = getattr(import_module(module), name)
        return found

    def observe(self, number: str) -> Observation:
        return self.probe(number).function(self.system, **self._falsifier(number).arguments)

    def judged(self, number: str, observation: Observation) -> Judgement:
        return judge(self._falsifier(number), observation.values, self.probe(number).observes)

    def assert_red(self, number: str, defect: str) -> None:
        """Assert that a planted defect breaks what its class declares."""
        with self.probe(number).defects[defect].plant(self.system):
            judgement = self.judged(number, self.observe(number))
        assert judgement.verdict is Verdict.RED, judgement.reason
        (declared,) = [d for d in self._falsifier(number).defect_classes if d.name == defect]
        assert set(declared.violates) <= {e.text for e in judgement.expectations if not e.holds}

    def assert_all_declared_and_undone(self) -> None:
        """Assert that each planted defect is declared, changes the system, and changes it back."""
        numbers = [f.id[-3:] for f in self.contract.falsifiers]
        planted = self.probe(numbers[0]).defects
        assert set(planted) == {d.name for f in self.contract.falsifiers for d in f.defect_classes}
        assert all(d.violates for f in self.contract.falsifiers for d in f.defect_classes)
        before = self.system.fingerprint()
        for name, defect in planted.items():
            assert defect.story, name
            with defect.plant(self.system):
                assert self.system.fingerprint() != before, name
                assert self.system.touched, name
            assert self.system.fingerprint() == before, name
            assert not self.system.touched, name

    def _falsifier(self, number: str) -> Falsifier:
        return next(f for f in self.contract.falsifiers if f.id.endswith(number))
