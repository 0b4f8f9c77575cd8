# Each target sets up all that it needs: `make demo` and `make test` work on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --constraint constraints.txt
DEMO_READY := $(VENV)/.demo-ready
TEST_READY := $(VENV)/.test-ready
SITE_READY := $(VENV)/.site-ready
LOWEST := .venv-lowest
LOWEST_READY := $(LOWEST)/.ready

.PHONY: demo test test-lowest check site results clean

demo: $(DEMO_READY)
	$(BIN)/python examples/demo.py

test: check site
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto   # a process for each core, one thread each

check: $(TEST_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

# The documentation with search and API, in site/; a link or an anchor that does not hold is an error (not with --quiet,
# which hides the warnings that --strict counts).
site: $(SITE_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The tests with the lowest versions that pyproject.toml allows.
test-lowest: $(LOWEST_READY)
	OMP_NUM_THREADS=1 $(LOWEST)/bin/python -m pytest -n auto -W ignore::DeprecationWarning   # of their own

# Tables and figures of the studies, from the runs that are committed.
results: $(DEMO_READY)
	$(BIN)/python benchmarks/studies.py pages

$(DEMO_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(TEST_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[lint,test]'
	touch $@ $(DEMO_READY)   # all that the demo needs is there too

$(SITE_READY): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) --editable '.[docs]'
	touch $@

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Collegium needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(LOWEST_READY): pyproject.toml
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --upgrade uv
	$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct --editable '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(LOWEST) build dist site
