# make demo    installs everything, trains both variants on synthetic data, writes runs/demo/report.html
# make test    installs everything, checks style and the import contract, runs the tests
# make docs    installs everything, builds the documentation site: build/site/index.html
# Settings: PYTHON=python3.12, FFCV=0 (without the engine ffcv), PYTEST_ARGS="-k boxes", PYTEST_WORKERS=1

PYTHON ?= python3
FFCV ?= 1
PYTEST_ARGS ?=
PYTEST_WORKERS ?= 2
BIN := .venv/bin

# Container images often set this. uv installs no bytecode, so each process would compile torch's sources again: 1.9 times
# the time of `import torch`.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check docs requirements clean

demo: .venv/.installed
	$(BIN)/python tools/train_fast.py

test: .venv/.installed check
	$(BIN)/python -m pytest --numprocesses $(PYTEST_WORKERS) --dist worksteal $(PYTEST_ARGS)

check: .venv/.installed
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --config setup.cfg --no-cache >.venv/imports.log || (cat .venv/imports.log; exit 1)

docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo build/site/index.html

.venv/.installed: tools/install.sh requirements.txt requirements-ffcv.txt requirements-uv.txt setup.cfg
	PYTHON=$(PYTHON) FFCV=$(FFCV) tools/install.sh

# Resolves the dependencies in setup.cfg again. The files contain versions and hashes, and no package index.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	--upgrade --custom-compile-command "make requirements"

requirements:
	$(COMPILE) setup.cfg --extra dali --extra dev --extra docs --extra onnx -o requirements.txt
	$(COMPILE) setup.cfg --extra ffcv -c requirements.txt -o requirements-ffcv.txt
	sed -n 's/ .*//; /^uv==/p' requirements-uv.txt | $(COMPILE) --no-annotate - -o requirements-uv.txt

clean:
	rm -rf .venv build *.egg-info
