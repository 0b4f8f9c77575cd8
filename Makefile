# Each target sets up all that it needs: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check results clean

demo: $(READY)
	$(BIN)/python examples/demo.py

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto   # a process for each core, one thread each

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Collegium needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

# Tables and figures of the studies, from the runs that are committed.
results: $(READY)
	$(BIN)/python benchmarks/studies.py pages

clean:
	rm -rf $(VENV) build dist
