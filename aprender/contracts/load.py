"""Contracts for the rest of the road: the executable ones without errors, and the findings of all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from aprender.contracts.contract import Contract, contract_of
from aprender.contracts.files import read_content
from aprender.contracts.findings import Finding
from aprender.contracts.reader import read_bytes
from aprender.contracts.schema_check import is_version_2
from aprender.contracts.validate import Validation, validate


class Loaded(NamedTuple):
    """The contracts of ``schema_version: 2`` that have no error-level finding, and what validation said of all."""

    contracts: tuple[Contract, ...]
    validation: Validation


def load(paths: Iterable[str | os.PathLike[str]]) -> Loaded:
    """Validate and load the contracts in ``paths``. Raises NothingToDo where there is none."""
    return loaded_from(validate(paths))


def loaded_from(validation: Validation) -> Loaded:
    """The contracts among the files that were validated."""
    wrong = {finding.file for finding in validation.findings if finding.severity == "error"}
    contracts = (_contract(file) for file in validation.files if file not in wrong)
    return Loaded(tuple(contract for contract in contracts if contract is not None), validation)


def _contract(file: str) -> Contract | None:
    content = read_content(file)
    if isinstance(content, Finding):
        return None
    document, _ = read_bytes(content, file)
    return contract_of(document) if document is not None and is_version_2(document.data) else None
