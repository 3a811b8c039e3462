# Two commands matter: `make report` and `make test`. Each sets up what it needs, once, in .venv.
# Written for the make of Debian and of macOS (3.81) alike.

# A command of that name may be there and not run (a version switcher's stub), so each is tried. ensurepip is missing
# where Debian's python3-venv is; with nothing better, python3 is taken and tools/bootstrap.py says what to do.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	if $$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$p; exit; fi; done; echo python3)

# More arguments for the command that a target runs, as in: make report ARGS="user_isolation --seed 7"
ARGS ?=

BIN := .venv/bin
SETUP = $(PYTHON) tools/bootstrap.py
COMPILE = build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

.PHONY: help report test lab check mutation lock clean

help: ## show this list
	@echo "make TARGET [ARGS=...] [PYTHON=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' Makefile

report: ## run the 21 checks at the smoke profile and write a report to outputs/
	@$(SETUP) requirements/lab.lock
	@$(BIN)/registry-lab run --profile smoke $(ARGS) || { code=$$?; \
	echo "registry-lab ended with $$code (1: findings or unknowns, 2: wrong usage, 3: the lab itself failed)" >&2; \
	exit $$code; }

test: ## lint, check the types and run all tests
	@$(SETUP) requirements/dev.lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2)

lab: ## open the notebooks in JupyterLab
	@$(SETUP) requirements/lab.lock
	@$(BIN)/registry-lab lab $(ARGS)

check: ## lint, check the types and the layers: the quick part of `make test`
	@$(SETUP) requirements/dev.lock
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_environment.py

mutation: ## which small changes of registry/ no test notices (hours; an estimate: ARGS="--sample 5")
	@$(SETUP) requirements/mutation.lock --venv build/mutation/venv
	build/mutation/venv/bin/python -m tools.mutation $(ARGS)

# dev.lock comes first and binds lab.lock: the same pins in both, so one .venv serves `make report` and `make test`.
# uv gets an environment of its own, as the locks must be makeable when they are what is wrong.
lock: ## write requirements/*.lock anew (ARGS=--upgrade takes newer versions)
	@test -x build/uv/bin/python || $(PYTHON) -m venv build/uv
	@build/uv/bin/python -m pip install --quiet --require-hashes --requirement requirements/bootstrap.lock
	$(COMPILE) $(ARGS) --group bootstrap --output-file requirements/bootstrap.lock
	$(COMPILE) $(ARGS) pyproject.toml --extra dev --group build --output-file requirements/dev.lock
	$(COMPILE) $(ARGS) pyproject.toml --extra lab --group build --constraint requirements/dev.lock \
		--output-file requirements/lab.lock
	$(COMPILE) $(ARGS) pyproject.toml --extra dev --group build --group mutation --constraint requirements/dev.lock \
		--output-file requirements/mutation.lock

clean: ## remove .venv, caches and builds (never outputs/)
	rm -rf .venv build dist htmlcov .coverage .coverage.* .ruff_cache .mypy_cache .pytest_cache .hypothesis .detangle
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
