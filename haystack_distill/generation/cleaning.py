# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Generated text without its wrapping, and given text that can't break out of a prompt."""

import re

CONTROL = re.compile(
    r"<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>"
    r"|</?(?:think|tool_call|tool_response)>"
)
"""Control tokens of the chat templates in use: ChatML, Llama 2 and 3, Mistral, Gemma, DeepSeek, Phi, Qwen."""

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
    """
    Take from a text what could end its place in a prompt; a reader still sees what stood there.

    :param text: A document, question or turn.
    :returns: The text with control tokens broken up, and no line that poses as a turn.
    """
    return ROLE.sub(lambda line: f"{line[1]}{line[2]} -", broken(text, CONTROL))


def broken(text: str, tokens: re.Pattern[str]) -> str:
    """
    Put a space into every control token of a text, so that a tokenizer reads it letter by letter.

    :param text: The text.
    :param tokens: The control tokens.
    :returns: The text. A token within a token is broken too.
    """
    while tokens.search(text):
        text = tokens.sub(lambda token: f"{token[0][0]} {token[0][1:]}", text)
    return text


def clean(text: str, mode: str, *, finished: bool = True) -> str:
    """
    The text that was asked for, out of what a model said.

    :param text: What it said.
    :param mode: `questions`, `answers` or `responses`.
    :param finished: Whether the model ended it. Of a reply that was cut off its whole sentences are left, of an answer
        nothing.
    :returns: The text on one line, without thoughts, labels, quotes and what follows it; may be empty.
    """
    text = _THOUGHT.sub("", text).strip()
    text = CONTROL.split(text)[0].strip()
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
