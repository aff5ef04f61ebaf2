"""The road is visible in the imports: nothing earlier imports anything later, and the early part is light."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Each package may import itself and what is listed; aprender.errors and aprender.faults are everybody's.
MAY_IMPORT = {
    "aprender/contracts": set[str](),
    "aprender/falsify": {"contracts"},
    "aprender/reports": {"contracts", "falsify"},
    "aprender/cli": {"contracts", "falsify", "reports", "formats", "parity"},
    "aprender/transformer": set[str](),
    "aprender/formats": {"transformer"},
    "aprender/parity": set[str](),
}
LIGHT = (
    "aprender/contracts",
    "aprender/falsify",
    "aprender/reports",
    "aprender/cli",
    "aprender/pytest_plugin.py",
    "aprender/faults.py",
)
HEAVY = {"torch", "numpy", "safetensors", "gguf", "tokenizers", "falsifiers"}


def imported_by(path: Path) -> set[str]:
    """Every module that the file imports, also inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(place: str) -> list[Path]:
    path = ROOT / place
    found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert found, f"{place} has no Python files: this test looks at nothing"
    return found


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_nothing_imports_what_comes_later(place: str) -> None:
    """contracts, falsify, reports, cli in this order; the transformer knows nothing of any of them."""
    own = place.partition("/")[2]
    for path in files_of(place):
        packages = {name.split(".")[1] for name in imported_by(path) if name.startswith("aprender.")}
        allowed = MAY_IMPORT[place] | {own, "errors", "faults", "__version__"}
        assert packages <= allowed, f"{path.relative_to(ROOT)} imports {packages - allowed}"


@pytest.mark.parametrize("place", LIGHT)
def test_the_tool_imports_no_numerics(place: str) -> None:
    """Not even inside a function: probes bring what they need."""
    for path in files_of(place):
        heavy = {name.partition(".")[0] for name in imported_by(path)} & HEAVY
        assert not heavy, f"{path.relative_to(ROOT)} imports {heavy}"


def test_oracle_and_cuda_path_share_only_the_configuration() -> None:
    """Neither imports the other."""
    for path in files_of("aprender/transformer/oracle"):
        assert not {name for name in imported_by(path) if name.startswith("aprender.transformer.cuda")}
    for path in files_of("aprender/transformer/cuda"):
        assert not {name for name in imported_by(path) if name.startswith(("numpy", "aprender.transformer.oracle"))}


# What the oracle may take from torch: products of matrices, elementary functions, sums, indexing, casts and shapes.
OF_TORCH = {
    *("Tensor", "dtype", "device", "float64", "int64", "nan"),
    *("arange", "tensor", "zeros_like", "ones_like", "full_like", "zeros", "stack", "cat", "unique", "where"),
    *("exp", "log", "sqrt", "cos", "sin"),
}
STANDARD = {"collections", "dataclasses", "itertools", "math", "typing"}
FUSED = {
    *("softmax", "log_softmax", "logsumexp", "cross_entropy", "silu", "sigmoid", "rms_norm", "layer_norm", "norm"),
    *("einsum", "bmm", "addmm", "baddbmm", "linear", "embedding", "backward", "grad", "compile", "compiler", "nn"),
}


def test_the_oracle_is_made_of_elementary_operations() -> None:
    """From torch itself it takes what is listed, of tensors it calls no fused method, and no other library computes."""
    taken: set[str] = set()
    for path in files_of("aprender/transformer/oracle"):
        libraries = {name for name in imported_by(path) if not name.startswith(("aprender.", "__future__"))}
        assert {name.partition(".")[0] for name in libraries} <= {"torch", *STANDARD}, path
        assert {name for name in libraries if name.startswith("torch")} <= {"torch", "torch.Tensor"}, path
        own = {"operators", "rope", "attention", "layer", "self", "oracle"}
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner == "torch":
                taken.add(node.attr)
            elif owner not in own:
                assert node.attr not in FUSED, f"{path.relative_to(ROOT)}:{node.lineno}: .{node.attr} is fused"
    assert taken <= OF_TORCH, f"the oracle takes {taken - OF_TORCH} from torch"
    assert {"exp", "sqrt", "cos"} <= taken  # it was found at all
