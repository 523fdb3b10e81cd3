# Two commands matter: `make tutorial` (the six notebooks) and `make test`. Both make .venv when it is missing.
# Needs Python 3.10+ with pip, and make; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check
ONLY   ?=

# The switches of the package pass through; the notebooks run in notebooks/, so a relative folder is made absolute here.
export SWYS_PROFILE SWYS_DATASET SWYS_DATA_DIR
ifneq ($(strip $(SWYS_DATA_DIR)),)
  ABSOLUTE := import os, sys; print(os.path.abspath(os.path.expanduser(sys.argv[1])))
  override SWYS_DATA_DIR := $(or $(shell $(PYTHON) -c '$(ABSOLUTE)' "$(SWYS_DATA_DIR)"),$(abspath $(SWYS_DATA_DIR)))
else
  unexport SWYS_DATA_DIR
endif
ifeq ($(strip $(SWYS_PROFILE)),)
  unexport SWYS_PROFILE
endif
ifeq ($(strip $(SWYS_DATASET)),)
  unexport SWYS_DATASET
endif

.DEFAULT_GOAL := help
.PHONY: help env tutorial lab test test-browser site checkpoints clean

help:
	@echo "make tutorial      run the six notebooks, print the final table, leave build/site/index.html"
	@echo "make lab           open the notebooks in JupyterLab"
	@echo "make test          everything that has to hold (a few minutes)"
	@echo "make test-browser  the slider in a real JupyterLab (needs Chromium)"
	@echo "make site          HTML pages from executed or committed notebooks"
	@echo "make checkpoints   check the shipped checkpoints, fetch missing ones"
	@echo "make env           only the environment, .venv"
	@echo
	@echo "switches: SWYS_PROFILE=smoke|quick|full  SWYS_DATASET=bloodmnist  SWYS_DATA_DIR=folder/with/npz  PYTHON=python3.12"
	@echo "          ONLY=04 runs one notebook of the tutorial"

env: $(STAMP)

# A Debian without python3-venv can still make the folder; pip then installs itself into it.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || \
	  { echo "make: $(PYTHON) is missing or older than 3.10; give one with PYTHON=python3.12" >&2; exit 1; }
	@if [ ! -x $(BIN)/pip ]; then \
	  echo "env: making $(VENV)"; \
	  $(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || \
	  { rm -rf $(VENV) && $(PYTHON) -m venv --without-pip $(VENV) && \
	    $(PYTHON) -m pip --python $(BIN)/python install -q pip; } >/dev/null 2>&1 || \
	  { rm -rf $(VENV); echo "make: $(PYTHON) cannot make $(VENV); try: apt-get install python3-venv" >&2; exit 1; }; \
	fi
	@echo "env: installing the dependencies of pyproject.toml (some minutes the first time)"
	@$(PIP) -e '.[notebooks,test,export]'
	@touch $@
	@echo "env: ready"

tutorial: $(STAMP)
	@$(BIN)/python tools/run_tutorial.py $(if $(ONLY),--only $(ONLY))

lab: $(STAMP)
	@$(BIN)/jupyter lab --notebook-dir=notebooks --LabApp.news_url=None notebooks/01_data.ipynb

# Notebooks are tested in `smoke` on the default dataset, whatever the shell has set.
test: $(STAMP)
	@echo "test: ruff"
	@$(BIN)/ruff check .
	@echo "test: the notebooks' setup cells"
	@$(BIN)/python tools/setup_cell.py --check
	@echo "test: package, structure, and the six notebooks under nbval (the slider: make test-browser)"
	@env -u SWYS_DATASET SWYS_PROFILE=smoke $(BIN)/python -m pytest tests notebooks --ignore=tests/browser \
	  --nbval-lax --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with tests/nbval_sanitize.cfg

test-browser: $(STAMP)
	@echo "test-browser: the slider in JupyterLab"
	@$(PIP) -e '.[browser]'
	@env -u SWYS_DATASET SWYS_PROFILE=smoke $(BIN)/python -m pytest tests/browser

site: $(STAMP)
	@$(BIN)/python tools/build_site.py

checkpoints: $(STAMP)
	@$(BIN)/python checkpoints/fetch.py

clean:
	rm -rf build .pytest_cache .ruff_cache
