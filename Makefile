# Each target does all set-up itself; a second call skips it.
PYTHON ?= python3
VENV   := .venv/bin
SEED   ?= 0

.PHONY: help setup up down demo test test-faults test-training-faults test-run-faults test-long lint micro-model requirements bench-store bench-ppo clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## make .venv and .venv-vllm (skipped when up to date)
	@$(PYTHON) infra/setup_environments.py

up: setup  ## start Prefect's server and workers on this machine and deploy everything (PORT=4200)
	@./solon up $(if $(PORT),--port $(PORT))

down:  ## stop them, and the runs that they started
	@./solon down

demo: setup  ## align the micro model end to end and show base / SL / RL (SEED=0)
	@./solon demo --seed $(SEED)

test: setup lint  ## lint, types and every test that does not take minutes
	@OMP_NUM_THREADS=1 $(VENV)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test-faults: setup  ## the store under races, kill -9, network, disk and clock faults (10 minutes; SEED=0)
	@OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults --seed $(SEED)

test-training-faults: setup  ## kill -9 trainings at 20 points each and resume them (KIND=all; SEED=0)
	@OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults.training --kind $(or $(KIND),all) --points 20 --seed $(SEED)

test-long: setup  ## the tests that take minutes each: kills with vLLM, amendments there and back, secrets, retries, roles
	@OMP_NUM_THREADS=1 $(VENV)/python -m pytest -m long

test-run-faults: setup  ## stages, workers, servers and replicas that die, each stage failing once, clicked in a browser (1 hour)
	@OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults.each_stage
	@OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults.orchestration
	@OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults.orchestration --engine vllm
	@OMP_NUM_THREADS=1 $(VENV)/python -m tests.faults.replicas

lint: setup  ## ruff and mypy
	@$(VENV)/ruff check . && $(VENV)/ruff format --check . && $(VENV)/mypy

micro-model: setup  ## train the committed micro model anew (about 45 minutes)
	@OMP_NUM_THREADS=1 MALLOC_TRIM_THRESHOLD_=8000000000 MALLOC_MMAP_THRESHOLD_=4000000000 \
		$(VENV)/python -m tasks.micro.pretrain --output tasks/micro/model

requirements:  ## resolve the pinned versions in infra/requirements anew
	@$(PYTHON) infra/setup_environments.py --refresh

bench-store: setup .solon/tools/bench/stamp  ## a million rows in the store beside delta-rs (minutes, 7 GB of disk)
	@$(VENV)/python -m benchmarks.store

.solon/tools/bench/stamp: infra/requirements/benchmarks.txt
	@$(PYTHON) -m venv --clear .solon/tools/bench
	@.solon/tools/bench/bin/pip install --quiet -r $< && touch $@

bench-ppo: setup .solon/tools/trl-ppo/stamp  ## PPO beside TRL 1.12's, after `make demo` (20 minutes, 1.5 GB of disk)
	@$(VENV)/python -m benchmarks.ppo

.solon/tools/trl-ppo/stamp: infra/requirements/trl-ppo.txt
	@$(PYTHON) -m venv --clear .solon/tools/trl-ppo
	@.solon/tools/trl-ppo/bin/pip install --quiet -r $< && touch $@

clean:  ## remove the local store and Prefect's home (.solon), stopping what runs; the environments stay
	@if [ -x $(VENV)/python ] && [ -e .solon ]; then ./solon down; fi
	rm -rf .solon
