"""The loss of G2R, generator to retriever (arXiv 2108.12582)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import extract_model_from_parallel
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import all_gather_with_grad, dot_score
from torch import Tensor, nn

from haystack_distill.files.processes import of_all_processes, process_count, process_number, share_of_mean


class G2RLoss(nn.Module):
    """
    Every candidate of a context is a positive against random responses, and the teacher says how much of one.

    Section 3 of G2R, as the authors' code has it (`g2r_distill.py`). With s the similarities of a context to its
    candidates C and to N random responses of the response set, and t the teacher's scores of the candidates:

    - `main` = -log(exp s_j / (exp s_j + sum over N of exp s_n)), for every candidate j, averaged over all of them;
      the other candidates are not in the denominator
    - `distillation` = -sum over C of softmax(t / T)_j * log softmax(s over C and N)_j, averaged over the contexts: a
      soft cross-entropy with a target of zero on the random responses
    - loss = (1 - alpha) * main + alpha * distillation

    `alpha=0` is the data-level model, for which any number serves as a label. Negatives are the same for a whole batch,
    are embedded with gradient, and those that read like a candidate of the batch are dropped, as in the authors' code.
    Of several processes, which share a batch, each embeds a part of them.

    Inputs:
        +------------------------------------------+-----------------------------------------------+
        | Inputs                                   | Labels                                        |
        +==========================================+===============================================+
        | (query, document_1, ..., document_n)     | teacher scores [batch, n], NaN where a query  |
        |                                          | has fewer than n candidates                   |
        +------------------------------------------+-----------------------------------------------+

    Example::

        from datasets import Dataset
        from sentence_transformers import SentenceTransformerTrainer
        from haystack_distill.losses.g2r import G2RLoss

        rows = Dataset.from_dict({
            "query": ["do you like jazz?", "hello"],
            "document_1": ["I love it.", "hi, how are you?"],
            "document_2": ["Only live.", ""],
            "label": [[-2.1, -2.9], [-1.0, float("nan")]],
        })
        loss = G2RLoss(student, responses=["No idea.", "It rains.", ...], negatives=512, alpha=0.1)
        SentenceTransformerTrainer(model=student, train_dataset=rows, loss=loss).train()

    :param model: The student; None where only `compute_loss_from_embeddings` is used.
    :param responses: The response set, from which negatives are drawn at every step.
    :param negatives: N. The paper has 512; embedding them is most of the work, so take fewer without a GPU.
    :param alpha: Weight of the distillation, from 0 to 1. The authors' scripts have 0.1.
    :param temperature: T, above 0; divides the teacher's scores. The authors' code has 1, for raw scores.
    :param scale: Multiplies similarities. 1 suits the paper's inner products; 20 suits cosines.
    :param similarity_fct: Compares all queries with all documents, `[queries, documents]`; the paper's is `dot_score`.
    :param seed: Seed of the negatives.
    :raises ValueError: If a setting does not fit, or there are no responses.
    """

    def __init__(
        self,
        model: SentenceTransformer | None,
        responses: Sequence[str],
        *,
        negatives: int = 512,
        alpha: float = 0.1,
        temperature: float = 1.0,
        scale: float = 1.0,
        similarity_fct: Callable[[Tensor, Tensor], Tensor] = dot_score,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            msg = f"alpha of the G2R loss must be between 0 and 1, not {alpha}."
            raise ValueError(msg)
        for name, value in (("temperature", temperature), ("scale", scale)):
            if not 0 < value < float("inf"):
                msg = f"The {name} of the G2R loss must be a positive number, not {value}."
                raise ValueError(msg)
        if negatives < 1 or not responses:
            msg = f"The G2R loss needs negatives: {negatives} were asked for, of {len(responses)} responses."
            raise ValueError(msg)
        self.model = model
        self.responses = list(responses)
        self.negatives = min(negatives, len(responses))
        self.alpha = alpha
        self.temperature = temperature
        self.scale = scale
        self.similarity_fct = similarity_fct
        self._seed = seed

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """
        Embed contexts, candidates and random responses.

        :param sentence_features: The tokenised contexts and candidates.
        :param labels: Teacher scores, `[batch, n]`, NaN where there is no candidate.
        :returns: A scalar.
        :raises ValueError: If a batch has no negative that is not one of its candidates.
        """
        assert self.model is not None
        queries, *columns = list(sentence_features)
        drawn, count = self._negatives(queries, columns)
        contexts = self.model(queries)["sentence_embedding"]
        candidates = torch.stack(embed_columns(self.model, columns, separate_first=False), dim=1)
        negatives = self.model(drawn)["sentence_embedding"]
        if process_count() > 1:
            negatives = all_gather_with_grad(negatives)[:count]
        return self.compute_loss_from_embeddings(contexts, candidates, negatives, labels)

    def compute_loss_from_embeddings(
        self, queries: Tensor, candidates: Tensor, negatives: Tensor, labels: Tensor
    ) -> Tensor:
        """
        The loss of given vectors.

        :param queries: `[batch, dim]`.
        :param candidates: `[batch, n, dim]`.
        :param negatives: `[N, dim]`.
        :param labels: Teacher scores, `[batch, n]`, NaN where there is no candidate; each row has at least one.
        :returns: A scalar.
        """
        batch, count = labels.shape
        present = ~labels.isnan()
        queries, candidates, negatives = queries.float(), candidates.float(), negatives.float()
        every = self.scale * self.similarity_fct(queries, candidates.flatten(0, 1)).view(batch, batch, count)
        scores = every[torch.arange(batch), torch.arange(batch)]  # of each context's own candidates
        random = self.scale * self.similarity_fct(queries, negatives)
        against = random.logsumexp(1, keepdim=True)
        main = (torch.logaddexp(scores, against) - scores)[present]
        loss = (1 - self.alpha) * main.mean() * share_of_mean(len(main))
        if self.alpha:
            absent = float("-inf")
            target = (labels.float() / self.temperature).masked_fill(~present, absent).softmax(1)
            total = torch.cat([scores.masked_fill(~present, absent), random], dim=1).logsumexp(1, keepdim=True)
            log_share = (scores - total).masked_fill(~present, 0.0)
            loss = loss - self.alpha * (target * log_share).sum(1).mean()
        return loss

    def _negatives(self, queries: dict[str, Tensor], columns: list[dict[str, Tensor]]) -> tuple[dict[str, Any], int]:
        """
        Tokenised random responses: the same for the same batch, whenever it comes, so that runs can be resumed.

        :returns: This process's part of them, and how many all processes have.
        """
        device = queries["input_ids"].device
        own = {tokens for column in columns for tokens in _tokens(column)}
        parts = of_all_processes((sum(map(sum, _tokens(queries))), own))
        random = np.random.default_rng([self._seed, sum(number for number, _ in parts)])
        candidates = set().union(*(tokens for _, tokens in parts))
        order = random.permutation(len(self.responses))
        model = extract_model_from_parallel(self.model)
        for start in range(0, len(order), self.negatives):  # the first draw, unless the batch has all of it
            chosen = order[start : start + self.negatives]
            features: dict[str, Any] = model.preprocess([self.responses[number] for number in chosen])
            other = [row for row, tokens in enumerate(_tokens(features)) if tokens not in candidates]
            if other:
                # Parts are of one size, for which some are embedded twice.
                share = -(-len(other) // process_count())
                rows = torch.arange(share * process_number(), share * (process_number() + 1)).clamp(max=len(other) - 1)
                kept = _only(features, torch.tensor(other)[rows])
                on_device = {key: part.to(device) if isinstance(part, Tensor) else part for key, part in kept.items()}
                return on_device, len(other)
        msg = f"All {len(order)} responses are candidates of one batch: give more responses, or a smaller batch."
        raise ValueError(msg)

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card says of this loss."""
        return {
            "alpha": self.alpha,
            "temperature": self.temperature,
            "scale": self.scale,
            "negatives": self.negatives,
            "responses": len(self.responses),
        }

    @property
    def citation(self) -> str:
        """The BibTeX entry of the paper."""
        return """
@inproceedings{kim2021distilling,
    title={Distilling the Knowledge of Large-scale Generative Models into Retrieval Models for Efficient Open-domain
        Conversation},
    author={Kim, Beomsu and Seo, Seokjun and Han, Seungju and Erdenee, Enkhbayar and Chang, Buru},
    booktitle={Findings of EMNLP},
    year={2021},
    eprint={2108.12582},
    archivePrefix={arXiv},
}
"""


def _only(features: dict[str, Any], rows: Tensor) -> dict[str, Any]:
    return {
        name: value[rows.to(value.device)] if isinstance(value, Tensor) else value for name, value in features.items()
    }


def _tokens(features: dict[str, Tensor]) -> list[tuple[int, ...]]:
    """The tokens of each text, without padding."""
    pairs = zip(features["input_ids"].tolist(), features["attention_mask"].tolist(), strict=True)
    return [tuple(token for token, real in zip(ids, mask, strict=True) if real) for ids, mask in pairs]
