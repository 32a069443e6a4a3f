"""Tokens that steer a model: no passage may hold one, and one of them ends an answer."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # labelling and reading need no model library
    from transformers import PreTrainedTokenizerBase

KNOWN = re.compile(
    r"<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>|<(?:bos|eos|pad|unk|cls|sep)>"
    r"|<(?:PAD|UNK|CLS|SEP|[A-Z]{3,4}_TOKEN)>"
    r"|</?(?:think|tool_call|tool_response)>"
)
"""Of the chat templates in use (ChatML, Llama, Mistral, Gemma, DeepSeek, Phi, Qwen, Command), for other tokenizers."""

_REPLY = "\ue000reply\ue001"


def control_tokens(tokenizer: "PreTrainedTokenizerBase") -> re.Pattern[str] | None:
    """What a tokenizer parses out of any text: its special tokens, and every token that was added to its vocabulary."""
    tokens = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    tokens = {token for token in tokens if len(token.strip()) > 1}
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))) if tokens else None


def broken(text: str, tokens: re.Pattern[str] | None) -> str:
    """Put a space into every control token of a text, also into those that this makes, so that all is read as text."""
    while tokens is not None and tokens.search(text):
        text = tokens.sub(lambda token: re.sub(r"\S", r"\g<0> ", token[0], count=1), text)
    return text


def end_of_answer(tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The token that ends an answer: the one that the chat template puts after a reply, or else the end of the text."""
    if tokenizer.chat_template:
        from jinja2 import TemplateError

        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _REPLY}]
        try:
            after = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(_REPLY)[2].strip()
        except TemplateError:  # a template that takes no replies
            after = ""
        first = tokenizer(after, add_special_tokens=False)["input_ids"][:1]
        if set(first) & {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}:
            return int(first[0])
    return tokenizer.eos_token_id
