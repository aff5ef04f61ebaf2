"""What rules across files need of a contract: plain data, small, so that the cache can keep it as JSON."""

# No postponed annotations here: NamedTuple would compile each from its text, which costs as much as a small contract.

from typing import Any, NamedTuple

from aprender.contracts.document import Document, KeyPath
from aprender.contracts.findings import Finding
from aprender.contracts.rules.common import entries, items, metadata_of
from aprender.contracts.rules.mentions import dependencies, equations, shapes
from aprender.contracts.schema_check import is_version_2

Named = tuple[str, int, int]  # a name, and the line and column where it stands


class Summary(NamedTuple):
    """The names that one contract gives and takes. ``needs`` are contracts; ``takes`` are their equations."""

    file: str
    version_2: bool
    falsifiers: int
    expectations: int
    id: Named | None
    falsifier_ids: list[Named]
    equations: list[str]
    needs: list[Named]
    takes: list[tuple[str, str, int, int]]


class Checked(NamedTuple):
    """What one file gave: findings by position, and what rules across files need of it (None if it can't be read)."""

    findings: list[Finding]
    summary: Summary | None


def summary_of(document: Document) -> Summary:
    """What the rest of the set may ask of ``document``, which holds no value of the wrong shape."""
    if not isinstance(document.data, dict):
        return Summary(document.file, False, 0, 0, None, [], [], [], [])
    tests = list(items(document, "falsification_tests"))
    return Summary(
        document.file,
        is_version_2(document.data),
        len(tests),
        sum(1 for _, item in tests for _ in entries(item, "expect")),
        next(_named(document, ("metadata", "id"), metadata_of(document).get("id")), None),
        [found for path, item in tests for found in _named(document, (*path, "id"), item.get("id"))],
        [name for _, name, _ in equations(document)],
        [(name, *document.position(path)) for path, _, name in dependencies(document)],
        [*_takes(document)],
    )


def _named(document: Document, path: KeyPath, name: Any) -> Any:
    if isinstance(name, str) and name:
        yield (name, *document.position(path))


def _takes(document: Document) -> Any:
    """Every shape that an equation takes from, or gives to, an equation of another contract."""
    for path, _, block in shapes(document):
        contract, equation = block.get("from_contract"), block.get("from_equation")
        if isinstance(equation, str):
            at = document.position((*path, "from_equation"))
            yield (contract if isinstance(contract, str) else "", equation, *at)
