# make demo   two controllers learn on the embedded images, beside the best fixed mask: a table and pictures
# make test   the suite without its slow tests; make test-all runs those too
# make torture   kills, fuzzed cases, faults and a million steps: twenty minutes of two cores
# make docs   the documentation, into docs/_build
# make try    the page on which anyone can play with the network, docs/_build/try/index.html
# make examples   the packages of the examples, and all of examples/ in full
# All make a virtual environment in .venv first; a second call installs nothing.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all processors oldest torture docs try examples setup lint type bench clean

demo: setup
	$(BIN)/instanas demo

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: setup
	$(PYTEST) -m "not slow"

test-all: setup
	$(PYTEST)

torture: setup
	$(BIN)/python -m tests.tools.torture

# The same suite as other processors compute it, with one thread and with two.
processors: setup
	for isa in SSE41/default AVX2/avx2; do for threads in 1 2; do \
		echo "$$isa, $$threads threads"; ONEDNN_MAX_CPU_ISA=$${isa%/*} ATEN_CPU_CAPABILITY=$${isa#*/} \
		OMP_NUM_THREADS=$$threads $(PYTEST) -m "not slow" || exit 1; done; done

# The same suite with the oldest versions that pyproject.toml allows.
oldest:
	$(PYTHON) -m venv .venv-oldest && .venv-oldest/bin/python -m pip install --quiet uv
	.venv-oldest/bin/uv pip install --python .venv-oldest/bin/python --resolution lowest-direct --editable ".[dev]"
	$(subst $(BIN),.venv-oldest/bin,$(PYTEST)) -m "not slow"

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build

try: setup
	$(BIN)/python docs/try/build.py

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
	rm -rf .venv .venv-oldest build dist docs/_build *.egg-info
