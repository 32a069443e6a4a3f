"""Responses that were given to other contexts and that an encoder finds near this one: what a retriever confuses."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import semantic_search

from haystack_distill.data.training_set import Row
from haystack_distill.files.sampling import sample
from haystack_distill.responses.rows import MINED, query_text, response_set

NEAREST = 50
"""Some of so many nearest responses are drawn: the very nearest alone would often be good responses too."""

SEED = 0
"""Fixed, so that the same dialogues make the same set."""


def with_mined(
    rows: Iterable[Row], miner: str, count: int, history: int, *, device: str | None = None
) -> Iterator[Row]:
    """Give each context mined responses beside its own, marked `MINED`; scores are the miner's cosines."""
    rows = list(rows)
    model = SentenceTransformer(miner, device=device)
    responses = response_set(rows)
    ids, texts = list(responses), list(responses.values())
    place = {key: number for number, key in enumerate(ids)}
    vectors, contexts = (
        model.encode(some, normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=len(some) > 999)
        for some in (texts, [query_text(row.query, history) for row in rows])
    )
    most = max(len(row.documents) for row in rows)
    for row, context, hits in zip(
        rows, contexts, semantic_search(contexts, vectors, top_k=NEAREST + most), strict=True
    ):
        own = set(row.document_ids)
        near = [int(hit["corpus_id"]) for hit in hits]
        others = [number for number in near if ids[number] not in own][:NEAREST]
        mined = sample(others, count, f"{SEED} {row.query_id}")
        everything = [*(place[key] for key in row.document_ids), *mined]
        yield replace(
            row,
            document_ids=[ids[number] for number in everything],
            documents=[texts[number] for number in everything],
            retriever_scores=(vectors[torch.tensor(everything)] @ context).tolist(),
            labels=[*(row.labels or []), *[MINED] * len(mined)],
        )
