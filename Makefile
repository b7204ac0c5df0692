# The two commands of a stranger are `make demo` and `make test`; both make .venv when it is not there.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
COMPILE := CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/pip-compile --quiet --generate-hashes --strip-extras \
	--allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host
# kcat's place when the machine has none and we are not root
export PATH := $(CURDIR)/$(VENV)/kcat/bin:$(PATH)

.PHONY: help install demo test chaos lint kcat lock kafka-lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(RUNTIME) ## only make .venv with govbus in it, for a server (docs/operate.md)

demo: $(RUNTIME) ## run the whole system with a simulated district; ARGS="--exit --json report.json" passes options on
	@$(BIN)/govbus demo $(ARGS)

test: lint kcat ## everything: ruff, mypy, and every test on real Kafka and PostgreSQL; ARGS go to pytest
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pytest -q --numprocesses 3 --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(RUNTIME) ## the fault rig in full (hours); writes docs/reliability.md; ARGS pass options on
	@$(BIN)/govbus chaos --seeds 10000 --kills 1000 --workers 50 --zombies 200 --brokers 200 --logs 50 --upgrades 5 --poison 5000 \
		--database 50 --network 50 --province 50 --soak 60 --planted --report docs $(ARGS)

lint: $(DEV) ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/mypy

kcat: $(DEV) ## make kcat available to the tests: the machine's, else Debian's package, unpacked into .venv
	@$(BIN)/python tests/kcat.py

lock: $(DEV) ## resolve the requirements anew, with hashes; `make lock ARGS=--upgrade` takes newer versions
	@$(COMPILE) $(ARGS) --all-build-deps --output-file requirements.txt pyproject.toml
	@$(COMPILE) $(ARGS) --extra dev --output-file requirements-dev.txt pyproject.toml

kafka-lock: $(RUNTIME) ## resolve Kafka's jars anew into connectors/local/kafka.lock.toml
	@$(BIN)/python -m connectors.local.jars

clean: ## stop the local stack and remove .venv; the stack's data in .govbus stays
	@if [ -x $(BIN)/govbus ]; then $(BIN)/govbus down; fi
	@rm -rf $(VENV)

# A virtual environment left half-made has no stamp, so the next make finishes it.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "govbus needs Python 3.11 or newer, and $(PYTHON) is %s: make PYTHON=python3.12 …" % sys.version.split()[0])'
	@echo "making $(VENV) …"
	@$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing the pinned requirements …"
	@$(PIP) install --require-hashes --requirement requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements-dev.txt $(RUNTIME)
	@echo "installing the pinned development requirements …"
	@$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@
