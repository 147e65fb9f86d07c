# make demo   the thing itself, in network namespaces of its own
# make test   the whole test suite
# make test-verdicts  every situation of docs/verdicts.md on the real kernel, with a table of what became of each
# make check  formatting, linters and both type checkers
# make bench  how fast, against other ways to do the same
# make fuzz-kernel SECONDS=60 SEED=n   random changes in a namespace: the cache and lookups against the kernel's
# make bench-cache  the routing cache alone, at length, beside its peers
# make bench-judge  judging connections: latency, scale, memory, each against its goal
# make bench-streams  guarded streams beside bare ones: a call, throughput, TLS, HTTP, registering
# make clean  everything that the above made
#
# Each target sets up what it needs in .venv and reuses it while pyproject.toml and constraints.txt stand.
# ARGS="..." goes on to what runs: make test ARGS="-m netns -x".

.PHONY: help demo test test-verdicts fuzz-kernel check bench bench-cache bench-judge bench-streams clean
.PHONY: check-format check-lint check-async check-mypy check-pyright check-public-types
.DEFAULT_GOAL := help
SHELL := /bin/bash

VENV := .venv
PY := $(VENV)/bin/python
SOURCES := trio_routes tests examples benchmarks
INPUTS := pyproject.toml constraints.txt
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --quiet --progress-bar off -c constraints.txt
# pyright's wrapper would otherwise ask the registry for a newer version on every run.
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

help:
	@sed -n 's/^# make/make/p' Makefile

# Three set-ups, each with all of the one before, so that the demo does not wait for type checkers.
DEMO := $(VENV)/.ready-demo
TEST := $(VENV)/.ready-test
LINT := $(VENV)/.ready-lint

# A recipe, not a rule of its own: a virtualenv whose Python has since been removed must be made anew. The interpreter is
# PYTHON if given, else the first of the usual names that is new enough.
define virtualenv
	@set -eu; \
	if [ -x $(PY) ] && $(PY) -c 'import pip' 2>/dev/null; then exit 0; fi; \
	python=; \
	tried=; \
	for candidate in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	  tried="$$tried $$candidate ($$("$$candidate" --version 2>/dev/null || echo not there)),"; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "trio_routes needs Python 3.11 or newer. Tried:$${tried%,}." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3 ..." >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$python has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	"$$python" -m venv --clear $(VENV)
endef

$(DEMO): $(INPUTS)
	$(virtualenv)
	@echo "Installing what the demo needs (some 10 seconds, the first time only)"
	@$(PIP) -e '.[cli]'
	@touch $(DEMO)

$(TEST): $(INPUTS)
	$(virtualenv)
	@echo "Installing what the tests need (some 30 seconds, the first time only)"
	@$(PIP) -e '.[test]'
	@touch $(DEMO) $(TEST)

$(LINT): $(INPUTS)
	$(virtualenv)
	@echo "Installing the linters and type checkers (about a minute, the first time only)"
	@$(PIP) -e '.[lint]'
	@touch $(DEMO) $(TEST) $(LINT)

demo: $(DEMO)
	@$(VENV)/bin/trio-routes demo $(ARGS)

# Two files at a time, since most tests wait for the kernel: half the time. PARALLEL= for one after the other.
PARALLEL ?= --numprocesses 2 --dist loadfile

test: $(TEST)
	@$(PY) -m pytest $(PARALLEL) $(ARGS)

# Both families and both sides; `make test` plays one of each situation. Nothing to play on is a failure here. The first
# test waits for all that are played: minutes, on a machine that is busy otherwise.
test-verdicts: $(TEST)
	@TRIO_ROUTES_VERDICTS=all TRIO_ROUTES_REQUIRE_LAB=1 $(PY) -m pytest -m verdicts -o faulthandler_timeout=600 tests/verdicts $(ARGS)

# One target for each tool, so that `make -k check` shows all that they find.
check: check-format check-lint check-async check-mypy check-pyright check-public-types

check-format: $(LINT)
	$(PY) -m ruff format --check .

check-lint: $(LINT)
	$(PY) -m ruff check .

check-async: $(LINT)
	$(PY) -m flake8 $(SOURCES)

check-mypy: $(LINT)
	$(PY) -m mypy $(SOURCES)

check-pyright: $(LINT)
	$(VENV)/bin/pyright

# --verifytypes reads no configuration: it looks for the installed package in the `python` of PATH.
check-public-types: $(LINT)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" pyright --verifytypes trio_routes --ignoreexternal

bench: $(TEST)
	@$(PY) -m benchmarks.run $(ARGS)

fuzz-kernel: $(TEST)
	@$(PY) -m tests.fuzz_kernel --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

# Installs the peers that are missing, from Debian and PyPI, and says so.
bench-cache: $(TEST)
	@$(PY) -m benchmarks.cache $(ARGS)

bench-judge: $(TEST)
	@$(PY) -m benchmarks.judge $(ARGS)

bench-streams: $(TEST)
	@$(PY) -m benchmarks.streams $(ARGS)

clean:
	rm -rf $(VENV) build dist benchmarks/build .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find trio_routes tests examples benchmarks .ci -name __pycache__ -prune -exec rm -rf {} +
