"""One call of somebody's module: its tensors taken out, rounded, and put back, also into another signature."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, keystr, tree_flatten, tree_flatten_with_path, tree_unflatten

from aprender.parity.stages import Tensors

LADDER = (3, 6, 9, 12)  # powers of two by which some rows are made smaller: exact, and down to where eps shows


@dataclass(frozen=True, slots=True)
class Call:
    """``inputs`` are the tensors of one call; ``rebuilt`` makes its arguments from tensors in the same order.

    ``constants`` and ``masks`` are as in ``ReferenceStage``: what did not require a gradient when the reference called;
    what is named a mask, and integers given by name (positions that most modules ignore).
    """

    inputs: Tensors
    constants: frozenset[int]
    masks: frozenset[int]
    leaves: tuple[Any, ...]
    places: tuple[int, ...]
    tree: TreeSpec

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, dtype: torch.dtype) -> Call:
        """Take a call of the float64 reference apart and round its floats to ``dtype``; some rows are made small."""
        pairs, tree = tree_flatten_with_path((args, kwargs))
        places = tuple(i for i, (_, leaf) in enumerate(pairs) if isinstance(leaf, Tensor))
        found = [(keystr(pairs[i][0]), pairs[i][1]) for i in places]
        deaf = not any(y.requires_grad for y in tensors_of(output))  # it looks at dtypes and devices only
        constants = {i for i, (_, x) in enumerate(found) if x.is_floating_point() and not x.requires_grad}
        masks = {i for i, (name, x) in enumerate(found) if _is_mask(name, x) or (deaf and x.requires_grad)}
        active = [i for i, (_, x) in enumerate(found) if x.is_floating_point() and i not in constants | masks]
        inputs = [rounded(x.detach(), dtype) for _, x in found]
        for i in active[:1]:
            inputs[i] = with_small_rows(inputs[i])
        leaves = tuple(None if i in places else leaf for i, (_, leaf) in enumerate(pairs))
        return cls(tuple(inputs), frozenset(constants), frozenset(masks), leaves, places, tree)

    def rebuilt(self, inputs: Tensors) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments and keyword arguments, with these tensors."""
        leaves = list(self.leaves)
        for place, x in zip(self.places, inputs, strict=True):
            leaves[place] = x
        args, kwargs = tree_unflatten(leaves, self.tree)
        return args, kwargs


def bound(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments that ``module.forward`` takes: by name where it knows the name, others in order while it needs any.

    A partner need not take what the reference passes around (masks, caches, flags).
    """
    parameters = list(inspect.signature(module.forward).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return args, kwargs
    names = [p.name for p in parameters if p.kind is not p.VAR_POSITIONAL]
    by_name = {name: value for name, value in kwargs.items() if name in names}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
    open_names = [name for name in names if name not in by_name]
    spare = [*args, *(value for name, value in kwargs.items() if name not in names and isinstance(value, Tensor))]
    given = dict(zip([name for name in open_names if name in needed or len(args) > len(needed)], spare, strict=False))
    return (), by_name | given


def tensors_of(output: Any) -> Tensors:
    """Every tensor of a module's output, whatever it is wrapped in."""
    return tuple(leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor))


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats to ``dtype``, none of them to infinity (masks hold the smallest number of their dtype)."""
    if not x.is_floating_point():
        return x
    limits = torch.finfo(dtype)
    return torch.where(torch.isfinite(x), x.clamp(limits.min, limits.max), x).to(dtype)


def with_small_rows(x: Tensor) -> Tensor:
    """Every fourth row smaller by a power of two down the ladder: where an eps or a bias carries the result."""
    if x.ndim < 2:
        return x
    place = torch.arange(x.shape[-2], device=x.device)
    rung = torch.tensor(LADDER, device=x.device)[place // 4 % len(LADDER)]
    factor = torch.where(place % 4 == 3, torch.exp2(-rung.double()), 1.0)
    return x * factor[:, None].to(x.dtype)


def _is_mask(name: str, x: Tensor) -> bool:
    by_name = name.startswith("[1]")  # the second part of (args, kwargs)
    return x.dtype == torch.bool or "mask" in name or (by_name and not x.is_floating_point())
