# Everything runs in .venv, which the first command makes from constraints.txt.
BIN := .venv/bin
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3)

# What computes with Keras, and therefore must pass on every backend.
PORTABLE = $(wildcard $(addprefix tests/,\
	layers models metrics test_boxes.py test_exercises.py test_losses.py test_masks.py test_targets.py))

# Compiling takes most of the time of JAX's tests.
JAX := KERAS_BACKEND=jax XLA_FLAGS=--xla_backend_optimization_level=0

# A worker to each core: with as many threads each they take 1.4 times as long.
TORCH := KERAS_BACKEND=torch OMP_NUM_THREADS=1

# These two train for minutes where nothing is compiled.
QUICK_ON_TORCH := "not 03_pose and not 13_detectors"

PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal

export KERAS_BACKEND ?= tensorflow
export TF_CPP_MIN_LOG_LEVEL ?= 2

.DEFAULT_GOAL := help
.PHONY: help tables test test-backends site lab clean

help: ## list the commands
	@awk -F ': .*## ' '/^[a-z-]+:.*##/ {printf "make %-14s %s\n", $$1, $$2}' Makefile

tables: .venv/installed ## run the chapters on the embedded data; tables in build/quick/tables
	$(BIN)/python -m benchmarks.grid --preset quick --out build/quick

test: .venv/installed ## style, tests on TensorFlow and JAX, checks of chapters and tables
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	KERAS_BACKEND=tensorflow $(PYTEST)
	$(JAX) $(PYTEST) -m "not slow" $(PORTABLE)
	$(BIN)/python -m ci.check_notebooks
	$(BIN)/python -m ci.check_tables
	$(BIN)/python -m ci.nbval

test-backends: .venv/installed-torch ## portable tests and most chapters on PyTorch, JAX's slow tests
	$(TORCH) $(PYTEST) $(PORTABLE)
	$(TORCH) PYTHONWARNINGS=ignore $(BIN)/python -m ci.nbval -k $(QUICK_ON_TORCH)
	$(JAX) $(PYTEST) -m slow $(PORTABLE)

site: .venv/installed-site ## the site in build/site: chapters as stored, results, API
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -d build/doctrees site build/site
	$(BIN)/python -m ci.check_site build/site

lab: .venv/installed ## JupyterLab on the chapters
	$(BIN)/jupyter lab --notebook-dir=course

clean: ## remove build/ and the caches; .venv stays
	rm -rf build site/api .pytest_cache .ruff_cache .snakemake
	find . -name .venv -prune -o -name __pycache__ -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	@found=; for python in $(PYTHONS); do \
		if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
			2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Python 3.11, 3.12 or 3.13 is needed; none of these is one: $(PYTHONS)." >&2; exit 1; \
	fi; \
	echo "Installing into .venv with $$found, a few minutes."; \
	test -x $(BIN)/pip || $$found -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[course,bench,jax,export,test]'
	@touch $@

.venv/installed-torch: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@touch $@

.venv/installed-site: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[site]'
	@touch $@
