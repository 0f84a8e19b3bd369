# One list of commands. `make demo` and `make test` work on a fresh Debian machine with Python 3.11.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
KILLS ?= 100
CASES ?= 10000
SEED ?= 0
CUTS ?= 20000
MINUTES ?= 30
CORRUPTIONS ?= 10000
SEEDS ?= 1000
ONLY ?=
FAULTS_SEED ?= 20261127
SECONDS ?= 600

.PHONY: install demo test check bench kill laws ledger powercuts corruptions outage fuzz storm slow simulate faults soak format clean

install: $(VENV)/.runtime

$(BIN)/python:
	@sh deploy/bootstrap.sh venv $(PYTHON) $(VENV)

$(VENV)/.runtime: $(BIN)/python pyproject.toml package.json package-lock.json
	@sh deploy/bootstrap.sh runtime $(VENV)
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime pyproject.toml
	@sh deploy/bootstrap.sh dev $(VENV)
	@touch $@

demo: $(VENV)/.runtime        ## simulators, gateway, broker and console in one
	@$(BIN)/hazard-gateway demo $(ARGS)

test: $(VENV)/.dev check      ## everything, against real servers
	@sh deploy/bootstrap.sh servers
	@$(BIN)/python -m pytest -n 2 --dist loadscope --cov --cov-report=term:skip-covered $(ARGS)

check: $(VENV)/.dev           ## lint, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.runtime       ## figures with the machine's own limit beside them
	@$(BIN)/hazard-gateway bench pipeline $(ARGS)

kill: $(VENV)/.dev            ## kill -9 under load, KILLS times (default 100)
	@KILLS=$(KILLS) $(BIN)/python -m pytest tests/system/test_kill.py -s $(ARGS)

laws: $(VENV)/.dev            ## every law of the rule core over CASES histories a kind (default 10000)
	@LAW_CASES=$(CASES) LAW_SEED=$(SEED) $(BIN)/python -m pytest tests/alarm_rules/test_laws.py -n 2 -s $(ARGS)

ledger: $(VENV)/.dev          ## the completeness ledger against a plain count, over CASES histories (default 10000)
	@LEDGER_CASES=$(CASES) $(BIN)/python -m pytest tests/ledger/test_law.py -s $(ARGS)

powercuts: $(VENV)/.dev       ## CUTS power cuts at random moments of recorded lives of spool, journal and point table (default 20000 each)
	@POWER_CUTS=$(CUTS) POWER_SEED=$(SEED) $(BIN)/python -m pytest $(wildcard tests/*/test_power_cut.py) -s $(ARGS)

corruptions: $(VENV)/.dev     ## CORRUPTIONS random damages to the files of spool and journal (default 10000 each)
	@CORRUPTIONS=$(CORRUPTIONS) CORRUPT_SEED=$(SEED) $(BIN)/python -m pytest $(wildcard tests/*/test_corruptions.py) -s $(ARGS)

fuzz: $(VENV)/.dev            ## CASES mutants for each reader of bytes (default 10000), and how its time grows
	@FUZZ_CASES=$(CASES) FUZZ_SEED=$(SEED) FUZZ_LONG=1 $(BIN)/python -m pytest tests/fuzz -s $(ARGS)

storm: $(VENV)/.runtime       ## ten thousand terminals reconnect at once while a hundred report
	@$(BIN)/python -m simulators.jt808.storm $(ARGS)

slow: $(VENV)/.runtime        ## five thousand sockets that drip, say nothing or never read
	@$(BIN)/python -m simulators.jt808.storm --slow 5000 $(ARGS)

outage: $(VENV)/.dev          ## broker and database away for MINUTES (default 30), judged from outside
	@$(BIN)/python -m gateway.testing.outage --minutes $(MINUTES) $(ARGS)

simulate: $(VENV)/.dev        ## the whole gateway in virtual time with faults, SEEDS seeds from SEED (default 1000)
	@$(BIN)/python -m gateway.testing.sim --seeds $(SEEDS) --seed $(SEED) $(ARGS)

faults: $(VENV)/.dev          ## the fault table on real processes, or ONLY="F8 F21" of it
	@sh deploy/bootstrap.sh servers
	@$(BIN)/python -m gateway.testing.faults run $(ONLY) --seed $(FAULTS_SEED) $(ARGS)

soak: $(VENV)/.dev            ## load, alarms and random faults for SECONDS (default 600), then every law
	@sh deploy/bootstrap.sh servers
	@$(BIN)/python -m gateway.testing.faults soak --seconds $(SECONDS) --seed $(FAULTS_SEED) $(ARGS)

format: $(VENV)/.dev
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist node_modules
