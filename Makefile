# Two commands matter: `make tutorial` (the six notebooks) and `make test`. Both make .venv when it
# is missing.
# Needs Python 3.10+ with pip, and make; everything else goes into .venv.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := PYTHONWARNINGS=ignore $(BIN)/python -m pip install -q --disable-pip-version-check
ONLY   ?=
WORKERS ?= 2

# The switches of the package pass through. Notebooks run in their own folders, so a relative
# folder is made absolute.
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

# Tests run in `smoke` on the default dataset, whatever the shell has set.
TEST  := env -u SWYS_DATASET SWYS_PROFILE=smoke $(BIN)/python -m pytest
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout=600 --nbval-sanitize-with tests/nbval_sanitize.cfg

# The sample report in the book; it takes minutes, so it is made again only after a change.
REPORT := build/site/compare/index.html

.DEFAULT_GOAL := help
.PHONY: help env tutorial extras lab static check test faults test-browser site slides badges clean

help:
	@echo "make tutorial      run the six notebooks, print the final table, leave build/tutorial/index.html"
	@echo "make extras        run the notebooks in notebooks/extras"
	@echo "make lab           open the notebooks in JupyterLab"
	@echo "make check         format, lint, types, structure and the fast tests (under a minute)"
	@echo "make test          everything that has to hold (a few minutes)"
	@echo "make faults        what was tried to break it, with counts (SWYS_FUZZ=5000 for more cases)"
	@echo "make test-browser  the slider in a real JupyterLab, the book, with npm the demo (needs Chromium)"
	@echo "make site          build/site: the book, opens from disk; with npm the demo, too"
	@echo "make slides        build/slides: the notebooks' cells as slides (needs npm once)"
	@echo "make env           only the environment, .venv"
	@echo "make badges        badges and links, once [tool.swys] in pyproject.toml has an address"
	@echo "make clean         remove build/ and caches"
	@echo
	@echo "switches: SWYS_PROFILE=smoke|quick|full  SWYS_DATASET=bloodmnist  SWYS_DATA_DIR=folder/with/npz  SWYS_DEVICE=cpu  PYTHON=python3.12"
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
	@$(PIP) -e '.[notebooks,test]'
	@touch $@
	@echo "env: ready"

tutorial: $(STAMP)
	@$(BIN)/python tools/run_tutorial.py --only "$(ONLY)"

extras: $(STAMP)
	@$(BIN)/python tools/run_tutorial.py --extras --only "$(ONLY)"

lab: $(STAMP)
	@$(BIN)/jupyter lab --notebook-dir=. --LabApp.news_url=None notebooks/01_data.ipynb

static: $(STAMP)
	@echo "check: format, lint, types, setup cells"
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/python tools/setup_cell.py --check

check: static
	@echo "check: the fast tests"
	@$(TEST) tests -q --ignore=tests/browser -m "not slow"

test: static
	@echo "test: the package, its structure, and the notebooks under nbval (the slider: make test-browser)"
	@$(TEST) tests notebooks --ignore=tests/browser $(NBVAL) -n $(WORKERS) --dist loadfile

faults: $(STAMP)
	@$(TEST) tests/test_faults.py tests/test_hostile.py tests/test_hostile_data.py tests/test_hostile_compare.py tests/test_processes.py tests/test_reference.py

test-browser: $(STAMP)
	@echo "test-browser: the slider in JupyterLab, the demo, the book"
	@$(PIP) -e '.[browser,site]'
	@$(BIN)/python site/build_demo.py
	@$(TEST) tests/test_site.py tests/browser

site: $(STAMP) $(REPORT)
	@$(PIP) -e '.[site]'
	@$(BIN)/python site/build_demo.py
	@PYTHONWARNINGS=ignore $(BIN)/python site/build_book.py

$(REPORT): site/sample_report.py $(wildcard swys/*.py swys/*.jinja swys/*.css swys/*.js swys_utils/*.py) $(wildcard checkpoints/pneumoniamnist/vit_*/card.json) | $(STAMP)
	@$(BIN)/python site/sample_report.py $@

slides: $(STAMP)
	@$(BIN)/python tools/slides.py

badges: $(STAMP)
	@$(BIN)/python tools/setup_cell.py --write

clean:
	rm -rf build .pytest_cache .ruff_cache .mypy_cache
