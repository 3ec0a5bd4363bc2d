# Everything here sets up what it needs: a virtual environment in .venv, from PYTHON (3.10 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SETUP := pyproject.toml setup.cfg constraints.txt

.PHONY: help demo test check docs examples clean

help:
	@echo "make demo          serve a real model behind tokens, predict once, go on serving (ONCE=1: stop then)"
	@echo "make test          all tests, with the coverage floor"
	@echo "make check         types, style, layers, news"
	@echo "make docs          the documentation, in docs/_build/html"

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[test]'
	@touch $@

$(VENV)/.check: $(VENV)/.test $(SETUP)
	$(INSTALL) -e '.[test,check]'
	@touch $@

$(VENV)/.docs: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[docs]'
	@touch $@

demo: $(VENV)/.demo
	@$(BIN)/python examples/demo.py $(if $(ONCE),--once)

test: $(VENV)/.test
	$(BIN)/python -b -m pytest -n auto --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/towncrier build --draft --version next >/dev/null

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build/html

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build .demo .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
