# Everything a newcomer needs: `make demo` plays the whole story, `make test` runs the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV_VERSION := 0.13.9

.PHONY: help demo test test-heavy tools lint check serve bench lock clean

help:            ## show this help
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## / — /'

# The lock is complete: nothing is resolved here, so a release of today changes nothing.
$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Placet needs Python 3.11 or newer: call 'make PYTHON=python3.11 …'"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies (about 5 GB with torch; one to four minutes) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-config --no-deps --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: $(VENV)/.installed   ## one command: instance, server, consent, render, verify, revoke, audit -> demo-out/
	$(BIN)/placet demo --out demo-out

test: $(VENV)/.installed   ## the tests (offline, CPU, under 15 minutes on two cores); what needs an absent tool says so
	$(BIN)/pytest

test-heavy: $(VENV)/.installed   ## the long tests: crashes by the hundred, fuzzing, a million log entries (under 30 minutes)
	$(BIN)/pytest -m heavy

tools:           ## install what some tests use besides Python: Node peers, Go, Chromium, PostgreSQL, SoftHSM (Debian; needs root)
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends golang-go golang-golang-x-mod-dev chromium postgresql softhsm2
	command -v npm > /dev/null || apt-get install -y -qq --no-install-recommends nodejs npm
	npm ci --prefix tests/simulators/node --no-audit --no-fund

lint: $(VENV)/.installed   ## ruff, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test           ## what CI runs, without the demo

serve: $(VENV)/.installed  ## run the service on http://127.0.0.1:8000 with the instance in ./.placet
	@test -d .placet || $(BIN)/placet init --home .placet
	$(BIN)/placet serve --home .placet

bench: $(VENV)/.installed  ## every benchmark, one after the other
	$(BIN)/placet bench all

lock:                      ## resolve pyproject.toml again into requirements.lock
	$(BIN)/uv pip compile --quiet pyproject.toml --extra dev --universal --no-header --no-annotate --generate-hashes -o requirements.lock

clean:                     ## remove what the targets made (not the instance in .placet)
	rm -rf demo-out $(VENV) build dist *.egg-info
