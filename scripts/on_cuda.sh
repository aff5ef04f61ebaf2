#!/usr/bin/env bash
# Everything that claims CUDA, in one go, on a machine that has it: tests marked cuda, pv run, the pytest items, the gate.
# Usage: scripts/on_cuda.sh PYTHON [OUT]   (OUT: where to copy the evidence for a machine that is given back afterwards)
set -euo pipefail
cd "$(dirname "$0")/.."
python=${1:?usage: scripts/on_cuda.sh PYTHON [OUT]}
pv() { "$python" -c 'import sys; from aprender.cli.pv import main; sys.argv[0] = "pv"; main()' "$@"; }

"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name())'
"$python" -m pytest -q -p aprender.pytest_plugin -m cuda tests/transformer
time pv run --device cuda contracts
time pv run --device cuda contracts
"$python" -m pytest -q -p aprender.pytest_plugin --pv-device cuda contracts
pv status contracts
pv gate contracts
if [ -n "${2:-}" ]; then cp evidence/*.cuda.jsonl "$2"/; fi
