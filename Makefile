# `make mesh` runs a whole mesh; `make test` proves it. Every target begins with `make setup` (0.5 s when up to date).
PYTHON ?= python3
BIN := .venv/bin
CONFORMANCE_DIR ?= ../shared/conformance
OUT ?= build/conformance.json

.PHONY: setup proto mesh prove test lint format conformance bench bars fuzz laws lock clean

setup:
	@$(PYTHON) setup/setup.py

proto: setup
	@$(BIN)/python setup/generate.py

mesh: setup
	@exec $(BIN)/windward mesh up

prove: setup
	@exec $(BIN)/windward mesh prove --output build/prove.json

test: setup lint
	@if [ -d $(CONFORMANCE_DIR) ]; then $(MAKE) --no-print-directory conformance; \
	elif [ "$(CI)" = true ]; then echo "conformance: no cases at $(CONFORMANCE_DIR)" >&2; exit 1; fi
	@$(BIN)/python -m pytest

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy windward services tests benchmarks samples

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

conformance: setup
	@$(BIN)/python -m tests.conformance --cases $(CONFORMANCE_DIR) --output $(OUT)

bench: setup
	@$(BIN)/python -m benchmarks mesh --json build/bench.json

bars: setup
	@$(BIN)/python -m benchmarks bars

# Everything that reads what others send, a million inputs each (about half an hour of CPU): `make fuzz TARGET=ads-delta`.
TARGET ?= all
EXECUTIONS ?= 1000000
SEED ?= 1
fuzz: setup
	@$(BIN)/python -m benchmarks fuzz $(TARGET) --executions $(EXECUTIONS) --seed $(SEED)

# The laws of Pilot's engine and streams over thousands of random histories (about an hour of CPU): `make laws LAW=order`.
LAW ?= all
EXAMPLES ?= 2000
laws: setup
	@$(BIN)/python -m benchmarks laws $(LAW) --examples $(EXAMPLES) --seed $(SEED)

# Needs uv. The locks carry hashes and no index address.
lock:
	uv pip compile pyproject.toml --all-extras --generate-hashes --no-header --no-annotate --upgrade -o requirements.lock
	uv pip compile pyproject.toml --all-extras --group dev --generate-hashes --no-header --no-annotate -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf .venv build stubs windward/api .windward
