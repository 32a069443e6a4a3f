"""The student without layers: one vector a token, averaged."""

import copy
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, StaticEmbedding
from tokenizers import Tokenizer

from haystack_distill.files.precision import bf16_where_fast
from haystack_distill.students.bi_encoder import BiEncoder
from haystack_distill.students.cutting import find_stack
from haystack_distill.students.folding import single_tokens, token_states


@torch.no_grad()
def make_token_table(teacher: BiEncoder) -> SentenceTransformer:
    """
    Build a token table whose rows are the teacher's vectors of each token alone.

    A query vector is the mean of the rows of its tokens, normalised where the teacher's vectors are. The query prefix,
    the same in every query, is not looked up: the rows learn what it adds.

    :returns: The table, untrained: sentence-transformers' `StaticEmbedding`.
    :raises ValueError: If the tokenizer is not a fast one.
    """
    tokenizer = getattr(teacher.model.tokenizer, "_tokenizer", None)
    if not isinstance(tokenizer, Tokenizer):
        msg = f"A token table needs a fast tokenizer, and {type(teacher.model.tokenizer).__name__} is not one."
        raise ValueError(msg)
    tokenizer = Tokenizer.from_str(tokenizer.to_str())
    tokenizer.enable_truncation(max_length=teacher.model.get_max_seq_length() or 512)
    rows = _alone(teacher, tokenizer.get_vocab_size())
    modules: list[torch.nn.Module] = [StaticEmbedding(tokenizer, embedding_weights=rows)]
    if _normalizes(teacher):
        modules.append(Normalize())
    return SentenceTransformer(modules=modules, device=str(teacher.model.device)).eval()


@torch.no_grad()
def average_over(table: SentenceTransformer, teacher: BiEncoder, texts: list[str]) -> SentenceTransformer:
    """
    Copy a table, with what the teacher makes of each token on average, if the teacher averages its tokens.

    Tokens that the texts lack keep what tells their rows from all others, at the length that averages have: what rows
    of single tokens share comes from the special tokens around them, and would drown what a query is about.

    :param table: A table from `make_token_table`.
    :param texts: Text of the index. All rows stay as they are if there is none, or if the teacher pools otherwise.
    """
    averaged = copy.deepcopy(table)
    if _averages_tokens(teacher):
        static: Any = averaged[0]
        rows = static.embedding.weight
        means = token_states(teacher, len(find_stack(teacher.model)), texts, tokens=set())
        seen = means.seen[: len(rows)] > 0
        if seen.any():
            states = means.states[: len(rows)][seen]
            rows -= rows.mean(dim=0)
            rows *= states.norm(dim=1).mean() / rows.norm(dim=1).mean()
            rows[seen] = states
    return averaged


def _alone(teacher: BiEncoder, vocabulary: int) -> torch.Tensor:
    """The teacher's vectors of single tokens, before they are normalised. `[vocabulary, dim]`."""
    rows = torch.zeros(vocabulary, teacher.dim)
    start = 0
    for ids, _ in single_tokens(teacher.model, list(range(vocabulary))):
        features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        with bf16_where_fast(teacher.model.device):
            for module in teacher.model:
                if not isinstance(module, Normalize):
                    features = module(features)
        rows[start : start + len(ids)] = features["sentence_embedding"][:, : teacher.dim].float().cpu()
        start += len(ids)
    return rows


def _averages_tokens(teacher: BiEncoder) -> bool:
    """Whether vectors are plain means of hidden states, so that a mean of rows can stand for them."""
    modules = [module for module in teacher.model if not isinstance(module, Normalize)]
    plain = len(modules) == 2 and isinstance(modules[1], Pooling) and modules[1].pooling_mode == "mean"
    return plain and teacher.dim == teacher.model.get_embedding_dimension()


def _normalizes(teacher: BiEncoder) -> bool:
    return teacher.normalize or any(isinstance(module, Normalize) for module in teacher.model)


def is_table(student: SentenceTransformer) -> bool:
    """Whether a student is a token table."""
    return isinstance(student[0], StaticEmbedding)
