# One list of commands. `make demo` and `make test` work on a fresh Debian machine with Python 3.11.
PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SECONDS ?= 60

.PHONY: install demo test check bench format clean servers

install: $(STAMP)

$(VENV)/bin/python:
	@sh deploy/bootstrap.sh venv $(PY) $(VENV)

$(STAMP): $(VENV)/bin/python pyproject.toml package.json package-lock.json
	@sh deploy/bootstrap.sh install $(VENV)
	@touch $@

demo: $(STAMP)
	@$(BIN)/hazard-gateway demo $(ARGS)

servers:
	@sh deploy/bootstrap.sh servers

test: $(STAMP) servers check
	@sh deploy/bootstrap.sh test $(VENV)

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@$(BIN)/hazard-gateway bench pipeline

format: $(STAMP)
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist node_modules
