# Two commands matter: `make report` and `make test`. Each sets up what it needs, once, in .venv.
# Written for the make of Debian and of macOS (3.81) alike.

# A command of that name may be there and not run (a version switcher's stub), or lack pip, so each is tried. With nothing
# better, python3 is taken and tools/bootstrap.py says what to do.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python; do \
	if $$p -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	then echo $$p; exit; fi; done; echo python3)

# More arguments for the command that a target runs, as in: make report ARGS="user_isolation --seed 7"
ARGS ?=

# Where it is set, each of a run's dozen processes would compile all that it imports: 3.5 s of CPU a kernel.
unexport PYTHONDONTWRITEBYTECODE

# Four at once on two cores: many tests wait for sockets and processes.
TESTS = $(or $(ARGS),--numprocesses 4 --dist worksteal)

BIN := .venv/bin
SETUP = $(PYTHON) tools/bootstrap.py
COMPILE = build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

.PHONY: help report test docs lab check snapshots sample mutation fuzz services frameworks lock release clean

help: ## show this list
	@echo "make TARGET [ARGS=...] [PYTHON=...]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' Makefile

report: ## run all checks at the smoke profile and write a report to outputs/
	@$(SETUP)
	@$(BIN)/registry-lab run --profile smoke $(ARGS) || { code=$$?; \
	echo "registry-lab ended with $$code (1: findings or unknowns, 2: wrong usage, 3: the lab itself failed)" >&2; \
	exit $$code; }

test: ## lint, check the types, build the documentation and run all tests
	@$(SETUP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache --no-logo
	@# mypy has one core: the tests run beside it, and its answer comes last.
	@mkdir -p build; $(BIN)/mypy >build/mypy.txt 2>&1 & types=$$!; \
	trap 'kill $$types; exit 130' INT TERM; \
	$(BIN)/python -m pytest $(TESTS); tests=$$?; \
	wait $$types; types=$$?; cat build/mypy.txt; \
	exit $$((tests ? tests : types))

docs: ## build the documentation to build/docs/index.html; a dead link or anchor stops it
	@$(SETUP)
	$(BIN)/zensical build --strict --clean

lab: ## open the notebooks in JupyterLab
	@$(SETUP)
	@$(BIN)/registry-lab lab $(ARGS)

check: ## lint, check the types and the layers: the quick part of `make test`
	@$(SETUP)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m pytest --quiet tests/test_environment.py tests/test_layers.py

snapshots: ## write the wordings that tests hold anew; read the diff (ARGS=tests/test_x.py renews one file's)
	@$(SETUP)
	-$(BIN)/python -m pytest --quiet --inline-snapshot=create,fix $(or $(ARGS),$$(grep -rl --include='*.py' inline_snapshot tests))
	$(BIN)/ruff format tests

sample: ## make docs/sample/ anew: a failing report and its notebook (half a minute)
	@$(SETUP)
	$(BIN)/python -m tools.sample $(ARGS)

mutation: ## which small changes of registry/ no test notices (hours; an estimate: ARGS="--sample 5")
	@$(SETUP)
	$(BIN)/python -m tools.mutation $(ARGS)

fuzz: ## random calls of the registry, ten minutes (ARGS="--loop uvloop", or --loop eager on Python 3.12 and later)
	@$(SETUP)
	$(BIN)/python -m tools.fuzz --seconds 600 $(ARGS)

services: ## judge servers that nobody here wrote, each in an environment of its own, and print the matrix
	@$(SETUP)
	$(BIN)/python -m tools.services $(ARGS)

frameworks: ## judge public frameworks, each in an environment of its own, and print the matrix (ARGS="--recorded openai_agents")
	@$(SETUP)
	$(BIN)/python -m tools.frameworks $(ARGS)

# The index is uv's own setting here, never pip's: a mirror may lack the files of other platforms, and so their hashes.
lock: ## write requirements/*.lock anew (ARGS=--upgrade takes newer versions)
	@$(SETUP) --only-uv
	$(COMPILE) $(ARGS) --group bootstrap --output-file requirements/bootstrap.lock
	$(COMPILE) $(ARGS) --group service-fastmcp --output-file requirements/service-fastmcp.lock
	$(COMPILE) $(ARGS) pyproject.toml --extra dev --group environment --output-file requirements/environment.lock

release: ## build wheel and sdist, try them in empty environments, write a bill of materials (ARGS="--python 3.12")
	@$(SETUP)
	$(BIN)/python -m tools.release $(ARGS)

clean: ## remove .venv, caches and builds (never outputs/)
	rm -rf .venv build dist htmlcov .coverage .coverage.* .ruff_cache .mypy_cache .pytest_cache .hypothesis .cache .detangle
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
