"""Answers to questions, out of the passages that were found for them."""

from collections.abc import Iterator, Sequence

from haystack_distill.files.runs import fingerprint
from haystack_distill.generation.cleaning import clean
from haystack_distill.generation.requests import Generator, Reply
from haystack_distill.generation.writing import WritingPrompt

PROMPT = WritingPrompt(
    "Text: {text}\n\nAnswer the question in one or two sentences, with what the text says. If it does not say it, say "
    "so.\nQuestion: {question}",
    cue="Answer:",
)


def answers(generator: Generator, asked: Sequence[tuple[str, Sequence[str]]]) -> Iterator[dict[int, str]]:
    """
    Answer questions from passages; the same passages give the same answer.

    :param asked: Question and passages, the best first.
    :returns: Place -> answer, of those that are answered, more with each step; without passages there is no answer.
    """
    places: dict[str, list[int]] = {}
    requests = {}
    for place, (question, passages) in enumerate(asked):
        if not passages:
            continue
        key = fingerprint([question, *passages], 16)
        places.setdefault(key, []).append(place)
        requests[key] = PROMPT.request(key, ["\n\n".join(passages)], count=1, seed=0, question=question)
    answered: dict[int, str] = {}
    for replies in generator.work(list(requests.values()), frozenset()):
        answered |= {place: _said(reply) for reply in replies for place in places[reply.id]}
        yield answered


def _said(reply: Reply) -> str:
    text = next(iter(reply.texts), None)
    said = clean(text.text, "responses", finished=text.finished) if text else ""
    return said or f"(no answer: {reply.reason or 'it said nothing'})"
