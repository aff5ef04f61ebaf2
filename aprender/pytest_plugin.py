"""pytest plugin: each falsifier of a version 2 contract is a test item, ``contracts/x.yaml::FALSIFY-...``.

RED fails with the prediction, the observation and the line in the contract; ERROR and UNPROVEN are errors of the
set-up, because nothing was shown false; SKIPPED skips with the reason. Nothing heavy is imported until a contract is
collected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

if TYPE_CHECKING:
    from aprender.contracts.contract import Contract, Falsifier
    from aprender.falsify.record import FalsifierRun
    from aprender.falsify.run import Runner


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--pv-device`` and ``--pv-model``, the options of ``pv run``."""
    group = parser.getgroup("aprender", "contract falsifiers")
    group.addoption("--pv-device", choices=["cpu", "cuda", "auto"], default="auto", help="as pv run --device")
    group.addoption("--pv-model", type=Path, default=None, metavar="PATH", help="as pv run --model")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker that ``-m ship_blocking`` selects."""
    config.addinivalue_line("markers", "ship_blocking: a falsifier that blocks shipping unless it is GREEN")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect YAML files that are, or mean to be, version 2 contracts; others are none of this plugin's business.

    A file that speaks of falsification tests but can't be read is collected, so that it fails instead of vanishing.
    """
    if file_path.suffix.lower() not in (".yaml", ".yml"):
        return None
    with suppress(OSError):
        if b"falsification_test" not in (raw := file_path.read_bytes()) and b"schema_ver" not in raw:
            return None
    from aprender.contracts.check import check_file

    findings, summary = check_file(str(file_path))
    if summary and not summary.version_2 and not any(f.rule == "SCHEMA-103" for f in findings):
        return None
    return ContractFile.from_parent(parent, path=file_path)


class ContractFile(pytest.File):
    """One contract."""

    def collect(self) -> Iterator[FalsifierItem]:
        """One item per falsifier. A contract with errors is a collection error that shows every finding."""
        from aprender.contracts.load import load
        from aprender.reports.validation_text import validation_text

        loaded = load([self.path])
        if loaded.validation.errors:
            raise self.CollectError(validation_text(loaded.validation))
        for contract in loaded.contracts:
            for falsifier in contract.falsifiers:
                item = FalsifierItem.from_parent(self, name=falsifier.id, contract=contract, falsifier=falsifier)
                if falsifier.ship_blocking:
                    item.add_marker("ship_blocking")
                yield item


class FalsifierItem(pytest.Item):
    """One falsifier. Its clean run and its teeth happen in ``setup``; ``runtest`` only tells RED from GREEN."""

    def __init__(self, *, contract: Contract, falsifier: Falsifier, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.contract = contract
        self.falsifier = falsifier
        self.record: FalsifierRun | None = None

    def setup(self) -> None:
        """Run, record the evidence, and raise for every verdict that is neither GREEN nor RED."""
        from aprender.errors import AprenderError
        from aprender.falsify.verdict import Verdict

        try:
            runner = _runner(self.config)
            self.record = runner.run(self.contract, self.falsifier)
            self.user_properties.append(("verdict", str(self.record.verdict)))
            runner.record(self.record)
        except AprenderError as error:
            raise pytest.fail.Exception(str(error), pytrace=False) from None
        if self.record.verdict is Verdict.SKIPPED:
            raise pytest.skip.Exception(self.record.reason, _use_item_location=True)
        if self.record.verdict not in (Verdict.GREEN, Verdict.RED):
            self._fail()

    def runtest(self) -> None:
        """Fail where the claim was shown false."""
        from aprender.falsify.verdict import Verdict

        if self.record is None or self.record.verdict is not Verdict.GREEN:
            self._fail()

    def _fail(self) -> NoReturn:
        """Fail with what ``pv run`` prints of this falsifier, instead of a traceback through the runner."""
        from aprender.reports.colour import plain
        from aprender.reports.text import details_text

        report = plain(details_text(self.record)) if self.record else "the falsifier was not run"
        raise pytest.fail.Exception(report, pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        """The falsifier's own line in the contract."""
        return self.path, self.falsifier.position.line - 1, self.name


_RUNNER = pytest.StashKey["Runner"]()


def _runner(config: pytest.Config) -> Runner:
    """The runner of this session (of this worker, under xdist): systems are opened once for all items."""
    if _RUNNER not in config.stash:
        from aprender.falsify.probe import Options
        from aprender.falsify.run import Runner, resolve_device

        model: Path | None = config.getoption("--pv-model")
        if model is not None and not model.exists():
            raise pytest.UsageError(f"--pv-model {model}: no such file or folder")
        config.stash[_RUNNER] = Runner(Options(resolve_device(config.getoption("--pv-device")), model))
    return config.stash[_RUNNER]
