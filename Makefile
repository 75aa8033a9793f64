# On a fresh Debian 12 as root: `make demo` and `make test` install what is missing, build and run.
#
#   PYTHON=…                 the Python (>= 3.11) for the virtual environment; default python3
#   LAYER_LAB=…   where images and the second Debian are kept; default /var/tmp/registry-storage-lab

PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMPS := .stamps
KERNEL_SOURCES := setup.py $(wildcard _ext/*.pyx _ext/*.pxd _ext/*.pxi _ext/*.h)

.PHONY: sanitize help install build lint types unit lab interop test bench hellobench serve-bench demo wheels pages docs clean

help:
	@echo 'make test     install what is missing, build, lint, check types, run every test (root; first time: minutes)'
	echo 'make demo     one command by full pull and through registry-storage over a slow link (root)'
	echo '              IMAGE=host/name:tag uses an existing image, COMMAND="…" runs another command in it'
	echo
	echo 'make bench    the kernels beside json, zlib and zstandard'
	echo 'make hellobench   cold starts of six images, by full pull and lazily, over three links (root; an hour)'
	echo '              OPTIONS="--images redis --links 100m --samples 1" takes half a minute, once the images are made'
	echo 'make serve-bench  reading what is here, beside ext4 and a file system in C (root); OPTIONS=--quick takes a minute'
	echo 'make build    the virtual environment $(VENV) and the compiled modules in it'
	echo 'make lint     ruff'
	echo 'make types    mypy'
	echo 'make unit     the tests that need neither root nor other programs'
	echo 'make sanitize the same with kernels that watch their own memory; OPTIONS="tests/fuzz -k lane" runs a part'
	echo 'make lab      the images and the second Debian that the interop tests need'
	echo 'make interop  the tests with real podmans, registries and other tools'\'' images (root)'
	echo 'make wheels   wheels with their libraries inside, tried in a clean Debian (root)'
	echo 'make pages    what is made from the program itself: manual pages, completion, tables'
	echo 'make clean    removes what was built here; the laboratory stays'

# Debian packages: looked at each time (it takes no time), installed when missing.
install:
	@if ! command -v $(PYTHON) >/dev/null; then
	  if [ "$$(id -u)" != 0 ]; then echo '$(PYTHON) is missing: become root, or apt-get install python3' >&2; exit 1; fi
	  apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends python3
	fi
	$(PYTHON) -m lab.install

$(STAMPS)/venv: pyproject.toml setup.py | install
	@echo 'building $(VENV)'
	mkdir -p $(STAMPS)
	rm -f $@
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --editable '.[test]' 'setuptools>=77' 'cython>=3.1'
	touch $@

$(STAMPS)/kernels: $(STAMPS)/venv $(KERNEL_SOURCES)
	@echo 'compiling'
	$(BIN)/python setup.py -q build_ext --inplace
	touch $@

# Compiled as pip compiles what it installs: otherwise each start of a worker compiles everything, where the
# environment forbids to write it down (PYTHONDONTWRITEBYTECODE).
build: install $(STAMPS)/kernels
	@$(BIN)/python -m compileall -q src

lint: build
	$(BIN)/ruff check .

types: build
	$(BIN)/mypy

unit: build
	$(BIN)/pytest -q --ignore tests/interop --ignore tests/mount

sanitize: build
	@$(BIN)/python -m lab.sanitize $(OPTIONS)

lab: build
	@if [ "$$(id -u)" != 0 ]; then echo 'The laboratory is made by root.' >&2; exit 1; fi
	echo 'laboratory (made once):'
	$(BIN)/python -m lab.make

interop: lab
	$(BIN)/pytest -v tests/interop

test: lint types lab
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 15

bench: build
	@$(BIN)/python -m benchmarks.toc
	echo
	$(BIN)/python -m benchmarks.decode
	echo
	$(BIN)/python -m benchmarks.lane

hellobench: build
	@$(BIN)/python -m benchmarks.hellobench $(OPTIONS)

serve-bench: build
	@$(PYTHON) -m lab.install benchmarks/packages.txt
	$(BIN)/python -m benchmarks.serve $(OPTIONS)

demo: build
	@$(BIN)/python -m benchmarks.demo $(if $(IMAGE),--image '$(IMAGE)') $(if $(COMMAND),--command '$(COMMAND)')

wheels: lab
	@$(BIN)/python -m lab.wheels

pages: build
	@$(BIN)/python -m lab.pages

docs: build
	@$(BIN)/mkdocs build -q --site-dir build/site
	echo build/site/index.html

clean:
	rm -rf $(VENV) $(STAMPS) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src _ext tests lab benchmarks \( -name '*.so' -o -name '*.egg-info' -o -name __pycache__ \) -prune -exec rm -rf {} +
	rm -f _ext/*.c _ext/*.cpp
