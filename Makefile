# `make up` is all that a fresh machine needs: environment, proxy, notebook image, start.
#   make up ARGS="--no-hub --state /srv/perijove"     see `perijove up --help`
# Variables: VENV (.venv), PYTHON (found), ARGS.

VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin
SHARE := $(VENV)/share
LAB_SETTINGS := $(SHARE)/jupyter/lab/settings
FILES := hub_ext/perijove_hub/image/files

.PHONY: up install image test test-fast lint format docs lock clean
.DEFAULT_GOAL := up

up: install image
	@exec $(BIN)/perijove up $(ARGS)

install: $(VENV)/.installed $(VENV)/.proxy

# Without a Docker Engine there is nothing to build, and jobs are plain processes.
image: $(VENV)/.installed
	@$(BIN)/python -m perijove_hub.image --if-engine

# A Python that other accounts may run, since jobs run as their users: root's own one may not be.
$(VENV)/bin/python:
	@set -eu; usable() { \
	    "$$1" -c 'import os, sys, pathlib; p = pathlib.Path(sys.executable).resolve(); sys.exit(sys.version_info < (3, 11) or os.geteuid() == 0 and not all(d.stat().st_mode & 1 for d in p.parents))' 2>/dev/null; }; \
	python="$(PYTHON)"; \
	for candidate in $$python $$(command -v python3 || true) /usr/bin/python3 /usr/local/bin/python3 \
	    $$(command -v python3.14 python3.13 python3.12 python3.11 || true); do \
	  if usable "$$candidate"; then python=$$candidate; break; fi; \
	done; \
	[ -n "$$python" ] || { echo "make: no Python 3.11 or later that every account may run; give one: make PYTHON=/path/to/python3" >&2; exit 1; }; \
	if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "make: installing python3-venv"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	  else \
	    echo "make: $$python cannot make environments; run: sudo apt-get install python3-venv" >&2; exit 1; \
	  fi; \
	fi; \
	echo "make: environment in $(VENV) with $$python"; \
	"$$python" -m venv "$(VENV)"

# uv first, by pip and with its hash; then everything else by uv, which takes seconds where pip takes minutes.
$(VENV)/.uv: requirements-dev.lock | $(VENV)/bin/python
	@awk '/^uv==/ { wanted = 1 } wanted { print } wanted && !/\\$$/ { exit }' requirements-dev.lock > $(VENV)/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.txt
	@touch $@

$(VENV)/.installed: requirements.lock pyproject.toml $(wildcard binder/*.ipynb) $(wildcard $(FILES)/*) $(VENV)/.uv
	@echo "make: installing"
	@# Compiled now: the accounts of jobs may not write here, and would compile at each start.
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --no-deps --build-constraints requirements-dev.lock --editable .
	@mkdir -p $(LAB_SETTINGS) $(SHARE)/perijove/tour $(VENV)/etc/jupyter
	@cp $(FILES)/overrides.json $(LAB_SETTINGS)/
	@cp $(FILES)/jupyter_server_config.py $(VENV)/etc/jupyter/
	@for notebook in $(wildcard binder/*.ipynb); do cp "$$notebook" $(SHARE)/perijove/tour/; done
	@touch $@

$(VENV)/.proxy: hub_ext/perijove_hub/proxy.py $(VENV)/.installed
	@$(BIN)/python -m perijove_hub.proxy
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.proxy
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements-dev.lock
	@touch $@

# A lane for each core, since tests mostly wait; a file's tests stay in one lane and in order.
LANES = -n logical --maxprocesses $(1) --dist loadfile --no-loadscope-reorder
# Failed tests (pytest's exit code 1) are run once more, alone, and both runs are in the log: one that passes
# then failed under load, and is to be mended too. Anything else that went wrong stays wrong.
unstable = { [ $(1) = 1 ] && echo "make test: what failed is run once more, alone" && \
    $(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }
test: $(VENV)/.dev
	tests/setup
	$(BIN)/python -m pytest $(call LANES,4) $(ARGS) || $(call unstable,$$?)

test-fast: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not engine and not journey and not slow" $(call LANES,8) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.dev
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

# Both lists hold names, versions and hashes only; the registry is the installer's own.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-header --no-annotate --all-extras
lock: $(VENV)/.uv
	$(COMPILE) pyproject.toml -o requirements.lock
	$(COMPILE) --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock

clean:
	rm -rf build dist docs/_build .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find hub_ext kernel_ext spawners tests -name __pycache__ -type d -prune -exec rm -rf {} +
