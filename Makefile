# Two commands: `make demo` runs the main job, `make test` runs every check. Both make .venv where it is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2
FRAMEWORKS := .venv-integrations
LOWEST := .venv-lowest

.PHONY: demo test test-lowest integrations lint types layers pytest ranks faults test-processors test-long format \
  notebooks tables docs docs-open constraints constraints-integrations clean

demo: $(VENV)/.demo
	$(BIN)/safestep run digits-sgd --out runs/digits-sgd

# What fails soonest comes first; mypy takes a minute on a fresh clone, beside the tests.
test: lint layers
	$(MAKE) --jobs 2 types pytest

# The lowest versions that pyproject.toml promises, in an environment of their own; a quick part of the tests.
QUICK := tests/test_imports.py tests/_torch tests/jvp tests/logs tests/policy tests/recording tests/records tests/tape \
  tests/contracts/test_8_citizen_steps.py tests/contracts/test_8_citizen_wrappers.py

test-lowest: $(LOWEST)/.done
	$(LOWEST)/bin/pytest -n $(WORKERS) --dist worksteal -W ignore::DeprecationWarning $(QUICK)

# Training frameworks, in an environment of their own; CONTRIBUTING.md says what it costs.
integrations: $(FRAMEWORKS)/.done
	$(FRAMEWORKS)/bin/pytest -n $(WORKERS) --dist loadfile --durations 10 tests/frameworks

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test
	$(BIN)/mypy

layers: $(VENV)/.test
	$(BIN)/lint-imports

pytest: $(VENV)/.test
	$(BIN)/pytest -n $(WORKERS) --dist worksteal --durations 10

# The long form of the checks on several processes.
ranks: $(VENV)/.test
	SAFESTEP_RANKS=long $(BIN)/pytest tests/ranks

# The long form of the fault runs.
faults: $(VENV)/.test
	PYTHONPATH=tests $(BIN)/python -m faults --schedules $(or $(SCHEDULES),500) --jobs $(WORKERS)

# What another processor, more threads, other kernels and more random examples would find; one at a time. With
# `make -k` it goes on after a failure. By the time of `make test` an hour and a quarter on two cores; not timed as a whole.
CAPABILITIES := capability-default capability-avx2
EXAMPLES := examples-1 examples-2 examples-3
SUITE := $(BIN)/pytest -n $(WORKERS) --dist worksteal

# Every combination of models, optimizers, policies and methods, where `make test` tries a third.
test-long: $(VENV)/.test
	SAFESTEP_LONG=1 $(SUITE)

.PHONY: two-threads no-mkldnn $(CAPABILITIES) $(EXAMPLES)

test-processors: $(CAPABILITIES) two-threads no-mkldnn $(EXAMPLES)

$(CAPABILITIES): capability-%: $(VENV)/.test
	SAFESTEP_DIAGONAL=1 ATEN_CPU_CAPABILITY=$* $(SUITE)

two-threads: $(VENV)/.test
	SAFESTEP_DIAGONAL=2 SAFESTEP_THREADS=2 $(SUITE)

no-mkldnn: $(VENV)/.test
	SAFESTEP_MKLDNN=off $(SUITE)

$(EXAMPLES): examples-%: $(VENV)/.test
	SAFESTEP_HYPOTHESIS=long $(SUITE) -m hypothesis --hypothesis-seed $*

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

notebooks: $(VENV)/.test
	$(BIN)/jupytext --to ipynb --update docs/tutorials/*.py

tables: $(VENV)/.test
	$(BIN)/python tests/loops
	$(BIN)/python tests/claims

# The site, with the tutorials run: some ten minutes the first time and after every change of the source, a minute else.
SITE := build/site/index.html
EXECUTED := $(patsubst docs/tutorials/%,build/tutorials/%,$(wildcard docs/tutorials/*.ipynb))

docs: $(EXECUTED)
	SAFESTEP_EXECUTED_TUTORIALS=build/tutorials NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@$(MAKE) --no-print-directory docs-open

docs-open:
	@test -f $(SITE) && echo "file://$(abspath $(SITE))" || { echo "The site is not built yet: make docs"; exit 1; }

build/tutorials/%.ipynb: docs/tutorials/%.ipynb $(shell find src/safestep -name '*.py') | $(VENV)/.test
	$(BIN)/jupyter-nbconvert --to notebook --execute --output-dir build/tutorials $<

constraints: $(VENV)/.test
	(echo "# Exact versions that both commands install (make demo, make test); honest ranges are in pyproject.toml."; \
	 echo "# Renew: make constraints"; \
	 $(PIP) freeze --exclude-editable | sed 's/+cpu//') > constraints.txt

constraints-integrations: $(FRAMEWORKS)/.done
	(echo "# Exact versions that \`make integrations\` installs besides those of constraints.txt."; \
	 echo "# Renew: make constraints-integrations"; \
	 $(FRAMEWORKS)/bin/python -m pip freeze --exclude-editable | sed 's/+cpu//' | grep -vxFf constraints.txt) > constraints-integrations.txt

clean:
	rm -rf $(VENV) $(FRAMEWORKS) $(LOWEST) build dist src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "safestep needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV)

# The demo needs less than the tests: torch, scikit-learn, matplotlib and the command line.
$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[experiments]'
	touch $@

$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.demo

$(FRAMEWORKS)/.done: pyproject.toml constraints.txt constraints-integrations.txt
	$(PYTHON) -m venv $(FRAMEWORKS)
	$(FRAMEWORKS)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt \
	  --constraint constraints-integrations.txt --editable '.[integrations-test]'
	touch $@

$(LOWEST)/.done: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip --disable-pip-version-check install --quiet --constraint constraints-lowest.txt \
	  --editable '.[all,dask,keras,tensorboard,tutorials,wandb]' beartype hypothesis jax jaxtyping mpmath nbclient nbformat \
	  pytest pytest-timeout pytest-xdist
	touch $@
