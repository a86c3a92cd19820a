# `make` lists the targets. `make install` creates .venv once, and all other targets use it.
# pytest also reads PYTEST_ADDOPTS: make test PYTEST_ADDOPTS="-k resume"

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast coverage check bench board clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

install: $(STAMP)  ## create .venv and install aetrain into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "aetrain needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
	  { echo "cannot create the virtual environment $(VENV); on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[parallel,search,dev]'
	@touch $@

demo: install  ## train on the embedded digits (seconds, no network) and print the path of the pictures
	$(BIN)/aetrain model=vae dataset=digits epochs=50

test: install  ## run all tests; tests on real data are skipped if AETRAIN_DATA or ../shared/data lacks it
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -q

test-fast: install  ## run the tests that are not slow and need no real data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -q -m "not slow and not data"

coverage: install  ## run all tests and print the lines that none of them runs in its own process
	COVERAGE_FILE=$(VENV)/.coverage OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -q \
	  --cov=aetrain --cov-report=term-missing:skip-covered

bench: install  ## measure the speed of aetrain and of other libraries, and write docs/speed.md (30 minutes)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/speed.py

check: install  ## lint, check the format and check types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

board: install  ## open TensorBoard on outputs/
	$(BIN)/aetrain mode=board

clean:  ## remove .venv, caches and built packages; keep outputs/ and data/
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
