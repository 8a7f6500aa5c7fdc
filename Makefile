# make demo    train, export, serve and query a language model
# make test    the tests; make test-slow: those that take minutes
# make lint    formatting, style, types
# make bench   the benchmarks' packages (PyTorch)

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow lint bench clean

demo: .venv/installed
	$(BIN)/python -m training.demo

test: .venv/installed
	$(BIN)/pytest -m "not slow" --numprocesses 2 --dist worksteal $(ARGS)

test-slow: .venv/installed
	$(BIN)/pytest -m slow $(ARGS)

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'

.venv/installed: pyproject.toml constraints.txt
	@echo "Setting up .venv (TensorFlow is large: some minutes the first time)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist *.egg-info
