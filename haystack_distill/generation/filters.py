"""
Which generated texts are worth training on. Each filter looks at what those before it left, and each is counted.

`likelihood` is InPars' (arXiv 2202.05144): the share with the highest mean log-likelihood. `round_trip` is
Promptagator's (ICLR 2023): a question stays if the retriever finds the passage it was written for.
"""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

COPIED = 0.8
"""A text is a copy if its longest run of words that the source has too is at least this share of it."""

ALIKE = 0.8
"""Two texts are near duplicates if they share this much of their character trigrams (Jaccard)."""

JAPANESE = {"HIRAGANA", "KATAKANA", "CJK"}
"""Scripts that one sentence is written in."""

MOST_OFTEN = 3
"""A text that was written for more sources than this says nothing about any."""

WORDS = {"questions": (3, 40), "answers": (1, 20), "responses": (1, 60)}
"""The fewest and the most words of a text, by mode."""

REFUSAL = re.compile(
    r"\bas an? (?:\w+ )?(?:ai|artificial intelligence|language model|large language model)\b"
    r"|\bi(?:'m| am) an? (?:\w+ )?(?:ai|language model|virtual assistant|chat ?bot)\b"
    r"|^(?:i(?:'m| am) (?:sorry|unable|not able)|sorry|unfortunately|i apologi[sz]e|my apologies)\b.{0,60}"
    r"\b(?:can(?:'t|not| not)|unable|not able|won't|don't have|do not have|no information)\b"
    r"|^i (?:can(?:'t|not| not)|won't) (?:help|assist|answer|provide|generate|write|create|fulfil|continue)\b",
    re.IGNORECASE,
)

GENERIC = {
    "questions": re.compile(
        r"\b(?:the|this|that|above|following|given|provided)\s+(?:\w+ )?"
        r"(?:text|passage|paragraph|article|excerpt)s?\b(?! of)"
        r"|\b(?:this|that|above|following|given|provided) (?:document|author|question|sentence|story|paper)s?\b"
        r"|^(?:what|who|why|when|where|how) (?:is|are|was|were|does|do|did) (?:it|this|that|they|he|she|these|those)\b"
        r"|\b(?:it|this|that)[?？]$|\bmain (?:idea|topic|point|purpose|theme)\b",
        re.IGNORECASE,
    ),
    "answers": re.compile(r"\b(?:text|passage) (?:does not|doesn't)\b|^(?:unknown|none|n/a|not \w+)$", re.IGNORECASE),
    "responses": re.compile(
        r"^(?:ok(?:ay)?|yes|no|yeah|sure|i see|i know|i don't know|me too|same|thanks?|thank you|you're welcome|hi"
        r"|hello)[ .!]*$",
        re.IGNORECASE,
    ),
}
"""Questions that nobody could answer without seeing the text, empty answers, replies that fit everywhere."""


@dataclass(frozen=True)
class Candidate:
    """
    A cleaned text and what it was written for.

    :param sources: The passage, the question to answer, or the turns of the dialogue.
    :param loglik: Its mean log-likelihood, where it is known.
    :param known: Texts that are there already, such as the human's reply.
    """

    source_id: str
    sources: tuple[str, ...]
    text: str
    seed: int
    model: str
    loglik: float | None = None
    known: tuple[str, ...] = ()


Filter = Callable[[list[Candidate]], list[bool]]
"""Says for each text whether it stays."""

Filters = dict[str, Filter]


def text_filters(
    mode: str, *, words: tuple[int, int] | None = None, marked: bool = True, without: Sequence[str] = ()
) -> Filters:
    """
    The filters that need nothing but the text and its source.

    :param words: The fewest and the most words; None takes the mode's own.
    :param marked: Whether questions must end with a question mark.
    :returns: Name -> filter, in the order in which they should be applied.
    :raises ValueError: If one that is to be left out does not exist.
    """
    fewest, most = words or WORDS[mode]
    generic = GENERIC[mode]
    filters: Filters = {
        "empty": _each(lambda candidate: bool(normal(candidate.text))),
        "repetition": _each(lambda candidate: not repeats_itself(candidate.text)),
        "refusal": _each(lambda candidate: not REFUSAL.search(candidate.text.replace("’", "'"))),
        "length": _each(lambda candidate: fewest <= count_words(candidate.text) <= most),
    }
    if mode == "questions" and marked:
        filters["no_question"] = _each(
            lambda candidate: candidate.text.rstrip("\"'”) ").endswith(("?", "？", "؟", ";"))
        )
    if mode == "responses":
        filters["other_script"] = _each(
            lambda candidate: script_of(candidate.text) in {None, *map(script_of, candidate.sources)}
        )
    filters["generic"] = _each(lambda candidate: not generic.search(candidate.text.replace("’", "'")))
    if mode != "answers":
        filters["copy"] = _each(
            lambda candidate: not any(is_copy(candidate.text, source) for source in candidate.sources)
        )
        filters["too_common"] = not_too_common
    filters["duplicate"] = distinct_questions if mode == "questions" else distinct_in_source
    unknown = [name for name in without if name not in filters or name == "empty"]
    if unknown:
        msg = (
            f"There is no filter {unknown[0]!r} to leave out: {', '.join(name for name in filters if name != 'empty')}."
        )
        raise ValueError(msg)
    return {name: keep for name, keep in filters.items() if name not in without}


def checked(check: Callable[[str, str], bool]) -> Filter:
    """The user's own check."""
    return _each(lambda candidate: bool(check(candidate.text, candidate.sources[-1])))


