# Every target sets up $(VENV) by itself, with stock venv and pip, and does so again when pyproject.toml changes.
#   PYTHON=python3.13 VENV=.venv-3.13   another interpreter
#   PIN="jax==0.9.0 jaxlib==0.9.0"      exact versions
PYTHON ?= python3
VENV ?= .venv
PIN ?=
WORKERS ?= 2
# Each worker starts with a run of whole files, whose tests share compiled programs; who is done first takes of the rest.
SPREAD := --dist worksteal
PYTEST_ARGS ?=
# Which laws: all but those that take minutes. CI leaves out the slow ones too, for its time is limited.
LAWS ?= not long
BENCH_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
READY := $(VENV)/.ready

unexport PYTHONDONTWRITEBYTECODE
# Compiled programs are kept between runs and shared by the workers, but for the smallest, which are quicker to compile than to write.
# The benchmarks compile afresh, since they time that.
demo test test-slow test-long laws notebooks: export JAX_COMPILATION_CACHE_DIR ?= $(CURDIR)/.jax_cache
demo test test-slow test-long laws notebooks: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0.1

# `make test` and the laws take the flags of tests/conftest.py, which compile quickly. All else, the slow tests too,
# compiles as a user's programs do: without any flag.
test-slow: export XLA_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test test-slow test-long laws lint format types bench notebooks thresholds benchmarks-page docs pictures package extras clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 26

venv: $(READY) ## set up the virtual environment, which every other target does too

$(READY): pyproject.toml
	@echo "Setting up $(VENV) (some minutes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "elbojax needs Python 3.11 or newer: make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --editable '.[dev]' $(PIN)
	@touch $@

demo: $(READY) ## a guided tour in the terminal
	@$(BIN)/python -m elbojax demo

test: $(READY) ## tests, doctests and the README's examples, but for the laws and the slow ones
	$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) -m 'not slow and not long' --ignore=tests/laws $(PYTEST_ARGS)

test-slow: $(READY) ## the slow ones but for the laws: long runs, killed processes, many compilations
	$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) -m 'slow and not long' --ignore=tests/laws $(PYTEST_ARGS)

test-long: $(READY) ## those that take minutes each, laws among them; not in CI
	$(BIN)/python -m pytest -n $(WORKERS) $(SPREAD) -m long $(PYTEST_ARGS)

laws: $(READY) ## the laws, slow ones too, in one process, in another order each time: what one call leaves behind must not change the next
	ELBOJAX_LAWS_SEED=$${ELBOJAX_LAWS_SEED:-$$(date +%s)} $(BIN)/python -m pytest -m '$(LAWS)' tests/laws $(PYTEST_ARGS)

lint: $(READY) ## style and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY) ## mend what `make lint` can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(READY) ## static types of the package
	@$(BIN)/mypy

bench: $(READY) ## elbojax beside what people would use in its place, the short form; BENCH_ARGS=cold for one suite in full
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

notebooks: $(READY) ## run every notebook in its short form
	@ELBOJAX_SHORT=1 $(BIN)/python notebooks/run.py

thresholds: $(READY) ## docs/thresholds.md from elbojax/thresholds.py
	@$(BIN)/python -c "from elbojax import thresholds; print(thresholds.page(), end='')" > docs/thresholds.md

benchmarks-page: $(READY) ## docs/benchmarks.md from the rows that were measured; says which passages are not as these are
	@$(BIN)/python -m benchmarks.claims

docs: $(READY) ## the site into build/site; fails on a dead link, a formula that does not compile, a public name without its page
	@NO_MKDOCS_2_WARNING=1 JAX_PLATFORMS=cpu $(BIN)/python -m mkdocs --quiet build --strict
	@echo "open build/site/index.html"

pictures: $(READY) ## the pictures of the site's pages, from their own code
	@$(BIN)/python docs/pictures/make.py

package: $(READY) ## wheel and sdist, built and tried in a clean environment
	@$(BIN)/python .ci/package.py

extras: $(READY) ## the same, and every extra by itself
	@$(BIN)/python .ci/package.py --extras

clean: ## remove all that make made
	rm -rf $(VENV) .jax_cache build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
