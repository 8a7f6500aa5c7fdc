# make demo    train, export, serve and query a language model
# make test    the tests; make test-slow: those that take minutes
# make lint    formatting, style, types
# make bench   what the benchmarks compare with (PyTorch)

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable

.PHONY: demo test test-slow lint bench clean

demo: .venv/installed
	$(BIN)/python -m training.demo

test: .venv/dev-installed
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist worksteal $(ARGS)

test-slow: .venv/dev-installed
	$(BIN)/pytest -m slow --numprocesses 2 --dist worksteal $(ARGS)

lint: .venv/dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(INSTALL) '.[bench]'

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (TensorFlow is large: some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(INSTALL) .
	touch $@

# Apart, since the demo needs none of it: the tests compare with PyTorch, which is large, too.
.venv/dev-installed: .venv/installed
	$(INSTALL) '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
