# Needs Python 3.11 or newer and make, and nothing else: every environment is made here.
PYTHON ?= python3
SERVING := .venv
TESTING := .venv-test
CONTENDERS := .venv-contenders
RIVALS := .venv-rivals
GPU := .venv-gpu
# Asked for only where it is used: which Python it is.
VERSION = $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Of the tests of the service: short, or whole.
LENGTH ?= short
# Tests wait for processes, sockets and disks, and use a core at a time.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist worksteal
BENCHMARKS := tests/benchmarks
SOURCES := $(shell find model service training -type f -not -name '*.pyc')
# Only real problems of an installation are worth a line.
PIP_INSTALL := bin/python -m pip install -qq --disable-pip-version-check

.PHONY: help demo test image-test test-serving test-pythons serving-environment campaign campaign-train clean precisions cpu-figures gpu-figures

help:
	@echo "make demo   map the bundled sample with the bundled models; results in demo/"
	@echo "make test   check style, types and imports, and run the suite"
	@echo "make image-test   build the container image, run it and ask it, without a Docker daemon; as root, on Debian"
	@echo "make test-pythons   run the tests of the service on every other Python that the project claims; LENGTH=whole: all of them"
	@echo "make test-serving PYTHON=python3.13   the same on one"
	@echo "make campaign DATA=STACK.tif LABELS=MEMBRANES.tif   run kills, fuzzing and benchmarks at full length; results in docs/benchmarks"
	@echo "make campaign-train DATA=FOLDER   go on training the flagship's models, in the background of everything else"
	@echo "make gpu-figures, make cpu-figures   measure speed beside what the device can do; results in docs/gpu.md"
	@echo "make clean  remove the environments and what was built"

demo: $(SERVING)/installed
	$(SERVING)/bin/emboundary demo --output demo

test: $(TESTING)/installed
	$(TESTING)/bin/ruff check
	$(TESTING)/bin/ruff format --check
	$(TESTING)/bin/mypy
	$(TESTING)/bin/lint-imports
	$(TESTING)/bin/pytest -q $(SIDE_BY_SIDE)

# Needs root and Debian's packages; installs those that it misses, and says so.
image-test:
	$(PYTHON) tests/docker/try_image.py

# The tests of the service, in an environment without torch.
test-serving: serving-environment
	.venv-serving-$(VERSION)/bin/python -m pytest -q --serving=$(LENGTH)

serving-environment:
	@$(MAKE) --no-print-directory .venv-serving-$(VERSION)/installed PYTHON=$(PYTHON)

# EVERY=1: a version that is not found on this machine is a failure.
test-pythons:
	$(PYTHON) tests/pythons.py --length $(LENGTH) --except '$(VERSION)' $(if $(EVERY),--every)

# Hours, and most of a machine.  Without DATA only what needs no real sections; LABELS are the membranes of DATA.
campaign: $(TESTING)/installed $(if $(DATA),$(CONTENDERS)/installed $(RIVALS)/installed)
	$(TESTING)/bin/python $(BENCHMARKS)/campaign.py
	$(TESTING)/bin/python $(BENCHMARKS)/memory.py
	$(TESTING)/bin/python $(BENCHMARKS)/attacks.py
	$(TESTING)/bin/python $(BENCHMARKS)/serving_stops.py
	$(TESTING)/bin/python $(BENCHMARKS)/training_speed.py
	$(TESTING)/bin/python $(BENCHMARKS)/cpu_engine.py $(if $(DATA),--data $(DATA))
ifdef DATA
	$(TESTING)/bin/python $(BENCHMARKS)/load.py --data $(DATA)
	$(RIVALS)/bin/python $(BENCHMARKS)/serving.py --data $(DATA)
	$(TESTING)/bin/python $(BENCHMARKS)/pipeline.py --data $(DATA)
	$(TESTING)/bin/python $(BENCHMARKS)/copying.py --data $(DATA)
	$(TESTING)/bin/python $(BENCHMARKS)/codecs.py --data $(DATA)
	$(CONTENDERS)/bin/python $(BENCHMARKS)/contenders.py --data $(DATA)
endif
ifdef LABELS
	$(TESTING)/bin/python $(BENCHMARKS)/quantised.py --data $(DATA) --labels $(LABELS)
