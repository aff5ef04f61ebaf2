"""From names in a contract to Python: the probe, its keyword arguments, what it observes, its planted defects."""

from __future__ import annotations

import _ast as ast
import importlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from aprender.contracts.contract import Contract, Falsifier
from aprender.contracts.document import KeyPath
from aprender.contracts.expression import Comparison, column_of
from aprender.contracts.findings import did_you_mean
from aprender.contracts.units import UnlikeUnits, check_units
from aprender.errors import AprenderError
from aprender.falsify.arguments import misfits, mistyped
from aprender.falsify.probe import Probe


class BindError(AprenderError):
    """A falsifier can't be bound to its probe; the message starts with file:line:column."""


class Mismatch(NamedTuple):
    """What does not fit between a falsifier and its probe, and where: a path within the falsifier.

    ``key``: the place is that of the key; ``column``: a character within the text there, from 1.
    """

    rule: str
    path: KeyPath
    message: str
    key: bool = False
    column: int = 0


class _NoProbe(Exception):
    """The probe does not resolve; the message says why."""


def project_root(contract: Path) -> Path:
    """The folder that probes are imported from: the nearest one above the contract with a pyproject.toml or .git."""
    folders = contract.resolve().parents
    marked = (folder for folder in folders if (folder / "pyproject.toml").exists() or (folder / ".git").exists())
    return next(marked, folders[1] if len(folders) > 1 else folders[0])


def bind(contract: Contract, falsifier: Falsifier) -> Probe:
    """The probe that ``falsifier`` names. Raises BindError with the place in the contract and the remedy."""
    if falsifier.probe is None:
        raise _error(contract, falsifier, "id", f"{falsifier.id} names no probe, so nothing can be run; add 'probe:'")
    try:
        probe = _resolve(project_root(contract.path), falsifier.probe)
    except _NoProbe as error:
        raise _error(contract, falsifier, "probe", str(error)) from error.__cause__
    for mismatch in (*_arguments(falsifier, probe), *_names(falsifier, probe)):
        raise _error(contract, falsifier, str(mismatch.path[0]), mismatch.message)
    return probe


def mismatches(contract: Contract, falsifier: Falsifier) -> tuple[Probe | None, list[Mismatch]]:
    """The probe, None where there is none, and all that does not fit it."""
    if falsifier.probe is None:
        return None, []
    try:
        probe = _resolve(project_root(contract.path), falsifier.probe)
    except _NoProbe as error:
        return None, [Mismatch("BIND-001", ("probe",), str(error))]
    typed = mistyped(falsifier.probe, probe, falsifier.arguments)
    return probe, [
        *_arguments(falsifier, probe),
        *(Mismatch("BIND-002", ("with", name), message) for name, message in typed),
        *_names(falsifier, probe),
        *_not_planted(falsifier, probe),
        *_units(falsifier, probe),
    ]


def _error(contract: Contract, falsifier: Falsifier, key: str, message: str) -> BindError:
    at = falsifier.at(key)
    return BindError(f"{contract.path}:{at.line}:{at.column}: {message}")


def _resolve(root: Path, target: str) -> Probe:
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    module_name, _, name = target.partition(":")
    try:
        with redirect_stdout(sys.stderr):  # standard output is the report's
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            near = did_you_mean(module_name, _modules_beside(root, module_name))
            message = f"no module '{module_name}' for probe {target}; looked in {root} and in this Python.{near}"
            raise _NoProbe(message if near else message.removesuffix(".")) from None
        raise _NoProbe(f"probe {target} needs the package '{error.name}'; pip install 'aprender[torch]'") from None
    except (Exception, SystemExit) as error:  # importing runs the user's code: whatever it raises is the finding
        raise _NoProbe(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    probe = getattr(module, name, None)
    if not isinstance(probe, Probe):
        probes = [key for key, value in vars(module).items() if isinstance(value, Probe)]
        what = "is not declared with @probe" if probe is not None else "does not exist"
        known = f"{did_you_mean(name, probes)} Probes there: {', '.join(probes) or 'none'}"
        raise _NoProbe(f"'{name}' {what} in {module_name}.{known}")
    if not isinstance(probe.observes, Mapping) or not isinstance(probe.defects, Mapping):
        raise _NoProbe(f"probe {target}: observes maps names to units, and defects maps classes to planted defects")
    return probe


def _modules_beside(root: Path, module_name: str) -> list[str]:
    """The modules in the innermost folder of ``module_name`` that exists in the project."""
    parts = module_name.split(".")
    folder, depth = root, 0
    while depth < len(parts) - 1 and (folder / parts[depth]).is_dir():
        folder, depth = folder / parts[depth], depth + 1
    found = [path.stem for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    rest = parts[depth + 1 :]  # a slip in the name of a folder leaves what comes after it
    return [".".join([*parts[:depth], name, *rest]) for name in sorted(found)]


def _arguments(falsifier: Falsifier, probe: Probe) -> Iterator[Mismatch]:
    for argument, message in misfits(falsifier.probe or "", probe, falsifier.arguments):
        yield Mismatch("BIND-002", ("with",) if argument is None else ("with", argument), message, key=True)


def _comparisons(falsifier: Falsifier) -> Iterator[tuple[KeyPath, Comparison]]:
    for key, comparisons in (("expect", falsifier.expectations), ("guards", falsifier.guards)):
        for index, comparison in enumerate(comparisons):
            yield (key, index), comparison


def _names(falsifier: Falsifier, probe: Probe) -> Iterator[Mismatch]:
    for path, comparison in _comparisons(falsifier):
        for name in sorted(comparison.names - probe.observes.keys()):
            known = f"{did_you_mean(name, probe.observes)} It observes: {', '.join(probe.observes)}"
            message = f"'{comparison.text}': probe {falsifier.probe} does not observe '{name}'.{known}"
            node = next(part for part in comparison.parts() if isinstance(part, ast.Name) and part.id == name)
            yield Mismatch("BIND-003", path, message, column=column_of(comparison.text, node))


def _not_planted(falsifier: Falsifier, probe: Probe) -> Iterator[Mismatch]:
    for index, defect in enumerate(falsifier.defect_classes):
        if defect.name not in probe.defects:
            known = f"{did_you_mean(defect.name, probe.defects)} It plants: {', '.join(probe.defects) or 'none'}"
            message = f"probe {falsifier.probe} has no planted defect '{defect.name}'.{known}"
            yield Mismatch("BIND-004", ("counter_example_classes", index, "class"), message)


def _units(falsifier: Falsifier, probe: Probe) -> Iterator[Mismatch]:
    units = {name: unit for name, unit in probe.observes.items() if isinstance(unit, str)}
    for path, comparison in _comparisons(falsifier):
        if comparison.names <= units.keys():
            try:
                check_units(comparison, units)
            except UnlikeUnits as error:
                yield Mismatch("BIND-005", path, str(error), column=column_of(comparison.text, error.node))
