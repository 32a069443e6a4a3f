"""The model card beside every model that is made here: for people, and in the terms of a model hub."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache

from haystack_distill.evaluation.measures import HEADINGS, MAIN, MEASURES, cells
from haystack_distill.files.layout import CARD, PROVENANCE, hub_name

WHAT_IS_IN_IT = (
    "This folder holds text of the index: `report.html` shows questions and passages, `dev` and exports keep "
    "questions, and the records name the folders that it was made of. Look through them before you give it away."
)

HAYSTACK = """from haystack_distill import KaleQueryEncoder

encoder = KaleQueryEncoder(model={model})
embedding = encoder.run(text="How do I merge two dictionaries?")["embedding"]"""

PLAIN = """from sentence_transformers import SentenceTransformer

encoder = SentenceTransformer({model})
embedding = encoder.encode_{side}("How do I merge two dictionaries?")"""

LOADED = re.compile(r'(KaleQueryEncoder\(model=|SentenceTransformer\()"(?:[^"\\\n]|\\.)*"')
"""Where the two load a model."""

ON_A_HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Card:
    """
    What a model card says beside facts and figures.

    :param tag: For a hub, beside those of all models made here.
    :param said: Sentences.
    :param base: The folder or hub name of the model that it was made from.
    :param learnt_from: What questions were read from; a data set of a hub is named to the hub.
    """

    title: str
    tag: str
    said: Sequence[str]
    base: str
    learnt_from: str | None = None


def card_of(
    model: Path,
    card: Card,
    figures: Mapping[str, Any] | None = None,
    measured: Sequence[str] = (),
    facts: Mapping[str, str] | None = None,
    side: str | None = "query",
) -> str:
    """
    Write a model card.

    :param model: Its folder, for the code that loads it.
    :param figures: The content of `metrics.json`.
    :param measured: The systems in it, this model last.
    :param facts: How it was made, label -> text.
    :param side: What it embeds, `query` or `document`; None for a folder that only holds models.
    """
    about_base = _read(card.base)
    data = ModelCardData(
        base_model=_on_hub(card.base, about_base),
        license=about_base.license,
        license_name=about_base.license_name,
        license_link=about_base.license_link,
        language=about_base.language,
        datasets=[card.learnt_from] if card.learnt_from and _is_hub_name(card.learnt_from) else None,
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "haystack", "haystack-distill", card.tag],
        model_name=model.name,
        eval_results=_results(figures, measured[-1]) if figures and measured else None,
    )
    parts = [f"# {card.title}", " ".join(card.said)]
    if side:
        parts += _code(model, side)
    if figures and measured:
        parts += ["## How good it is", "\n".join(_table(figures, measured))]
    if facts:
        parts += ["## How it was made", "\n".join(f"- {label}: {text}" for label, text in facts.items())]
    body = "\n\n".join([*parts, WHAT_IS_IN_IT])
    return str(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n"))


def renamed(card: str, name: str) -> str:
    """A card whose code loads the model by another name."""
    return LOADED.sub(lambda found: f"{found[1]}{json.dumps(name)}", card)


def _code(model: Path, side: str) -> list[str]:
    """How to load it, in Haystack, where it embeds queries, and without."""
    ways = {"With Haystack:": HAYSTACK} if side == "query" else {}
    ways["With sentence-transformers:"] = PLAIN
    name = json.dumps(model.as_posix(), ensure_ascii=False)
    return [
        part for said, code in ways.items() for part in (said, f"```python\n{code.format(model=name, side=side)}\n```")
    ]


def _table(figures: Mapping[str, Any], measured: Sequence[str]) -> list[str]:
    lines = [f"| | {' | '.join(HEADINGS)} | ms a query |", "|---" * (len(HEADINGS) + 2) + "|"]
    for name in measured:
        shown = [*cells(figures[name], figures[name]["intervals"][MAIN.key]), f"{figures[name]['encode_ms']:.2f}"]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return lines


def _results(figures: Mapping[str, Any], name: str) -> list[EvalResult]:
    """The measures of a system with their intervals and the number of queries, as a model index has them."""
    results = []
    for measure in MEASURES:
        low, high = figures[name]["intervals"][measure.key]
        results.append(
            EvalResult(
                task_type="information-retrieval",
                task_name="Information Retrieval",
                dataset_type="unknown",
                dataset_name=figures["judged_by"],
                metric_type=measure.key.replace("@", "_at_"),
                metric_name=f"{measure.heading} ({figures['queries']} queries, 95 % interval {low:.3f} to {high:.3f})",
                metric_value=figures[name][measure.key],
                metric_args={"queries": figures["queries"], "low": low, "high": high},
            )
        )
    return results


def _read(model: str) -> ModelCardData:
    """What the card of a model says, if it is here: loading the model has fetched it, and the hub isn't asked again."""
    try:
        file = Path(model, CARD) if Path(model).exists() else try_to_load_from_cache(hub_name(model), CARD)
        if isinstance(file, str | Path) and Path(file).is_file():
            return ModelCard.load(file, ignore_metadata_errors=True).data
    except (ValueError, TypeError, yaml.YAMLError):
        pass  # a card that can't be read says nothing
    return ModelCardData()


def _on_hub(model: str, about: ModelCardData) -> str | list[str] | None:
    """The name of a model on the hub; of a folder that was made here, the name of what it was made from."""
    if Path(model).exists():
        made_from = about.base_model if Path(model, PROVENANCE).is_file() else None
        return made_from if isinstance(made_from, str) else None
    return hub_name(model)


def _is_hub_name(source: str) -> bool:
    return ON_A_HUB.fullmatch(source) is not None and not Path(source).exists() and not Path(source).suffix
