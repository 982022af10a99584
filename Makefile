# The only list of checks. CI calls these targets; so do you.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PURE_VENV ?= .venv-pure
STAMP := $(VENV)/.stamp
PURE_STAMP := $(PURE_VENV)/.stamp
SOURCES := pyproject.toml Cargo.toml Cargo.lock $(shell find build_backend rust -name target -prune -o -type f -print 2>/dev/null)
OTHER_PYTHONS := $(shell $(PYTHON) tests/interpreters.py 2>/dev/null)
export CARGO_NET_RETRY ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup lint types test test-pure test-pythons faults steady soak demo docs bench wheels fuzz simulate compat check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything (Rust engine too, where cargo is)

$(STAMP): $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	rm -f python/noetl_worker/_core*.so
	$(BIN)/python -m pip install -q -e '.[local,duckdb,postgres]' --group dev
	@touch $@

$(PURE_STAMP): $(SOURCES)
	$(PYTHON) -m venv $(PURE_VENV)
	$(PURE_VENV)/bin/python -m pip install -q --upgrade pip
	NOETL_WORKER_BUILD=pure $(PURE_VENV)/bin/python -m pip install -q '.[local]' --group test
	$(PURE_VENV)/bin/python -m pip uninstall -q -y orjson uvloop pyreqwest httptools
	@touch $@

lint: $(STAMP) ## ruff, and rustfmt + clippy where cargo is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v cargo >/dev/null; then cargo fmt --check && cargo clippy -q --workspace --all-targets --all-features -- -D warnings; \
	else echo "no cargo: the Rust half is not linted"; fi

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

test: $(STAMP) ## the whole suite: both engines where cargo is, then the other Pythons' unit tests
	$(BIN)/pytest
	@if command -v cargo >/dev/null; then cargo test -q --workspace; fi
	$(MAKE) --no-print-directory test-pythons

# Not the faults and the simulator: they are about delivery, which has no second form, and take six minutes.
test-pure: $(PURE_STAMP) ## the suite but for faults, on a pure install without orjson, uvloop, pyreqwest
	NOETL_WORKER_BUILD=pure $(PURE_VENV)/bin/python -m pip install -q --no-deps --force-reinstall .
	NOETL_WORKER_ENGINE=python $(PURE_VENV)/bin/pytest --ignore=tests/faults --ignore=tests/simulate

test-pythons: $(STAMP) ## unit tests on the other interpreters of this machine (3.10, 3.12, 3.13)
	@set -e; for python in $(OTHER_PYTHONS); do \
	  venv=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  if [ ! -e $$venv/.stamp ] || [ pyproject.toml -nt $$venv/.stamp ]; then \
	    $$python -m venv $$venv && $$venv/bin/python -m pip install -q --upgrade pip \
	    && NOETL_WORKER_BUILD=pure $$venv/bin/python -m pip install -q '.[local]' --group test && touch $$venv/.stamp; fi; \
	  echo "== $$python"; PYTHONPATH=python NOETL_WORKER_ENGINE=python $$venv/bin/python -m pytest -q tests/unit tests/engine; \
	done

# faults and soak write docs/reliability.md, when nothing fails.
faults: $(STAMP) ## the fault suite alone, and a minute of steady load
	NOETL_WORKER_FAULTS_WRITE=1 $(BIN)/pytest tests/faults -m 'not soak' --ignore=tests/faults/test_figures.py
	$(BIN)/pytest tests/faults/test_figures.py

steady: $(STAMP) ## 10,000 commands, then a minute of steady load: memory, descriptors, tasks, backlog
	$(BIN)/pytest tests/faults -m steady

soak: $(STAMP) ## the long forms: 10,000 commands under kills, 100,000 commands, real waits (an hour)
	NOETL_WORKER_FAULTS_WRITE=1 $(BIN)/pytest tests/faults -m soak

# The demo needs no compiler: without a .venv it takes a light one of its own, in seconds.
DEMO_VENV := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)

.venv-demo/.stamp: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	NOETL_WORKER_BUILD=pure .venv-demo/bin/python -m pip install -q --disable-pip-version-check -e '.[local]'
	@touch $@

demo: $(DEMO_VENV)/.stamp ## run examples/demo.yaml with nothing else running
	$(if $(filter .venv-demo,$(DEMO_VENV)),NOETL_WORKER_ENGINE=python )$(DEMO_VENV)/bin/noetl-worker dev examples/demo.yaml

docs: $(STAMP) ## docs/tools.md from the tools' config models and guides
	$(BIN)/noetl-worker tools --markdown > docs/tools.md

bench: $(STAMP) ## engine benchmarks and their gates
	$(BIN)/python benches/check_gates.py run

wheels: $(STAMP) ## sdist, native and pure wheel, each smoke-tested in a clean venv
	$(BIN)/python tests/packaging/build_wheels.py

fuzz: $(STAMP) ## a minute: the Rust engine guided by coverage, then random calls on both engines
	PYTHON=$(BIN)/python tests/fuzz/run_short.sh

SEEDS ?= 200
FROM ?= 0
DIALECT ?= both
simulate: $(STAMP) ## seeded faults on a virtual clock, for a night: SEEDS=1000 FROM=0 DIALECT=both|python|rust TRACE=
	PYTHONPATH=tests $(BIN)/python -m simulate --from $(FROM) --seeds $(SEEDS) --dialect $(DIALECT) $(if $(TRACE),--trace)

compat: $(STAMP) ## the published Rust control plane, our worker, the recorded playbooks (installs it once: minutes)
	$(BIN)/python tests/compat/real_plane.py

check: lint types test ## what every commit passes

clean: ## remove what the targets made
	rm -rf .venv .venv-* dist target
