# Needs Python 3.11 or newer and make, and nothing else: every environment is made here.
PYTHON ?= python3
SERVING := .venv
TESTING := .venv-test
SOURCES := $(shell find model service training -type f -not -name '*.pyc')
# Only real problems of an installation are worth a line.
PIP_INSTALL := bin/python -m pip install -qq --disable-pip-version-check

.PHONY: help demo test clean

help:
	@echo "make demo   map the bundled sample with the bundled models; results in demo/"
	@echo "make test   check style, types and imports, and run the suite"
	@echo "make clean  remove the environments and what was built"

demo: $(SERVING)/installed
	$(SERVING)/bin/emboundary demo --output demo

test: $(TESTING)/installed
	$(TESTING)/bin/ruff check
	$(TESTING)/bin/ruff format --check
	$(TESTING)/bin/mypy
	$(TESTING)/bin/lint-imports
	$(TESTING)/bin/pytest -q

# What serving needs, and no torch.
$(SERVING)/installed: pyproject.toml constraints.txt $(SOURCES)
	$(call make_environment,$(SERVING))
	@echo "installing emboundary into $(SERVING)..."
	@$(SERVING)/$(PIP_INSTALL) -c constraints.txt '.[cpu]'
	@touch $@

# Torch first and alone: it is by far the largest, and its version decides what the others may be.
$(TESTING)/installed: pyproject.toml constraints.txt tests/constraints.txt
	$(call make_environment,$(TESTING))
	@echo "installing emboundary with everything for its tests into $(TESTING)..."
	@$(TESTING)/$(PIP_INSTALL) -c tests/constraints.txt torch==2.13.0
	@$(TESTING)/$(PIP_INSTALL) -c tests/constraints.txt -e '.[cpu,train,dev]'
	@touch $@

clean:
	rm -rf $(SERVING) $(TESTING) build emboundary.egg-info

define make_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(1)
endef