def likeliest(share: float, score: Callable[[list[Candidate]], Sequence[float | None]] | None = None) -> Filter:
    """
    InPars: only the texts with the highest mean log-likelihood stay.

    :param share: How many of them, above 0 and at most 1.
    :param score: Mean log-likelihoods of texts given their sources; None takes the generator's own.
    :returns: The filter; it refuses texts without a likelihood.
    :raises ValueError: If there is no such share.
    """
    if not 0 < share <= 1:
        msg = f"keep_likeliest={share} is no share: above 0, at most 1."
        raise ValueError(msg)

    def kept(candidates: list[Candidate]) -> list[bool]:
        scores = score(candidates) if score else [candidate.loglik for candidate in candidates]
        values = [value for value in scores if value is not None]
        if len(values) < len(candidates):
            msg = (
                "The generator tells no likelihoods, so the likeliest texts can't be kept: give a likelihood_scorer, "
                "or leave keep_likeliest out."
            )
            raise ValueError(msg)
        order = sorted(range(len(candidates)), key=lambda number: -values[number])
        chosen = set(order[: max(1, round(share * len(candidates)))])
        return [number in chosen for number in range(len(candidates))]

    return kept


def found_again(search: Callable[[Sequence[str]], Sequence[Sequence[str]]], depth: int = 1) -> Filter:
    """Promptagator's round trip: a question stays if it finds its source among the first documents (1 in the paper)."""

    def kept(candidates: list[Candidate]) -> list[bool]:
        ranked = search([candidate.text for candidate in candidates])
        sources = {candidate.source_id for candidate in candidates}
        if candidates and not any(sources & set(documents) for documents in ranked):
            msg = (
                f"The round trip found none of the {len(sources)} source documents at all, such as "
                f"{candidates[0].source_id!r}: the retriever must search the same documents, under the same ids."
            )
            raise ValueError(msg)
        return [candidate.source_id in list(ids)[:depth] for candidate, ids in zip(candidates, ranked, strict=True)]

    return kept


def apply(filters: Filters, candidates: list[Candidate]) -> tuple[list[Candidate], list[tuple[Candidate, str]]]:
    """Divide texts into those that stay, and those that go, each with the filter that sent it away."""
    rejected: list[tuple[Candidate, str]] = []
    for name, keep in filters.items():
        flags = keep(candidates)
        rejected += [(candidate, name) for candidate, stays in zip(candidates, flags, strict=True) if not stays]
        candidates = [candidate for candidate, stays in zip(candidates, flags, strict=True) if stays]
    return candidates, rejected


def not_too_common(candidates: list[Candidate]) -> list[bool]:
    """Drop texts that were written for many sources: they suit all of them, and so teach nothing."""
    return [count <= MOST_OFTEN for count in _sources_of(candidates)]


def distinct_in_source(candidates: list[Candidate]) -> list[bool]:
    """Keep the first of the texts of a source that are equal or nearly so."""
    seen: dict[str, list[set[str]]] = {}
    flags = []
    for candidate in candidates:
        before = seen.setdefault(candidate.source_id, [_trigrams(text) for text in candidate.known])
        own = _trigrams(candidate.text)
        flags.append(all(_jaccard(own, other) < ALIKE for other in before))
        if flags[-1]:
            before.append(own)
    return flags


def distinct_questions(candidates: list[Candidate]) -> list[bool]:
    """As `distinct_in_source`; one written for several sources goes altogether: each would be a wrong negative."""
    pairs = zip(_sources_of(candidates), distinct_in_source(candidates), strict=True)
    return [count == 1 and first for count, first in pairs]


def normal(text: str) -> str:
    """A text as it is compared: words in lower case, without punctuation."""
    return " ".join(re.findall(r"\w+", text.lower()))


def count_words(text: str) -> int:
    """How many words a text has; where a script has no spaces, three characters count as one."""
    words = text.split()
    dense = sum(len(word) // 3 for word in words if not word.isascii() and len(word) > 9)
    return max(len(words), dense)


def script_of(text: str) -> str | None:
    """The script of most of its letters (LATIN, CYRILLIC, ...), as Unicode names it; None for a text without any."""
    letters = (letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha())
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)
    most = scripts.most_common(1)[0][0] if scripts else None
    return "CJK" if most in JAPANESE else most


def is_copy(text: str, source: str) -> bool:
    """Whether a text was taken out of its source word by word."""
    words, others = normal(text).split(), normal(source).split()
    if not words:
        return False
    match = SequenceMatcher(None, words, others, autojunk=False).find_longest_match()
    return match.size >= COPIED * len(words)


def repeats_itself(text: str) -> bool:
    """Whether some words come four times in a row, as when a model is caught in a loop."""
    words = text.lower().split()
    for size in range(1, 9):
        run = 0
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            if run >= 3 * size:
                return True
    return False


def counts(rejected: list[tuple[Candidate, str]], filters: Filters) -> dict[str, int]:
    """How many texts each filter sent away."""
    found = Counter(name for _, name in rejected)
    return {name: found[name] for name in filters}


def _each(keep: Callable[[Candidate], bool]) -> Filter:
    return lambda candidates: [keep(candidate) for candidate in candidates]


def _sources_of(candidates: list[Candidate]) -> list[int]:
    """For how many sources each text was written."""
    sources: dict[str, set[str]] = defaultdict(set)
    for candidate in candidates:
        sources[normal(candidate.text)].add(candidate.source_id)
    return [len(sources[normal(candidate.text)]) for candidate in candidates]


def _trigrams(text: str) -> set[str]:
    padded = f" {normal(text)} "
    return {padded[place : place + 3] for place in range(len(padded) - 2)}


def _jaccard(first: set[str], second: set[str]) -> float:
    union = len(first | second)
    return len(first & second) / union if union else 1.0
