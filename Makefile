# The commands of the README. `make setup` installs everything into .venv/, once; the others call it.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
STAMP  := $(VENV)/installed

# make serve MODEL=/path/to/checkpoint PORT=9080 NAME=bot
TINYCHAT := examples/tinychat/model
MODEL = $(TINYCHAT)
PORT  = 8080
NAME  = $(if $(filter $(TINYCHAT),$(MODEL)),tinychat)

# Packages of another Python have no business in the virtual environment.
unexport PYTHONPATH PYTHONHOME

.PHONY: help setup serve test check bench bench-peers bench-gpu clean
help:
	@echo "make setup                      install into $(VENV)/"
	@echo "make serve [MODEL= PORT= NAME=] serve tinychat, or a model of your own, until Ctrl-C"
	@echo "make test                       checks, then the tests"
	@echo "make check                      ruff and mypy"
	@echo "make bench                      a short run of every benchmark"
	@echo "make bench-peers [CACHE= OUT=]  install the peers (needs a C++ compiler, an hour on two cores) and run all beside them"
	@echo "make bench-gpu [SHAPE=8b OUT=]  measure a GPU and the engine on it (nine minutes)"

setup: $(STAMP)
	@:

serve: setup
	@$(BIN)/marquee serve $(MODEL) --port $(PORT) $(if $(NAME),--name $(NAME))

test: check
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: setup
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m tests.bench

# CACHE: where peers and models are kept, gigabytes; OUT: JSON and plots.
CACHE = $(HOME)/.cache/marquee-bench
OUT   = build/bench
bench-peers: setup
	$(PIP) install --quiet --constraint constraints.txt --editable '.[bench]'
	$(BIN)/python -m tests.bench.serving_bench --models m15,m135,tinychat --contestants all --install --cache $(CACHE) --out $(OUT)
	$(BIN)/python -m tests.bench.prefix_bench --models m15,m135 --contestants all --cache $(CACHE) --out $(OUT)

SHAPE = 8b
bench-gpu: setup
	$(BIN)/python -m tests.bench.gpu_bench --shape $(SHAPE) --out $(OUT)

clean:
	rm -rf $(VENV) build *.egg-info

# Again only when what is to be installed has changed.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@$(install_torch)
	$(PIP) install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# Without an NVIDIA GPU torch's CPU build: a wheel that pip finds locally, else PyTorch's own index, which need not be reachable. Failing both,
# the next step takes the build on PyPI, which brings gigabytes of CUDA on Linux but works.
TORCH := $(shell grep '^torch==' constraints.txt)
define install_torch
	nvidia-smi -L >/dev/null 2>&1 \
	|| $(PIP) install --quiet --no-deps --no-index $(TORCH) 2>/dev/null \
	|| $(PIP) install --quiet --no-deps --timeout 15 --retries 0 --index-url https://download.pytorch.org/whl/cpu $(TORCH) 2>/dev/null \
	|| echo "no CPU build of $(TORCH) within reach: taking the one on PyPI"
endef
