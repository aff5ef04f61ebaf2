"""Which submodule of a candidate answers for which of a reference: by name, or by a map of names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from torch import nn

from aprender.errors import AprenderError
from aprender.parity.names import nearest

DEEPEST = 2  # an operator, a block of operators, a layer of blocks; above, rounding compounds and is not one stage's
SHOWN = 12  # unpaired names of each side in one message


def paired(
    reference: nn.Module, candidate: nn.Module, mapping: Mapping[str, str | None] | None = None
) -> dict[str, str]:
    """Pair the modules of both: reference name to candidate name, in the reference's order.

    ``mapping`` has patterns whose ``*`` stands for one part of a name, the n-th on the left for the n-th on the right
    (``model.layers.*.self_attn.q_proj: blocks.*.q``); None means that there is no partner. Names that no pattern
    matches pair with the same name. Every module that holds parameters must have a partner or be said to have none (on
    either side); one of the candidate's may also lie inside a module that the mapping names (a fused one).
    Raises AprenderError with all that is unpaired.
    """
    rules = mapping or {}
    theirs = dict(candidate.named_modules())
    pairs: dict[str, str] = {}
    problems = []
    for name, module in reference.named_modules():
        if not name or isinstance(module, nn.ModuleList | nn.ModuleDict):
            continue
        partner = _mapped(name, rules)
        if partner is None:
            continue
        if partner in theirs:
            pairs[name] = partner
        elif _holds_parameters(module) or partner != name:
            problems.append(
                f"{name!r}{'' if partner == name else f' (mapped to {partner!r})'}{nearest(partner, theirs)}"
            )
    _check_patterns(rules, reference)
    inside = {partner for name, partner in pairs.items() if partner != name or name in rules}
    unclaimed = [
        f"{name!r}{nearest(name, dict(reference.named_modules()))}"
        for name, module in theirs.items()
        if name and _holds_parameters(module) and name not in pairs.values() and _mapped(name, rules) is not None
        if not _lies_inside(name, inside)
    ]
    if problems or unclaimed or not pairs:
        raise AprenderError(_message(problems, unclaimed))
    return {name: partner for name, partner in pairs.items() if _depth(name, pairs) <= DEEPEST}


def _message(problems: list[str], unclaimed: list[str]) -> str:
    parts = []
    if problems:
        parts.append(f"the candidate has no module for {_listed(problems)}")
    if unclaimed:
        parts.append(f"nothing in the reference is compared with the candidate's {_listed(unclaimed)}")
    if not parts:
        parts = ["the two modules have no submodule in common"]
    return f"{'; '.join(parts)}. A map of names (--map) pairs them; null says that there is no partner"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _check_patterns(rules: Mapping[str, str | None], reference: nn.Module) -> None:
    names = [name for name, _ in reference.named_modules()]
    for pattern in rules:
        if not any(_match(pattern, name) is not None for name in names):
            raise AprenderError(f"the map's {pattern!r} matches no module of the reference{nearest(pattern, names)}")


def _mapped(name: str, rules: Mapping[str, str | None]) -> str | None:
    for pattern, target in rules.items():
        parts = _match(pattern, name)
        if parts is not None:
            if target is None:
                return None
            for part in parts:
                target = target.replace("*", part, 1)
            return target
    return name


def _match(pattern: str, name: str) -> list[str] | None:
    """What the stars stand for, or None where the pattern does not match."""
    left, right = pattern.split("."), name.split(".")
    if len(left) != len(right) or any(a not in ("*", b) for a, b in zip(left, right, strict=True)):
        return None
    return [b for a, b in zip(left, right, strict=True) if a == "*"]


def _depth(name: str, pairs: Collection[str]) -> int:
    """How many paired modules lie inside one another below ``name``."""
    below = [other for other in pairs if other.startswith(f"{name}.")]
    return 1 + max((_depth(other, below) for other in below), default=-1)


def _holds_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _lies_inside(name: str, names: set[str]) -> bool:
    return any(name.startswith(f"{outer}.") for outer in names)
