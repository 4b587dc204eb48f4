# Each target installs what it needs into .venv, and is quick when run again.
# Needs: Python 3.11 or newer with venv, a Rust toolchain, a C compiler; to check and fuzz, C++.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?= -n auto --dist worksteal
CARGO_TEST_ARGS ?=
FUZZ_SECONDS ?= 20
BENCHES := bench-data bench-master bench-catalog bench-transfer bench-machines
CHECKED := $(wildcard src tests tools benchmarks)

# The fuzzer alone is C++; without a compiler for that the rest is checked all the same.
CXX_HERE := $(shell command -v $${CXX:-c++} 2>/dev/null)
WITHOUT_CXX := $(if $(CXX_HERE),,--exclude holdfast-engine-fuzz)

RUNTIME := $(VENV)/.stamp-runtime
TOOLS := $(VENV)/.stamp-tools
ENGINE := $(VENV)/.stamp-engine
CRATES := $(shell find Cargo.toml Cargo.lock crates \( -name target -o -name corpus -o -name artifacts \) -prune \
            -o -type f \( -name '*.rs' -o -name '*.toml' -o -name '*.lock' \) -print 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help quickstart test test-rust test-python check check-python check-rust fix instructions fuzz engine clean
.PHONY: bench $(BENCHES)

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

quickstart: $(ENGINE) ## See a real directory backed up, restored and compared
	$(BIN)/holdfast quickstart

test: test-rust test-python ## Every test of both languages

test-rust: $(RUNTIME)
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo test --workspace --locked --quiet $(CARGO_TEST_ARGS)

test-python: $(ENGINE) $(TOOLS)
	tests/install-system-packages
	tests/install-machine-libraries $(BIN)/python
	tests/install-vcsim
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: check-python check-rust ## Style, types, layers, warnings

check-python: $(ENGINE) $(TOOLS)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy $(CHECKED)
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m mypy.stubtest holdfast.engine._engine --concise --mypy-config-file pyproject.toml --allowlist tests/stubtest-allowlist.txt

check-rust: $(RUNTIME)
	cargo fmt --all --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --workspace $(WITHOUT_CXX) --all-targets --locked --quiet -- -D warnings

fix: $(TOOLS) ## Repair what can be repaired by machine
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)
	cargo fmt --all

# Goals that are missed end a part with 1: the parts after it are measured all the same.
bench: ## Measure everything, each part in its quick form: half an hour and more; some of it as root
	$(MAKE) --keep-going --jobs=1 $(BENCHES)

bench-data: $(ENGINE) $(TOOLS) ## Compare with other programs on corpora from a seed: ten minutes
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

bench-master: $(ENGINE) $(TOOLS) ## Measure policies, jobs and lists of a large site: ten minutes
	tests/install-system-packages
	$(BIN)/python benchmarks/master/run.py $(MASTER_ARGS)

bench-catalog: $(ENGINE) $(TOOLS) ## Measure the catalog of files: two minutes
	$(BIN)/python benchmarks/catalog_files.py $(CATALOG_ARGS)

bench-transfer: $(ENGINE) $(TOOLS) ## Measure data between two machines; links with a rate as root: minutes
	tests/install-system-packages
	$(BIN)/python benchmarks/series.py transfer $(TRANSFER_ARGS)

bench-machines: $(ENGINE) $(TOOLS) ## Measure disks of virtual machines and files in them: minutes
	tests/install-system-packages
	tests/install-machine-libraries $(BIN)/python
	$(BIN)/python benchmarks/series.py machines $(MACHINES_ARGS)

instructions: $(RUNTIME) ## Hold the inner loops to the instructions they are recorded with
	tests/install-system-packages
	$(BIN)/python benchmarks/instructions.py

fuzz: ## Feed every parser of stored bytes with rubbish, FUZZ_SECONDS each
	FUZZ_SECONDS=$(FUZZ_SECONDS) crates/engine-core/fuzz/run

engine: $(ENGINE) ## Build the engine into .venv

# The environment and what the product itself needs.
$(RUNTIME): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Holdfast needs Python 3.11 or newer; say PYTHON=… if it has another name" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "python3 has no venv here: install the package python3-venv" >&2; exit 2; }
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	  print(*p["dependencies"], *p["optional-dependencies"]["site"], "maturin>=1.8,<2", sep="\n")' > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip -r $(VENV)/requirements.txt
	@touch $@

# What only developers need.
$(TOOLS): pyproject.toml $(RUNTIME)
	@$(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]; \
	  print(*p["dev"], sep="\n")' > $(VENV)/requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade -r $(VENV)/requirements-dev.txt
	@touch $@

# maturin lays the extension beside its stub and links .venv to src/.
$(ENGINE): $(RUNTIME) $(CRATES)
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked --quiet --group none
	@touch $@

clean: ## Remove what was built here
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src -name '_engine*.so' -delete
