# Everything a checkout needs. `make help` lists the targets.
#
#   PYTHON=python3.12 make test     another interpreter (3.10 or newer); `make clean` first if .venv exists
#   make lock LOCK=--upgrade        newest versions instead of keeping the pins that still fit

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PIP   := $(PY) -m pip --quiet --quiet --disable-pip-version-check --no-input
LOCK  ?=

# Read when the environment is made: the first of these that is 3.10 or newer, unless PYTHON names one.
CANDIDATES := python3 python3.13 python3.12 python3.11 python3.10
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 10))

FUZZ_SECONDS ?= 600

.DEFAULT_GOAL := help
.PHONY: help install demo test check bench bench-quick load fuzz audit lock clean
# One recipe at a time even under `make -j`: the targets share one environment and two of them measure.
.NOTPARALLEL:
.DELETE_ON_ERROR:

help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP) ## make .venv with the pinned requirements and this checkout

$(STAMP): requirements/dev.txt pyproject.toml
	@set -e; \
	if ! [ -x $(VENV)/bin/pip ]; then \
		found=; \
		for candidate in $(if $(PYTHON),"$(PYTHON)",$(CANDIDATES)); do \
			if "$$candidate" -c '$(NEW_ENOUGH)' 2>/dev/null; then found=$$candidate; break; fi; \
		done; \
		if [ -z "$$found" ]; then \
			echo "Python 3.10 or newer is needed; tried: $(or $(PYTHON),$(CANDIDATES))." >&2; \
			echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or name it: make PYTHON=/path/to/python3.12 …" >&2; \
			exit 1; \
		fi; \
		echo "Making $(VENV) with $$("$$found" --version)"; \
		"$$found" -m venv $(VENV); \
	elif ! $(PY) -c '$(NEW_ENOUGH)' 2>/dev/null; then \
		echo "$(VENV) was made with a Python older than 3.10, or one that is gone: make clean, then again." >&2; \
		exit 1; \
	fi
	@echo "Installing $$(grep -c '==' requirements/dev.txt) pinned packages (a minute or two the first time) …"
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@
	@echo "Installed."

demo: $(STAMP) ## answer questions over examples/data through both frameworks
	@$(VENV)/bin/ollama-dify demo

test: $(STAMP) ## all tests, with branch coverage
	$(PY) -m pytest --cov --cov-report=term --cov-fail-under=95

check: $(STAMP) ## lint, format, types, architecture, and the wheel installed alone with each extra
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest tests/architecture tests/packaging

bench: $(STAMP) ## CPU cost against the peers and the floors
	$(PY) -m benchmarks

bench-quick: $(STAMP) ## the same in under two minutes
	$(PY) -m benchmarks --quick

load: $(STAMP) ## the load figures L1–L10
	$(PY) -m benchmarks.load

fuzz: $(STAMP) ## fuzz the stream decoder and the form parser (FUZZ_SECONDS=600)
	$(PY) -m benchmarks.fuzz --seconds $(FUZZ_SECONDS)

# pip-audit lives apart so that its own dependencies are not among those that it audits. Strict: it otherwise
# reports success for packages that it could not look up.
audit: $(STAMP) ## known vulnerabilities in the pinned requirements (needs a package index)
	@[ -x $(VENV)/audit/bin/pip-audit ] || { \
		$(PY) -m venv $(VENV)/audit && \
		$(VENV)/audit/bin/python -m pip --quiet --quiet --disable-pip-version-check install pip-audit; \
	} || { echo "Not audited: pip-audit could not be installed. Is a package index reachable?" >&2; exit 1; }
	$(VENV)/audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements/dev.txt

lock: ## pin requirements/dev.in again, with hashes (needs uv)
	@command -v uv >/dev/null || { echo "uv is not on PATH: see https://docs.astral.sh/uv/ (pip install uv)." >&2; exit 1; }
	uv pip compile --universal --generate-hashes --python-version 3.10 --no-emit-index-url \
		--no-annotate --no-header --quiet $(LOCK) --output-file requirements/dev.txt requirements/dev.in

clean: ## remove the environment, caches, builds and the demo's index
	rm -rf $(VENV) .demo dist build .coverage .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
