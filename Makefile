# The commands of this repository; `make` alone lists them.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
READY := $(VENV)/.ready
DEMO := demo
WORKERS := $(shell nproc 2>/dev/null || echo 1)

# Without bytecode every process compiles torch and diffusers again, which doubles the time they take to start.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup system demo evaluate lint test test-all test-gpu check accept clean

help: ## list these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(READY) ## make the virtual environment .venv with everything in it

# uv installs in seconds what takes pip minutes; constraints.txt has the versions that the tests ran on.
$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install -q --disable-pip-version-check uv
	@$(BIN)/python -m uv pip install -q --compile-bytecode --python $(BIN)/python -c constraints.txt -e '.[build,train,eval,http,ray,s3,tensorboard,trackio,wandb,dev]'
	@touch $@

system: ## install what the tests need from the system (WordNet 3.0, Chromium), on Debian
	@test -f /usr/share/wordnet/data.noun -a -x /usr/bin/chromium || sh tests/install_system.sh

# --- the demo: make a clone, check it, train on it alone, test on real images ---

demo: $(DEMO)/report.md ## the whole road on handwritten digits: clone, verify, train, test on real scans
	@cat $(DEMO)/report.md

$(DEMO)/scans: | $(READY)
	$(BIN)/python -m builders.embedded.digits $@.tmp && mv $@.tmp $@

$(DEMO)/real-%/clone.json: | $(DEMO)/scans
	$(BIN)/fakeit-build make real_images/$* $(@D) --source $(DEMO)/scans/$*

$(DEMO)/digits/clone.json: | $(READY)
	$(BIN)/fakeit-build make digits_sd/c_cfg2 $(@D) --images-per-class 200 --workers $(WORKERS)

$(DEMO)/verified.txt: $(DEMO)/digits/clone.json
	$(BIN)/fakeit-build verify $(DEMO)/digits --deep > $@
	@cat $@

$(DEMO)/loaded.txt: $(DEMO)/verified.txt
	$(BIN)/python -c "import datasets; d = datasets.load_dataset('$(DEMO)/digits', split='train'); print(d[0]['json']['prompt'], d)" > $@
	@cat $@

$(DEMO)/run-synthetic/backbone.json: $(DEMO)/loaded.txt
	$(BIN)/fakeit-train digits --data $(DEMO)/digits --out $(@D) --resume

$(DEMO)/run-real/backbone.json: $(DEMO)/real-train/clone.json
	$(BIN)/fakeit-train digits --data $(DEMO)/real-train --out $(@D) --resume

$(DEMO)/sheet.png: $(DEMO)/digits/clone.json $(DEMO)/real-train/clone.json
	$(BIN)/fakeit-build sheet $(DEMO)/digits --real $(DEMO)/real-train -o $@

$(DEMO)/report.md: $(DEMO)/run-synthetic/backbone.json $(DEMO)/run-real/backbone.json $(DEMO)/real-test/clone.json $(DEMO)/sheet.png
	$(BIN)/fakeit-eval test $(DEMO)/run-synthetic $(DEMO)/run-real --data $(DEMO)/real-test > $@
	@printf '\nclone %s/digits · runs %s/run-synthetic %s/run-real · images %s/sheet.png · this table %s\n' \
	  $(DEMO) $(DEMO) $(DEMO) $(DEMO) $@ >> $@

evaluate: $(DEMO)/evaluation.md ## after the demo: test sets, transfer tasks and feature analysis of its two networks
	@cat $(DEMO)/evaluation.md

$(DEMO)/evaluation.md: $(DEMO)/run-synthetic/backbone.json $(DEMO)/run-real/backbone.json
	$(BIN)/fakeit-eval suite $(DEMO)/run-synthetic $(DEMO)/run-real > $@

# --- checks ---

lint: $(READY) ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A worker that crashes ends the run, for a scope that lost its worker is waited for without end.
PROOFS := $(basename $(notdir $(wildcard tests/acceptance/accept_*.py)))
PYTEST := $(BIN)/python -m pytest --ignore tests/gpu -n $(WORKERS) --dist loadscope --max-worker-restart 0

test: $(READY) system ## every behaviour that users meet, in minutes
	$(PYTEST) -m "not long"

test-all: $(READY) system ## that, and what needs a cluster, a browser, S3, a compiler or hundreds of kills
	$(PYTEST)

test-gpu: $(READY) ## what only a CUDA GPU can show
	$(BIN)/python -m pytest tests/gpu

check: lint test ## lint, and the tests of what users meet

accept: $(READY) system ## the long proofs, one script each in tests/acceptance; each writes a dated file into benchmarks/results
	@for proof in $(PROOFS); do echo "== $$proof"; $(BIN)/python -m tests.acceptance.$$proof || exit 1; done

clean: ## remove what the demo made
	rm -rf $(DEMO)
