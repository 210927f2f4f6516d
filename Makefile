# `make demo` and `make test` set up everything they need; PYTHON picks the interpreter.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install demo test lint format clean

help:
	@echo "make install   virtual environment in .venv with the tested versions"
	@echo "make demo      fine-tune, align and evaluate a tiny pair, then print where the report is"
	@echo "make test      the whole test suite"
	@echo "make lint      ruff, ruff format --check, mypy on bild/"
	@echo "make format    let ruff rewrite what it can"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[pipelines,bench,dev]"
	@touch $@

# The whole method on a built-in task: the four commands that you would type for your own.
demo: install
	$(BIN)/python -m pipelines.finetune model=tiny-large
	$(BIN)/python -m pipelines.finetune model=tiny-small
	$(BIN)/python -m pipelines.align limit=4800
	$(BIN)/python -m pipelines.evaluate bild.fallback=0.6 bild.verify_eos=true

test: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
