# Every target does its own set-up; `make test` and `make demo` do all of it on a fresh Debian 12 as
# root, where there is nothing but git, make and python3. See .ci/machine.py for what that means.

PYTHON ?= python3
PY := .venv/bin/python
ARGS ?=
WORKERS ?= auto

# An installed package has its byte code: without it every process that a test or a measure starts would
# compile two hundred modules first.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv docker images test demo bench chaos hostile fuzz-api lint types imports scenarios \
	down clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' Makefile | while IFS='|' read -r a b; do \
		printf '%-18s %s\n' "$$a" "$$b"; done

venv:  ## the virtual environment .venv, at the versions of constraints.txt
	@$(PYTHON) .ci/machine.py python
	@$(PYTHON) .ci/environment.py

docker:  ## a Docker Engine that answers: one that does is used as it is, else Debian's is started
	@$(PYTHON) .ci/machine.py docker

images: venv docker  ## the images of tests and demo, made without a registry
	@$(PYTHON) .ci/images.py

test:  ## all tests, on all cores; ARGS="tests/engine -k name" runs some, WORKERS=0 one after another
	@$(PYTHON) .ci/machine.py python docker postgresql networks sandboxes services
	@$(PYTHON) .ci/environment.py
	@$(PYTHON) .ci/images.py
	@$(PYTHON) .ci/clients.py
	@$(PY) -m pytest --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder $(ARGS)

demo:  ## a stored configuration on real data, end to end, compared with an independent computation
	@$(PYTHON) .ci/machine.py python docker
	@$(PYTHON) .ci/environment.py
	@$(PYTHON) .ci/images.py
	@$(PY) docs/examples/demo/demo.py $(ARGS)

bench: images  ## measures beside their references; ARGS=--json for machines
	@$(PYTHON) .ci/machine.py archivers
	@$(PYTHON) .ci/clients.py
	@$(PY) -m tests.bench $(ARGS)

chaos: images  ## kill engines, 200 times, and daemons, 20; ARGS="--kills 50 --daemons 5 --seed 3"
	@$(PY) -m tests.chaos.kills $(ARGS)

hostile: images  ## hostile images, requests and fuzzing, the long form; ARGS="fuzz --seconds 60" for a part
	@$(PYTHON) .ci/machine.py tracers
	@$(PY) -m pip install --quiet --disable-pip-version-check atheris==3.0.0
	@$(PY) -m tests.hostile $(ARGS)

fuzz-api: venv  ## a thousand requests of each part of the API, made of its own description
	@VAKA_FUZZ_CASES=$${VAKA_FUZZ_CASES:-1000} $(PY) -m pytest tests/server/test_fuzz.py -rP $(ARGS)

lint: venv  ## style and formatting
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

types: venv  ## mypy, strictly
	@$(PY) -m mypy
	@cd docs/examples/vaka-sqlite && ../../../$(PY) -m mypy --config-file ../../../pyproject.toml vaka_sqlite tests
	@cd .ci && ../$(PY) -m mypy --config-file ../pyproject.toml *.py
	@cd docs/examples/demo && ../../../$(PY) -m mypy --config-file ../../../pyproject.toml *.py

imports: venv  ## who may import whom
	@.venv/bin/lint-imports --no-cache

scenarios: venv  ## how many acceptance scenarios of docs/spec are shown by a test
	@$(PY) .ci/scenarios.py

down:  ## stop, by pid, what was started by hand
	@$(PYTHON) .ci/machine.py down

clean: down  ## remove what was made in this folder; images stay with the daemon
	rm -rf .venv .cache .state dist .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
