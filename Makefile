# make quickstart: on a bare machine, from nothing to a report. make test: the same for the tests.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test slow lint clean

quickstart: .venv/.installed
	$(BIN)/ablate run studies/quickstart.toml

test: .venv/.tested
	$(BIN)/python -m pytest

slow: .venv/.tested
	$(BIN)/python -m pytest -m slow --durations=25

lint: .venv/.tested
	$(BIN)/ruff check .
	$(BIN)/mypy

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
