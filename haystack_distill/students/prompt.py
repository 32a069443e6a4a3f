"""What sentence-transformers models are told to put before a text."""

from collections.abc import Mapping


def prompt_for(task: str, prompts: Mapping[str, str | None], default: str | None) -> str:
    """
    Find the prompt of a task, or else the default one; it is empty if there is none.

    Models such as Qwen3-Embedding have a prompt for queries that plain `encode` leaves out; and Haystack's embedders,
    which call plain `encode`, put a default prompt before queries even if the one for queries is empty.

    :param task: `query` or `document`.
    :param prompts: The prompts of the model, by name.
    """
    return prompts.get(task) or prompts.get(default or "") or ""
