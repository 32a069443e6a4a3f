"""Text to align on, taken from the index itself: no query log is needed."""

import random
import re
from collections.abc import Sequence
from itertools import pairwise, zip_longest

SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[。！？])")
SEPARATORS = " \t\n/|:-–—"
"""What may stand between a title and its text."""

MIN_WORDS, MAX_WORDS = 3, 64


def index_sentences(texts: Sequence[str], titles: Sequence[str] = ()) -> dict[str, list[int]]:
    """
    Cut documents into sentences and titles.

    :param titles: The title that each text begins with, empty where it has none; titles between line breaks are seen
        without being told.
    :returns: Sentences of at least three words (or ten characters, where a script has no spaces), cut after 64 words
        -> the numbers of the documents that they stand in, each once.
    """
    sentences: dict[str, list[int]] = {}
    for number, (text, title) in enumerate(zip_longest(texts, titles, fillvalue="")):
        body = text.removeprefix(title).lstrip(SEPARATORS) if title else text
        parts = [*_unwrapped(title), *_unwrapped(body)]
        for piece in (piece for part in parts for piece in SENTENCE_END.split(part)):
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


def sample_texts(*kinds: list[str], limit: int, seed: int) -> list[str]:
    """Put texts of several kinds together, each once: of the first kind that does not fit whole, a part is drawn."""
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    chosen: dict[str, None] = {}
    for kind in kinds:
        fresh = [text for text in dict.fromkeys(kind) if text not in chosen]
        left = limit - len(chosen)
        chosen |= dict.fromkeys(generator.sample(fresh, left) if len(fresh) > left else fresh)
    return list(chosen)
