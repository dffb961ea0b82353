# Needs Python 3.11 (or newer) and make; everything else is installed into .venv on first use.
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
VENV   ?= .venv
BIN    := $(VENV)/bin

# `make tune MODEL=my_network.onnx BUDGET=60`; without MODEL, the ResNet-50 that the onnx package ships.
MODEL  ?= $(shell $(BIN)/python -c 'import onnx, pathlib; print(pathlib.Path(onnx.__file__).parent / "backend/test/data/light/light_resnet50.onnx")')
BUDGET ?= 150
SUITE  ?= resnet50
# What `make defaults` tunes for convgen to be shipped with; on a machine that does nothing else.
SUITES ?= resnet50 vgg16 mobilenet_v2 convnext_t densenet121 unet
PEERS  ?= torch,onnxruntime,openvino,jax

.PHONY: tune test test-slow test-levels test-all lint format bench defaults clean

tune: $(VENV)/.onnx
	$(BIN)/convgen tune "$(MODEL)" --budget $(BUDGET)

test: lint
	$(BIN)/python -m pytest -n auto -m "not slow"

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -n auto -m slow || [ $$? -eq 5 ]  # 5: no test is marked slow

# The geometries once more, with no more than AVX2, and with what every processor of the architecture has.
test-levels: $(VENV)/.test
	CONVGEN_MAX_CPU_ISA=avx2 $(BIN)/python -m pytest -n auto -m slow tests/test_geometry.py -k "every_strategy and not corpus"
	CONVGEN_MAX_CPU_ISA=generic $(BIN)/python -m pytest -n auto -m slow tests/test_geometry.py -k "every_strategy and not corpus"

test-all: lint
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench
	$(BIN)/convgen bench $(SUITE) --against $(PEERS)

# In a database of its own, with one thread and with all.
defaults: export CONVGEN_CACHE_DIR = build/defaults
defaults: $(VENV)/.test
	for suite in $(SUITES); do for threads in $$(printf '1\n%s\n' "$$(nproc)" | sort -u); do \
		$(BIN)/convgen tune $$suite --threads $$threads --budget $(BUDGET) --no-emit || exit 1; done; done
	mkdir -p convgen/tuning/defaults
	$(BIN)/convgen db export --here -o convgen/tuning/defaults

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment, one stamp for each set of extras; a stamp is renewed when pyproject.toml changes.
# The extras test and bench ask for torch==2.13.0 exactly: an open range can pull gigabytes of CUDA libraries.
$(BIN)/python:
	"$(PYTHON)" -m venv $(VENV)

$(VENV)/.%: pyproject.toml | $(BIN)/python
	@echo "installing convgen[$*] into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[$*]"
	@touch $@
