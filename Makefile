# `make demo` and `make test` set up everything they need: a virtual environment with pinned dependencies, and a CPU
# build of torch where there is no NVIDIA GPU. A second call skips what is done.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 && echo yes)
# The first line takes torch by itself: with it in place, no later package pulls in a CUDA build.
TORCH := $(if $(GPU),torch,-r constraints-cpu.txt)
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder
CONSTRAINTS := -c constraints.txt $(if $(GPU),,-c constraints-cpu.txt)

.PHONY: demo test test-slow mutants lint types tests setup clean help

help:
	@echo "make demo   the whole loop on an example shop, and its report (minutes, no GPU needed)"
	@echo "make test   ruff, mypy and the tests"
	@echo "make test-slow  the tests that take long: all benchmarks, tiny; whole programs that are killed"
	@echo "make mutants    which faults in the algorithms and the store do the tests notice? (an hour)"
	@echo "make clean  remove the virtual environment and caches"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt constraints-cpu.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(CONSTRAINTS) --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/afmrl demo demo-shop

# mypy beside the tests: it has use for one core only, and they have a pause at either end.
test: lint
	$(MAKE) --no-print-directory --jobs 2 types tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# A worker for each core, each with whole files (tests/conftest.py); four take 6 GB of memory.
tests: $(STAMP)
	$(PYTEST)

test-slow: $(STAMP)
	$(PYTEST) -m slow

# COUNT faults drawn by SEED, one at a time (benchmarks/mutants.py).
COUNT ?= 100
SEED ?= 0
mutants: $(STAMP)
	$(BIN)/python -m benchmarks.mutants --count $(COUNT) --seed $(SEED)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache build dist src/*.egg-info
