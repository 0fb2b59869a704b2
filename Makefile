# `make` lists what there is. Everything is set up in .venv, from the lock file, when it is needed.

.DEFAULT_GOAL := help
.PHONY: help run test check fix bench soak lock clean

# Some machines are told to keep no compiled modules. Then each of the thousand processes that the
# tests start would compile the engine for itself, which takes longer than what they are started for.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
NODE := tests/conformance/node
DEMO := examples/release-notes

help:  ## List the targets.
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml
	@echo "setting up .venv from requirements.lock"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

run: $(READY)  ## Run the main job: release notes of this repository, to the published file.
	@TANDEM_STATE_DIR="$(CURDIR)/.demo" $(BIN)/tandem run $(DEMO)/release-notes.yaml \
		--workspace $(DEMO) --input repository="$(CURDIR)" --decide approve=approve
	@echo
	@echo "$(DEMO)/out/RELEASE_NOTES.md:"
	@echo
	@cat $(DEMO)/out/RELEASE_NOTES.md

# The client of the original for Node.js is tested where there is Node.js.
$(NODE)/node_modules: $(NODE)/package.json
	@if command -v npm >/dev/null; then \
		npm install --prefix $(NODE) --no-package-lock --no-audit --no-fund --silent && touch $@; \
	else echo "no npm: the tests of the TypeScript client are skipped"; fi

# The second part has one worker more than there are cores: some of its tests wait for others.
test: $(READY) $(NODE)/node_modules  ## Run all tests; the domain must be covered by branch to the last one.
	@$(BIN)/coverage erase
	@COVERAGE_PROCESS_START=pyproject.toml $(BIN)/python -m pytest -n 2 --dist worksteal tests/domain
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report
	@$(BIN)/python -m pytest -n 3 --dist worksteal --ignore tests/domain tests

check: $(READY)  ## Check format, lint, types, layers and documents.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python scripts/write_docs.py --check

fix: $(READY)  ## Format, mend what can be mended, write the generated documents.
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format --quiet .
	@$(BIN)/python scripts/write_docs.py

bench: $(READY)  ## Measure bare, chain, many, fan and growth, three times each in fresh processes; then the server and its live events.
	@$(BIN)/python bench/run.py
	@$(BIN)/python bench/serving.py
	@$(BIN)/python bench/sse.py

soak: $(READY)  ## Search long: many more seeds, and a million steps of the machine.
	@$(BIN)/python -m pytest -n 2 -m soak tests

lock:  ## Write requirements.lock anew from pyproject.toml (needs uv).
	@uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --quiet --output-file requirements.lock

clean:  ## Remove everything that was set up or made.
	@rm -rf .venv .demo $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis $(DEMO)/out
