"""Any chat generator of Haystack, as the engine asks it."""

from typing import Any

from haystack.dataclasses import ChatMessage

from haystack_distill.files.addresses import without_secrets
from haystack_distill.files.runs import fingerprint
from haystack_distill.generation.asking import Ask, AskingGenerator, Said
from haystack_distill.generation.requests import Message
from haystack_integrations.components.distill.parts.inner import warm_up

_SAY = {"system": ChatMessage.from_system, "user": ChatMessage.from_user, "assistant": ChatMessage.from_assistant}


def ask_with(generator: Any, *, seeded: bool) -> Ask:
    """Ask a chat generator that is warmed up; `seeded` says whether it takes a seed in its `generation_kwargs`."""

    def ask(messages: list[Message], seed: int) -> Said:
        chat = [_SAY[role](text) for role, text in messages]
        options: dict[str, Any] = {"generation_kwargs": {"seed": seed}} if seeded else {}
        replies = generator.run(messages=chat, **options)["replies"]
        if not replies:
            return Said("")
        meta = replies[0].meta
        usage = {name: count for name, count in (meta.get("usage") or {}).items() if isinstance(count, int)}
        finished = meta.get("finish_reason") != "length"
        return Said(replies[0].text or "", str(meta.get("model") or ""), usage, finished)

    return ask


def asking(part: Any) -> AskingGenerator:
    """
    The chat generator of a component, warmed up, as the engine asks it.

    :param part: Has `generator`, `seeded`, `concurrency`, `tries`, `timeout` and `requests_per_minute`.
    """
    warm_up(part.generator)
    return AskingGenerator(
        ask_with(part.generator, seeded=part.seeded),
        identity_of(part.generator, seeded=part.seeded),
        name_of(part.generator),
        at_once=part.concurrency,
        tries=part.tries,
        timeout=part.timeout,
        per_minute=part.requests_per_minute,
    )


def identity_of(generator: Any, *, seeded: bool) -> dict[str, Any]:
    """
    Say what the texts of a chat generator depend on, without its secrets.

    What it passes on is told by a fingerprint, for there may be secrets in it; headers and queries don't count at all.
    """
    addresses = {name: getattr(generator, name, None) for name in ("api_base_url", "url")}
    options = getattr(generator, "generation_kwargs", None) or {}
    counting = {name: value for name, value in options.items() if name not in {"extra_headers", "extra_query"}}
    return {
        "type": type(generator).__name__,
        "seeded": seeded,
        "model": str(getattr(generator, "model", None)),
        "generation_kwargs": fingerprint(counting, 16),
        **{name: without_secrets(str(address)) if address else "None" for name, address in addresses.items()},
    }


def name_of(generator: Any) -> str:
    """Name a chat generator's model where its replies don't."""
    return str(getattr(generator, "model", None) or type(generator).__name__)
