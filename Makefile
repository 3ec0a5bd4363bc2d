# Everything here sets up what it needs: a virtual environment in .venv, from PYTHON (3.10 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SETUP := pyproject.toml setup.cfg constraints.txt

# Each peer has an environment of its own: their requirements need not agree with ours.
PEERS := .bench
TORCHSERVE := torchserve torch-model-archiver torch pyyaml numpy pillow packaging psutil
LITSERVE := litserve torch numpy

.PHONY: help demo test check docs bench soak bench-picture examples clean

help:
	@echo "make demo          serve a real model behind tokens, predict once, go on serving (ONCE=1: stop then)"
	@echo "make examples      build and serve all examples, ask each of them once"
	@echo "make test          all tests, with the coverage floor"
	@echo "make check         types, style, layers, news"
	@echo "make docs          the documentation, in docs/_build/html"
	@echo "make bench         this server, TorchServe and LitServe, measured side by side (QUICK=1: in five minutes)"
	@echo "make soak          ten minutes of load while workers are killed: what grows, and what fails (SECONDS=60: for so long)"
	@echo "make bench-picture what was measured last, as tables and picture in docs/performance.md"

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed; this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[demo]'
	@touch $@

$(VENV)/.examples: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[examples]'
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

examples: $(VENV)/.examples
	@$(BIN)/python examples/all.py

test: $(VENV)/.test
	$(BIN)/python -b -m pytest -n auto --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(BIN)/yamllint --strict -c deploy/kubernetes/.yamllint deploy
	$(BIN)/towncrier build --draft --version next >/dev/null

$(VENV)/.bench: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[bench]'
	@touch $@

# A peer which cannot be installed is left out, and said to be.
$(PEERS)/%/.made: constraints.txt
	@mkdir -p $(PEERS)
	$(PYTHON) -m venv $(PEERS)/$*
	-$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PACKAGES) && touch $@

$(PEERS)/torchserve/.made: PACKAGES := $(TORCHSERVE)
$(PEERS)/litserve/.made: PACKAGES := $(LITSERVE)

bench: $(VENV)/.bench $(PEERS)/torchserve/.made $(PEERS)/litserve/.made
	$(BIN)/python -m benchmarks.run --torchserve $(PEERS)/torchserve/bin/python --litserve $(PEERS)/litserve/bin/python \
		$(if $(QUICK),--quick) $(if $(RESUME),--resume) $(BENCH_ARGS)

soak: $(VENV)/.bench
	$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

bench-picture: $(VENV)/.bench
	$(BIN)/python -m benchmarks.picture
	$(BIN)/python -m benchmarks.run --report --page

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build/html

clean:
	rm -rf $(VENV) $(PEERS) build dist *.egg-info docs/_build .demo .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
