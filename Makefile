# lowtide: two commands on a fresh machine are `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: demo install check test faults bench format clean

demo: $(STAMP)   ## the main job, end to end, on a generated grid
	$(BIN)/lowtide demo --out demo-out

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,check,postgres]"
	touch $@

check: $(STAMP)  ## exactly what CI checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(STAMP)   ## unit tests first: they fail in seconds
	$(BIN)/python -m pytest tests/unit -n 2
	$(BIN)/python -m pytest tests/faults tests/integration -n 2 --dist loadfile --no-loadscope-reorder

faults: $(STAMP) ## fifty rounds of faults while jobs train on a cluster of several nodes; SEED and ROUNDS choose others
	$(BIN)/python -m tests.faults --rounds $(or $(ROUNDS),50) --seed $(or $(SEED),1)

bench: $(STAMP)  ## speed and memory, as ratios within one run
	$(BIN)/python -m tests.bench

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist demo-out *.egg-info
