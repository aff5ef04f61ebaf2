"""From a document to its summary."""

from __future__ import annotations

from collections.abc import Iterator

from aprender.contracts.document import Document
from aprender.contracts.rules.common import entries, items, metadata_of
from aprender.contracts.rules.mentions import dependencies, equations, named, shapes
from aprender.contracts.schema_check import is_version_2
from aprender.contracts.summary import Summary


def summary_of(document: Document) -> Summary:
    """What the rest of the set may ask of ``document``, which holds no value of the wrong shape."""
    if not isinstance(document.data, dict):
        return Summary(document.file, False, 0, 0, None, [], [], [], [])
    tests = items(document, "falsification_tests")
    return Summary(
        document.file,
        is_version_2(document.data),
        len(tests),
        sum(1 for _, item in tests if "expect" in item for _ in entries(item, "expect")),
        named(document, ("metadata",), metadata_of(document), "id"),
        [found for path, item in tests if (found := named(document, path, item, "id"))],
        [name for _, name, _ in equations(document)],
        [found for _, found in dependencies(document)],
        [*_takes(document)],
    )


def _takes(document: Document) -> Iterator[tuple[str, str, int, int]]:
    """Every shape that an equation takes from, or gives to, an equation of another contract."""
    for path, _, block in shapes(document):
        contract, equation = block.get("from_contract"), block.get("from_equation")
        if isinstance(equation, str):
            at = document.position((*path, "from_equation"))
            yield (contract if isinstance(contract, str) else "", equation, *at)
