"""Text that is not in the index, to align on beside it: files, folders, or a `datasets` name."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from haystack_distill.data.questions import read_rows
from haystack_distill.data.sentences import index_sentences
from haystack_distill.files.texts import read_text, text_files


def read_general_text(sources: Iterable[str]) -> list[str]:
    """
    Read texts and queries of any kind, cut into sentences as the index is.

    :param sources: Each a text, a folder of texts, a BEIR folder (its corpus), a `.jsonl`, `.csv`, `.tsv` or `.parquet`
        file with a column `text`, or the name of a data set for the `datasets` library with one.
    :returns: The sentences, each once.
    :raises FileNotFoundError: If there is no such file, folder or data set.
    :raises ValueError: If a row has no text, or a source holds no sentence.
    """
    found: dict[str, None] = {}
    for source in sources:
        sentences = index_sentences(list(_texts(source)))
        if not sentences:
            msg = f"{source} holds no sentence of three words or more: leave it out of `text`."
            raise ValueError(msg)
        found |= dict.fromkeys(sentences)
    return list(found)


def _texts(source: str) -> Iterable[str]:
    path = Path(source)
    files = text_files(path)
    if files:
        return map(read_text, files)
    corpus = path / "corpus.jsonl"
    return [_text(row, f"{source}, row {number}") for number, row in read_rows(corpus if path.is_dir() else source)]


def _text(row: dict[str, Any], where: str) -> str:
    text = row.get("text")
    if not isinstance(text, str):
        msg = f"{where}: it has no column `text` ({', '.join(row) or 'it is empty'}): rename the one that is meant."
        raise ValueError(msg)
    return text
