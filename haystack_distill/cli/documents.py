"""Documents in files, as people have them: a folder of texts, a file of JSON lines, or a BEIR folder."""

from collections import Counter
from pathlib import Path

from haystack import Document
from haystack.components.preprocessors import RecursiveDocumentSplitter

from haystack_distill.cli.templates import template
from haystack_distill.data.beir import Corpus, read_corpus
from haystack_distill.files.shapes import read_yaml
from haystack_distill.files.texts import SUFFIXES, read_text, text_files


def read_documents(path: Path) -> list[Document]:
    """
    Read the documents of a file or a folder, whole.

    :param path: A BEIR folder, a `.jsonl` file like its corpus, a folder of texts, or a text.
    :returns: Texts have their path below the folder as `meta["source"]`, others their id and `meta["title"]`.
    :raises FileNotFoundError: If there is no such path.
    :raises ValueError: If it holds no text, or something that can't be read.
    """
    if not holds_texts(path):
        corpus = _read(path)
        return [
            Document(id=key, content=text, meta={"title": corpus.titles[key]} if key in corpus.titles else {})
            for key, text in corpus.documents.items()
        ]
    home = path if path.is_dir() else path.parent
    texts = {str(file.relative_to(home)): read_text(file) for file in text_files(path)}
    return [Document(content=text, meta={"source": source}) for source, text in texts.items() if text.strip()]


def corpus_of(path: Path) -> Corpus:
    """
    Read documents to be searched, id -> text: of texts their passages, cut as `pipelines/indexing.yaml` cuts them.

    :raises FileNotFoundError: See `read_documents`.
    :raises ValueError: See `read_documents`.
    """
    if not holds_texts(path):
        return _read(path)
    indexing = read_yaml(template("indexing"))
    splitter = RecursiveDocumentSplitter(**indexing["components"]["splitter"]["init_parameters"])
    numbers: Counter[str] = Counter()
    passages = {}
    for passage in splitter.run(read_documents(path))["documents"]:
        numbers[passage.meta["source"]] += 1
        passages[f"{passage.meta['source']}#{numbers[passage.meta['source']]}"] = passage.content or ""
    return Corpus(passages, {})


def holds_texts(path: Path) -> bool:
    """Whether a path is a text or a folder of texts, rather than one in BEIR's form."""
    return bool(text_files(path))


def _read(path: Path) -> Corpus:
    """Documents in JSON lines; where nothing can be read, what can be is named."""
    if not path.exists():
        msg = f"{path} is missing: name a folder of texts, a text, a .jsonl file or a BEIR folder."
        raise FileNotFoundError(msg)
    if path.is_dir() and not any((path / name).exists() for name in ("corpus.jsonl", "queries.jsonl", "qrels")):
        msg = (
            f"{path} holds no text: files that end in {', '.join(SUFFIXES)} are read, and a corpus.jsonl; convert "
            "others with Haystack."
        )
        raise ValueError(msg)
    return read_corpus(path / "corpus.jsonl" if path.is_dir() else path)
