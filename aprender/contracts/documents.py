"""Contracts of either dialect as documents, with what validation says of them: for commands that only look."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from aprender.contracts.across_files import check_set
from aprender.contracts.check import check_document
from aprender.contracts.document import Document
from aprender.contracts.files import contract_files, read_content
from aprender.contracts.findings import Finding
from aprender.contracts.summarise import summary_of
from aprender.contracts.summary import Summary


class Documents(NamedTuple):
    """The contracts that could be read to their end, a summary of each, and every error found in any.

    No document holds a value of the wrong shape.
    """

    documents: tuple[Document, ...]
    summaries: tuple[Summary, ...]
    errors: tuple[Finding, ...]


def read_documents(paths: Iterable[str | os.PathLike[str]]) -> Documents:
    """Read and check the contracts in ``paths``, each once. Raises NothingToDo where there is none."""
    findings: list[Finding] = []
    documents: list[Document] = []
    for file in contract_files(paths).files:
        content = read_content(file)
        found, document = ([content], None) if isinstance(content, Finding) else check_document(content, file)
        findings += found
        if document is not None and isinstance(document.data, dict) and not document.incomplete:
            documents.append(document)
    summaries = tuple(map(summary_of, documents))
    between = sorted(check_set(summaries), key=lambda finding: (finding.file, finding.line, finding.column))
    errors = tuple(finding for finding in [*findings, *between] if finding.severity == "error")
    return Documents(tuple(documents), summaries, errors)
