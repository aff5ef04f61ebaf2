# `make falsify` runs the main job, `make test` the tests. Both set everything up first and are safe to run twice.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: falsify test lint defect-map clean

falsify: $(READY)
	$(BIN)/pv validate contracts
	$(BIN)/pv run contracts

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# docs/defect-map.md anew, after a contract or a planted defect has changed.
defect-map: $(READY)
	$(BIN)/pv prove contracts --json | $(BIN)/python scripts/defect_map.py

clean:
	rm -rf $(VENV) .pv

# The stamp is the last thing made: an installation that was interrupted starts again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"aprender needs Python 3.11 or newer, this is {v.major}.{v.minor}; run: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
