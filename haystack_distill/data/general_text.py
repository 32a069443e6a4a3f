"""Text that is not in the index, to align on beside it: files, folders, or a `datasets` name."""

from collections.abc import Iterable
from pathlib import Path

from haystack_distill.data.beir import read_corpus
from haystack_distill.data.questions import read_rows
from haystack_distill.data.sentences import index_sentences
from haystack_distill.files.texts import SUFFIXES, read_text, text_files


def read_general_text(sources: Iterable[str]) -> list[str]:
    """
    Read texts and queries of any kind, cut into sentences as the index is.

    :param sources: Each a text, a folder of texts, a BEIR folder (its corpus), a `.jsonl`, `.csv`, `.tsv` or `.parquet`
        file with a column `text`, or the name of a data set for the `datasets` library with one.
    :returns: The sentences, each once.
    :raises FileNotFoundError: If there is no such file, folder or data set.
    :raises ValueError: If there is no column `text`, or a source holds no sentence.
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
    if files := text_files(path):
        return map(read_text, files)
    if (path / "corpus.jsonl").is_file():
        return read_corpus(path / "corpus.jsonl").documents.values()
    if path.is_dir() or path.suffix in SUFFIXES:
        what = "holds no text" if path.is_dir() else "is missing"
        msg = f"{source} {what}: name a folder of {', '.join(SUFFIXES)} files, one of them, a table or a data set."
        raise FileNotFoundError(msg)
    rows = [row for _, row in read_rows(source)]
    texts = [row["text"] for row in rows if "text" in row]  # a table leaves empty cells out
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None or (rows and not texts):
        found = f"holds {wrong!r}" if texts else f"is not there ({', '.join(rows[0])} are)"
        msg = f"The column `text` of {source} {found}: it must hold texts."
        raise ValueError(msg)
    return texts
