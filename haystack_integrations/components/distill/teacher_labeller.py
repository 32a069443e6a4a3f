from functools import partial
from typing import Any

from haystack import Document, component
from haystack.core.serialization import component_from_dict, component_to_dict, import_class_by_name

from haystack_integrations.components.distill.parts.inner import close, warm_up
from haystack_integrations.components.distill.parts.serialising import Serialisable


@component
class TeacherLabeller(Serialisable):
    """
    Fills in the teacher scores of a training set, shard by shard, so that a killed run goes on where it was.

    Any scorer serves: `TeacherLikelihoodScorer`, `TeacherSimilarityScorer`, `TeacherAttentionScorer`, `ListwiseScorer`,
    or another ranker of Haystack whose `Document.score` is higher for better documents (a cross-encoder). A set is
    bound to the teacher that labelled its first row; rows that can't be scored are set aside with the reason.

    ### Usage example

    ```python
    from haystack_distill import TeacherLabeller, TeacherLikelihoodScorer

    scorer = TeacherLikelihoodScorer(model="HuggingFaceTB/SmolLM2-135M-Instruct", signal="question")
    result = TeacherLabeller(scorer=scorer).run(training_set="training_set")
    print(result["summary"]["first_agrees"])
    ```
    """

    def __init__(
        self, *, scorer: Any, rows_at_once: int | None = None, num_workers: int = 1, progress_bar: bool = True
    ) -> None:
        """
        Say who labels; nothing is loaded before `run`.

        :param scorer: The scorer.
        :param rows_at_once: Queries scored together: those that have passages in common share their cost, and a kill
            costs what is in hand. None takes what suits the signal.
        :param num_workers: More than 1 scores in that many processes through Ray Data (extra `ray`), on this machine or
            on a cluster; docs/scale.md.
        :param progress_bar: Whether to show progress on stderr.
        :raises ValueError: If a number is below 1, or workers are to ask a chat model.
        """
        self.keep_parameters(locals(), positive=("rows_at_once", "num_workers"))
        if self.num_workers > 1 and hasattr(scorer, "concurrency"):
            msg = (
                "num_workers is for a reader that runs here: a chat model is asked several times at once (concurrency)."
            )
            raise ValueError(msg)

    @component.output_types(training_set=str, summary=dict[str, Any])
    def run(self, training_set: str) -> dict[str, Any]:
        """
        Label a training set, or what is left of it.

        :param training_set: Its folder.
        :returns: `training_set`: the same folder. `summary`: see `haystack_distill.teachers.labelling.summary_of`.
        :raises FileNotFoundError: If the folder is no training set, or was removed.
        :raises ValueError: If it holds labels of another teacher, or no row could be labelled.
        :raises BlockingIOError: If another labeller works on it.
        :raises OSError: If the disk is full; what was labelled before is kept.
        :raises ImportError: If workers need Ray, and Ray is not installed.
        :raises ConnectionError: If the Ray that RAY_ADDRESS names does not answer.
        """
        from haystack_distill.files.bulk import check_workers
        from haystack_distill.teachers.labelling import label
        from haystack_distill.teachers.scores import ROWS_AT_ONCE

        check_workers(self.num_workers)
        teacher = _teacher_of(self.scorer)
        make = (
            (lambda: teacher) if self.num_workers == 1 else partial(_teacher, component_to_dict(self.scorer, "scorer"))
        )
        summary = label(
            training_set,
            teacher.identity,
            make,
            rows_at_once=self.rows_at_once or int(getattr(teacher, "rows_at_once", ROWS_AT_ONCE)),
            num_workers=self.num_workers,
            progress=self.progress_bar,
        )
        return {"training_set": training_set, "summary": summary}

    def close(self) -> None:
        """Let go of the scorer's model."""
        close(self.scorer)


class RankerTeacher:
    """Any ranker of Haystack, a component with `run(query, documents)`, as a teacher."""

    def __init__(self, ranker: Any) -> None:
        self.ranker = ranker
        warm_up(ranker)

    @property
    def identity(self) -> dict[str, Any]:
        """The component with all its settings."""
        return {"ranker": component_to_dict(self.ranker, "ranker")}

    def score(self, rows: Any) -> list[Any]:
        """Score passages by the ranker's `Document.score`; an UnscorableError if a row can't be scored."""
        import numpy as np

        from haystack_distill.teachers.prompts import UnscorableError
        from haystack_distill.teachers.scores import Scored, check_candidates, check_finite

        scored = []
        for row in rows:
            check_candidates(row, "ranker", answers=False)
            documents = [Document(id=str(number), content=text) for number, text in enumerate(row.passages)]
            ranked = self.ranker.run(query=row.query, documents=documents)["documents"]
            scores = {document.id: document.score for document in ranked}
            if None in scores.values():
                msg = (
                    f"{type(self.ranker).__name__} returns documents without a score: take a ranker that scores, or "
                    "ListwiseScorer for a chat model."
                )
                raise UnscorableError(msg)
            if len(scores) < len(documents):
                msg = (
                    f"{type(self.ranker).__name__} scored {len(scores)} of {len(documents)} documents of the query "
                    f"{row.query!r}: set its top_k to at least {len(documents)}."
                )
                raise UnscorableError(msg)
            values = np.array([scores[document.id] for document in documents], dtype=float)
            scored.append(Scored(check_finite(row, values)))
        return scored


def _teacher(scorer: dict[str, Any]) -> Any:
    """Load a teacher from its component's dictionary, in whichever process."""
    return _teacher_of(component_from_dict(import_class_by_name(scorer["type"]), scorer, "scorer"))


def _teacher_of(scorer: Any) -> Any:
    return scorer.teacher() if hasattr(scorer, "teacher") else RankerTeacher(scorer)
