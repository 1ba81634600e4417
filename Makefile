# `make demo` and `make test` set up .venv from requirements.lock; a second call needs no network.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed-$(shell cksum requirements.lock | cut -d ' ' -f 1)

.PHONY: demo test lint format types lock image-lock image-check uv clean

# A first run on this machine: synthetic persons that no model has seen, then the proof that a person passes the injection point.
# The last line of the output is the path of the report.
demo: $(INSTALLED)
	@HARALD_ROOT=.demo HF_HUB_OFFLINE=1 $(BIN)/python -m harald demo_dataset --preset mini --states 4 --held-out
	@HARALD_ROOT=.demo HF_HUB_OFFLINE=1 $(BIN)/python -m harald injection_poc --preset mini

test: lint types
	root=$$(mktemp -d) && trap 'rm -rf "$$root"' EXIT && \
	HARALD_ROOT="$$root" HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(INSTALLED)
	$(BIN)/pyrefly check

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The versions that pip picks from the ranges of pyproject.toml. Builds for one machine (local version suffixes, NVIDIA's
# libraries) are left out, so that one file serves a laptop and a GPU machine.
lock:
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet --editable '.[dev]'
	build/lock/bin/pip check
	build/lock/bin/pip freeze --exclude-editable > build/lock.txt
	LC_ALL=C sort -f -o build/lock.txt build/lock.txt
	sed -E -e 's/\+[A-Za-z0-9.]+$$//' -e '/^(nvidia|cuda|triton)[-_=]/d' build/lock.txt > requirements.lock
	$(MAKE) image-lock

# Everything in the Modal image, with hashes, from the pins of harald/config.py.
image-lock: uv
	$(BIN)/python -c 'from harald.config import *; print(*map("==".join, {**PINS, **TEST_PINS}.items()), sep="\n")' | \
	$(BIN)/python -m uv pip compile - --quiet --generate-hashes --no-header --no-annotate --output-file harald/image.lock \
	    --python-version $$($(BIN)/python -c 'from harald.config import PYTHON; print(PYTHON)') --python-platform x86_64-manylinux_2_28

# Does the lock install on the image's Python? By hand only: it asks the package index.
image-check: uv
	$(BIN)/python -m tests.modal.check_image

uv: $(INSTALLED)
	$(BIN)/pip install --quiet uv==$$($(BIN)/python -c 'from harald.config import UV; print(UV)')

clean:
	rm -rf .demo build .pytest_cache .ruff_cache .import_linter_cache harald.egg-info
	find harald tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED):
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@
