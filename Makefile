# make train   a private fine-tune of a real language model, from nothing
# make federate   six clients share a classifier, none its texts
# make test    everything the tests need, then the tests
# make check   lint and types
# make bench   side by side with other tools (OPAKE_PYTHON=python3.13: Opake's accountant too)
# make gpu     everything measured on a GPU, in eight minutes (again: goes on)
# make docs    the site, in site/index.html, with its tutorials executed (EXECUTE_TUTORIALS=false: not)
# make notebooks  the tutorials as notebooks/*.ipynb

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --constraint constraints.txt
CORES = $(shell $(PYTHON) -c "import os; print(os.cpu_count())")
MANIFESTS := pyproject.toml accounting/pyproject.toml constraints.txt

.PHONY: train federate test check bench gpu docs notebooks clean

# Accelerate would choose a number of threads itself, and say so in three lines.
train: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),$(CORES))
train: .venv/train
	$(BIN)/python recipes/fetch_demo.py
	$(BIN)/accelerate launch --quiet --config_file launch_configs/cpu.yaml recipes/train.py --config recipes/configs/smollm2_reviews.yaml

federate: export OMP_NUM_THREADS := $(or $(OMP_NUM_THREADS),$(CORES))
federate: .venv/federate
	$(BIN)/python recipes/fetch_federation.py
	$(BIN)/python recipes/federate.py --config recipes/configs/federation/sentiment.yaml

test: .venv/dev
	$(BIN)/python recipes/fetch_demo.py
	$(BIN)/python -m pytest -n auto --dist worksteal

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/peers $(if $(OPAKE_PYTHON),.venv/opake)
	$(BIN)/python recipes/fetch_demo.py
	$(BIN)/python benchmarks/accounting.py $(if $(OPAKE_PYTHON),--opake .venv/opake/bin/python)
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/real_text.py
	$(BIN)/python benchmarks/two_ranks.py

gpu: .venv/peers
	$(BIN)/python benchmarks/gpu.py

docs: .venv/dev
	$(BIN)/python recipes/fetch_demo.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

notebooks: .venv/dev
	mkdir -p notebooks
	for page in docs/tutorials/*.py; do \
	    $(BIN)/jupytext --quiet --to ipynb --output notebooks/$$(basename $$page .py).ipynb $$page || exit; \
	done

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/train: .venv/bin/python $(MANIFESTS)
	$(PIP) -e ./accounting -e ".[train]"
	touch $@

.venv/federate: .venv/bin/python $(MANIFESTS)
	$(PIP) -e ./accounting -e ".[train,federated]"
	touch $@ .venv/train

.venv/dev: .venv/bin/python $(MANIFESTS)
	$(PIP) -e ./accounting -e ".[dev]"
	touch $@ .venv/train .venv/federate

# DPTrainer asks for a release of Opacus that the package index lacks; it runs with the set's own.
.venv/peers: .venv/dev
	$(PIP) "opake[transformers]==0.16.1"
	$(PIP) --no-deps dptrainer==0.1.2
	touch $@

# Opake's accountant cannot be imported by some patch releases of Python 3.11 and 3.12.
.venv/opake: .venv/dev
	$(OPAKE_PYTHON) -m venv $@
	$@/bin/pip install --quiet numpy opake-accounting==0.16.1

clean:
	rm -rf .venv data runs site notebooks
