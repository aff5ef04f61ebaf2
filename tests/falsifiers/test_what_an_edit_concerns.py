"""What of this repository is measured anew when one file has changed: what may load it, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aprender.contracts.load import load
from aprender.falsify.observe import Observer
from aprender.falsify.probe import Options

ROOT = Path(__file__).parents[2]
MODELS = {"cuda-composition-v1", "cuda-decode-v1"}
KERNELS = {*MODELS, "apr-pretrain-cuda-forward-parity-v1", "cuda-laws-v1", "cuda-operator-parity-v1"}


Digests = dict[tuple[str, str], tuple[str, str]]


class Copy:
    """The code and contracts of this repository, in a folder where a file can be edited."""

    def __init__(self, root: Path) -> None:
        for folder in ("aprender", "contracts", "falsifiers"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", root)
        self.root = root
        self.contracts = load([root / "contracts"]).contracts
        self.as_it_is = self.digests()

    def digests(self) -> Digests:
        """What observations are kept by, for the number of each contract's falsifiers: code under contract, probe."""
        observer, found = Observer(Options("cpu", None)), {}
        for contract in self.contracts:
            sources = observer.sources(contract)
            for falsifier in contract.falsifiers:
                found[contract.id, falsifier.id[-3:]] = sources.code, sources.probe(falsifier.probe or "")
        return found

    def concerned_by(self, file: str) -> list[tuple[str, str]]:
        """The falsifiers that are observed anew when ``file`` has changed."""
        path = self.root / file
        source = path.read_text("utf-8")
        path.write_text(source + "# edited\n", "utf-8")
        edited = self.digests()
        path.write_text(source, "utf-8")
        return [key for key, digests in self.as_it_is.items() if edited[key] != digests]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("repository"))


@pytest.mark.parametrize(
    ("file", "contracts"),
    [
        ("falsifiers/bias_defects.py", {"apr-pretrain-cuda-forward-parity-v1"}),
        ("falsifiers/cuda_laws_memory.py", {"cuda-laws-v1"}),
        ("falsifiers/cuda_decode.py", {"cuda-decode-v1"}),
        ("falsifiers/cuda_model_planting.py", MODELS),
        ("falsifiers/oracle_system.py", {"oracle-reference-parity-v1"}),
        ("falsifiers/weight_apr.py", {"weight-loading-v1"}),
        ("aprender/transformer/cuda/ops/rope.py", KERNELS),
        ("aprender/transformer/cuda/ops/interpreter_plans.py", KERNELS),
        ("aprender/formats/gguf_header.py", {"apr-pretrain-cuda-forward-parity-v1", "weight-loading-v1"}),
        ("aprender/cli/run.py", set()),
        ("aprender/reports/text.py", set()),
    ],
)
def test_an_edit_concerns_the_contracts_that_may_load_the_file(file: str, contracts: set[str], copy: Copy) -> None:
    assert {contract for contract, _ in copy.concerned_by(file)} == contracts


def test_an_edit_concerns_one_falsifier_of_a_contract(copy: Copy) -> None:
    """Where the others' probes don't import it."""
    assert copy.concerned_by("falsifiers/cuda_optimizer_defects.py") == [("cuda-operator-parity-v1", "004")]
