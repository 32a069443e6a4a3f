"""`haystack-distill init`: pipelines for one's own store and encoder, ready to run."""

import json
import os
import re
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from haystack_distill.cli.errors import explained
from haystack_distill.cli.shared import say
from haystack_distill.cli.templates import template

if TYPE_CHECKING:
    from haystack_integrations.components.distill.stores.base import StoreKind

USUAL = ("indexing", "kale", "query", "rag", "cascade", "hybrid_fusion", "hybrid")
FURTHER = ("update", "new_encoder", "label", "dkrr", "cold_start", "g2r", "g2r_strong")
PIPELINES = (*USUAL, *FURTHER)
"""What is written, the usual ones in the order in which they are run; hybrids only where a store searches by words."""

SIZES = ("hidden_size", "dim", "word_embedding_dimension", "embedding_dimension", "out_features")
"""How the parts of an encoder call the length of what they give; the last part counts."""

HYBRIDS = ("hybrid_fusion", "hybrid")
STORE = re.compile(r"^(?P<pad> *)document_store:(?P<anchor> &store)?\n(?:(?P=pad) +\S.*\n)+", re.MULTILINE)
MODEL, STEM = "models/all-MiniLM-L6-v2", "models/minilm"
NAMED = re.compile(f"{MODEL}|{STEM}")
"""The encoder in the pipelines that are shipped, and what the names of its students begin with."""


def init(
    store: Annotated[str, typer.Option(help="Qdrant, pgvector, Chroma, FAISS, Milvus or InMemory.")],
    model: Annotated[str, typer.Option(help="The encoder of the documents: folder or hub name.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; nothing is overwritten.")] = Path(),
) -> dict[str, Any]:
    """
    Write pipelines for your store and encoder: index, align, ask, RAG, all else, hybrids where the store has words.

    Examples:
      haystack-distill init --store qdrant --model sentence-transformers/all-MiniLM-L6-v2
      haystack-distill init shop --store pgvector --model intfloat/e5-small-v2
    """
    with explained():
        from haystack_distill.serving.hub import local_folder
        from haystack_integrations.components.distill.stores.known import KINDS

        kinds = {re.sub(r"\W", "", kind.title).lower(): kind for kind in KINDS.values()}
        kind = kinds.get(re.sub(r"[\W_]", "", store).lower())
        if kind is None:
            known = ", ".join(kind.title for kind in KINDS.values())
            msg = f"--store {store!r} is not known by name: take one of {known}, and put your own in its place."
            raise ValueError(msg)
        assert kind.in_yaml
        names = [name for name in PIPELINES if kind.in_yaml.keyword or name not in HYBRIDS]
        files = [folder / "store.yaml", *(folder / f"{name}.yaml" for name in names)]
        if there := [file for file in files if file.exists()]:
            msg = f"{there[0]} exists, and nothing is overwritten: name another folder."
            raise FileExistsError(msg)
        described = _store(kind, local_folder(model), model)
        if Path(model).is_dir():
            model = os.path.relpath(model, folder)  # as the pipelines see it, which are run where they lie
        texts = [_dumped(described)]
        texts += [_filled(template(name).read_text(encoding="utf-8"), kind, described, model) for name in names]
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, encoding="utf-8")
    _say_what_next(folder, names, kind)
    return {"files": [str(file) for file in files]}


def _store(kind: "StoreKind", folder: str, model: str) -> dict[str, Any]:
    """The store for the vectors of an encoder, as a YAML names it."""
    dim, similarity = _vectors_of(Path(folder), model)
    words = [word for word, name in kind.similarities.items() if name == similarity]
    assert kind.in_yaml
    # A store that ranks otherwise gives vectors of length one the same order; the components find out whether it does.
    word = words[0] if words else next(iter(kind.similarities))
    return {"type": kind.in_yaml.store, "init_parameters": kind.in_yaml.parameters(dim, word)}


def _vectors_of(folder: Path, model: str) -> tuple[int, str]:
    """How long an encoder's vectors are, and how its maker compares them; a ValueError if its files don't say."""
    from haystack_distill.files.layout import MODULES
    from haystack_distill.files.shapes import read_json

    def read(*place: str) -> Any:
        file = folder.joinpath(*place)
        return read_json(file, Any, "correct --model.") if file.is_file() else {}

    parts = [read(part["path"], "config.json") for part in read(MODULES)]
    found = [part[key] for part in parts for key in SIZES if key in part]
    if not found:
        msg = f"{model} is no sentence-transformers model that says how long its vectors are: correct --model."
        raise ValueError(msg)
    name = read("config_sentence_transformers.json").get("similarity_fn_name") or "cosine"
    return found[-1], {"dot": "dot_product"}.get(name, name)


def _filled(text: str, kind: "StoreKind", described: dict[str, Any], model: str) -> str:
    """A pipeline with another store, its retrievers and another encoder in it; all else stays, comments too."""
    from haystack_integrations.components.distill.stores.known import KINDS

    assert kind.in_yaml
    for other in KINDS.values():
        assert other.in_yaml
        text = text.replace(other.in_yaml.retriever, kind.in_yaml.retriever)
        if other.in_yaml.keyword and kind.in_yaml.keyword:
            text = text.replace(other.in_yaml.keyword, kind.in_yaml.keyword)

    def store(place: re.Match[str]) -> str:
        block = textwrap.indent(_dumped(described), f"{place['pad']}  ")
        return f"{place['pad']}document_store:{place['anchor'] or ''}\n{block}"

    stem = re.sub(r"[^\w.-]", "-", model.rstrip("/").rpartition("/")[2])
    encoder = model if re.fullmatch(r"[\w./][\w./-]*", model) else json.dumps(model)
    # In one pass, since the new names may hold the old ones.
    return NAMED.sub(lambda found: encoder if found[0] == MODEL else f"models/{stem}", STORE.sub(store, text))


def _dumped(described: dict[str, Any]) -> str:
    return yaml.safe_dump(described, sort_keys=False)


def _say_what_next(folder: Path, names: list[str], kind: "StoreKind") -> None:
    assert kind.in_yaml
    usual, further = ([f"{name}.yaml" for name in names if name in group] for group in (USUAL, FURTHER))
    say(f"Written to {folder}: store.yaml, {', '.join(usual)}; for later {', '.join(further)}.")
    if "hybrid" not in names:
        say(f"No hybrid: Haystack has no retriever for {kind.title} that takes words.")
    needs = " ".join(("haystack-distill[train]", "sentence-transformers-haystack", *kind.in_yaml.packages))
    say(f"They need: pip install {needs}")
    if "InMemory" in kind.title:
        say(
            "Documents in memory are gone with the process: load indexing.yaml and the others in one, by load_pipeline."
        )
        return
    place = "" if folder == Path() else f"cd {folder}; "
    say(f"Next: {place}haystack-distill run indexing.yaml documents=YOUR_TEXTS; haystack-distill run kale.yaml")
