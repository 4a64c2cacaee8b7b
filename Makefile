# Everything that a fresh machine with Python 3.11 or later needs is made by these targets.
PYTHON ?= python3
BIN := .venv/bin
# Compiled modules are kept, which each worker and each process that a test starts would else make again.
PYTHON_TESTS := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest
# Tests write many thousand files. They are in memory where there is room for them, and those of tests that passed
# are removed; `make test MEMORY=` leaves them in the usual folder.
MEMORY := $(shell df --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 4e6' | grep -q . && \
	awk '/^MemAvailable/ && $$2 > 8e6 {print "/dev/shm"}' /proc/meminfo)
# Whole files, the longest first: tests/conftest.py has their order; more workers than cores compute while
# others wait for a cluster, a browser or a time limit. Quick tests do not wait, and each worker imports torch.
WORKERS = 4
quick: WORKERS = $(shell nproc)
PYTEST = $(if $(MEMORY),PYTEST_DEBUG_TEMPROOT=$(MEMORY)) $(PYTHON_TESTS) -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
	$(if $(MEMORY),-o tmp_path_retention_policy=failed) $(PYTEST_ARGS)

.DELETE_ON_ERROR:

.PHONY: install demo rehearse quick test golden gpu matrix lint lint-js bench docs docs-site docs-commands clean

install: .venv/installed

# --no-compile: of 26,000 modules the few hundred that are imported are compiled then.
.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --upgrade-strategy only-if-needed -e '.[dev]'
	touch $@

# Modules are compiled by one process, which three workers would else do at once, each for itself.
.venv/compiled: .venv/installed
	$(PYTHON_TESTS) --collect-only -q > $@

demo: install
	$(BIN)/preceptor demo --out demo-study

# The paper's study, small, on generated data in the layout of the UND release.
rehearse: install
	$(BIN)/python examples/paper/rehearse.py --out rehearsal

quick: .venv/compiled
	$(PYTEST) -m "not slow and not site"

test: .venv/compiled
	$(PYTEST) -m "not site"

# Tables, scores, weights and run ids as benchmarks/golden.json has them; minutes.
golden: install
	$(BIN)/python benchmarks/golden.py

# On a machine with a GPU: the tests that need one, then the measurements. Both run; a test that fails
# fails the target.
gpu: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu tests/gpu; tests=$$?; \
	$(BIN)/python benchmarks/gpu.py && exit $$tests

# The lowest and the newest versions of all dependencies, by Python; minutes and gigabytes for each.
matrix: install
	$(BIN)/python -m pip install --quiet 'uv>=0.5'
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python benchmarks/matrix.py

lint: install
	$(BIN)/ruff check src tests benchmarks examples docs
	$(BIN)/ruff format --check src tests benchmarks examples docs
	$(BIN)/mypy
	@if command -v npm > /dev/null; then $(MAKE) --no-print-directory lint-js; \
	else echo "JavaScript is not checked: it needs Node.js"; fi

lint-js: node_modules/installed
	npm run --silent check

node_modules/installed: package.json
	npm install --silent --no-package-lock --no-audit --no-fund
	touch $@

bench: install
	$(BIN)/python -m pip install --quiet -e '.[dev,bench]'
	for script in benchmarks/bench_*.py; do $(BIN)/python $$script || exit 1; done

# A folder for each version, beside those that are there. A page that refers to a key, a command, a page
# or a symbol that does not exist fails the build; pages are then looked at in a browser.
docs: install
	$(BIN)/python -m pip install --quiet --upgrade-strategy only-if-needed -e '.[docs]'
	$(MAKE) --no-print-directory --output-sync -j 2 docs-site docs-commands

docs-site: VERSION = $$($(BIN)/python -c 'from preceptor.version import __version__ as v; print(v)')
docs-site:
	$(BIN)/sphinx-build -q -W --keep-going -b html docs site/$(VERSION)
	$(BIN)/python docs/site_versions.py site
	PRECEPTOR_SITE=site/$(VERSION) $(BIN)/python -m pytest -q tests/docs/test_site.py
	$(BIN)/python docs/shell_blocks.py

docs-commands:
	$(BIN)/python -m pytest -q tests/docs/test_commands.py tests/docs/test_keys.py tests/docs/test_names.py

clean:
	rm -rf .venv node_modules demo-study rehearsal build dist site docs/reference/generated
