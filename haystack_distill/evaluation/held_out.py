"""What is held out, to select on and to prove on, and that nothing of it is learnt: one rule for every job."""

import random
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple, TypeVar

from haystack_distill.data.beir import Qrels, check_judged, read_judged, read_queries, splits_in
from haystack_distill.data.index import IndexView
from haystack_distill.data.sentences import index_sentences

T = TypeVar("T")

PART, MOST = 10, 400
"""A tenth is held out to select on, but no more than so many: more would not tell students apart any better."""

LEAST = 50
"""So few given queries tell nothing apart; where sentences of the index can stand in, none are held out then."""

FEW_WORDS = 5
"""From so many words on, texts that differ in one word count as the same: shorter ones ask for something else then."""


def tenth(count: int, part: int = PART, most: int = MOST) -> int:
    """How many of so many are held out."""
    return min(most, count // part)


def hold_out(everything: Sequence[T], count: int, seed: int) -> tuple[list[T], list[T]]:
    """Draw `count` to hold out: those, in the order they were drawn, and the others, in theirs."""
    chosen = random.Random(seed).sample(range(len(everything)), count)  # noqa: S311 - a sample, not a secret
    out = set(chosen)
    return [everything[place] for place in chosen], [one for place, one in enumerate(everything) if place not in out]


class Asked:
    """
    Texts that must not be learnt; `text in asked` is whether one of them asks the same.

    Case, punctuation and white space do not count, and of texts of five words or more one word may be another one, or
    be there in one of them only. So `What is a heron?` and `what is a  heron` are the same, and so are two questions
    for the capitals of two countries: rather too much is left out than too little.

    How they are found: for each place in a text a key is made of what stands before and after that word, and one of
    what stands before and after the gap between two words. Two texts differ in one word if such keys meet. Keys are
    hashes of the words up to a place and from it on, so that a text of n words costs n steps.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._whole: set[tuple[str, ...]] = set()
        self._holes: set[tuple[int, int]] = set()
        self._gaps: set[tuple[int, int]] = set()
        for text in texts:
            words = _words(text)
            self._whole.add(words)
            if len(words) >= FEW_WORDS:
                holes, gaps = _keys(words)
                self._holes |= holes
                self._gaps |= gaps

    def __contains__(self, text: str) -> bool:
        words = _words(text)
        if words in self._whole:
            return True
        if len(words) < FEW_WORDS:
            return False
        holes, gaps = _keys(words)
        return not (holes.isdisjoint(self._holes) and holes.isdisjoint(self._gaps) and gaps.isdisjoint(self._holes))


def _words(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared; of a text that is nothing but signs, the signs."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(" " if unicodedata.category(letter)[0] in "PSZC" else letter for letter in plain)
    return tuple(kept.split()) or tuple(plain.split())


def _keys(words: tuple[str, ...]) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    before = list(accumulate(words, lambda known, word: hash((known, word)), initial=0))
    after = list(accumulate(reversed(words), lambda known, word: hash((known, word)), initial=0))[::-1]
    holes = {(before[place], after[place + 1]) for place in range(len(words))}
    return holes, set(zip(before, after, strict=True))


def unseen(train: Iterable[str], judged: Iterable[str]) -> list[str]:
    """Leave out queries to train on that a judged one asks too (see `Asked`): no figure is about what was learnt."""
    asked = Asked(judged)
    return [text for text in train if text not in asked]


@dataclass(frozen=True)
class Dev:
    """Queries to select on; `judged` says whether people judged them, or the teacher."""

    queries: dict[str, str]
    qrels: Qrels
    judged: bool

    @property
    def judge(self) -> str:
        """Who judged, for `judged_by`."""
        return "judged dev queries" if self.judged else "held-out queries, judged by the teacher's favourite"

    def without(self, asked: Asked) -> "Dev":
        """The queries that are not asked in test; a ValueError if none is left."""
        queries = {query_id: text for query_id, text in self.queries.items() if text not in asked}
        if not queries:
            raise ValueError(_nothing_left(len(self.queries)))
        return replace(self, queries=queries, qrels={key: self.qrels[key] for key in queries if key in self.qrels})


def _nothing_left(count: int) -> str:
    return (
        f"All {count} dev queries are asked in the test split too, so there is nothing to select on: give others, or "
        "leave the dev split out."
    )


@dataclass(frozen=True)
class Queries:
    """
    Given queries: all optional, none needs judgments.

    :param dev: Id -> text: queries to choose layers and checkpoints on.
    :param dev_qrels: Their judgments, where there are any.
    :param left_out: How many were left out of `train` and of `dev`, because dev or test asks the same.
    :param text: Sentences of other texts than the index, to train on.
    """

    train: list[str] = field(default_factory=list)
    dev: dict[str, str] = field(default_factory=dict)
    dev_qrels: Qrels = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=lambda: {"train": 0, "dev": 0})
    text: list[str] = field(default_factory=list)

    def without(self, test: Iterable[str]) -> "Queries":
        """
        The queries that are not asked in test; of those to train on also none that dev asks.

        :raises ValueError: If there are dev queries and none is left.
        """
        asked = Asked(test)
        dev = {query_id: text for query_id, text in self.dev.items() if text not in asked}
        if self.dev and not dev:
            raise ValueError(_nothing_left(len(self.dev)))
        train = unseen((text for text in self.train if text not in asked), dev.values())
        left_out = {"train": len(self.train) - len(train), "dev": len(self.dev) - len(dev)}
        qrels = {query_id: judged for query_id, judged in self.dev_qrels.items() if query_id in dev}
        left_out = {name: count + self.left_out[name] for name, count in left_out.items()}
        return replace(self, train=train, dev=dev, dev_qrels=qrels, left_out=left_out)


def given_queries(path: str, seed: int, test: Iterable[str] = ()) -> Queries:
    """
    Split given queries into those to train on and those to select on; the test split is never among them.

    Where there is no dev split, a tenth is held out, unless that were fewer than 50: then all are trained on, and
    sentences of the index serve to select.

    :param path: A BEIR folder, or a JSONL file of queries.
    :param test: What will be measured on, besides the folder's own test split.
    :raises FileNotFoundError: If the path is missing.
    :raises ValueError: If the folder has no train split, or test asks all dev queries.
    """
    if not Path(path).is_dir():
        return _split(read_queries(path), None, seed).without(test)
    folder = read_judged(path)
    if "train" not in folder.qrels:
        msg = (
            f"{path} has no qrels/train.tsv, so no queries to align on: leave `queries` out to align on the index "
            "alone."
        )
        raise ValueError(msg)
    train = {query_id: folder.queries[query_id] for query_id in folder.qrels["train"]}
    queries = _split(train, folder.qrels.get("dev"), seed, folder.queries)
    judged = folder.qrels.get("dev") or folder.qrels["train"]
    queries = replace(queries, dev_qrels={query_id: judged[query_id] for query_id in queries.dev})
    return queries.without([*test, *folder.texts_of("test")])


def _split(train: dict[str, str], dev: Iterable[str] | None, seed: int, texts: dict[str, str] | None = None) -> Queries:
    """Queries to train on and to select on; where no dev ids are given, some of the former are drawn."""
    if not dev:
        count = tenth(len(train))
        dev, texts = hold_out(sorted(train), count if count >= LEAST else 0, seed)[0], train
    selecting = {query_id: (texts or train)[query_id] for query_id in dev}
    return Queries([text for query_id, text in train.items() if query_id not in selecting], selecting)


class IndexText(NamedTuple):
    """
    The sentences of an index, in three parts that share none.

    :param dev: Id -> sentence: to select on.
    :param proof: Id -> sentence: to measure on where no test queries are given.
    :param places: Sentence -> the numbers of the documents it stands in, for all three parts.
    """

    dev: dict[str, str]
    proof: dict[str, str]
    rest: list[str]
    places: dict[str, list[int]]

    def without(self, asked: Asked) -> "IndexText":
        """The parts without sentences that are asked in test."""
        dev = {query_id: text for query_id, text in self.dev.items() if text not in asked}
        return self._replace(dev=dev, rest=[text for text in self.rest if text not in asked])


def split_index_text(index: IndexView, seed: int) -> IndexText:
    """Cut an index into sentences and titles, and hold a twentieth out for each of two purposes."""
    return split_sentences(index_sentences(index.texts, [index.titles.get(one, "") for one in index.ids]), seed)


def split_sentences(places: dict[str, list[int]], seed: int) -> IndexText:
    """Hold a twentieth of some sentences out for each of two purposes."""
    sentences = list(enumerate(places))
    count = tenth(len(sentences), 2 * PART)
    chosen, rest = hold_out(sentences, 2 * count, seed)
    dev, proof = (
        {f"sentence-{number}": sentence for number, sentence in part} for part in (chosen[:count], chosen[count:])
    )
    return IndexText(dev, proof, [sentence for _, sentence in rest], places)


def judged_split(path: str, split: str, index: IndexView) -> tuple[dict[str, str], Qrels]:
    """
    Read the queries of a split, id -> text, and their judgments, and make sure that they are about this index.

    :raises FileNotFoundError: If the folder is not one in BEIR's form.
    :raises ValueError: If the split is missing or judges documents that the index lacks.
    """
    folder = read_judged(path)
    qrels = folder.qrels.get(split, {})
    if not qrels:
        msg = f"{path}/qrels/{split}.tsv is missing or judges nothing: name a split that has judgments."
        raise ValueError(msg)
    check_judged(qrels, index.ids, f"{path}/qrels/{split}.tsv")
    return {query_id: folder.queries[query_id] for query_id in qrels}, qrels


def splits_of(judged: str | None, index: IndexView) -> tuple[Dev | None, tuple[dict[str, str], Qrels] | None]:
    """The judged dev and test split, each as far as it is there; a FileNotFoundError if neither is."""
    if judged is None:
        return None, None
    there = splits_in(judged).keys() & {"dev", "test"}
    if not there:
        msg = f"{judged} has neither qrels/dev.tsv nor qrels/test.tsv: leave it out to be judged by the teacher."
        raise FileNotFoundError(msg)
    dev = Dev(*judged_split(judged, "dev", index), True) if "dev" in there else None
    return dev, judged_split(judged, "test", index) if "test" in there else None
