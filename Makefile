# `make demo` and `make test` do all the set-up themselves; only python3 (3.11 or newer) is needed.

PYTHON ?= python3
BIN := .venv/bin

JAX_TESTS := $(patsubst %,tests/test_%.py,losses metrics evaluate model train checkpoints report export unet_python)

.PHONY: demo test test-heavy test-jax lint clean

demo: .venv/runtime
	$(BIN)/python tools/demo.py

test: .venv/test
	$(BIN)/python -m pytest -m "not heavy" --numprocesses 2 --dist loadfile --cov --cov-report=term

test-heavy: .venv/test
	$(BIN)/python -m pytest -m heavy --numprocesses 2 --dist worksteal

# The trainer once more on Keras's other backend.
test-jax: .venv/test
	KERAS_BACKEND=jax $(BIN)/python -m pytest -m "not heavy or jax" --numprocesses 2 --dist worksteal $(JAX_TESTS)

lint: .venv/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

clean:
	rm -rf .venv demo .pytest_cache .ruff_cache .coverage

# Each stamp is made anew when what it installs changes.
.venv/runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segdata needs Python 3.11 or newer, $(PYTHON) is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/test: .venv/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	touch $@
