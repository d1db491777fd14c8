# Everything runs in .venv, which is made on first use.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
ARGS ?= experiment=quick
SCALE ?= small

.DEFAULT_GOAL := help
.PHONY: help install train reproduce test test-slow lint bench docs package

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# torch and torchvision are a pair and are resolved in one go.
$(VENV)/installed: pyproject.toml
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -e ".[dev]"
	touch $@

install: $(VENV)/installed ## make the virtual environment

train: install ## train; ARGS="model=sdl trainer.max_epochs=10" changes what
	$(RUN) -m sparse_lightning.train $(ARGS)

reproduce: install ## the paper's studies and a report; SCALE=small, evening, evening_adaptive, hinge, mnist or paper
	$(RUN) -m sparse_lightning.reproduce scale=$(SCALE)

# Two processes of one thread each: threads that wait for a core that another process has, spin.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n 2 --dist loadfile

test: install ## the fast tests
	$(PYTEST)

test-slow: install ## all tests
	$(PYTEST) -m "slow or not slow"

lint: install ## style, format, and types of the public interface
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

docs: install ## the site, into docs/_build/html; warnings are errors
	$(RUN) -m pip install --quiet -e ".[docs]"
	$(RUN) -m sphinx --fail-on-warning --keep-going -q -b html docs docs/_build/html

package: install ## wheel and source archive into dist/, checked, under 25 MB
	rm -rf dist
	$(RUN) -m build --outdir dist
	$(RUN) -m twine check --strict dist/*
	test -z "$$(find dist -size +25M)"

bench: install ## speed, side by side, under 20 minutes; peers with pip install -e ".[bench]"
	$(RUN) -m benchmarks.epoch
	$(RUN) -m benchmarks.inference
	$(RUN) -m benchmarks.lasso
	$(RUN) -m benchmarks.dictionary_learning
	$(RUN) -m benchmarks.patches
	$(RUN) -m benchmarks.memory
	$(RUN) -m benchmarks.sweep
