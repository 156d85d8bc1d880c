# The two commands of the README are `make demo` and `make test`; each installs what it needs into .venv when that is missing.
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak docs clean
HEARTH := .venv/bin/hearth
DIR ?= runs/laptop
BUDGET ?= 5 min

help:  ## show this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 12

demo:  ## make a language model from the text on this machine, then say how to chat with it
	@scripts/setup.sh plot
	@$(HEARTH) run recipes/laptop.toml --budget "$(BUDGET)" --dir "$(DIR)"

test:  ## run the tests (some 15 minutes on 2 cores)
	@scripts/setup.sh dev
	@.venv/bin/python -m pytest -m "not soak"

lint:  ## format, lint and types
	@scripts/setup.sh dev
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .
	@.venv/bin/mypy

bench:  ## measure the claims of the documentation on this machine (about half an hour)
	@scripts/setup.sh dev
	@.venv/bin/python benchmarks/predicted_time.py
	@.venv/bin/python benchmarks/optimizer.py

soak:  ## the slow and exhaustive tests: fifty kills, whole runs, every flipped byte
	@scripts/setup.sh dev
	@.venv/bin/python -m pytest -m soak

docs:  ## build the documentation into site/
	@scripts/setup.sh docs
	@.venv/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

clean:  ## remove what can be made again, except runs
	rm -rf .venv site build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
