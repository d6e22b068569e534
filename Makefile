# Every target does its own set-up: a machine with Python 3.11, 3.12 or 3.13 and make needs nothing else.
#
#   make quickstart   train English to French, translate, score
#   make test         the tests          make slow   the long ones
#   make lint         ruff and mypy      make bench  speed, a row for each rung (CONFIG=names for others)
#   make parity       recurrent and Transformer layers against PyTorch's
#   make bench-gpu    what one GPU does: right numbers, speed, memory, in eight minutes
#   make docs         the documentation site, into site/index.html; fails on a broken link
#
# PYTHON=/path/to/python chooses the interpreter; VENV=folder where everything is installed.

VENV   ?= .venv
BIN    := $(VENV)/bin
CONFIG ?= bag rnn_fixed lstm_fixed gru_bahdanau lstm_luong gnmt_small transformer_small
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)

.PHONY: help quickstart test slow lint parity docs bench bench-gpu clean
help:
	@sed -n 's/^#   //p' Makefile

quickstart: $(VENV)/.installed
	$(BIN)/jaxnmt train quickstart --run runs/quickstart
	$(BIN)/jaxnmt evaluate runs/quickstart --samples 5

# Twice: everything, compiled without optimisation, which is quicker; then what promises bits or equality, compiled as for users.
# With worksteal a process takes a long row of tests, so that a file's runs and compiled programs are seldom made by both processes.
# The second time pytest reads only the files that have such tests: to read all takes each process as long as some of these tests.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist worksteal
	XLA_FLAGS= $(BIN)/python -m pytest -q -n 2 --dist worksteal -m as_shipped $$(grep -rl --include='test_*.py' 'mark\.as_shipped' tests)

slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -m slow
	XLA_FLAGS= $(BIN)/python -m pytest -q -m slow tests/laws/test_compiled.py

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# PyPI's wheel of torch for Linux on x86-64 brings gigabytes of CUDA, which this has no use for. PyTorch's own index has the same version
# without: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make parity
parity: $(VENV)/.installed-parity
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/parity

# The variable silences an advertisement of the theme's makers.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# For a machine with a GPU, whose JAX has CUDA: PIP may first install jax[cuda12] into $(VENV).
bench-gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/accelerator.py build/accelerator

bench: $(VENV)/.installed
	@for config in $(CONFIG); do $(BIN)/jaxnmt bench $$config || exit; done

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache build dist site

# pip's wheels are not kept: half of what an installation leaves on disk.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-cache-dir

$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11, 3.12 or 3.13 found: install one, or say where it is with make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: $(PYTHON) is not Python 3.11 or newer: install 3.11, 3.12 or 3.13, or say where it is with make PYTHON=/path/to/python" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "error: $(PYTHON) cannot make a virtual environment: install its venv package (on Debian and Ubuntu: apt install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "installing jaxnmt into $(VENV) (a few minutes, about 1 GB) ..."
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.created
	@echo "installing jaxnmt and its tools into $(VENV) (a few minutes, about 1 GB) ..."
	@$(PIP) -e '.[test,dev,browser]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-parity: pyproject.toml | $(VENV)/.created
	@echo "installing jaxnmt, pytest and torch into $(VENV) (a few minutes) ..."
	@$(PIP) -e '.[test,parity]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml | $(VENV)/.created
	@echo "installing jaxnmt and MkDocs into $(VENV) (a few minutes, about 1 GB) ..."
	@$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.installed
