"""Dialogues, with or without generated responses, as a training set."""

from pathlib import Path

from haystack_distill.data.dialogues import HISTORY
from haystack_distill.data.training_set import MANIFEST, RECIPROCAL_RANK, Row, TrainingSet, write_training_set
from haystack_distill.files.runs import fingerprint
from haystack_distill.responses.mining import with_mined
from haystack_distill.responses.rows import GENERATED, GIVEN, HUMAN, MINED_EACH, Responses, read_responses, response_id


def write_responses(
    source: str | Path,
    output: str | Path,
    history: int = HISTORY,
    *,
    miner: str | None = None,
    mined: int = MINED_EACH,
    device: str | None = None,
) -> TrainingSet:
    """Make a training set of contexts and their responses, or take the one there; see `ResponseSetBuilder`."""
    made_of = _fingerprint(source, history)
    if miner is not None:
        made_of += f" mined {mined} by {miner}"
    if (Path(output) / MANIFEST).is_file() and TrainingSet.open(output).manifest["source"] == made_of:
        return TrainingSet.open(output)
    rows = map(_row, read_responses(source, history))
    if miner is None:
        return write_training_set(output, rows, source=made_of, retriever=GIVEN, similarity=RECIPROCAL_RANK)
    more = with_mined(rows, miner, mined, history, device=device)
    return write_training_set(output, more, source=made_of, retriever=miner, similarity="cosine")


def _row(responses: Responses) -> Row:
    return Row(
        query_id=responses.id,
        query="\n".join(" ".join(turn.split()) for turn in responses.context),
        answers=[text for text, human in zip(responses.texts, responses.human, strict=True) if not human],
        document_ids=[response_id(text) for text in responses.texts],
        documents=responses.texts,
        retriever_scores=[1 / place for place in range(1, len(responses.texts) + 1)],
        labels=[HUMAN if human else GENERATED for human in responses.human],
    )


def _fingerprint(source: str | Path, history: int) -> str:
    """Names the source; its content counts, so that a file that grew is not taken for the one it was."""
    file = Path(source)
    if not file.is_file():
        msg = f"{file} is missing: responses or dialogues are read from a .jsonl file."
        raise FileNotFoundError(msg)
    return f"{file.name} {fingerprint(file.read_bytes(), 16)} history {history}"
