# Two commands are all a newcomer needs: `make demo` and `make test`. Each makes what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-16 test-18 chaos check bench schema clean

demo: $(VENV)/.demo ## Start everything with embedded defaults and show it at work (ARGS=--once ends by itself)
	$(BIN)/rowvec demo $(ARGS)

test: test-18 test-16 ## All tests on Postgres 18, those that meet the database on 16 too

test-18: $(VENV)/.dev
	ROWVEC_TEST_POSTGRES=18 $(BIN)/pytest -n 2 --dist loadgroup $(ARGS)

test-16: $(VENV)/.dev
	ROWVEC_TEST_POSTGRES=16 $(BIN)/pytest -n 2 --dist loadgroup tests/sql tests/integration -k "not test_embedded" $(ARGS)

chaos: $(VENV)/.dev ## Faults of daemons, connections and models for five minutes; then every row must have its vectors
	ROWVEC_CHAOS_SECONDS=300 $(BIN)/pytest -m chaos -s $(ARGS)

check: $(VENV)/.dev ## Style, types and the contracts between rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.dev ## Measurements, compared within one run (ARGS=--quick for a short one, see docs/benchmarks.md)
	PYTHONPATH=tests $(BIN)/python tests/benchmarks/bench.py $(ARGS)

schema: $(VENV)/.dev ## Write sql/schema.sql anew after changing a migration
	PYTHONPATH=tests $(BIN)/python tests/sql/dump_schema.py

clean:
	rm -rf $(VENV) .rowvec .mypy_cache .ruff_cache .pytest_cache

$(VENV)/.demo: pyproject.toml
	@echo "Installing into $(VENV): about half a minute."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[embedded]'
	touch $@

$(VENV)/.dev: pyproject.toml
	@echo "Installing into $(VENV): about a minute."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@
