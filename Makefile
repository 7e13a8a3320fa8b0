# What a developer does. Each target makes its own .venv, with plain venv and pip, when there is none.
#   make dev ARGS="--port 9000 myapp.jobs"      make test ARGS="tests/unit -k settings"

.DEFAULT_GOAL := help
.PHONY: help dev test check bench chaos
.DELETE_ON_ERROR:

# The first Python on PATH that is new enough; name another one with: make PYTHON=/path/to/python3.12 …
PYTHON ?= $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	$$name -c 'import sys; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$name && break; done)
TEST_PROCESSES ?= 2
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
QUEUE_PEERS := celery rq arq taskiq dramatiq
NODE_PACKAGES := socket.io-client@4.8.4 typescript@5.9.3

help:
	@echo "make dev     run everything in one terminal, on http://127.0.0.1:8000"
	@echo "make test    run all tests"
	@echo "make bench   ratios to a peer, in one run"
	@echo "make chaos   2,000 jobs while workers and the store are killed; ARGS='--seed N' repeats a run"
	@echo "make bench-queue   the queue beside BullMQ, Celery, RQ, arq, taskiq and Dramatiq (docs/performance.md)"
	@echo "make check   lint, types, layers: the fast part of CI"

# A plain command: make then starts it without a shell between, and is the parent whose end it notices.
dev: .venv/installed-dev
	@$(BIN)/tidings dev --with-parent $(ARGS)

test: .venv/installed-test .venv/node/installed
	$(BIN)/python -m pytest -n $(TEST_PROCESSES) $(ARGS)
	@if command -v node >/dev/null; then node --test tests/browser/unit/*.mjs; \
	elif [ -n "$$CI" ]; then echo "error: CI needs node" >&2; exit 1; \
	else echo "skipped: the unit tests of static/ (there is no node)"; fi

check: .venv/installed-test .venv/node/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [ -x .venv/node/node_modules/.bin/tsc ]; then .venv/node/node_modules/.bin/tsc --project tsconfig.json && echo "tsc: no faults"; \
	elif [ -n "$$CI" ]; then echo "error: CI needs node" >&2; exit 1; \
	else echo "skipped: the types of static/ (there is no node)"; fi

bench: .venv/installed-test
	$(BIN)/python -m benchmarks $(ARGS)

chaos: .venv/installed-test
	$(BIN)/python -m tests.chaos $(ARGS)

bench-queue: .venv/installed-test .venv/node-bench/installed $(QUEUE_PEERS:%=.venv/peers/%/installed)
	$(BIN)/python -m benchmarks.queue $(ARGS)

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "error: there is no Python 3.11 or newer on PATH; name one: make PYTHON=/path/to/python3" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 2; }

.venv/installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into .venv …"
	@$(PIP_INSTALL) --editable '.[all]'
	@touch $@

.venv/installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into .venv, with what the tests need …"
	@$(PIP_INSTALL) --editable '.[test]'
	@touch .venv/installed-dev $@

# The protocol authors' own client and the type checker, kept out of the project's files.
.venv/node/installed: Makefile | $(BIN)/python
	@mkdir -p .venv/node
	@if command -v npm >/dev/null; then \
	npm install --prefix .venv/node --no-save --no-package-lock --no-audit --no-fund --loglevel=error $(NODE_PACKAGES); fi
	@touch $@

# Whom the queue is measured beside: no part of the project, each in an environment of its own, since they want different
# versions of the same libraries. What cannot be installed is skipped there.
.venv/peers/%/installed: benchmarks/queue/requirements/%.txt | $(BIN)/python
	@$(BIN)/python -m venv .venv/peers/$*
	@.venv/peers/$*/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< \
	|| { echo "skipped: $* cannot be installed" >&2; rm -rf .venv/peers/$*; mkdir -p .venv/peers/$*; }
	@touch $@

.venv/node-bench/installed: Makefile
	@mkdir -p .venv/node-bench
	@if command -v npm >/dev/null; then \
	npm install --prefix .venv/node-bench --no-save --no-package-lock --no-audit --no-fund --loglevel=error bullmq@5.81.5 \
	|| echo "skipped: bullmq cannot be installed" >&2; fi
	@touch $@
