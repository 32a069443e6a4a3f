# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Text to align on, taken from the index itself: no query log is needed."""

import random
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from haystack_distill.data.index import IndexView

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])")
MIN_WORDS, MAX_WORDS = 3, 64
HELD_OUT = 400


def index_sentences(texts: list[str]) -> dict[str, list[int]]:
    """
    Cut documents into sentences and titles.

    :param texts: The documents' texts.
    :returns: Sentences of at least three words (or ten characters, where a script has no spaces), cut after 64 words
        -> the numbers of the documents that they stand in, each once.
    """
    sentences: dict[str, list[int]] = {}
    for number, text in enumerate(texts):
        for piece in (piece for part in _unwrapped(text) for piece in SENTENCE_END.split(part)):
            words = piece.split()
            if len(words) >= MIN_WORDS or (len(words) == 1 and len(words[0]) >= 10):
                places = sentences.setdefault(" ".join(words[:MAX_WORDS]), [])
                if places[-1:] != [number]:
                    places.append(number)
    return sentences


def _unwrapped(text: str) -> list[str]:
    """
    Cut where a line break is meant: after a title, a heading, an item of a list.

    In wrapped prose a line ends where the next word would not have fitted, or goes on with a small letter.
    """
    lines = text.split("\n")
    width = max(map(len, lines))
    parts = [lines[0]]
    for above, line in pairwise(lines):
        word = next(iter(line.split(maxsplit=1)), "")
        if not word or (len(above.rstrip()) + 1 + len(word) <= width and not word[0].islower()):
            parts.append(line)
        else:
            parts[-1] += f" {line}"
    return parts


class IndexText(NamedTuple):
    """
    The sentences of an index, in three parts that share none.

    :param dev: Id -> sentence: to select on.
    :param proof: Id -> sentence: to measure on where no test queries are given.
    :param rest: To train on.
    :param places: Sentence -> the numbers of the documents it stands in, for all three parts.
    """

    dev: dict[str, str]
    proof: dict[str, str]
    rest: list[str]
    places: dict[str, list[int]]


def split_index_text(index: IndexView, seed: int) -> IndexText:
    """
    Cut an index into sentences and hold some out: at most a twentieth for each of the two purposes.

    :param index: The index.
    :param seed: Of the choice.
    :returns: The parts; the same for the same index and seed.
    """
    places = index_sentences(index.texts)
    sentences = list(places)
    count = min(HELD_OUT, len(sentences) // 20)
    chosen = random.Random(seed).sample(range(len(sentences)), 2 * count)  # noqa: S311 - a sample, not a secret
    dev, proof = (
        {f"sentence-{number}": sentences[number] for number in part} for part in (chosen[:count], chosen[count:])
    )
    out = set(chosen)
    rest = [sentence for number, sentence in enumerate(sentences) if number not in out]
    return IndexText(dev, proof, rest, places)


def unseen(train: Iterable[str], judged: Iterable[str]) -> list[str]:
    """
    Leave out queries to train on that are judged as well, so that no figure is about a query that was learnt.

    :param train: Queries to train on.
    :param judged: Those to select on or to measure with.
    :returns: The others; case and spaces at the ends don't count.
    """
    known = {text.strip().casefold() for text in judged}
    return [text for text in train if text.strip().casefold() not in known]


def sample_texts(queries: list[str], sentences: list[str], limit: int, seed: int) -> list[str]:
    """
    Put given queries and index text together, at most `limit` of them; all queries stay as long as they fit.

    :param queries: Given queries, may be empty.
    :param sentences: Text from the index.
    :param limit: The most texts to return.
    :param seed: Of the choice.
    :returns: Texts, each once.
    """
    unique = list(dict.fromkeys(queries))
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    if len(unique) > limit:
        return generator.sample(unique, limit)
    known = set(unique)
    rest = [sentence for sentence in sentences if sentence not in known]
    if len(rest) > limit - len(unique):
        rest = generator.sample(rest, limit - len(unique))
    return unique + rest
