# make demo: install and train. make test: install and test. Both make .venv and need only Python >= 3.11, make and git.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check

# Else every process that the tests start compiles the suite anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-slow test-clusters test-rest test-timm nightly lint docs hashes sbom clean

help:           ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

demo: .venv/run ## install, train ResNeXt and DenseNet on the bundled digits, show the table and the page
	$(BIN)/python run.py -m model=resnext,densenet

test: .venv/test ## install and run the tests (5 to 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n 3 $(ORDER)

test-slow: .venv/checks ## the slow tests and those in a real browser
	$(BIN)/python -m pytest -n 3 $(ORDER) -m '$(SLOW)' -rs

test-clusters: .venv/checks ## a real Slurm, a real Ray, two machines on one cable; needs root and Debian's Slurm
	$(BIN)/python -m pytest -n 2 $(ORDER) -m '$(CLUSTERS)' -rs

test-rest: .venv/checks ## test-slow and test-clusters at once: a cluster is mostly waited for
	$(BIN)/python -m pytest -n 3 $(ORDER) -m '$(SLOW) or $(CLUSTERS)' -rs --durations=20

test-timm: .venv/timm/installed ## networks of timm and torchvision, examples of docs/reference, in an environment of their own
	.venv/timm/bin/python -m pytest -n 2 $(ORDER) -m timm -rs

nightly: .venv/test ## 100 runs killed at random moments, each compared with one that nothing happened to (hours)
	$(BIN)/python tests/support/kill_trials.py --count 100 --seed $$(date +%j)

lint: .venv/lint ## ruff and mypy
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: .venv/docs ## the documentation, in site/index.html; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

hashes: .venv/hashes ## write constraints-hashes.txt, what make demo and make test install, with SHA-256, for all platforms
	$(BIN)/uv pip compile --quiet --no-config --universal --generate-hashes --python-version 3.11 --extra test \
	  --no-header --no-annotate --constraint constraints.txt --output-file constraints-hashes.txt pyproject.toml

sbom: .venv/run ## write sbom.json: what is installed in .venv, with versions and licences (CycloneDX)
	@test -x .venv/sbom/bin/cyclonedx-py || { $(PYTHON) -m venv .venv/sbom && .venv/sbom/bin/pip install --quiet --disable-pip-version-check cyclonedx-bom==7.5.0; }
	.venv/sbom/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml --output-file sbom.json $(BIN)/python

clean:          ## remove .venv (results in outputs/ stay)
	rm -rf .venv

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python >= 3.11 is needed, $(PYTHON) is older: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# The tests' packages at once with the others: pip would resolve all of them twice.
.venv/test: EXTRA := [test]
.venv/run .venv/test: .venv/python pyproject.toml constraints.txt
	@echo "installing $$(grep -c == constraints.txt) packages at most into .venv; pip names each with its size"
	@$(PIP) --constraint constraints.txt --editable '.$(EXTRA)'
	@touch .venv/run $@

.venv/lint .venv/docs .venv/hashes: .venv/run
	@$(PIP) --constraint constraints.txt --editable '.[$(notdir $@)]'
	@touch $@

.venv/checks: .venv/run
	@$(PIP) --constraint constraints.txt --editable '.[test,browser,docs,lint,tiff,tensorboard,mlflow,ray]'
	@$(PIP) --constraint constraints.txt --no-deps $(ASK_FOR_OLDER)
	@touch $@ .venv/lint .venv/docs

# Sees the packages of .venv. Not in it: torchmetrics imports torchvision and matplotlib wherever it finds them, at 1 s of each start.
.venv/timm/installed: .venv/test tests/support/timm_environment.py
	@$(BIN)/python -m venv .venv/timm
	@.venv/timm/bin/python tests/support/timm_environment.py $(BIN)/python
	@.venv/timm/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt timm torchvision matplotlib pandas
	@touch $@

SLOW := slow or browser
CLUSTERS := slurm or netns or ray
# Trackio and what it needs beside MLflow's: it asks for an older Pillow than the tests have.
ASK_FOR_OLDER := trackio gradio_client brotli orjson python-multipart
# In several processes, the long modules first: tests/conftest.py.
ORDER := --dist loadfile --no-loadscope-reorder
