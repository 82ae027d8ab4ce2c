# make demo    the whole workflow at laptop size, from nothing
# make test    all tests
# make test-slurm    only those on a SLURM cluster of one node, which they start themselves
# make check   lint and the fast tests: two minutes
# make lint    format, style, types, workflow lint
# make env     only the environment, in .venv
# make dist    wheels of pacbed and of the budget plugin
# make docs    what is made from the code, and the documentation site, in site/
# make format, make site, make lock, make clean: see below
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PLUGIN := src/snakemake_logger_plugin_budget
export PATH := $(CURDIR)/$(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: env demo test test-slurm check lint format docs site dist lock clean

env: $(READY)

$(READY): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, but '$(PYTHON)' is missing or of another version."; \
	  echo "Install one and name it: make env PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { \
	  echo "This Python cannot make virtual environments."; \
	  echo "On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@echo "Making the environment in $(VENV): a few minutes, 3 GB"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable . --editable $(PLUGIN)
	@touch $@

demo: env
	snakemake --profile profiles/local --configfile config/demo.yaml
	@pacbed errors results/demo/tables/errors.csv
	@echo "Figures: results/demo/figures    Report: results/demo/report.html"

test: env
	pytest -n 2 --dist loadgroup --durations=25

check: lint
	pytest -n 2 --dist loadgroup -m "not slow"

test-slurm: env
	@PATH="$$PATH:/usr/sbin:/sbin"; for program in munged slurmctld slurmd sbatch; do \
	  command -v $$program >/dev/null || { echo "There is no $$program here. On Debian or Ubuntu:" \
	    "apt-get install munge slurmctld slurmd slurm-client"; exit 1; }; done
	pytest tests/slurm

lint: env
	ruff format --check src tests workflow docs benchmarks
	ruff check src tests workflow docs benchmarks
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

format: env
	ruff format src tests workflow docs benchmarks
	ruff check --fix src tests workflow docs benchmarks
	snakefmt Snakefile workflow

# Made from the code: the table of configuration keys, the reference of commands, the picture of the packages;
# then the site.
docs: env
	python docs/config_table.py
	python docs/cli_reference.py
	python docs/house.py
	$(MAKE) site

# The site, in site/. A warning is an error; its notebooks are run.
site: env
	NO_MKDOCS_2_WARNING=1 mkdocs build --quiet

dist: env
	python -m build --outdir dist .
	python -m build --outdir dist $(PLUGIN)

# The recipe of an image with the environments of conda; needs conda.
workflow/Dockerfile: $(wildcard workflow/envs/*.yaml)
	snakemake --containerize > $@

# New versions of everything; needs uv (https://docs.astral.sh/uv).
lock:
	uv pip compile --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-package snakemake-logger-plugin-budget \
	  --extra learning --extra workflow --extra reading --extra docs --extra dev pyproject.toml --output-file requirements.lock

# Results of a study stay: they may have cost weeks.
clean:
	rm -rf $(VENV) results/demo dist site .mypy_cache .pytest_cache .ruff_cache