endif
	$(TESTING)/bin/python $(BENCHMARKS)/tables.py

# Days, at the lowest priority: the training of the flagship's models goes on from whatever state is in runs/flagship.
# SIGTERM or Ctrl-C stops it within 10 s; `emboundary-train campaign --status` says how far each is.
campaign-train: $(TESTING)/installed
	exec nice -n 19 $(TESTING)/bin/emboundary-train campaign --jobs 2 --data $(or $(DATA),../shared/data)

# What precisions cost in accuracy; DATA is the folder that the training configurations' paths are relative to.
precisions: $(TESTING)/installed
	$(TESTING)/bin/python $(BENCHMARKS)/precisions.py --data $(DATA)
	$(TESTING)/bin/python $(BENCHMARKS)/tables.py

# Speed beside what the device can do; results in docs/gpu and docs/gpu.md.
MEASURE := emboundary benchmark --rounds 5 --out docs/gpu --what session --what predict
SMALL := --model d4 --model plain --model paper
UNTRAINED := build/untrained
BASE := --model $(UNTRAINED)/d4-base --model $(UNTRAINED)/plain-base

cpu-figures: $(TESTING)/installed
	$(TESTING)/bin/$(MEASURE) --device cpu $(SMALL) --what service --precision float32 --precision int8 --name cpu
	$(TESTING)/bin/$(MEASURE) --device cpu --tta --rounds 3 --name cpu-8x
	$(TESTING)/bin/python $(BENCHMARKS)/gpu_page.py

# On a host with a GPU.  The larger networks have not been trained; random weights are as fast.
gpu-figures: $(GPU)/installed $(TESTING)/installed
	$(TESTING)/bin/python $(BENCHMARKS)/untrained.py $(UNTRAINED) d4-base plain-base
	$(GPU)/bin/$(MEASURE) --device cuda $(BASE) --precision float16 --tta --name gpu-base-float16
	$(GPU)/bin/$(MEASURE) --device cuda $(BASE) --precision float32 --name gpu-base-float32
	$(GPU)/bin/$(MEASURE) --device cuda $(SMALL) --tta --what service --name gpu-small
	$(TESTING)/bin/python $(BENCHMARKS)/gpu_page.py

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

# Most of what comes along is never imported: compiling it would take longer than the installation.
.venv-serving-%/installed: pyproject.toml constraints.txt tests/constraints.txt
	$(call make_environment,.venv-serving-$*)
	@echo "installing emboundary with what its service and the tests of that need into .venv-serving-$*..."
	@.venv-serving-$*/$(PIP_INSTALL) --no-compile -c tests/constraints.txt -e '.[cpu,serving-tests]'
	@touch $@

$(GPU)/installed: pyproject.toml constraints.txt $(SOURCES)
	$(call make_environment,$(GPU))
	@echo "installing emboundary with onnxruntime-gpu into $(GPU)..."
	@$(GPU)/$(PIP_INSTALL) -c constraints.txt '.[gpu]'
	@touch $@

# MONAI and nnU-Net want much that nothing else here needs.
$(CONTENDERS)/installed: pyproject.toml constraints.txt $(BENCHMARKS)/contenders.txt
	$(call make_environment,$(CONTENDERS))
	@echo "installing emboundary, MONAI and nnU-Net into $(CONTENDERS)..."
	@$(CONTENDERS)/$(PIP_INSTALL) torch==2.13.0
	@$(CONTENDERS)/$(PIP_INSTALL) -c constraints.txt -r $(BENCHMARKS)/contenders.txt -e '.[cpu]'
	@touch $@

# BentoML pins other versions of what the service uses than those that the service is tested with.
$(RIVALS)/installed: pyproject.toml $(BENCHMARKS)/rivals.txt
	$(call make_environment,$(RIVALS))
	@echo "installing emboundary, LitServe and BentoML into $(RIVALS)..."
	@$(RIVALS)/$(PIP_INSTALL) -r $(BENCHMARKS)/rivals.txt -e '.[cpu]'
	@touch $@

clean:
	rm -rf $(SERVING) $(GPU) $(TESTING) .venv-serving-* $(CONTENDERS) $(RIVALS) build emboundary.egg-info

define make_environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is missing or older than Python 3.11; name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $(1)
endef
