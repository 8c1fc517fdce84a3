# Everything a checkout needs. `make help` lists the targets.
#
#   PYTHON=python3.12 make test     another interpreter (3.10 or newer); `make clean` first if .venv exists
#   make lock LOCK=--upgrade        newest versions instead of keeping the pins that still fit
#   make test JOBS=0               one process instead of two, for a debugger
#   make test TESTS=tests/wire      some of the tests, without the coverage bound

VENV   := .venv
PY     := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
# The demo installs half as much, unless the environment for development is there already.
DEMO   := $(if $(wildcard $(STAMP)),$(VENV),.venv-demo)
LOWEST := .venv-lowest
NEWEST := .venv-highest
LOCK   ?=
TESTS  ?=
JOBS   ?= 2
PYTEST := -m pytest -n $(JOBS) --dist worksteal
COVER  := $(if $(TESTS),,--cov --cov-report=term --cov-fail-under=95)
# What runs against the oldest and the newest frameworks: the adapters.
ADAPTERS := tests/langchain tests/llamaindex tests/parity

FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help install demo test test-lowest test-highest check types budgets wheel site bench bench-quick load scale fuzz interrupts mutants audit lock clean
# One recipe at a time even under `make -j`: the targets share one environment and two of them measure.
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## list the targets, and what each needs
	@echo "All but help and clean need Python 3.10 or newer; the first run also needs a package index."
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## make .venv with the pinned requirements and this checkout (1.2 GB)

$(VENV)/.installed: requirements/dev.txt pyproject.toml
	@sh requirements/install.sh $(VENV) requirements/dev.txt

.venv-demo/.installed: requirements/demo.txt pyproject.toml
	@sh requirements/install.sh .venv-demo requirements/demo.txt

.venv-scale/.installed: requirements/dev.txt requirements/scale.txt pyproject.toml
	@sh requirements/install.sh .venv-scale requirements/scale.txt

$(LOWEST)/.installed: requirements/lowest.txt pyproject.toml
	@sh requirements/install.sh $(LOWEST) requirements/lowest.txt

demo: $(DEMO)/.installed ## both frameworks over files and images; uses a running Ollama, else a simulated one (0.7 GB)
	@$(DEMO)/bin/ollama-dify demo

test: $(STAMP) ## all tests, with branch coverage; nginx, haproxy and chromium where installed (TESTS=tests/wire: some)
	$(PY) $(PYTEST) $(COVER) $(TESTS)

test-lowest: $(LOWEST)/.installed ## the adapters' tests with the oldest versions that pyproject.toml allows (Python 3.10)
	$(LOWEST)/bin/python $(PYTEST) $(ADAPTERS)

test-highest: ## the adapters' tests with the newest releases of today, resolved anew (needs a package index each time)
	@test -x $(NEWEST)/bin/python || $(or $(PYTHON),python3) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip --quiet --disable-pip-version-check install --upgrade --upgrade-strategy eager \
		--only-binary=:all: -r requirements/test.in -e ".[all]"
	$(NEWEST)/bin/python $(PYTEST) $(ADAPTERS)

check: $(STAMP) types budgets ## lint, format, types, architecture, and the wheel installed alone with each extra
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pytest tests/architecture tests/packaging

types: $(STAMP) ## mypy over code and tests, basedpyright and mypy over what README, docs and examples show
	$(PY) -m mypy
	$(PY) -m mypy tests
	$(PY) -m pytest tests/typing

budgets: $(STAMP) ## lines, classes, levels, circles: counted against their bounds
	$(PY) -m pytest tests/architecture -k "budget or level or circle or size"

wheel: $(STAMP) ## build dist/, install the wheel in a clean environment and run its demo there
	rm -rf dist
	$(PY) -m hatchling build
	sh requirements/try_wheel.sh $(PY)

site: $(STAMP) ## build the documentation's site in site/; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

bench: $(STAMP) ## CPU cost against the peers and the floors
	$(PY) -m benchmarks

bench-quick: $(STAMP) ## the same in under two minutes
	$(PY) -m benchmarks --quick

load: $(STAMP) ## the load figures L1–L10
	$(PY) -m benchmarks.load

scale: .venv-scale/.installed ## Ray behind both balancers, crash and resume, the simulation (some minutes, 1.8 GB)
	.venv-scale/bin/python -m pytest -m "" tests/scale
	.venv-scale/bin/python -m benchmarks.scale

fuzz: $(STAMP) ## fuzz streams, forms, apps, model descriptions and HTTP (FUZZ_SECONDS=600)
	$(PY) -m benchmarks.fuzz --seconds $(FUZZ_SECONDS)

interrupts: $(STAMP) ## Ctrl-C at every line of a call: nothing is left (minutes)
	OLLAMA_DIFY_ALL_LINES=1 $(PY) -m pytest -s tests/faults/test_interrupts.py

mutants: $(STAMP) ## 40 changes of one line that tests must notice (minutes)
	$(PY) tools/mutants.py

# pip-audit lives apart so that its own dependencies are not among those that it audits. Strict: it otherwise
# reports success for packages that it could not look up.
audit: $(STAMP) ## known vulnerabilities in the pinned requirements (needs a package index)
	@[ -x $(VENV)/audit/bin/pip-audit ] || { \
		$(PY) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip --quiet --quiet --disable-pip-version-check install pip-audit; \
	} || { echo "Not audited: pip-audit could not be installed. Is a package index reachable?" >&2; exit 1; }
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements/dev.txt

COMPILE := uv pip compile --generate-hashes --python-version 3.10 --only-binary :all: --no-emit-index-url \
	--no-emit-find-links --no-annotate --no-header --quiet

lock: ## pin requirements/*.txt again: names, versions and hashes only (needs uv and a package index)
	@command -v uv >/dev/null || { echo "uv is not on PATH: see https://docs.astral.sh/uv/ (pip install uv)." >&2; exit 1; }
	$(COMPILE) --universal $(LOCK) --extra all --extra demo -o requirements/dev.txt pyproject.toml requirements/dev.in
	$(COMPILE) --universal $(LOCK) --extra demo -c requirements/dev.txt -o requirements/demo.txt \
		pyproject.toml requirements/build.in
	$(COMPILE) --universal $(LOCK) --extra all --extra ray -c requirements/dev.txt -o requirements/scale.txt \
		pyproject.toml requirements/dev.in
	$(COMPILE) --upgrade --resolution lowest-direct --extra all -o requirements/lowest.txt pyproject.toml requirements/lowest.in

clean: ## remove the environments, caches, builds and the demo's index
	rm -rf $(VENV) .venv-demo .venv-scale $(LOWEST) $(NEWEST) .demo dist build .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
