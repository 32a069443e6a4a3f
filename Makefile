# Everything that a person types here: make demo, make test, make lint.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed

# Nothing is fetched from a hub and nothing is reported while tests and the demo run.
export HF_HUB_OFFLINE = 1
export HAYSTACK_TELEMETRY_ENABLED = False
export TOKENIZERS_PARALLELISM = false

.PHONY: demo test lint clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "faiss-haystack>=3.0"  # docs/stores.md
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python -m demo

test: $(STAMP)
	$(BIN)/python -m pytest

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo_output benchmark_output
