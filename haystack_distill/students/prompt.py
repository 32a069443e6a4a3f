# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""What sentence-transformers models are told to put before a text."""

from collections.abc import Mapping


def prompt_for(task: str, prompts: Mapping[str, str | None], default: str | None) -> str:
    """
    The prompt of a task, or else the default one.

    Models such as Qwen3-Embedding have a prompt for queries that plain `encode` leaves out; and Haystack's embedders,
    which call plain `encode`, put a default prompt before queries even if the one for queries is empty.

    :param task: `query` or `document`.
    :param prompts: The prompts of the model, by name.
    :param default: The name of its default prompt.
    :returns: The prompt; empty if it has none.
    """
    return prompts.get(task) or prompts.get(default or "") or ""
