# make demo   the joint search on the embedded images, and a table of policies
# make test   the whole suite
# make docs   the documentation, into docs/_build
# make examples   the packages of the examples, and all of examples/ in full
# All make a virtual environment in .venv first; a second call installs nothing.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs examples setup lint type bench clean

demo: setup
	$(BIN)/instanas demo

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

examples: setup
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev,examples]"
	EXAMPLES_IN_FULL=1 $(BIN)/python -m pytest -s tests/test_examples.py tests/test_frameworks.py

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

bench: setup
	$(BIN)/instanas bench --out runs/bench.json

lint: setup
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

clean:
	rm -rf .venv build dist docs/_build *.egg-info
