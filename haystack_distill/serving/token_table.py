"""A token table served with numpy: the sum of some rows."""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from typing_extensions import TypedDict

from haystack_distill.files.shapes import read_json, read_tensors
from haystack_distill.serving.backends import TABLE
from haystack_distill.serving.encoder import WINDOW, Encoder
from haystack_distill.serving.exports import WEIGHTS
from haystack_distill.students.prompt import prompt_for

STATIC, NORMALIZE = "StaticEmbedding", "Normalize"

AGAIN = "align again, or fetch the model again."


class _Module(TypedDict):
    """An entry of `modules.json`."""

    type: str
    path: str


def module_folders(model: Path) -> dict[str, Path]:
    """Read what a sentence-transformers folder is made of: class name of each module -> its folder."""
    modules = read_json(model / "modules.json", list[_Module], AGAIN)
    return {module["type"].rpartition(".")[2]: model / module["path"] for module in modules}


def is_table(model: Path) -> bool:
    """Whether a sentence-transformers folder holds a token table and nothing that changes its vectors on the way."""
    modules = set(module_folders(model))
    return STATIC in modules and modules <= {STATIC, NORMALIZE} and not _changes_vectors(model)


def _changes_vectors(model: Path) -> bool:
    """A prompt before every text, or vectors that are cut: sentence-transformers itself serves such a table."""
    file = model / "config_sentence_transformers.json"
    config = read_json(file, dict[str, Any], AGAIN) if file.is_file() else {}
    prompt = prompt_for("query", config.get("prompts") or {}, config.get("default_prompt_name"))
    return bool(prompt or config.get("truncate_dim"))


def _tokenizer(file: Path, rows: int) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing more particular
        msg = f"{file} is damaged ({error}): {AGAIN}"
        raise ValueError(msg) from error
    if tokenizer.get_vocab_size() > rows:
        msg = f"{file} is damaged (it has {tokenizer.get_vocab_size()} tokens for {rows} vectors): {AGAIN}"
        raise ValueError(msg)
    return tokenizer


def table_encoder(model: Path) -> Encoder:
    """Load a token table, see `is_table`; a ValueError if it holds values that are no numbers."""
    folders = module_folders(model)
    file = folders[STATIC] / WEIGHTS
    rows = read_tensors(file, AGAIN).get("embedding.weight", np.zeros(0)).astype(np.float32)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        fault = "some of its values are no numbers" if rows.ndim == 2 else "it holds no table"
        msg = f"{file} is damaged: {fault}. {AGAIN.capitalize()}"
        raise ValueError(msg)
    tokenizer = _tokenizer(folders[STATIC] / "tokenizer.json", len(rows))
    normalized = NORMALIZE in folders

    def mean(tokens: list[int]) -> np.ndarray:
        if not tokens:
            msg = "The query holds no token that the encoder knows: it needs at least one word."
            raise ValueError(msg)
        total = np.add.reduce(rows.take(tokens, axis=0), axis=0)
        if not normalized:
            return total / len(tokens)
        length = np.sqrt(total.dot(total))  # a sum and a mean point the same way
        if not length:
            msg = "The query holds only tokens that the encoder knows nothing of: it needs another word."
            raise ValueError(msg)
        return total / length

    def encode(text: str) -> np.ndarray:
        return mean(tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_batch(texts: list[str]) -> np.ndarray:
        return np.stack([mean(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)])

    return Encoder(TABLE.names[0], encode, encode_batch, (tokenizer.truncation or {}).get("max_length", WINDOW))
