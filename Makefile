# Two commands do everything on a fresh machine: `make demo` and `make test`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARTIFACTS := artifacts

# A clip, what to do with it, and what is in it.
define ask
	@echo
	@echo '$$ alm-run --engine $(ARTIFACTS) demo/$(1) $(2)    # $(3)'
	@$(BIN)/alm-run --engine $(ARTIFACTS) demo/$(1) $(2)
endef

.PHONY: demo test env lint wheel clean

demo: env  ## environment, export of the demo model, a transcription printed
	$(BIN)/python export.py --out $(ARTIFACTS) --dynamic-batch
	$(call ask,lamp.wav,transcribe,turn on the lamp in the kitchen)
	$(call ask,digits.wav,transcribe,four two eight eight one)
	$(call ask,siren.wav,describe,a two-tone siren)

test: env  ## the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: env  ## what continuous integration checks besides the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

wheel: env  ## dist/alm_edge-*.whl, the device package alone
	rm -rf dist
	$(BIN)/python -m hatchling build -t wheel -d dist

env: $(VENV)/.ready

# torch is pinned; on Linux the index serves it with CUDA unless pip finds a CPU build first.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo 'alm-edge wants Python 3.10 to 3.13: make PYTHON=python3.12 ...'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[export,ort]' --group dev
	touch $@

clean:
	rm -rf $(VENV) $(ARTIFACTS) dist demo/random .pytest_cache .ruff_cache
