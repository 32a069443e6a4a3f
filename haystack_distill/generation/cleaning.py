"""Generated text without its wrapping, and given text that can't break out of a prompt."""

import re

from haystack_distill.teachers.control_tokens import KNOWN, broken

_SPEAKERS = r"(?:system|user|assistant|human|ai|bot|question|answer|text|instructions?|a|b)"
ROLE = re.compile(rf"(^|\n)([ \t>#*]*{_SPEAKERS}[ *]*):", re.IGNORECASE)
"""A line that poses as a turn of the conversation, or as a part of the prompt."""

_THOUGHT = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL | re.IGNORECASE)
_LABEL = re.compile(
    r"^(?:[-*•>#\s]+|\(?\d{1,2}[.):]\s+|\**(?:question|query|q|answer|a|b|response|reply|assistant|ai|bot)\**\s*\d*\s*:\**)+\s*",
    re.IGNORECASE,
)
_NEXT_TURN = re.compile(rf"\n[\s*]*{_SPEAKERS}[\s*]*:", re.IGNORECASE)
_WHOLE = re.compile(r"(?:.*[.!?…。！？][\"'”)]*(?=\s|$))?")
_QUOTES = "\"'“”„«»`*_ \t"
_PREAMBLE = re.compile(r"^(?:sure|certainly|of course|here (?:is|are|'s)|here’s)\b.*[:!.]$", re.IGNORECASE)


def neutral(text: str) -> str:
    """A text that can't end its place in a prompt: control tokens are broken up, and no line poses as a turn."""
    return ROLE.sub(lambda line: f"{line[1]}{line[2]} -", broken(text, KNOWN))


def without_thoughts(text: str) -> str:
    """What a model said after thinking, or nothing if it did not come to an end."""
    return _THOUGHT.sub("", text).strip()


def clean(text: str, mode: str, *, finished: bool = True) -> str:
    """
    The text that was asked for, out of what a model said.

    :param mode: `questions`, `answers` or `responses`.
    :param finished: Whether the model ended it. Of a reply that was cut off its whole sentences are left, of an answer
        nothing.
    :returns: The text on one line, without thoughts, labels, quotes and what follows it; may be empty.
    """
    text = KNOWN.split(without_thoughts(text))[0].strip()
    if mode == "responses":
        text = _NEXT_TURN.split("\n" + _LABEL.sub("", text))[0]
        text = " ".join(text.split()).strip('"“” ')
        whole = None if finished else _WHOLE.search(text)
        return whole[0] if whole else text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and (_PREAMBLE.match(lines[0]) or lines[0].endswith(":")):
        lines = lines[1:]
    line = " ".join(_LABEL.sub("", lines[0]).split()).strip(_QUOTES) if lines else ""
    if mode == "questions":
        end = re.search(r"[?？](?=[\s\"'”)]|$)", line)
        return line[: end.end()] if end else line
    if mode == "answers" and not finished:
        return ""
    return line.removesuffix(".").strip(_QUOTES)
