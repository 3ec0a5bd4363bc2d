# Everything here sets up what it needs: a virtual environment in .venv, from PYTHON (3.10 or later).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SETUP := pyproject.toml setup.cfg constraints.txt

# Each peer has an environment of its own: their requirements need not agree with ours.
PEERS := .bench
PACKAGES_torchserve := torchserve torch-model-archiver torch pyyaml numpy pillow packaging psutil
PACKAGES_litserve := litserve torch numpy
PACKAGES_mosec := mosec torch numpy
PACKAGES_fastapi := fastapi==0.165.0 'uvicorn[standard]==0.54.0' torch numpy
PACKAGES_triton := nvidia-pytriton torch numpy

# Other versions of Python, and of libraries, are tried without torch, which has no CPU build for each of them, and
# with few examples of Hypothesis: what a version breaks is broken in the first ones. The planted bugs are
# found by the same choices on each version, in a third of the time that all tests in memory take.
LOWEST := .venv-lowest
PYTHONS ?= 3.10 3.11 3.12 3.13
# How many processes run the tests of make test.
WORKERS ?= auto
# What connections carry. All other tests pass with fronts, too (TWISTED_SERVE_FRONTS=2 make test), in more time.
FRONTS_TESTS := $(patsubst %,tests/integration/test_%.py,handlers streaming slow_and_large continuous stateful load named_keys seed_curl)
MEMORY := -m 'not integration' --ignore=tests/testing/planted

# Where this is set, each of the thousands of processes of the tests would compile the whole package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-memory test-lowest test-pythons test-others test-fronts check docs protos bench soak chaos bench-picture examples clean

help:
	@echo "make demo          serve a real model behind tokens, predict once, go on serving (ONCE=1: stop then)"
	@echo "make examples      build and serve all examples, ask each of them once"
	@echo "make test          all tests, with the coverage floor"
	@echo "make test-lowest   the tests in memory, with the lowest versions of libraries that pyproject.toml allows"
	@echo "make test-pythons  the tests in memory, on each other version of Python that is here (PYTHONS='3.10 3.12')"
	@echo "make test-others   both"
	@echo "make test-fronts   tests of connections, with two fronts for each server (all: TWISTED_SERVE_FRONTS=2 make test)"
	@echo "make check         types, style, layers, news"
	@echo "make docs          the documentation, in docs/_build/html"
	@echo "make protos        descriptors and stubs of the gRPC services, from twisted_serve/rpc/protos"
	@echo "make bench         this server and others, TorchServe among them, measured side by side (QUICK=1: in five minutes; SCALE=1: fronts, connections, models, keys)"
	@echo "make soak          ten minutes of load while workers are killed: what grows, and what fails (SECONDS=60: for so long)"
	@echo "make chaos         fronts, workers, templates and servers are killed under load, 50 times each: what clients notice (TIMES=5: so often)"
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

$(VENV)/.memory: $(VENV)/.made $(SETUP)
	$(INSTALL) -e '.[test-core]'
	@touch $@

$(LOWEST)/.memory: $(SETUP) .ci/lowest.py
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit("Python 3.10 or later is needed; this is " + sys.version)'
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools
	$(LOWEST)/bin/python .ci/lowest.py test-core > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(LOWEST)/constraints.txt -e '.[test-core]'
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
	$(BIN)/python -b -m pytest -n $(WORKERS) --dist worksteal --cov --cov-report=term --cov-fail-under=95 $(PYTEST_ARGS)

# Those tests which open no port and start no process, in the environment VENV.
test-memory: $(VENV)/.memory
	TWISTED_SERVE_HYPOTHESIS=brief $(BIN)/python -b -m pytest -n auto -q $(MEMORY) $(PYTEST_ARGS)

test-lowest: $(LOWEST)/.memory
	TWISTED_SERVE_HYPOTHESIS=brief $(LOWEST)/bin/python -b -m pytest -n auto -q $(MEMORY) $(PYTEST_ARGS)

test-pythons:
	@PYTHON='$(PYTHON)' .ci/pythons $(PYTHONS)

# Tests of connections and their requests, with two more processes that read and write those of each server.
test-fronts: $(VENV)/.test
	TWISTED_SERVE_FRONTS=2 $(BIN)/python -b -m pytest -n $(WORKERS) -q $(FRONTS_TESTS) $(PYTEST_ARGS)

test-others:
	@PYTHON='$(PYTHON)' .ci/pythons lowest $(PYTHONS)

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
	-$(PEERS)/$*/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PACKAGES_$*) && touch $@

bench: $(VENV)/.bench $(if $(SCALE),,$(foreach peer,torchserve litserve mosec fastapi triton,$(PEERS)/$(peer)/.made))
	$(BIN)/python -m $(if $(SCALE),benchmarks.scale,benchmarks.run --environments $(PEERS) $(if $(QUICK),--quick) $(if $(RESUME),--resume)) $(BENCH_ARGS)

soak: $(VENV)/.bench
	$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

chaos: $(VENV)/.bench
	$(BIN)/python -m benchmarks.chaos $(if $(TIMES),--times $(TIMES))

bench-picture: $(VENV)/.bench
	$(BIN)/python -m benchmarks.picture
	$(BIN)/python -m benchmarks.run --report --page

protos: $(VENV)/.test
	$(BIN)/python -m docs.generators.protos

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W -n -b html docs docs/_build/html

clean:
	rm -rf $(VENV) .venv-* $(PEERS) build dist *.egg-info docs/_build .demo .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
