# make demo   the joint search on the embedded images, and a table of policies
# make test   the whole suite
# make docs   the documentation, into docs/_build
# make try    the page on which anyone can play with the network, docs/_build/try/index.html
# All make a virtual environment in .venv first; a second call installs nothing.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test docs try setup lint type bench clean

demo: setup
	$(BIN)/instanas demo

test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

try: setup
	$(BIN)/python docs/try/build.py

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
