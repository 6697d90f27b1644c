# `make demo` and `make test` each work as the first command on a fresh clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint check docs platform test-all gpu-check format clean

help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## create .venv with everything in it

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Plumbline needs Python 3.11 or later" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[export,monitor,loadtest,upload,tracing,dev]'
	@touch $@

demo: $(READY) ## the main job: fine-tune, export, serve, drift, alert, retrain, take over
	$(BIN)/plumbline demo

test: $(READY) ## the quick tests
	$(PYTEST) -m 'not slow and not realdata and not platform' -n 2

lint: $(READY) ## style, types, dependency contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test ## all of lint, and the quick tests

docs: $(READY) ## write the pages and files that are made of the code: api.md, configuration.md, the chart's schema
	$(BIN)/python docs/build_pages.py
	$(BIN)/python helm/build_chart.py
	$(BIN)/python helm/build_dashboards.py

platform: $(READY) ## images, dashboards and rules with the real programs, from Debian; as root
	$(PYTEST) -m platform -v -s

test-all: $(READY) ## every test, also those that train models and start processes
	$(PYTEST)

gpu-check: ## on a host with a GPU: parity, refusal, throughput; MODELS=, NAME=, TEXTS=
	$(PYTHON) -m loadtest.gpu_check $(MODELS) --name $(NAME) --texts $(TEXTS) --append docs/benchmarks.md

format: $(READY) ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
