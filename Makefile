# `make train` and `make test` set up .venv by themselves. Options:
#   PYTHON=python3.12        interpreter (3.11 or newer) for .venv
#   TORCH_INDEX=URL          additional package index for torch, such as PyTorch's own with its small CPU builds
#   ARGS="..."               further arguments of llmsched train, reproduce, measured, benchmark, and of pytest
#   RUN=NAME.requests.jsonl  the measured run that `make measured` simulates

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
READY := $(VENV)/.ready

.PHONY: train test check coverage slow profiles-test reproduce measured benchmark bench clean

test: $(READY)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal $(ARGS)

train: $(READY)
	$(VENV)/bin/python train.py $(ARGS)

slow: $(READY)
	$(VENV)/bin/python -m pytest -m slow -n auto --dist worksteal $(ARGS)

# What the optional extra [profiles] makes, with the real package: 130 MB, in a folder of its own.
profiles-test: $(READY)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps \
		--target $(VENV)/profiles --upgrade aiconfigurator-core pyarrow
	PYTHONPATH=$(VENV)/profiles $(VENV)/bin/python -m pytest tests/machine/test_aiconfigurator.py $(ARGS)

reproduce: $(READY)
	$(VENV)/bin/llmsched reproduce $(ARGS)

measured: $(READY)
	$(VENV)/bin/llmsched measured $(RUN) $(ARGS)

benchmark: $(READY)
	$(VENV)/bin/llmsched benchmark $(ARGS)

bench: $(READY)
	for script in benchmarks/*.py; do $(VENV)/bin/python $$script || exit 1; done

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/lint-imports
	$(VENV)/bin/mypy

coverage:
	$(MAKE) test ARGS="--cov --cov-report=term $(ARGS)"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, see PYTHON in the Makefile")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --editable '.[train,pandas,dev]'
	touch $@
