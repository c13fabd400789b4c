# `make demo` and `make test` are all a newcomer needs; both make the environment themselves.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete
# Test processes at once; whatever pytest-xdist takes for -n.
JOBS ?= 2
PYTEST_ARGS ?=
# Given: used as it is. Not given: the newest of these that is 3.11 or later and able to make environments.
PYTHON ?=
PYTHONS := python3.13 python3.12 python3.11 python3

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

.PHONY: help
help:
	@echo "make demo    the daemon against the paper broker, live on the terminal"
	@echo "make test    the whole test suite"
	@echo "make sim     simulated brackets under drawn faults: make sim SEEDS=1..1000"
	@echo "make sim-slice  what CI runs of them: fixed and fresh seeds, three minutes"
	@echo "make sim-long   200,000 of them; make sim-million: a million"
	@echo "make naive      the loop people write by hand, under the same faults, beside otocod"
	@echo "make journals   record anew the journals that CI decides again"
	@echo "make crashpoints  a crash at every call of every scenario, then pairs of them"
	@echo "make kills      20,000 real SIGKILLs of the daemon"
	@echo "make powerloss  10,000 disk images of power losses"
	@echo "make fuzz       a million hostile requests, a million frames, and all other input"
	@echo "make planted    bugs put into the daemon on purpose: each has to be caught by the simulation"
	@echo "make mutation   mutants of the core against its tests; survivors are listed"
	@echo "make bench   from fill to wire and the rest, beside their floors; ten minutes"
	@echo "make systemd-proof  docs/operate.md typed into a fresh Debian 12 under systemd; as root"
	@echo "make lint    format, lint, types, import contracts"
	@echo "make format  rewrite the sources as make lint wants them"
	@echo "make lock    pin dependencies anew"
	@echo "make build   the wheel, into dist/"
	@echo "make clean   remove everything that was made"

.PHONY: venv
venv: $(STAMP)

# The stamp is written last, so an interrupted installation is begun again.
$(STAMP): requirements-dev.lock pyproject.toml
	@chosen=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",$(PYTHONS)); do \
	    if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	        chosen=$$candidate; break; \
	    fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	    echo "otocod needs Python 3.11 or later with the venv module; tried: $(or $(PYTHON),$(PYTHONS))." >&2; \
	    echo "On Debian and Ubuntu: apt install python3 python3-venv. Or name one: make PYTHON=/path/to/python3.11" >&2; \
	    exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$chosen" -V)"; \
	"$$chosen" -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --no-index --no-deps --no-build-isolation --editable .
	@touch $@

.PHONY: demo
demo: $(STAMP)
	@$(BIN)/otocod demo

.PHONY: test
test: $(STAMP)
	@$(BIN)/python -m pytest -n $(JOBS) $(PYTEST_ARGS)

SEEDS ?= 1..1000

.PHONY: sim
sim: $(STAMP)
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS)

# Some 200,000 brackets.
LONG_SEEDS ?= 1000000..1059999

.PHONY: sim-long
sim-long: $(STAMP)
	@$(BIN)/python -m tests.simulation --seeds $(LONG_SEEDS)

MILLION_SEEDS ?= 2000000..2299999

.PHONY: sim-million
sim-million: $(STAMP)
	@$(BIN)/python -m tests.simulation --seeds $(MILLION_SEEDS)

.PHONY: sim-slice
sim-slice: $(STAMP)
	@$(BIN)/python -m tests.simulation --slice

NAIVE_SEEDS ?= 1..6000

.PHONY: naive
naive: $(STAMP)
	@$(BIN)/python -m tests.simulation --naive --seeds $(NAIVE_SEEDS)

# The campaigns. Each ends with a line of figures, and with status 1 if anything was violated.
CAMPAIGN_ARGS ?=

# After a decision has changed on purpose: the commit says why.
.PHONY: journals
journals: $(STAMP)
	@$(BIN)/python -W ignore -m tests.journals --choose 1..260

.PHONY: crashpoints
crashpoints: $(STAMP)
	@$(BIN)/python -m tests.crashpoints --pairs $(CAMPAIGN_ARGS)

KILLS ?= 20000

.PHONY: kills
kills: $(STAMP)
	@$(BIN)/python -m tests.kills --kills $(KILLS) $(CAMPAIGN_ARGS)

IMAGES ?= 10000

.PHONY: powerloss
powerloss: $(STAMP)
	@$(BIN)/python -m tests.powerloss --images $(IMAGES) $(CAMPAIGN_ARGS)

CASES ?= 1000000
# Of the slower targets: files, processes and terminals are made for each case.
FEW_CASES ?= 20000

.PHONY: fuzz
fuzz: $(STAMP)
	@status=0; \
	for target in rows frames; do $(BIN)/python -m tests.fuzz $$target --cases $(CASES) --jobs $(JOBS) || status=1; done; \
	for target in rest dxlink config files terminal; do \
	    $(BIN)/python -m tests.fuzz $$target --cases $(FEW_CASES) --jobs $(JOBS) || status=1; \
	done; exit $$status

.PHONY: planted
planted: $(STAMP)
	@$(BIN)/python -m tests.planted $(CAMPAIGN_ARGS)

MUTANTS ?= 600

.PHONY: mutation
mutation: $(STAMP)
	@$(BIN)/python -m tests.planted.mutation --sample $(MUTANTS) $(CAMPAIGN_ARGS)

BENCH_ARGS ?=

PROOF_ARGS ?=

.PHONY: systemd-proof
systemd-proof: $(STAMP)
	@$(BIN)/python -m tests.systemd_proof $(PROOF_ARGS)

.PHONY: bench
bench: $(STAMP)
	@$(BIN)/python -m tests.bench --json bench.json --plot $(BENCH_ARGS)

.PHONY: lint
lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(STAMP)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# Resolved on 3.11, the one that needs the most back-ports, so that the result serves the later ones too. The files carry
# no addresses: where packages come from is the installing machine's business.
COMPILE = $(BIN)/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --no-header --no-emit-options \
    --annotation-style=line

.PHONY: lock
lock: $(STAMP)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	    { echo "make lock needs Python 3.11: make clean, then make lock PYTHON=python3.11" >&2; exit 1; }
	$(COMPILE) --upgrade --output-file=requirements.lock pyproject.toml
	$(COMPILE) --upgrade --extra=dev --constraint=requirements.lock --output-file=requirements-dev.lock pyproject.toml

.PHONY: build
build: $(STAMP)
	$(BIN)/python -m build --wheel --no-isolation

.PHONY: clean
clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench.json
	find otocod tests migrations -name __pycache__ -type d -prune -exec rm -rf {} +
