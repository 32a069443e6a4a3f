"""What several retrievers find for questions, as rows of a training set: whole lists, the first of each to label."""

from collections.abc import Mapping
from typing import Any

from haystack_distill.data.questions import Question
from haystack_distill.data.training_set import Row
from haystack_distill.fusion.fitting import first_in_turn
from haystack_distill.fusion.model import better_first
from haystack_integrations.components.distill.parts.inner import warm_up
from haystack_integrations.components.distill.parts.searching import ranked, search


class FusionCandidates:
    """
    Asks each retriever.

    :param candidates: How many documents of each list become candidates.
    :param top_k: How many documents a list holds at most.
    :param judgments: Whether grades are the scores.
    """

    def __init__(self, retrievers: Mapping[str, Any], candidates: int, top_k: int, *, judgments: bool = False) -> None:
        self.retrievers, self.count, self.top_k, self.judgments = retrievers, candidates, top_k, judgments

    def candidates(self, questions: list[Question]) -> list[Row]:
        """
        Search for each question; questions for which nothing with a text is found are left out.

        :raises ValueError: If a document has no score, or two documents have one id and different texts.
        """
        warm_up(*self.retrievers.values())
        return [row for row in map(self._row, questions) if row.document_ids]

    def _row(self, question: Question) -> Row:
        found = {name: search(one, question.text, self.top_k) for name, one in self.retrievers.items()}
        texts: dict[str, str] = {}
        for document in (document for documents in found.values() for document in documents):
            text = document.content or ""
            if texts.setdefault(document.id, text) != text:
                msg = (
                    f"Two retrievers found documents with the id {document.id!r} and different texts: all must search "
                    "the same documents."
                )
                raise ValueError(msg)
        lists = {name: ranked(documents) for name, documents in found.items()}
        for name, each in lists.items():
            better_first(name, each, True)
        readable = [[one.id for one in documents if (one.content or "").strip()] for documents in found.values()]
        chosen = first_in_turn(readable, self.count)
        grades = [question.judged.get(key, 0) for key in chosen] if question.judged else None
        return Row(
            query_id=question.id,
            query=question.text,
            answers=question.answers,
            document_ids=chosen,
            documents=[texts[key] for key in chosen],
            retriever_scores=[1 / place for place in range(1, len(chosen) + 1)],
            teacher_scores=[float(grade) for grade in grades or []] if self.judgments else None,
            labels=grades,
            lists=lists,
        )
