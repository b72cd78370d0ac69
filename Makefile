# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LATEST := .venv-latest
ARTIFACTS := artifacts
LOCK := $(addprefix requirements/,build.txt workshop.txt torch.txt)
PYTEST := -m pytest -n 2 --dist loadfile

# A clip, what to do with it, and what is in it.
define ask
	@echo
	@echo '$$ alm-run --engine $(ARTIFACTS) demo/$(1) $(2)    # $(3)'
	@$(BIN)/alm-run --engine $(ARTIFACTS) demo/$(1) $(2)
endef

# An empty environment; the argument is its folder.
define venv
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo 'alm-edge wants Python 3.10 to 3.13: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv $(2) $(1)
endef

.PHONY: demo test test-long test-latest env lock lint wheel dist docker-check clean

demo: env  ## environment, export of the demo model, a transcription printed
	$(BIN)/python export.py --out $(ARTIFACTS) --dynamic-batch
	$(call ask,lamp.wav,transcribe,turn on the lamp in the kitchen)
	$(call ask,digits.wav,transcribe,four two eight eight one)
	$(call ask,siren.wav,describe,a two-tone siren)

test: env  ## the whole suite, on what the lock names
	$(BIN)/python $(PYTEST)

test-long: env  ## the same with all products of models and dialects, and more kills
	ALM_LONG_TESTS=1 $(BIN)/python $(PYTEST)

# The newest that pyproject.toml allows, resolved anew each time. torch stays at its pin: a newer one
# traces other graphs than those that are proved and measured here.
test-latest:  ## the whole suite, on the newest of everything
	$(call venv,$(LATEST),--clear)
	$(LATEST)/bin/python -m pip install --quiet --upgrade pip
	$(LATEST)/bin/python -m pip install --quiet --editable '.[export,ort,openvino,serve,av,grammar,ray,hub,sign]' --group dev
	$(LATEST)/bin/python $(PYTEST)

lint: env  ## what continuous integration checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

wheel: env  ## dist/alm_edge-*.whl, the device package alone
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel -d dist

dist: env  ## dist/alm_edge-*.tar.gz and *.whl, what a release uploads
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

docker-check: env  ## what docker/*.txt name is on the package index, for each image's machine
	$(BIN)/python docker/lock.py --check

lock: env  ## requirements/*.txt from pyproject.toml; UPGRADE=--upgrade takes the newest
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python requirements/lock.py $(UPGRADE)

env: $(VENV)/.ready

# Versions and hashes are the lock's; nothing is resolved here but the build of torch.
$(VENV)/.ready: pyproject.toml $(LOCK) requirements/install_torch.py
	$(call venv,$(VENV))
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --no-build-isolation \
		-r requirements/workshop.txt
	$(BIN)/python requirements/install_torch.py
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(BIN)/python -m pip check
	touch $@

clean:
	rm -rf $(VENV) $(LATEST) $(ARTIFACTS) dist demo/random .pytest_cache .ruff_cache \
		web/node_modules web/vendor
