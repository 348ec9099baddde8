# One command each; `make help` lists them. Needs Python 3.11, gcc, git and make; everything else goes into .venv.
# Paths are relative: make takes a blank in the folder's name for the end of a target.
VENV     := .venv
PY       := $(VENV)/bin/python
UV       := $(VENV)/bin/uv
PYTHON   ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
PARAMS   ?= params.yaml
MINUTES  ?= 30
WORKERS  ?= 2

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Equal thread counts give equal sums, so equal bits.
export OMP_NUM_THREADS ?= 2
# glibc: keep freed blocks instead of asking the kernel for them at every training step.
export MALLOC_MMAP_THRESHOLD_ ?= 1073741824
export MALLOC_TRIM_THRESHOLD_ ?= 1073741824
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Trust the certificates of the system, where a company's proxy has its own.
export UV_SYSTEM_CERTS ?= true
# LPIPS trunks, where they lie beside the repository; elsewhere torchvision downloads them.
ifneq ($(wildcard ../shared/weights),)
export SATJEPA_TRUNKS ?= $(CURDIR)/../shared/weights
endif

.DEFAULT_GOAL := help
.PHONY: help setup repro table verify test smoke stac lab lint lock clean has-setup has-repro has-verify

help:  ## list the commands
	@awk -F ':.*## *' '/^[a-z]+:.*## /{printf "make %-8s%s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What is missing on this machine, before anything is begun.
has-setup has-repro has-verify: has-%:
	@test -n "$(PYTHON)" || { echo "preflight: no python3 in PATH: install Python 3.11" >&2; exit 1; }
	@"$(PYTHON)" scripts/preflight.py $*

setup: $(VENV)/.ok  ## make .venv from the lock; does nothing where it is current

$(VENV)/.ok: requirements.txt pyproject.toml
	@$(MAKE) --no-print-directory has-setup
	@echo "making $(VENV)"
	@"$(PYTHON)" scripts/install.py
	@touch $@

repro: has-repro setup  ## run the whole pipeline (PARAMS=params.table.yaml: with other parameters, in .work/)
ifeq ($(PARAMS),params.yaml)
	@$(PY) -m satjepa.pipeline.repro
else
	$(PY) -m satjepa.pipeline.experiment "$(PARAMS)"
endif

table: has-repro setup  ## the experiment of README's table, for MINUTES (30), again and again until it is done; SEEDS=1 for one seed
	$(PY) -m satjepa.pipeline.experiment params.table.yaml --minutes $(MINUTES) --workers $(WORKERS) $(if $(SEEDS),--seeds $(SEEDS))

verify: has-verify repro  ## repro, then ask whether every result has the bytes that dvc.lock promises
	git diff --exit-code -- dvc.lock

# WORKERS files of tests at a time, each on a core of its own.
test smoke: export OMP_NUM_THREADS := 1
test: setup  ## the tests, a few minutes
	$(PY) -m pytest -n $(WORKERS) --dist loadfile

smoke: setup  ## the whole pipeline at smoke size in a scratch clone
	$(PY) -m pytest tests/pipeline -m pipeline -n $(WORKERS) --dist loadfile

stac: setup  ## images of a box from a real STAC API here; needs PostgreSQL, PostGIS, SATJEPA_PGSTAC (tests/region/pgstac.py)
	$(PY) -m pytest tests/region -m pipeline

# Jupyter refuses root unless told; in a container one is root. The kernels of .venv come first,
# whatever JUPYTER_PATH holds.
lab: export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter:$(JUPYTER_PATH)
lab: setup  ## Jupyter Lab on the notebooks, in the same environment
	$(PY) -m jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks

lint: setup  ## ruff
	$(PY) -m ruff check
	$(PY) -m ruff format --check

lock: setup  ## resolve requirements.in into requirements.txt
	$(UV) pip compile -q requirements.in --universal --python-version 3.11 --no-header --no-annotate -o requirements.txt

clean:  ## remove what the pipeline made, but not DVC's cache nor .venv
	rm -rf artifacts runs data .work .pytest_cache .ruff_cache reports/notebooks reports/figures
