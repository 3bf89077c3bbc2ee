# Everything from a fresh clone: needs Python 3.11 or later, and make.
PYTHON ?= python3
RUN := .venv/bin
DEV := .venv-dev/bin
ROWS ?= 2000
DIR ?= demo
# The tests start databases of their own, and wait for them more than they compute.
JOBS ?= 3

.PHONY: help demo test image test-containers faults faults-kill faults-errors faults-power faults-database faults-races faults-states faults-clock faults-fuzz faults-tampering faults-hygiene faults-removals reliability bench check format reference lock clean

help:            ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

demo: .venv/ready ## a credential store rotated under a running application, and the proof (ROWS=, DIR=)
	@$(RUN)/netraven-keys demo --rows $(ROWS) --dir $(DIR)

test: .venv-dev/ready ## every test, on SQLite and PostgreSQL
	@$(DEV)/pytest -q -n $(JOBS) --dist worksteal

image:           ## the container's images, without daemon or registry (as root, Debian)
	@bash scripts/containers-for-ci

test-containers: .venv-dev/ready image ## the tests on real containers (as root, Debian)
	@CONTAINERS_CONF=$(CURDIR)/build/containers/containers.conf NETRAVEN_KEYS_TEST_CONTAINERS=1 \
		$(DEV)/pytest -q -n $(JOBS) tests/container

faults: faults-kill faults-errors faults-power faults-database faults-races faults-states faults-clock faults-fuzz faults-tampering faults-hygiene faults-removals reliability ## the long form of the fault tests (hours; SEED= repeats a run)

# One file of figures for each kind, as it was last run to its end or its failure.
LONG = mkdir -p build/faults && rm -f build/faults/$@.jsonl && NETRAVEN_KEYS_FAULTS=long \
	NETRAVEN_KEYS_FIGURES=build/faults/$@.jsonl $(DEV)/pytest -q -s -n 0 -p no:randomly

faults-kill: .venv-dev/ready ## killed at every point
	@$(LONG) tests/faults/test_kills.py

faults-errors: .venv-dev/ready ## every call fails, in each way
	@$(LONG) tests/faults/test_errors_of_calls.py

faults-power: .venv-dev/ready ## power lost at every moment
	@$(LONG) tests/faults/test_power.py

faults-races: .venv-dev/ready ## writers, readers and rotators at once, killed and paused
	@$(LONG) tests/faults/test_races.py

faults-states: .venv-dev/ready ## any course of events, with what must be so after each
	@$(LONG) tests/faults/test_states.py

faults-clock: .venv-dev/ready ## clocks that jump by years, at every moment and at their edges
	@$(LONG) tests/faults/test_clock.py

faults-hygiene: .venv-dev/ready ## every test under a search for its secrets, and an error at each use of one
	@$(LONG) tests/faults/test_hygiene.py

faults-removals: .venv-dev/ready ## each safeguard taken out of a copy, which must turn a test red
	@mkdir -p build/faults && rm -f build/faults/$@.jsonl
	@NETRAVEN_KEYS_FIGURES=build/faults/$@.jsonl $(DEV)/python -m tests.faults.removals

faults-database: .venv-dev/ready ## databases that fail, each in its own way
	@$(LONG) tests/faults/test_database_faults.py tests/faults/test_sqlite_faults.py

faults-fuzz: .venv-dev/ready ## bytes that nobody wrote, to every parser (FUZZ_SECONDS= for each)
	@$(LONG) tests/faults/test_fuzzing.py

faults-tampering: .venv-dev/ready ## every bit flipped, every length
	@$(LONG) tests/faults/test_tampering.py

reliability: .venv-dev/ready ## write docs/reliability.md from the tests and the figures of the last long runs
	PYTHONPATH=. $(DEV)/python scripts/reliability.py

bench: .venv-dev/ready ## how fast it is, beside its floors and peers (BENCH="--only postgres --rows 100000"; build/bench/figures.json)
	@$(DEV)/python -m bench $(BENCH)

check: .venv-dev/ready ## format, lint, types, import contracts, generated pages, Dockerfiles
	$(DEV)/ruff format --check
	$(DEV)/ruff check
	$(DEV)/mypy
	$(DEV)/lint-imports
	$(DEV)/python scripts/reference.py --check
	PYTHONPATH=. $(DEV)/python scripts/reliability.py --check
	$(DEV)/python scripts/bench_figures.py --check
	$(DEV)/python scripts/scale.py --check
	$(DEV)/hadolint --failure-threshold warning docker/key-rotation.Dockerfile examples/application/Dockerfile

format: .venv-dev/ready ## format the code and mend what the linter can mend
	$(DEV)/ruff format
	$(DEV)/ruff check --fix

reference: .venv-dev/ready ## write the generated pages under docs/reference
	$(DEV)/python scripts/reference.py

lock: .venv-dev/ready ## resolve the dependencies again (needs uv)
	sh scripts/lock

clean:           ## remove the environments and caches
	rm -rf .venv .venv-dev .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/ready: requirements/run.txt pyproject.toml
	@sh scripts/setup $(PYTHON) .venv requirements/run.txt

.venv-dev/ready: requirements/dev.txt pyproject.toml
	@sh scripts/setup $(PYTHON) .venv-dev requirements/dev.txt
