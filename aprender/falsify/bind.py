"""From names in a contract to Python: the probe, its keyword arguments, what it observes, its planted defects."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path

from aprender.contracts.contract import Contract, Falsifier
from aprender.contracts.findings import did_you_mean
from aprender.errors import AprenderError
from aprender.falsify.probe import Probe


class BindError(AprenderError):
    """A falsifier can't be bound to its probe; the message starts with file:line:column."""


def project_root(contract: Path) -> Path:
    """The folder that probes are imported from: the nearest one above the contract with a pyproject.toml or .git."""
    folders = contract.resolve().parents
    marked = (folder for folder in folders if (folder / "pyproject.toml").exists() or (folder / ".git").exists())
    return next(marked, folders[1] if len(folders) > 1 else folders[0])


def bind(contract: Contract, falsifier: Falsifier) -> Probe:
    """The probe that ``falsifier`` names. Raises BindError with the place in the contract and the remedy."""
    if falsifier.probe is None:
        raise _error(contract, falsifier, "id", f"{falsifier.id} names no probe, so nothing can be run; add 'probe:'")
    probe = _resolve(contract, falsifier, falsifier.probe)
    _check_arguments(contract, falsifier, probe)
    _check_names(contract, falsifier, probe)
    return probe


def _error(contract: Contract, falsifier: Falsifier, key: str, message: str) -> BindError:
    at = falsifier.at(key)
    return BindError(f"{contract.path}:{at.line}:{at.column}: {message}")


def _resolve(contract: Contract, falsifier: Falsifier, target: str) -> Probe:
    root = str(project_root(contract.path))
    if root not in sys.path:
        sys.path.insert(0, root)
    module_name, _, name = target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            message = f"no module '{module_name}' for probe {target}; looked in {root} and in this Python"
        else:
            message = f"probe {target} needs the package '{error.name}'; pip install 'aprender[torch]'"
        raise _error(contract, falsifier, "probe", message) from None
    except (Exception, SystemExit) as error:  # importing runs the user's code: whatever it raises is the finding
        message = f"importing {module_name} failed: {type(error).__name__}: {error}"
        raise _error(contract, falsifier, "probe", message) from error
    probe = getattr(module, name, None)
    if not isinstance(probe, Probe):
        probes = [key for key, value in vars(module).items() if isinstance(value, Probe)]
        what = "is not declared with @probe" if probe is not None else "does not exist"
        known = f"{did_you_mean(name, probes)} Probes there: {', '.join(probes) or 'none'}"
        raise _error(contract, falsifier, "probe", f"'{name}' {what} in {module_name}.{known}")
    return probe


def _check_arguments(contract: Contract, falsifier: Falsifier, probe: Probe) -> None:
    parameters = list(inspect.signature(probe.function).parameters.values())[1:]  # the first one is the system
    names = [parameter.name for parameter in parameters]
    for argument in falsifier.arguments:
        if argument not in names:
            known = f"{did_you_mean(argument, names)} It takes: {', '.join(names) or 'none'}"
            message = f"probe {falsifier.probe} has no keyword argument '{argument}'.{known}"
            raise _error(contract, falsifier, "with", message)
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in falsifier.arguments:
            message = f"probe {falsifier.probe} needs the keyword argument '{parameter.name}'; add it to 'with:'"
            raise _error(contract, falsifier, "with", message)


def _check_names(contract: Contract, falsifier: Falsifier, probe: Probe) -> None:
    for key, comparisons in (("expect", falsifier.expectations), ("guards", falsifier.guards)):
        for comparison in comparisons:
            for name in sorted(comparison.names - probe.observes.keys()):
                known = f"{did_you_mean(name, probe.observes)} It observes: {', '.join(probe.observes)}"
                message = f"'{comparison.text}': probe {falsifier.probe} does not observe '{name}'.{known}"
                raise _error(contract, falsifier, key, message)
