"""The oracle as a system under contract: small random models of every family, and what transformers makes of them."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aprender.errors import AprenderError
from aprender.falsify.probe import Options, RequirementNotMet
from aprender.transformer.oracle import Oracle, attention, batch, layer, model, operators, parameters, rope
from falsifiers.digests import digest_of
from falsifiers.oracle_cases import CASES, SEED, Case

if TYPE_CHECKING:
    from falsifiers.third_party import Reference

MODULES = (attention, batch, layer, model, operators, parameters, rope)


class OracleUnderContract:
    """What probes read and defects change: the functions and methods of the oracle's modules."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self._references: dict[Case, Reference] = {}

    def cases(self, names: Sequence[str]) -> list[Case]:
        """The cases called ``names``. Raises AprenderError for a name that there is not, and for none at all."""
        if not names or (unknown := [name for name in names if name not in CASES]):
            what = f"no case called {unknown[0]!r}" if names else "no case is named"
            raise AprenderError(f"{what}; there are {', '.join(CASES)}")
        return [CASES[name] for name in names]

    def oracle(self, case: Case, dtype: torch.dtype = torch.float64) -> Oracle:
        """The oracle over the weights of ``case``."""
        return Oracle(case.config, case.weights(), dtype, device=self.device)

    def reference(self, case: Case) -> Reference:
        """What transformers computes in float64 on the CPU; kept, because no planted defect touches it."""
        from falsifiers.third_party import reference  # not without transformers, which ``open`` has looked for

        if case not in self._references:
            self._references[case] = reference(case.config, case.weights(), case.documents())
        return self._references[case]

    @contextmanager
    def replaced(self, owner: ModuleType | type, name: str, value: Any) -> Generator[None]:
        """One function of a module or one method of a class replaced, for the time of a ``with`` block."""
        original = inspect.getattr_static(owner, name)
        setattr(owner, name, value)
        try:
            yield
        finally:
            setattr(owner, name, original)

    def facts(self) -> dict[str, Any]:
        """Device, library versions, dtypes and seed, for the evidence."""
        cuda = self.device.type == "cuda"
        return {
            "device": torch.cuda.get_device_name(self.device) if cuda else "cpu",
            "torch": torch.__version__,
            "transformers": metadata.version("transformers"),
            "dtype": "float64, float32",
            "flags": {"float32_matmul_precision": torch.get_float32_matmul_precision(), "threads": 1},
            "seed": SEED,
        }

    def fingerprint(self) -> str:
        """A digest of which function and method objects the oracle consists of, and of the weights it reads."""
        state = hashlib.sha256()
        for module in MODULES:
            for name, value in sorted(vars(module).items()):
                state.update(f"{module.__name__}.{name} {id(value)}".encode())
                if inspect.isclass(value) and value.__module__ == module.__name__:
                    members = (
                        (key, id(member)) for key, member in vars(value).items() if callable(member) or key[0] != "_"
                    )
                    state.update(repr(list(members)).encode())
        for case in CASES.values():
            state.update(digest_of(case.weights().values()).encode())
        return state.hexdigest()


class OracleFactory:
    """Opens the oracle on the device that ``pv run`` was told to use; ``--model`` does not concern it."""

    def inputs(self, options: Options) -> tuple[Path, ...]:
        """No files: the weights are drawn from a seed."""
        return ()

    def open(self, options: Options) -> OracleUnderContract:
        """Raises RequirementNotMet without transformers, or without a usable CUDA device where one is asked for."""
        if find_spec("transformers") is None:
            raise RequirementNotMet("the third party, transformers, is not installed; run: pip install 'aprender[dev]'")
        if options.device == "cuda" and not torch.cuda.is_available():
            message = f"torch {torch.__version__} can't use the CUDA device of this host; install a CUDA build of torch"
            raise RequirementNotMet(message)
        torch.set_float32_matmul_precision("highest")  # no TF32: float32 is float32
        return OracleUnderContract(options.device)


ORACLE = OracleFactory()


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """``|ours - theirs| / |theirs|`` in the Euclidean norm. Raises AprenderError where shapes differ."""
    if ours.shape != theirs.shape:
        raise AprenderError(f"the oracle's result has shape {tuple(ours.shape)}, the other {tuple(theirs.shape)}")
    theirs = theirs.double()
    return float((ours.cpu().double() - theirs).norm() / theirs.norm())


def largest(errors: Sequence[float]) -> float:
    """The largest of ``errors``; torch's max, unlike Python's, lets no NaN get lost."""
    return float(torch.tensor(errors, dtype=torch.float64).max())
