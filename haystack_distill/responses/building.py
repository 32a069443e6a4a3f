# SPDX-FileCopyrightText: 2026-present haystack-distill contributors
#
# SPDX-License-Identifier: Apache-2.0

"""Dialogues, with or without generated responses, as a training set."""

import hashlib
from pathlib import Path

from haystack_distill.data.dialogues import HISTORY
from haystack_distill.data.training_set import MANIFEST, RECIPROCAL_RANK, Row, TrainingSet, write_training_set
from haystack_distill.responses.mining import with_mined
from haystack_distill.responses.rows import (
    GENERATED,
    GIVEN,
    HUMAN,
    MINED_EACH,
    Responses,
    read_responses,
    response_id,
)


def write_responses(
    source: str | Path,
    output: str | Path,
    history: int = HISTORY,
    *,
    miner: str | None = None,
    mined: int = MINED_EACH,
    device: str | None = None,
) -> TrainingSet:
    """
    Make a training set of contexts and their responses, ready for a teacher or, as it is, for `dialogues` and `data`.

    :param source: See `read_responses`.
    :param output: The folder to make.
    :param history: The most turns of a context.
    :param miner: An encoder that finds responses of other contexts, which the recipe `strong` needs; None: no such.
    :param mined: How many it finds for each context.
    :param device: Where it runs; None is the fastest at hand.
    :returns: The training set; the one that is there already if it is made of the same.
    :raises FileNotFoundError: If the source is missing.
    :raises FileExistsError: If the output exists and is of another source.
    :raises ValueError: If the source is no such file.
    """
    made_of = _fingerprint(source, history)
    if miner is not None:
        made_of += f" mined {mined} by {miner}"
    if (Path(output) / MANIFEST).is_file() and TrainingSet.open(output).manifest["source"] == made_of:
        return TrainingSet.open(output)
    rows = (_row(one) for one in read_responses(source, history))
    if miner is None:
        return write_training_set(output, rows, source=made_of, retriever=GIVEN, similarity=RECIPROCAL_RANK)
    found = with_mined(rows, miner, mined, history, device=device)
    return write_training_set(output, found, source=made_of, retriever=miner, similarity="cosine")


def _row(one: Responses) -> Row:
    return Row(
        query_id=one.id,
        query="\n".join(" ".join(turn.split()) for turn in one.context),
        answers=[],
        document_ids=[response_id(text) for text in one.texts],
        documents=one.texts,
        retriever_scores=[1 / place for place in range(1, len(one.texts) + 1)],
        labels=[HUMAN if human else GENERATED for human in one.human],
    )


def _fingerprint(source: str | Path, history: int) -> str:
    """Names the source; its content counts, so that a file that grew is not taken for the one it was."""
    file = Path(source)
    if not file.is_file():
        msg = f"{file} is missing: responses or dialogues are read from a .jsonl file."
        raise FileNotFoundError(msg)
    return f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()[:16]} history {history}"
