# Everything a developer or a CI does: `make help` lists it. Nothing but Python 3.11 and make has to be there first.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# --no-compile: Python compiles the modules that are used when it first imports them, a tenth of what is installed.
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt $(PIP_ARGS)
EDITABLE := --no-build-isolation --editable
SPREAD := --dist loadscope --no-loadscope-reorder

export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev tools run demo check compiled test chaos format bench bench-hostile screens wheel constraints clean distclean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo "PYTHON=python3.12 takes another Python, PIP_ARGS=... goes to every pip install."

setup: $(VENV)/.light  ## Make .venv with the node alone: no torch, about 0.5 GB

setup-dev: $(VENV)/.full  ## Add training, PostgreSQL and the developer's tools: torch, about 6 GB

run: $(VENV)/.light  ## Start the node on its defaults: port 11112, this machine only, data in var/
	$(BIN)/scp-node serve

demo: $(VENV)/.light  ## Send X-rays through a node to a PACS: IMAGES=folder for your own, KEEP=1 to look around
	$(BIN)/python -m scp_node.demo $(IMAGES) $(if $(KEEP),--keep)

# mypy has one processor, so another prepares the tests meanwhile. Many tests wait for a clock or a process: two
# processors are busy with three at a time. Those that break things have bounds of time, so they come last, beside none of
# the others.
test: $(VENV)/.full  ## Run the gate and every test, those that take long first; those that break things come last
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target check tools compiled
	OMP_NUM_THREADS=1 $(BIN)/pytest --ignore tests/chaos --numprocesses 3 $(SPREAD)
	$(BIN)/pytest tests/chaos --numprocesses 3 $(SPREAD)

chaos: tools  ## Break things at length, an hour or so: SEED=number repeats a run, TESTS="-k disk" chooses
	CHAOS=long $(if $(SEED),CHAOS_SEED=$(SEED)) $(BIN)/pytest tests/chaos $(TESTS)

check: $(VENV)/.full  ## Run the gate without the tests: ruff, mypy --strict, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# As they are found, so that not each process of theirs does it. What cannot be found is told when they run.
compiled: $(VENV)/.full  ## Compile the tests and all that they import, once
	@$(BIN)/python -m pytest --collect-only --quiet --quiet >/dev/null 2>&1 || true

format: $(VENV)/.full  ## Format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.full  ## Measure throughput and latency on this machine
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench_pages --studies 20000

bench-hostile: tools  ## Attack this node, pynetdicom, Orthanc and DCMTK, and write docs/hostile.md: half an hour
	$(BIN)/python -m tests.bench_hostile

screens: tools  ## Make the pictures of the web page in docs/ anew, from phantoms
	$(BIN)/python -m tests.screens

tools: $(VENV)/.full  ## Install the external programs that tests drive (Debian, as root; else tests skip)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/install_tools.sh

wheel: $(VENV)/.full  ## Build dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

# The newest torch need not be one that every index has: it is chosen here, by hand.
constraints: TORCH := torch==2.14.1 torchvision==0.29.1
constraints:  ## Write constraints.txt anew, with the newest versions that pyproject.toml allows
	rm -rf $(VENV)-constraints
	$(PYTHON) -m venv $(VENV)-constraints
	$(VENV)-constraints/bin/pip install --quiet --upgrade $(PIP_ARGS) setuptools
	$(VENV)-constraints/bin/pip install --quiet $(PIP_ARGS) --no-build-isolation '.[dev,gpu,training,postgres,oidc,parquet]' $(TORCH)
	sed -n '/^#/p' constraints.txt > constraints.new
	$(VENV)-constraints/bin/pip freeze --all --exclude pip --exclude scp-node >> constraints.new
	mv constraints.new constraints.txt
	rm -rf $(VENV)-constraints

clean:  ## Remove what was built and every cache; .venv and the data in var/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find scp_node model training tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## Remove .venv too
	rm -rf $(VENV) $(VENV)-constraints

# setuptools first and no build isolation: the build takes the version of constraints.txt too.
$(VENV)/.light: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) $(EDITABLE) .
	@touch $@

$(VENV)/.full: $(VENV)/.light
	$(PIP) $(EDITABLE) '.[dev,training,postgres,oidc,parquet]'
	@touch $@
