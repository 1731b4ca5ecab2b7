# One environment, .venv, serves every target; it is made on first use and made anew when its inputs change.
# PYTHON=/path/to/python3.11 chooses the interpreter, PYTHON312=/path/to/python3.12 the one of test-jax-next,
# ARGS="..." reaches the command that a target runs.

ifdef PYTHON
CANDIDATES := $(PYTHON)
else
CANDIDATES := python3.11 python3.12 python3
endif

EXTRAS := torch,jax,tune,perf,peers,dev
INPUTS := pyproject.toml constraints-py311.txt constraints-py312-gpu.txt
STAMP := .venv/.installed
ARGS ?=
TUNED := kernels/sonew_kernels/tuned
TARGETS := cuda:80 cuda:90 cuda:100 cuda:120 hip:gfx942 hip:gfx950 hip:gfx1100
STATIC := --size 4194304 --state float32 --state bfloat16 --band 0 --band 1 --band 2 --band 3 --band 4 --budget 900

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help env tune bench compare dashboard numbers gpu docs static test test-all test-jax-next lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP) ## make .venv with everything in it

tune: $(STAMP) ## tune this machine and keep the winners; ARGS="--effort quick" and the like
	@.venv/bin/sonew-autotune run $(ARGS)

bench: $(STAMP) ## measure the step against fused AdamW and a copy
	@.venv/bin/sonew-perf run $(ARGS)

compare: $(STAMP) ## is the working tree slower than main? ARGS="v0.1.0 ." for others; exit code 1: it is, 3: cannot be told
	@.venv/bin/sonew-perf compare $(or $(ARGS),main)

dashboard: $(STAMP) ## measure this commit if that is not done yet (a minute), then serve the dashboard; ARGS="--port 8000"
	@.venv/bin/sonew-perf run --once || [ $$? -eq 1 ]
	@.venv/bin/sonew-perf dashboard $(ARGS)

numbers: $(STAMP) ## write the numbers in the READMEs anew, from the records in perf/baselines
	@.venv/bin/python -m sonew_perf.numbers --write

gpu: $(STAMP) ## on a machine with a GPU: check, tune and time everything; ARGS=--plan lists it
	@.venv/bin/sonew-perf gpu $(ARGS)

test: $(STAMP) ## formatter, linter, types, import contract and tests
	@.venv/bin/python -m tests $(ARGS)

test-all: $(STAMP) ## the same with the long tests
	@.venv/bin/python -m tests --full $(ARGS)

test-jax-next: $(STAMP) ## what JAX lowers for a GPU, under the next JAX and Python 3.12; part of test-all
	@.venv/bin/python -m tests --jax-next $(ARGS)

docs: $(STAMP) ## write the API reference from the docstrings into build/api; a warning is an error
	@.venv/bin/python -m sphinx --fresh-env --write-all --fail-on-warning --quiet $(ARGS) tests/reference_pages build/api
	@echo build/api/index.html

static: $(STAMP) ## compile and rank for every GPU target anew, after a change of the kernels: half an hour on 2 cores
	@for target in $(TARGETS); do store=$(TUNED)/static-$$(echo $$target | tr : -).json; rm -f $$store; \
		.venv/bin/sonew-autotune run --target $$target --store $$store $(STATIC) $(ARGS) || exit 1; \
	done; rm -f $(TUNED)/*.lock; .venv/bin/python -m sonew_autotune.compiler.shipping $(TUNED)/static-*.json

lint: $(STAMP) ## formatter, linter and types only
	@.venv/bin/python -m tests --lint $(ARGS)

format: $(STAMP) ## sort imports and format every file
	@.venv/bin/python -m tests --format $(ARGS)

clean: ## remove caches and build outputs (rm -r .venv removes the environment)
	@rm -rf build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

# A candidate is judged by running it: a version manager's shim can be on PATH and still fail.
$(STAMP): $(INPUTS)
	@python=; reason="no candidate runs as Python 3.11 or 3.12"; \
	for candidate in $(CANDIDATES); do \
		"$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' >/dev/null 2>&1 || continue; \
		if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then python=$$candidate; break; fi; \
		reason="$$candidate has no venv module (on Debian and Ubuntu: apt-get install $$(basename $$candidate)-venv)"; \
	done; \
	if [ -z "$$python" ]; then \
		echo "error: $$reason; tried: $(CANDIDATES). Install one or pass PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if ! command -v "$${CXX:-c++}" >/dev/null && ! command -v g++ >/dev/null && ! command -v clang++ >/dev/null; then \
		echo "warning: no C++ compiler (g++ or clang++): the CPU backend falls back to the slow reference" >&2; \
	fi; \
	case $$("$$python" -c 'import sys; print(sys.version_info[1])') in \
		11) constraints=constraints-py311.txt ;; \
		*) constraints=constraints-py312-gpu.txt ;; \
	esac; \
	echo "Making .venv with $$python and $$constraints: a few minutes. On Linux, PyPI's torch brings CUDA, about 3 GB."; \
	"$$python" -m venv --clear .venv && \
	.venv/bin/python -m pip install --quiet --constraint $$constraints --editable '.[$(EXTRAS)]' && \
	if [ "$$(uname -s)" = Linux ]; then \
		.venv/bin/python -m pip install --quiet --no-deps $$(grep -E '^jax-cuda[0-9]+-plugin==' $$constraints); \
	fi && \
	touch $@
