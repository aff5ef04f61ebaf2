"""PM-SHAPE: a publish manifest, which is found by its shape and is no contract.

Which of its fields are mandatory is stated by the contract ``publish-manifest-v1.yaml``, which stands beside it or in
one of the two folders above.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

from aprender.contracts.document import Document
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import Rule, blank

SCHEMA_FILE = "publish-manifest-v1.yaml"


def _manifest(document: Document) -> Iterator[Finding]:
    """PM-SHAPE-000: the schema contract is there. PM-SHAPE-001, 002: what it asks for is filled in."""
    schema = _schema_beside(document.file)
    if isinstance(schema, str):
        yield document.finding((), "PM-SHAPE-000", schema)
        return
    yield from _missing(document, (), document.data, schema.get("required_fields"), "PM-SHAPE-001")
    provenance = document.data.get("provenance")
    if isinstance(provenance, dict):
        required = schema.get("provenance_required_fields")
        yield from _missing(document, ("provenance",), provenance, required, "PM-SHAPE-002")


def _missing(
    document: Document, path: tuple[str, ...], block: dict[str, Any], required: Any, rule: str
) -> Iterator[Finding]:
    for key in required if isinstance(required, list) else ():
        if isinstance(key, str) and blank(block.get(key)):
            yield document.finding((*path, key), rule, f"{'.'.join((*path, key))} is missing or empty")


def _values(document: Document) -> Iterator[Finding]:
    """PM-SHAPE-003: the digest is one. PM-SHAPE-004: the size is one. PM-SHAPE-005: the address is https."""
    data = document.data
    if isinstance(digest := data.get("sha256"), str) and not re.fullmatch("[0-9a-f]{64}", digest):
        yield document.finding(("sha256",), "PM-SHAPE-003", "sha256 must be 64 characters of 0-9 and a-f")
    size = data.get("size_bytes", 1)
    if size.__class__ is not int or size <= 0:
        yield document.finding(("size_bytes",), "PM-SHAPE-004", "size_bytes must be a whole number above 0")
    url = data.get("artifact_url")
    if isinstance(url, str) and not (url.startswith("https://") and len(url) > len("https://")):
        yield document.finding(("artifact_url",), "PM-SHAPE-005", "artifact_url must start with https://")


def _schema_beside(file: str) -> dict[str, Any] | str:
    """The ``schema`` block of the schema contract, or the sentence that says why there is none."""
    from aprender.contracts.files import read_content
    from aprender.contracts.reader import read_bytes

    folder = os.path.dirname(os.path.abspath(file))
    for _ in range(3):
        path = os.path.join(folder, SCHEMA_FILE)
        if os.path.exists(path):
            break
        folder = os.path.dirname(folder)
    else:
        return f"{SCHEMA_FILE} stands neither beside this manifest nor in one of the two folders above it"
    content = read_content(path)
    document = read_bytes(content, path)[0] if isinstance(content, bytes) else None
    schema = document.data.get("schema") if document is not None and isinstance(document.data, dict) else None
    return schema if isinstance(schema, dict) else f"{path} has no readable 'schema' block"


RULES: tuple[Rule, ...] = (_manifest, _values)
