# make demo: the main job.  make test: everything that must hold, in minutes.  make help: the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-slow test-all lint docs notebooks bench bench-train bench-generate clean

help:
	@echo "make demo      set up, then climb the ladder on the embedded corpus (about 8 minutes on 2 cores)"
	@echo "make test      set up, then run the tests (under 10 minutes on 2 cores)"
	@echo "make test-slow  the slow tests, which train whole runs, kill them, and run the book (about 20 minutes)"
	@echo "make test-all  both"
	@echo "make docs      build the book and the API reference: build/docs/index.html"
	@echo "make notebooks  the book's chapters as notebooks: build/notebooks"
	@echo "make lint      ruff, formatting, type checker"
	@echo "make bench     what this machine can do (hornbook bench), text encoding against a peer, and what else there is"
	@echo "make bench-train  training against the Trainer, nanoGPT, LitGPT and a plain loop (an hour or more on 2 cores)"
	@echo "make bench-generate  generation against transformers and llama.cpp (about an hour on 2 cores)"
	@echo "make clean     remove the environment and caches; runs/ stays"

$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Hornbook needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	$(PIP) -e .
	@touch $@

$(VENV)/dev: $(VENV)/core
	@echo "installing what the tests need ..."
	$(PIP) -e '.[dev]'
	@touch $@

demo: $(VENV)/core
	$(BIN)/hornbook ladder

test: $(VENV)/dev
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/dev
	$(PYTEST) -m slow -rs

test-all: $(VENV)/dev
	$(PYTEST)

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo build/docs/index.html

notebooks: $(VENV)/dev
	$(BIN)/python docs/notebooks.py build/notebooks

bench: $(VENV)/dev
	$(BIN)/hornbook bench
	$(BIN)/python benchmarks/text_encoding.py
	@echo "more, each with --help:"
	@echo "  make bench-train                              training speed and memory against peers"
	@echo "  make bench-generate                           generation speed and memory against peers"
	@echo "  $(BIN)/python benchmarks/serving_throughput.py   what the server costs beside the engine alone"
	@echo "  $(BIN)/python benchmarks/object_storage.py       training from an S3 server on loopback beside training from disk"
	@echo "  $(BIN)/python benchmarks/plan_agreement.py       memory and time as planned against real runs"
	@echo "  $(BIN)/python benchmarks/wikitext_recipes.py     bits per byte after 5, 15, 60 minutes against their recipes"
	@echo "  $(BIN)/python benchmarks/harness_agreement.py    tasks' figures against lm-evaluation-harness (pip install -c constraints.txt -e '.[eval]'), item by item"
	@echo "  $(BIN)/python benchmarks/recipe_trials.py        our own recipe, one setting changed at a time"
	@echo "  $(BIN)/python benchmarks/guessing_ahead.py       what drafters gain in generation"
	@echo "  $(BIN)/python benchmarks/prepare_throughput.py   text to tokens by one process, several, and Ray"
	@echo "  $(BIN)/python benchmarks/ngram_against_kenlm.py  n-grams against lmplz, which must be on the PATH"

bench-train: $(VENV)/core
	$(BIN)/python benchmarks/training_against_peers.py

bench-generate: $(VENV)/core
	$(BIN)/python benchmarks/generation_against_peers.py

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache dist build
