# Everything a developer or a CI does: `make help` lists it. Nothing but Python 3.11 and make has to be there first.

PYTHON ?= $(shell command -v python3.11 || command -v python3 || echo python)
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
# --no-compile: Python compiles the modules that are used when it first imports them, a tenth of what is installed.
PIP_INSTALL := -m pip --disable-pip-version-check install --quiet --no-compile $(PIP_ARGS)
PIP := $(BIN)/python $(PIP_INSTALL)
LOCKS := node postgres oidc parquet gpu training dev
SPREAD := --dist loadscope --no-loadscope-reorder

export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev tools run demo check compiled test chaos format bench bench-hostile screens wheel lock licences sbom clean distclean

help:  ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-20s %s\n", $$1, $$2 }'
	@echo "PYTHON=python3.12 takes another Python, PIP_ARGS=... goes to every pip install."

setup: $(VENV)/.light  ## Make .venv with the node alone: no torch, about 0.5 GB

setup-dev: $(VENV)/.full  ## Add training, PostgreSQL and the developer's tools: torch, about 6 GB

run: $(VENV)/.light  ## Start the node on its defaults: port 11112, this machine only, data in var/
	$(BIN)/scp-node serve

demo: $(VENV)/.light  ## Send X-rays through a node to a PACS: IMAGES=folder for your own, KEEP=1 to look around, TLS=1
	$(BIN)/python -m scp_node.demo $(IMAGES) $(if $(KEEP),--keep) $(if $(TLS),--tls)

# mypy has one processor, so another prepares the tests meanwhile. Many tests wait for a clock or a process: two
# processors are busy with three at a time. Those that break things have bounds of time, so they come last, beside none of
# the others.
test: $(VENV)/.light  ## Run the gate and every test, those that take long first; those that break things come last
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target check tools compiled
	OMP_NUM_THREADS=1 $(BIN)/pytest --ignore tests/chaos --numprocesses 3 $(SPREAD)
	$(BIN)/pytest tests/chaos --numprocesses 3 $(SPREAD)

chaos: $(VENV)/.full tools  ## Break things at length, an hour or so: SEED=number repeats a run, TESTS="-k disk" chooses
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

bench: $(VENV)/.full  ## Measure throughput, latency and an idle node on this machine
	$(BIN)/python -m tests.bench
	$(BIN)/python -m tests.bench_node
	$(BIN)/python -m tests.bench_growth
	$(BIN)/python -m tests.bench_bombs
	$(BIN)/python -m tests.bench_ledger
	$(BIN)/python -m tests.bench_pages --studies 20000
	$(BIN)/python -m tests.bench_idle

bench-hostile: $(VENV)/.full tools  ## Attack this node, pynetdicom, Orthanc and DCMTK, and write docs/hostile.md: half an hour
	$(BIN)/python -m tests.bench_hostile

screens: $(VENV)/.full tools  ## Make the pictures of the web page in docs/ anew, from phantoms
	$(BIN)/python -m tests.screens

tools: $(VENV)/.light  ## Install the external programs that tests drive (Debian, as root; else tests skip)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh tests/install_tools.sh

wheel: $(VENV)/.full  ## Build dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

lock: $(VENV)/.full  ## Write requirements/ anew from pyproject.toml: UPGRADE=1 takes the newest versions
	sh requirements/lock.sh $(BIN)/uv $(if $(UPGRADE),--upgrade)

licences: $(VENV)/.full  ## Write docs/licences.md anew: the licence of everything that is installed
	$(BIN)/python -m tests.supply_chain.licences

sbom: OF := node
sbom: $(VENV)/.full  ## Write dist/scp-node.cdx.json, a bill of materials (CycloneDX): OF="node postgres" for more than the node
	rm -rf $(VENV)-sbom
	$(PYTHON) -m venv $(VENV)-sbom
	$(VENV)-sbom/bin/python $(PIP_INSTALL) --require-hashes $(OF:%=--requirement requirements/%.txt)
	$(BIN)/python -m tests.supply_chain.bill_of_materials $(VENV)-sbom/bin/python dist/scp-node.cdx.json
	rm -rf $(VENV)-sbom

clean:  ## Remove what was built and every cache; .venv and the data in var/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find scp_node model training tests -name __pycache__ -prune -exec rm -rf {} +

distclean: clean  ## Remove .venv too
	rm -rf $(VENV) $(VENV)-sbom

# pip compares each file with its hash in requirements/; only then, and without asking for more, comes the project itself.
$(VENV)/.light: pyproject.toml requirements/node.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=..." if sys.version_info < (3, 11) else 0)'
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --requirement requirements/node.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.full: $(VENV)/.light $(LOCKS:%=requirements/%.txt)
	$(PIP) --require-hashes $(LOCKS:%=--requirement requirements/%.txt)
	@touch $@
